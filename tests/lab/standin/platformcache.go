package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"sort"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
)

// objectCache is the informer of one resource; it ends with its custom resource definition.
type objectCache struct {
	informer cache.SharedIndexInformer
	stop     context.CancelFunc
}

func core(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Version: "v1", Resource: resource}
}

func apps(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: resource}
}

func v1Of(group, resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource}
}

var (
	podResource        = core("pods")
	serviceResource    = core("services")
	secretResource     = core("secrets")
	configMapResource  = core("configmaps")
	claimResource      = core("persistentvolumeclaims")
	volumeResource     = core("persistentvolumes")
	nodeResource       = core("nodes")
	crdResource        = v1Of("apiextensions.k8s.io", "customresourcedefinitions")
	classResource      = v1Of("storage.k8s.io", "storageclasses")
	attachmentResource = v1Of("storage.k8s.io", "volumeattachments")
	csiNodeResource    = v1Of("storage.k8s.io", "csinodes")
	ingressResource    = v1Of("networking.k8s.io", "ingresses")
	validatingResource = v1Of("admissionregistration.k8s.io", "validatingwebhookconfigurations")
	mutatingResource   = v1Of("admissionregistration.k8s.io", "mutatingwebhookconfigurations")
	apiServiceResource = v1Of("apiregistration.k8s.io", "apiservices")

	workloadResources = map[string]schema.GroupVersionResource{"Deployment": apps("deployments"),
		"DaemonSet": apps("daemonsets"), "StatefulSet": apps("statefulsets")}
)

// watchBasics starts the informers of what every cluster has and waits until they are filled.
func (p *platform) watchBasics(ctx context.Context) error {
	full := []schema.GroupVersionResource{podResource, serviceResource, claimResource, volumeResource, nodeResource,
		classResource, attachmentResource, csiNodeResource, ingressResource, validatingResource, mutatingResource,
		apiServiceResource}
	for _, resource := range workloadResources {
		full = append(full, resource)
	}
	for _, resource := range full {
		p.watch(ctx, resource, false)
	}
	// Their content is large and rarely needed: it is fetched where a row asks for it.
	for _, resource := range []schema.GroupVersionResource{secretResource, configMapResource, crdResource} {
		p.watch(ctx, resource, true)
	}
	for resource, known := range p.caches { // the loops that share it do not run yet
		if !cache.WaitForCacheSync(ctx.Done(), known.informer.HasSynced) {
			return fmt.Errorf("%s: not listed", resource.Resource)
		}
	}
	return nil
}

func (p *platform) cacheOf(resource schema.GroupVersionResource) *objectCache {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.caches[resource]
}

// poke wakes all parts.
func (p *platform) poke() {
	for _, one := range p.parts {
		select {
		case one.changed <- struct{}{}:
		default:
		}
	}
}

// watch starts the informer of a resource, unless it runs.
func (p *platform) watch(ctx context.Context, resource schema.GroupVersionResource, metadataOnly bool) {
	indexers := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	var informer cache.SharedIndexInformer
	if metadataOnly {
		informer = metadatainformer.NewFilteredMetadataInformer(p.metadata, resource, "", 0, indexers, nil).Informer()
	} else {
		informer = dynamicinformer.NewFilteredDynamicInformer(p.dynamic, resource, "", 0, indexers, nil).Informer()
	}
	informer.SetTransform(func(object any) (any, error) {
		if accessor, ok := object.(metav1.Object); ok {
			accessor.SetManagedFields(nil)
		}
		return object, nil
	})
	informer.SetWatchErrorHandlerWithContext(func(context.Context, *cache.Reflector, error) {})
	informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { p.poke() },
		UpdateFunc: func(before, after any) {
			old, isOld := before.(metav1.Object)
			fresh, isFresh := after.(metav1.Object)
			if !isOld || !isFresh || old.GetResourceVersion() != fresh.GetResourceVersion() {
				p.poke()
			}
		}, DeleteFunc: func(any) { p.poke() }})
	own, stop := context.WithCancel(ctx)
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.caches[resource] != nil {
		stop()
		return
	}
	p.caches[resource] = &objectCache{informer: informer, stop: stop}
	go informer.RunWithContext(own)
}

// follow starts to watch a resource that may come and go with its custom resource definition.
func (p *platform) follow(ctx context.Context, resource string) (schema.GroupVersionResource, bool) {
	parsed := schema.ParseGroupResource(resource)
	_, defined, _ := p.cacheOf(crdResource).informer.GetStore().GetByKey(resource)
	if known, running := p.followed(parsed); running != nil {
		if !defined && p.defines(parsed) {
			p.forget(known)
			return known, false
		}
		return known, running.informer.HasSynced()
	}
	if !defined && p.defines(parsed) {
		return schema.GroupVersionResource{}, false
	}
	found, err := p.mapper.ResourceFor(parsed.WithVersion(""))
	if err != nil {
		p.mapper.Reset()
		if found, err = p.mapper.ResourceFor(parsed.WithVersion("")); err != nil {
			return found, false
		}
	}
	p.watch(ctx, found, false)
	return found, false
}

func (p *platform) followed(resource schema.GroupResource) (schema.GroupVersionResource, *objectCache) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for known, running := range p.caches {
		if known.GroupResource() == resource {
			return known, running
		}
	}
	return schema.GroupVersionResource{}, nil
}

