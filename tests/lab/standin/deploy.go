package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
)

//go:embed manifests crds.yaml
var bundled embed.FS

var addonResource = schema.GroupVersionResource{Group: "k3s.cattle.io", Version: "v1", Resource: "addons"}

const (
	gvksAnnotation = "addon.k3s.cattle.io/gvks"
	ownerLabel     = "objectset.rio.cattle.io/hash"
	ownerName      = "objectset.rio.cattle.io/owner-name"
)

// deployer is the AddOn controller of k3s.md §7.1.
type deployer struct {
	s       *server
	dynamic dynamic.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper
	seen    map[string]time.Time // when a file that was applied had changed; empty at each start
}

// startDeploy stages the bundled manifests and applies everything in server/manifests.
func (s *server) startDeploy(ctx context.Context) error {
	if err := s.stageManifests(); err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(s.rest)
	if err != nil {
		return err
	}
	d := &deployer{s: s, dynamic: client, seen: map[string]time.Time{},
		mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(s.kube.Discovery()))}
	go d.run(ctx)
	go s.followMetricsEndpoints(ctx)
	return nil
}

// itemDisabled tells whether "disable" names the stem of a file or its top directory.
func (c *serverConfig) itemDisabled(relative string) bool {
	top, _, nested := strings.Cut(relative, "/")
	if nested && c.disabled[top] {
		return true
	}
	if stem(relative) == "ccm" {
		return c.flag("disable-cloud-controller") && c.disabled["servicelb"]
	}
	return c.disabled[stem(relative)]
}

// stem is a file's base name up to the first dot, which is the name of its AddOn.
func stem(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	return name
}

// stageManifests writes the bundled files that are not disabled, at every start.
func (s *server) stageManifests() error {
	c := s.c
	values := strings.NewReplacer("%{CLUSTER_DNS}%", c.dnsIPs[0], "%{CLUSTER_DOMAIN}%", c.clusterDomain,
		"%{DEFAULT_LOCAL_STORAGE_PATH}%", c.localStoragePath())
	for _, dir := range []string{c.server("static", "charts"), c.server("manifests")} {
		if err := os.MkdirAll(dir, 0700); err != nil {
			return err
		}
	}
	if err := c.removeDisabledFiles(); err != nil {
		return err
	}
	return fs.WalkDir(bundled, "manifests", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative := strings.TrimPrefix(path, "manifests/")
		if c.itemDisabled(relative) || relative == "traefik.yaml" && c.flag("disable-helm-controller") {
			return nil
		}
		content, err := bundled.ReadFile(path)
		if err != nil {
			return err
		}
		return writeFile(c.server("manifests", relative), []byte(values.Replace(string(content))), 0600)
	})
}

// removeDisabledFiles deletes this server's files of disabled items; their objects go with the AddOn, which the
// leading server removes.
func (c *serverConfig) removeDisabledFiles() error {
	root := c.server("manifests")
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if relative, err := filepath.Rel(root, path); err != nil || !c.itemDisabled(relative) {
			return err
		}
		return os.Remove(path)
	})
}

func (c *serverConfig) localStoragePath() string {
	if path := c.text("default-local-storage-path"); path != "" {
		return path
	}
	return c.dataDir + "/storage"
}

func (d *deployer) run(ctx context.Context) {
	for {
		if d.s.leads() {
			err := d.applyCRDs(ctx)
			if err == nil {
				break
			}
			logrus.Warnf("Waiting for K3s' own CRDs: %v", err)
		}
		if sleep(ctx, time.Second) != nil {
			return
		}
	}
	for {
		if d.s.leads() {
			d.scan(ctx)
		} else {
			clear(d.seen)
		}
		if sleep(ctx, deployScanInterval) != nil {
			return
		}
	}
}

func (d *deployer) applyCRDs(ctx context.Context) error {
	data, err := bundled.ReadFile("crds.yaml")
	if err != nil {
		return err
	}
	objects, err := parseManifest(data)
	if err != nil {
		return err
	}
	for _, object := range objects {
		if _, err := d.apply(ctx, object); err != nil {
			return err
		}
	}
	for range 50 {
		d.mapper.Reset()
		if _, err = d.dynamic.Resource(addonResource).Namespace("kube-system").List(ctx, metav1.ListOptions{Limit: 1}); err == nil {
			return nil
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return err
}

// scan handles all files once: disabled ones are deleted with their objects, changed ones are applied.
func (d *deployer) scan(ctx context.Context) {
	root := d.s.c.server("manifests")
	var files []string
	filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		extension := strings.ToLower(filepath.Ext(path))
		if err == nil && !entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") &&
			slices.Contains([]string{".yaml", ".yml", ".json"}, extension) && !exists(path+".skip") {
			files = append(files, path)
		}
		return nil
	})
	sort.Strings(files)
	for _, path := range files {
		relative, _ := filepath.Rel(root, path)
		var err error
		if d.s.c.itemDisabled(relative) {
			err = d.remove(ctx, path)
		} else {
			err = d.process(ctx, path)
		}
		if err != nil {
			logrus.Errorf("Failed to process config: failed to process %s: %v", path, err)
		}
	}
	d.removeDisabled(ctx)
}

