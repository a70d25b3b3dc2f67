package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/restmapper"
)

// platform simulates what kubelets, operators and controllers of the platform do in the API. Each of its parts works
// in passes: a pass looks at all objects of the caches and brings them nearer to the state that the table
// (platform.yaml) describes, so it does not matter which change woke it.
type platform struct {
	s        *server
	kube     kubernetes.Interface
	dynamic  dynamic.Interface
	metadata metadata.Interface
	mapper   *restmapper.DeferredDiscoveryRESTMapper
	table    *platformTable
	delays   *delays
	secrets  contentCache[corev1.Secret]
	configs  contentCache[corev1.ConfigMap]
	// conversions holds definitions that may have a conversion webhook, definitions those of the table.
	conversions contentCache[unstructured.Unstructured]
	definitions map[string][]*unstructured.Unstructured

	mutex  sync.Mutex // guards what follows
	caches map[schema.GroupVersionResource]*objectCache
	// readySince tells since when the pods of an operator are known to be Ready.
	readySince map[string]time.Time
	reported   map[string]bool
	alarms     map[int64]bool
	parts      []*part
}

// part is one concern of the platform with a loop of its own, so that none waits for another's writes.
type part struct {
	name    string
	run     func(context.Context) error
	changed chan struct{}
}

var errNotWatched = errors.New("objects of this kind are not known yet")

const (
	platformPause = 250 * time.Millisecond
	platformTick  = 5 * time.Second
	slowPart      = time.Second // longer is worth a line in the debug log
)

// runPlatform simulates the platform while this server leads.
func (s *server) runPlatform(ctx context.Context) {
	for ctx.Err() == nil {
		if s.leads() {
			term, end := context.WithCancel(ctx)
			go func() {
				for s.leads() && sleep(term, time.Second) == nil {
				}
				end()
			}()
			if err := s.simulatePlatform(term); err != nil && term.Err() == nil {
				logrus.Errorf("stand-in: platform: %v", err)
			}
			end()
		}
		if sleep(ctx, time.Second) != nil {
			return
		}
	}
}

func (s *server) simulatePlatform(ctx context.Context) error {
	p, err := newPlatform(s)
	if err != nil {
		return err
	}
	if err := p.watchBasics(ctx); err != nil {
		return err
	}
	var loops sync.WaitGroup
	for _, one := range p.parts {
		loops.Go(func() { p.loop(ctx, one) })
	}
	loops.Wait()
	return nil
}

// loop runs a part after each change and at least each platformTick, until this server no longer leads.
func (p *platform) loop(ctx context.Context, one *part) {
	for {
		start := time.Now()
		p.delays.reload()
		if err := one.run(ctx); err != nil && ctx.Err() == nil {
			p.warn("%s: %v", one.name, err)
		}
		if spent := time.Since(start); spent > slowPart {
			logrus.Debugf("stand-in: platform: %s took %v", one.name, spent)
		}
		select {
		case <-ctx.Done():
			return
		case <-one.changed:
		case <-time.After(platformTick):
		}
		if sleep(ctx, platformPause) != nil { // a burst of changes becomes one pass
			return
		}
	}
}

func newPlatform(s *server) (*platform, error) {
	table, err := loadPlatformTable()
	if err != nil {
		return nil, err
	}
	p := &platform{s: s, kube: s.kube, table: table, delays: newDelays(s.c.paths),
		caches: map[schema.GroupVersionResource]*objectCache{}, readySince: map[string]time.Time{},
		reported: map[string]bool{}, alarms: map[int64]bool{}, definitions: map[string][]*unstructured.Unstructured{},
		mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(s.kube.Discovery()))}
	for name, run := range map[string]func(context.Context) error{"operators": p.observeOperators, "pods": p.startPods,
		"definitions": p.registerCRDs, "webhooks": p.serveWebhooks, "caBundle": p.injectCA, "objects": p.operate,
		"clean-up": p.cleanUp, "certificates": p.manageCertificates, "volumes": p.provisionVolumes,
		"addresses": p.assignAddresses} {
		p.parts = append(p.parts, &part{name, run, make(chan struct{}, 1)})
	}
	if p.dynamic, err = dynamic.NewForConfig(s.rest); err != nil {
		return nil, err
	}
	if p.metadata, err = metadata.NewForConfig(s.rest); err != nil {
		return nil, err
	}
	return p, nil
}

// warn logs a failure once, unless it will mend itself.
func (p *platform) warn(format string, arguments ...any) {
	text := fmt.Sprintf(format, arguments...)
	if strings.Contains(text, errNotWatched.Error()) || strings.Contains(text, "object has been modified") {
		return
	}
	if p.first(text) {
		logrus.Warnf("stand-in: platform: %s", text)
	}
}