func (p *platform) forget(resource schema.GroupVersionResource) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if running := p.caches[resource]; running != nil {
		running.stop()
		delete(p.caches, resource)
	}
}

// defines tells whether a resource comes from a custom resource definition.
func (p *platform) defines(resource schema.GroupResource) bool {
	known := map[string]bool{"": true, "apps": true, "batch": true, "policy": true, "storage.k8s.io": true,
		"networking.k8s.io": true, "admissionregistration.k8s.io": true, "apiregistration.k8s.io": true,
		"apiextensions.k8s.io": true, "rbac.authorization.k8s.io": true, "autoscaling": true}
	return !known[resource.Group]
}

// list returns the cached objects of a resource by namespace and name; they must not be changed.
func (p *platform) list(resource schema.GroupVersionResource) []*unstructured.Unstructured {
	known := p.cacheOf(resource)
	if known == nil {
		return nil
	}
	var all []*unstructured.Unstructured
	for _, item := range known.informer.GetStore().List() {
		if object, ok := item.(*unstructured.Unstructured); ok {
			all = append(all, object)
		}
	}
	sort.Slice(all, func(i, j int) bool { return key(all[i]) < key(all[j]) })
	return all
}

func key(object metav1.Object) string { return object.GetNamespace() + "/" + object.GetName() }

// get returns a cached object, or NotFound, or errNotWatched in the passes before the cache is filled.
func (p *platform) get(ctx context.Context, resource schema.GroupVersionResource, namespace, name string) (*unstructured.Unstructured, error) {
	known := p.cacheOf(resource)
	if known == nil {
		p.watch(ctx, resource, false)
		return nil, errNotWatched
	}
	if !known.informer.HasSynced() {
		return nil, errNotWatched
	}
	item, exists, _ := known.informer.GetStore().GetByKey(storeKey(namespace, name))
	if !exists {
		return nil, apierrors.NewNotFound(resource.GroupResource(), name)
	}
	switch object := item.(type) {
	case *unstructured.Unstructured:
		return object, nil
	case *metav1.PartialObjectMetadata:
		found := &unstructured.Unstructured{Object: map[string]any{}}
		found.SetNamespace(object.Namespace)
		found.SetName(object.Name)
		found.SetAnnotations(object.Annotations)
		found.SetDeletionTimestamp(object.DeletionTimestamp)
		found.SetResourceVersion(object.ResourceVersion)
		return found, nil
	}
	return nil, fmt.Errorf("%s %s: unexpected %T", resource.Resource, name, item)
}

func storeKey(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// known is the cached object or nil.
func (p *platform) known(ctx context.Context, resource schema.GroupVersionResource, namespace, name string) *unstructured.Unstructured {
	object, err := p.get(ctx, resource, namespace, name)
	if err != nil {
		return nil
	}
	return object
}

// contentCache keeps objects whose informer holds only metadata, by resource version.
type contentCache[T any] struct {
	mutex   sync.Mutex
	entries map[string]contentEntry[T]
}

type contentEntry[T any] struct {
	version string
	object  *T
}

func (c *contentCache[T]) fetch(metadata *unstructured.Unstructured, get func() (*T, error)) (*T, error) {
	name := key(metadata)
	c.mutex.Lock()
	known, found := c.entries[name]
	c.mutex.Unlock()
	if found && known.version == metadata.GetResourceVersion() {
		return known.object, nil
	}
	object, err := get()
	if err != nil {
		return nil, err
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.entries == nil || len(c.entries) > 500 {
		c.entries = map[string]contentEntry[T]{}
	}
	c.entries[name] = contentEntry[T]{metadata.GetResourceVersion(), object}
	return object, nil
}

// secret returns a Secret with its content.
func (p *platform) secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	found, err := p.get(ctx, secretResource, namespace, name)
	if err != nil {
		return nil, err
	}
	return p.secrets.fetch(found, func() (*corev1.Secret, error) {
		return p.kube.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	})
}

// configMap returns a ConfigMap with its content.
func (p *platform) configMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	found, err := p.get(ctx, configMapResource, namespace, name)
	if err != nil {
		return nil, err
	}
	return p.configs.fetch(found, func() (*corev1.ConfigMap, error) {
		return p.kube.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	})
}

// readyReplicas is the number of Ready pods of a workload.
func readyReplicas(workload *unstructured.Unstructured) int64 {
	name := "readyReplicas"
	if workload.GetKind() == "DaemonSet" {
		name = "numberReady"
	}
	ready, _, _ := unstructured.NestedInt64(workload.Object, "status", name)
	return ready
}

// matches compares a name with a pattern that may hold *; several patterns are separated by |.
func matches(pattern, name string) bool {
	for _, one := range strings.Split(pattern, "|") {
		if found, err := path.Match(one, name); err == nil && found {
			return true
		}
	}
	return false
}

const madeAnnotation = "stand-in/made"

// objectHash identifies what an operator wants of an object.
func objectHash(object *unstructured.Unstructured) string {
	data, _ := json.Marshal(object.Object)
	return sha256Hex(data)[:16]
}

func setAnnotation(object *unstructured.Unstructured, name, value string) {
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[name] = value
	object.SetAnnotations(annotations)
}

func timeText(moment time.Time) string { return moment.UTC().Format(time.RFC3339) }
