package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// operate plays the rows of objects: what operators make of them and what they write into their status.
func (p *platform) operate(ctx context.Context) error {
	var failures []string
	for i := range p.table.Objects {
		row := &p.table.Objects[i]
		ready := p.operates(row.Operator)
		for _, further := range row.Needs {
			ready = ready && p.operates(further)
		}
		if !ready {
			continue
		}
		if row.Resource == "" {
			workload := p.workloadsOf(p.table.Operators[row.Operator])
			if len(workload) > 0 {
				failures = appendFailure(failures, row, p.playRow(ctx, row, workload[0], schema.GroupVersionResource{}))
			}
			continue
		}
		for _, name := range strings.Split(row.Resource, "|") {
			resource, known := p.follow(ctx, name)
			if !known {
				continue
			}
			for _, object := range p.list(resource) {
				failures = appendFailure(failures, row, p.playRow(ctx, row, object, resource))
			}
		}
	}
	if len(failures) > 0 {
		return fmt.Errorf("%s", strings.Join(failures, "; "))
	}
	return nil
}

func appendFailure(failures []string, row *objectRow, err error) []string {
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || errors.Is(err, errNotWatched) {
		return failures
	}
	return append(failures, fmt.Sprintf("row %s: %v", row.ID, err))
}

// playRow plays one row for one object.
func (p *platform) playRow(ctx context.Context, row *objectRow, object *unstructured.Unstructured, resource schema.GroupVersionResource) error {
	if object.GetDeletionTimestamp() != nil {
		return p.releaseFinalizer(ctx, row, object, resource)
	}
	seen := view{O: object.Object, Name: object.GetName(), Namespace: object.GetNamespace(),
		Operator: p.namespaceOf(row.Operator)}
	if row.When != "" {
		text, err := p.render(ctx, row, row.When, seen)
		if err != nil || strings.TrimSpace(text) != "true" {
			return err
		}
	}
	if err := p.markObject(ctx, row, object, resource, seen); err != nil {
		return err
	}
	if err := p.makeSecrets(ctx, row, object, seen); err != nil {
		return err
	}
	if err := p.makeObjects(ctx, row, object, seen); err != nil {
		return err
	}
	if row.Status == "" || !p.matured(object, row.Operator) {
		return nil
	}
	text, err := p.render(ctx, row, row.Status, seen)
	if err != nil {
		return err
	}
	wanted, err := parseObject(text)
	if err != nil {
		return fmt.Errorf("status of %s: %w", key(object), err)
	}
	return p.setStatus(ctx, resource, object, wanted)
}

func (p *platform) releaseFinalizer(ctx context.Context, row *objectRow, object *unstructured.Unstructured, resource schema.GroupVersionResource) error {
	if row.Resource == "" || row.Finalizer == "" || !slices.Contains(object.GetFinalizers(), row.Finalizer) {
		return nil
	}
	changed := object.DeepCopy()
	changed.SetFinalizers(slices.DeleteFunc(changed.GetFinalizers(), func(name string) bool { return name == row.Finalizer }))
	_, err := p.namespaced(resource, object.GetNamespace()).Update(ctx, changed, metav1.UpdateOptions{})
	return err
}

// markObject sets the annotations and the finalizer that an operator leaves on objects.
func (p *platform) markObject(ctx context.Context, row *objectRow, object *unstructured.Unstructured, resource schema.GroupVersionResource, seen view) error {
	fresh := map[string]any{}
	annotations := map[string]any{}
	for name, text := range row.Annotations {
		value, err := p.render(ctx, row, text, seen)
		if err != nil {
			return err
		}
		if _, found := object.GetAnnotations()[name]; !found {
			annotations[name] = value
		}
	}
	if len(annotations) > 0 {
		fresh["annotations"] = annotations
	}
	if row.Finalizer != "" && !slices.Contains(object.GetFinalizers(), row.Finalizer) {
		fresh["finalizers"] = append(object.GetFinalizers(), row.Finalizer)
	}
	if len(fresh) == 0 {
		return nil
	}
	return p.mergePatch(ctx, resource, object, map[string]any{"metadata": fresh})
}

func (p *platform) mergePatch(ctx context.Context, resource schema.GroupVersionResource, object *unstructured.Unstructured, patch map[string]any, subresources ...string) error {
	data, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	_, err = p.namespaced(resource, object.GetNamespace()).Patch(ctx, object.GetName(), types.MergePatchType, data,
		metav1.PatchOptions{FieldManager: "stand-in"}, subresources...)
	return err
}

// setStatus writes a status when it says something new. Some kinds have no status subresource.
func (p *platform) setStatus(ctx context.Context, resource schema.GroupVersionResource, object *unstructured.Unstructured, wanted map[string]any) error {
	current, _, _ := unstructured.NestedMap(object.Object, "status")
	settle(current, wanted, time.Now())
	if len(wanted) == 0 || holds(current, wanted) {
		return nil
	}
	patch := map[string]any{"status": wanted}
	err := p.mergePatch(ctx, resource, object, patch, "status")
	if apierrors.IsNotFound(err) {
		err = p.mergePatch(ctx, resource, object, patch)
	}
	if err != nil {
		return fmt.Errorf("status of %s: %w", key(object), err)
	}
	return nil
}