// removeDisabled deletes AddOns whose file is gone already, for instance on another server.
func (d *deployer) removeDisabled(ctx context.Context) {
	addons, err := d.dynamic.Resource(addonResource).Namespace("kube-system").List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	for _, addon := range addons.Items {
		source, _, _ := unstructured.NestedString(addon.Object, "spec", "source")
		relative, err := filepath.Rel(d.s.c.server("manifests"), source)
		if err == nil && !strings.HasPrefix(relative, "..") && d.s.c.itemDisabled(relative) {
			if err := d.remove(ctx, source); err != nil {
				logrus.Errorf("Failed to remove %s: %v", source, err)
			}
		}
	}
}

func (d *deployer) process(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	known, again := d.seen[path]
	if again && known.Equal(info.ModTime()) {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	checksum := sha256Hex(data)
	addon, err := d.ensureAddon(ctx, path)
	if err != nil {
		return err
	}
	// What the AddOn says was applied is not applied again, but at a start.
	if applied, _, _ := unstructured.NestedString(addon.Object, "spec", "checksum"); again && applied == checksum {
		d.seen[path] = info.ModTime()
		return nil
	}
	objects, err := parseManifest(data)
	if err != nil {
		d.event(ctx, addon, "ParseManifestFailed", fmt.Sprintf("Parse manifest at %q failed: %v", path, err))
		return err
	}
	d.event(ctx, addon, "ApplyingManifest", fmt.Sprintf("Applying manifest at %q", path))
	kinds, err := d.applyAll(ctx, addon, objects)
	if err != nil {
		d.event(ctx, addon, "ApplyManifestFailed", fmt.Sprintf("Applying manifest at %q failed: %v", path, err))
		return err
	}
	if err := d.saveAddon(ctx, addon, path, checksum, kinds); err != nil {
		return err
	}
	d.event(ctx, addon, "AppliedManifest", fmt.Sprintf("Applied manifest at %q", path))
	d.seen[path] = info.ModTime()
	return nil
}

func parseManifest(data []byte) ([]*unstructured.Unstructured, error) {
	decoder := yamlutil.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	var objects []*unstructured.Unstructured
	for {
		content := map[string]any{}
		if err := decoder.Decode(&content); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		if len(content) == 0 {
			continue
		}
		object := &unstructured.Unstructured{Object: content}
		if object.GetKind() == "" || object.GetAPIVersion() == "" {
			return nil, errors.New("Object 'Kind' is missing")
		}
		if object.IsList() {
			err := object.EachListItem(func(item runtime.Object) error {
				objects = append(objects, item.(*unstructured.Unstructured))
				return nil
			})
			if err != nil {
				return nil, err
			}
			continue
		}
		objects = append(objects, object)
	}
}

func (d *deployer) resource(kind schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error) {
	mapping, err := d.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		d.mapper.Reset()
		mapping, err = d.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	}
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return d.dynamic.Resource(mapping.Resource), nil
	}
	if namespace == "" {
		namespace = "default"
	}
	return d.dynamic.Resource(mapping.Resource).Namespace(namespace), nil
}

func (d *deployer) apply(ctx context.Context, object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	resource, err := d.resource(object.GroupVersionKind(), object.GetNamespace())
	if err != nil {
		return nil, err
	}
	return resource.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: "deploy@" + d.s.c.nodeName, Force: true})
}

// applyAll applies a file's objects with their owner marks and prunes what the file no longer has.
func (d *deployer) applyAll(ctx context.Context, addon *unstructured.Unstructured, objects []*unstructured.Unstructured) ([]string, error) {
	hash := sha256Hex([]byte(addon.GetName()))[:40]
	kept, kinds := map[string]bool{}, map[string]bool{}
	var failures []error
	for _, object := range objects {
		labels, annotations := object.GetLabels(), object.GetAnnotations()
		if labels == nil {
			labels = map[string]string{}
		}
		if annotations == nil {
			annotations = map[string]string{}
		}
		labels[ownerLabel] = hash
		annotations["objectset.rio.cattle.io/id"] = ""
		annotations["objectset.rio.cattle.io/owner-gvk"] = "k3s.cattle.io/v1, Kind=Addon"
		annotations[ownerName], annotations["objectset.rio.cattle.io/owner-namespace"] = addon.GetName(), "kube-system"
		object.SetLabels(labels)
		object.SetAnnotations(annotations)
		applied, err := d.apply(ctx, object)
		if err != nil {
			failures = append(failures, fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err))
			continue
		}
		kind := gvkText(object.GroupVersionKind())
		kinds[kind], kept[string(applied.GetUID())] = true, true
	}
	if len(failures) > 0 {
		return nil, errors.Join(failures...)
	}
	var names []string
	for kind := range kinds {
		names = append(names, kind)
	}
	sort.Strings(names)
	return names, d.prune(ctx, addon, hash, kept)
}