// first tells whether a text comes for the first time.
func (p *platform) first(text string) bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.reported[text] || len(p.reported) > 1000 {
		return false
	}
	p.reported[text] = true
	return true
}

// observeOperators keeps the time since when each operator's pods are Ready.
func (p *platform) observeOperators(context.Context) error {
	changed := false
	for name, row := range p.table.Operators {
		ready := p.workloadsOf(row) != nil && !p.delays.isOff(name)
		p.mutex.Lock()
		if _, known := p.readySince[name]; known != ready {
			changed = true
			if delete(p.readySince, name); ready {
				p.readySince[name] = time.Now()
			}
		}
		p.mutex.Unlock()
	}
	if changed {
		p.poke()
	}
	return nil
}

// operates tells whether the pods of an operator are Ready; "" always is.
func (p *platform) operates(name string) bool {
	return name == "" || !p.operatesSince(name).IsZero()
}

func (p *platform) operatesSince(name string) time.Time {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.readySince[name]
}

// workloadsOf returns the workloads of an operator when a pod of each of them is Ready, else nil.
func (p *platform) workloadsOf(row operatorRow) []*unstructured.Unstructured {
	var found []*unstructured.Unstructured
	for _, pattern := range row.Workloads {
		workload := p.readyWorkload(pattern)
		if workload == nil {
			return nil
		}
		found = append(found, workload)
	}
	return found
}

// readyWorkload finds a workload by "<Kind>/<name with *>" that has a Ready pod.
func (p *platform) readyWorkload(pattern string) *unstructured.Unstructured {
	kind, name, _ := strings.Cut(pattern, "/")
	for _, workload := range p.list(workloadResources[kind]) {
		if matches(name, workload.GetName()) && readyReplicas(workload) > 0 {
			return workload
		}
	}
	return nil
}

// namespaceOf is the namespace of an operator's first workload.
func (p *platform) namespaceOf(operator string) string {
	if workloads := p.workloadsOf(p.table.Operators[operator]); len(workloads) > 0 {
		return workloads[0].GetNamespace()
	}
	return ""
}

// due tells whether the time of a delay that began at start is over; if not, its end wakes all parts.
func (p *platform) due(start time.Time, delay time.Duration) bool {
	end := start.Add(delay)
	left := time.Until(end)
	if left <= 0 {
		return true
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	alarm := end.UnixMilli()
	if !p.alarms[alarm] {
		p.alarms[alarm] = true
		time.AfterFunc(left, func() {
			p.mutex.Lock()
			delete(p.alarms, alarm)
			p.mutex.Unlock()
			p.poke()
		})
	}
	return false
}

// matured tells whether the delay of a kind is over, counted from the later of its creation and its operator.
func (p *platform) matured(object *unstructured.Unstructured, operator string) bool {
	start := object.GetCreationTimestamp().Time
	if since := p.operatesSince(operator); since.After(start) {
		start = since
	}
	return p.due(start, p.delays.condition(object.GetKind()))
}

// resourceFor maps a kind to its resource.
func (p *platform) resourceFor(kind schema.GroupVersionKind) (*meta.RESTMapping, error) {
	mapping, err := p.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		p.mapper.Reset()
		mapping, err = p.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	}
	return mapping, err
}

// apply brings an object to what an operator wants, unless the last thing it applied was the same.
func (p *platform) apply(ctx context.Context, operator string, wanted *unstructured.Unstructured, once bool) error {
	mapping, err := p.resourceFor(wanted.GroupVersionKind())
	if err != nil {
		return err
	}
	live, err := p.get(ctx, mapping.Resource, wanted.GetNamespace(), wanted.GetName())
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	hash := objectHash(wanted)
	if live != nil && (once || live.GetDeletionTimestamp() != nil || live.GetAnnotations()[madeAnnotation] == hash) {
		return nil
	}
	setAnnotation(wanted, madeAnnotation, hash)
	resource := p.namespaced(mapping.Resource, wanted.GetNamespace())
	_, err = resource.Apply(ctx, wanted.GetName(), wanted, metav1.ApplyOptions{FieldManager: operator, Force: true})
	if err != nil {
		return fmt.Errorf("%s %s: %w", wanted.GetKind(), wanted.GetName(), err)
	}
	return nil
}

func (p *platform) namespaced(resource schema.GroupVersionResource, namespace string) dynamic.ResourceInterface {
	if namespace == "" {
		return p.dynamic.Resource(resource)
	}
	return p.dynamic.Resource(resource).Namespace(namespace)
}

// typed converts an object of a cache.
func typed[T any](object *unstructured.Unstructured) (*T, error) {
	result := new(T)
	return result, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, result)
}