// holds tells whether everything wanted is there already.
func holds(current, wanted any) bool {
	fields, ok := wanted.(map[string]any)
	if !ok {
		return equality.Semantic.DeepEqual(current, wanted)
	}
	old, ok := current.(map[string]any)
	if !ok {
		return false
	}
	for name, value := range fields {
		if !holds(old[name], value) {
			return false
		}
	}
	return true
}

func (p *platform) makeSecrets(ctx context.Context, row *objectRow, object *unstructured.Unstructured, seen view) error {
	for _, secret := range row.Secrets {
		seen.Random = randomHex(16)
		name, err := p.render(ctx, row, secret.Name, seen)
		if err != nil {
			return err
		}
		namespace := seen.Namespace
		if namespace == "" {
			namespace = seen.Operator
		}
		if prefix, rest, found := strings.Cut(name, "/"); found {
			namespace, name = prefix, rest
		}
		if p.known(ctx, secretResource, namespace, name) != nil {
			continue
		}
		rendered := secretRow{Name: name, Type: secret.Type, Labels: secret.Labels, Keys: secret.Keys, Data: map[string]string{}}
		for entry, text := range secret.Data {
			if rendered.Data[entry], err = p.render(ctx, row, text, seen); err != nil {
				return err
			}
		}
		for _, text := range secret.Certificate {
			dns, err := p.render(ctx, row, text, seen)
			if err != nil {
				return err
			}
			rendered.Certificate = append(rendered.Certificate, dns)
		}
		var owners []metav1.OwnerReference
		if row.Resource != "" && !row.Unowned && namespace == object.GetNamespace() {
			owners = ownedBy(object)
		}
		if err := p.createSecret(ctx, namespace, rendered, owners); err != nil {
			return err
		}
	}
	return nil
}

// createSecret makes a Secret of a row whose templates are rendered.
func (p *platform) createSecret(ctx context.Context, namespace string, row secretRow, owners []metav1.OwnerReference) error {
	data := map[string][]byte{}
	for name, text := range row.Data {
		data[name] = []byte(text)
	}
	if len(row.Certificate) > 0 {
		ca, cert, private, err := makePair(row.Certificate)
		if err != nil {
			return err
		}
		names := keyNames(row.Keys)
		data[names[0]], data[names[1]], data[names[2]] = ca, cert, private
	}
	_, err := p.kube.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: row.Name,
		Namespace: namespace, Labels: row.Labels, OwnerReferences: owners}, Type: corev1.SecretType(row.Type), Data: data},
		metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func keyNames(names [3]string) [3]string {
	for i, fallback := range []string{"ca.crt", "tls.crt", "tls.key"} {
		if names[i] == "" {
			names[i] = fallback
		}
	}
	return names
}

func ownedBy(object *unstructured.Unstructured) []metav1.OwnerReference {
	return []metav1.OwnerReference{*metav1.NewControllerRef(object, object.GroupVersionKind())}
}

// makeObjects brings the objects that an operator makes for another one into being.
func (p *platform) makeObjects(ctx context.Context, row *objectRow, object *unstructured.Unstructured, seen view) error {
	if row.Make == "" {
		return nil
	}
	text, err := p.render(ctx, row, row.Make, seen)
	if err != nil {
		return err
	}
	for _, document := range strings.Split(text, "\n---") {
		content, err := parseObject(document)
		if err != nil {
			return fmt.Errorf("object for %s: %w: %s", key(object), err, document)
		}
		if len(content) == 0 {
			continue
		}
		wanted := &unstructured.Unstructured{Object: content}
		switch {
		case row.Resource == "" || row.Unowned:
		case object.GetNamespace() == "" || wanted.GetNamespace() == object.GetNamespace():
			wanted.SetOwnerReferences(ownedBy(object))
		default: // an owner must be in the same namespace: cleanUp does the garbage collector's work
			setAnnotation(wanted, madeForAnnotation, row.Resource+" "+key(object))
		}
		if err := p.apply(ctx, row.Operator, wanted, row.Once); err != nil {
			return err
		}
	}
	return nil
}

// madeForAnnotation names resource, namespace and name of the object that another one in another namespace was made for.
const madeForAnnotation = "stand-in/made-for"

// cleanUp deletes what was made for an object that is gone.
func (p *platform) cleanUp(ctx context.Context) error {
	for _, resource := range []schema.GroupVersionResource{serviceResource, workloadResources["Deployment"]} {
		for _, made := range p.list(resource) {
			parent, name, found := strings.Cut(made.GetAnnotations()[madeForAnnotation], " ")
			if !found {
				continue
			}
			gvr, known := p.follow(ctx, parent)
			namespace, name, _ := strings.Cut(name, "/")
			if !known || p.known(ctx, gvr, namespace, name) != nil {
				continue
			}
			background := metav1.DeletePropagationBackground
			err := p.namespaced(resource, made.GetNamespace()).Delete(ctx, made.GetName(),
				metav1.DeleteOptions{PropagationPolicy: &background})
			if err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
	}
	return nil
}