func gvkText(kind schema.GroupVersionKind) string {
	return fmt.Sprintf("%s/%s, Kind=%s", kind.Group, kind.Version, kind.Kind)
}

// prune deletes the objects of an AddOn that are not kept; the kinds come from its annotation.
func (d *deployer) prune(ctx context.Context, addon *unstructured.Unstructured, hash string, kept map[string]bool) error {
	for _, text := range strings.Split(addon.GetAnnotations()[gvksAnnotation], ";") {
		groupVersion, kind, found := strings.Cut(text, ", Kind=")
		group, version, _ := strings.Cut(groupVersion, "/")
		if !found {
			continue
		}
		mapping, err := d.mapper.RESTMapping(schema.GroupKind{Group: group, Kind: kind}, version)
		if err != nil {
			continue
		}
		list, err := d.dynamic.Resource(mapping.Resource).List(ctx, metav1.ListOptions{LabelSelector: ownerLabel + "=" + hash})
		if err != nil {
			return err
		}
		for _, object := range list.Items {
			if kept[string(object.GetUID())] || object.GetAnnotations()[ownerName] != addon.GetName() {
				continue
			}
			resource, err := d.resource(object.GroupVersionKind(), object.GetNamespace())
			if err != nil {
				return err
			}
			background := metav1.DeletePropagationBackground
			err = resource.Delete(ctx, object.GetName(), metav1.DeleteOptions{PropagationPolicy: &background})
			if err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
	}
	return nil
}

func (d *deployer) ensureAddon(ctx context.Context, path string) (*unstructured.Unstructured, error) {
	addons := d.dynamic.Resource(addonResource).Namespace("kube-system")
	current, err := addons.Get(ctx, stem(path), metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return current, err
	}
	return addons.Create(ctx, &unstructured.Unstructured{Object: map[string]any{"apiVersion": "k3s.cattle.io/v1",
		"kind": "Addon", "metadata": map[string]any{"name": stem(path), "namespace": "kube-system"},
		"spec": map[string]any{"source": path}}}, metav1.CreateOptions{})
}

func (d *deployer) saveAddon(ctx context.Context, addon *unstructured.Unstructured, path, checksum string, kinds []string) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]string{gvksAnnotation: strings.Join(kinds, ";")}},
		"spec":     map[string]any{"source": path, "checksum": checksum}})
	if err != nil {
		return err
	}
	_, err = d.dynamic.Resource(addonResource).Namespace("kube-system").Patch(ctx, addon.GetName(),
		types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// remove deletes the objects of a disabled file, the file and its AddOn.
func (d *deployer) remove(ctx context.Context, path string) error {
	addons := d.dynamic.Resource(addonResource).Namespace("kube-system")
	addon, err := addons.Get(ctx, stem(path), metav1.GetOptions{})
	if err == nil {
		d.event(ctx, addon, "DeletingManifest", fmt.Sprintf("Deleting manifest at %q", path))
		if err := d.prune(ctx, addon, sha256Hex([]byte(addon.GetName()))[:40], nil); err != nil {
			return err
		}
		if err := addons.Delete(ctx, addon.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	} else if !apierrors.IsNotFound(err) {
		return err
	}
	delete(d.seen, path)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

func (d *deployer) event(ctx context.Context, addon *unstructured.Unstructured, reason, message string) {
	kind := corev1.EventTypeNormal
	if strings.HasSuffix(reason, "Failed") {
		kind = corev1.EventTypeWarning
	}
	now := metav1.Now()
	_, err := d.s.kube.CoreV1().Events("kube-system").Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: addon.GetName() + ".", Namespace: "kube-system"},
		InvolvedObject: corev1.ObjectReference{APIVersion: "k3s.cattle.io/v1", Kind: "Addon", Name: addon.GetName(),
			Namespace: "kube-system", UID: addon.GetUID()},
		Reason: reason, Message: message, Type: kind, FirstTimestamp: now, LastTimestamp: now, Count: 1,
		Source: corev1.EventSource{Component: "deploy@" + d.s.c.nodeName}}, metav1.CreateOptions{})
	if err != nil {
		logrus.Debugf("event: %v", err)
	}
}
