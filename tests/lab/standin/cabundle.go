package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// serveWebhooks keeps the certificates of operators' webhooks and writes their CA where the row says so.
func (p *platform) serveWebhooks(ctx context.Context) error {
	var failures []error
	for _, row := range p.table.Webhooks {
		if p.operates(row.Operator) {
			failures = append(failures, p.serveWebhook(ctx, row))
		}
	}
	return errors.Join(failures...)
}

func (p *platform) serveWebhook(ctx context.Context, row webhookRow) error {
	namespace := p.namespaceOf(row.Operator)
	service := p.serviceNamed(namespace, row.Service)
	if service == "" || row.Secret == "" {
		return nil
	}
	names := keyNames(row.Keys)
	secret, err := p.secret(ctx, namespace, row.Secret)
	if apierrors.IsNotFound(err) || err == nil && len(secret.Data[names[1]]) == 0 {
		return p.fillSecret(ctx, namespace, row, service, secret)
	}
	if err != nil || row.Inject == "" {
		return err
	}
	return p.eachConfiguration(ctx, func(configuration *unstructured.Unstructured, client map[string]any) []byte {
		if dig(client, "service.name") != service || dig(client, "service.namespace") != namespace {
			return nil
		}
		if row.Inject == "empty" && dig(client, "caBundle") != "" {
			return nil
		}
		return secret.Data[names[0]]
	})
}

// serviceNamed finds the Service of a row by its pattern.
func (p *platform) serviceNamed(namespace, pattern string) string {
	for _, service := range p.list(serviceResource) {
		if service.GetNamespace() == namespace && matches(pattern, service.GetName()) {
			return service.GetName()
		}
	}
	return ""
}

// fillSecret makes a certificate; a Secret that the chart made empty is filled.
func (p *platform) fillSecret(ctx context.Context, namespace string, row webhookRow, service string, old *corev1.Secret) error {
	host := service + "." + namespace + ".svc"
	wanted := secretRow{Name: row.Secret, Certificate: []string{host, service + "." + namespace}, Keys: row.Keys}
	if old == nil {
		return p.createSecret(ctx, namespace, wanted, nil)
	}
	ca, cert, private, err := makePair(wanted.Certificate)
	if err != nil {
		return err
	}
	filled, names := old.DeepCopy(), keyNames(row.Keys)
	if filled.Data == nil {
		filled.Data = map[string][]byte{}
	}
	filled.Data[names[0]], filled.Data[names[1]], filled.Data[names[2]] = ca, cert, private
	_, err = p.kube.CoreV1().Secrets(namespace).Update(ctx, filled, metav1.UpdateOptions{FieldManager: row.Operator})
	return err
}

// injectCA does cainjector's work: it follows the annotations cert-manager.io/inject-….
func (p *platform) injectCA(ctx context.Context) error {
	if !p.operates("cert-manager-cainjector") {
		return nil
	}
	certificates, known := p.follow(ctx, certificateKinds)
	return p.eachConfiguration(ctx, func(configuration *unstructured.Unstructured, _ map[string]any) []byte {
		annotations := configuration.GetAnnotations()
		if namespace, name, found := strings.Cut(annotations["cert-manager.io/inject-ca-from-secret"], "/"); found {
			return p.authorityIn(ctx, namespace, name)
		}
		namespace, name, found := strings.Cut(annotations["cert-manager.io/inject-ca-from"], "/")
		if !found || !known {
			return nil
		}
		certificate := p.known(ctx, certificates, namespace, name)
		if certificate == nil {
			return nil
		}
		secret, _, _ := unstructured.NestedString(certificate.Object, "spec", "secretName")
		return p.authorityIn(ctx, namespace, secret)
	})
}

func (p *platform) authorityIn(ctx context.Context, namespace, name string) []byte {
	secret, err := p.secret(ctx, namespace, name)
	if err != nil {
		return nil
	}
	return secret.Data["ca.crt"]
}

// eachConfiguration shows every client configuration (webhooks, aggregated APIs, conversions of custom resources)
// to choose, and writes the CA that it returns.
func (p *platform) eachConfiguration(ctx context.Context, choose func(*unstructured.Unstructured, map[string]any) []byte) error {
	var failures []error
	for _, resource := range []schema.GroupVersionResource{validatingResource, mutatingResource} {
		for _, configuration := range p.list(resource) {
			changed := configuration.DeepCopy()
			webhooks, _, _ := unstructured.NestedSlice(changed.Object, "webhooks")
			differs := false
			for _, item := range webhooks {
				client, _ := dig(item, "clientConfig").(map[string]any)
				differs = setCA(client, choose(configuration, client)) || differs
			}
			if differs {
				unstructured.SetNestedSlice(changed.Object, webhooks, "webhooks")
				failures = append(failures, update(ctx, p.dynamic.Resource(resource), changed))
			}
		}
	}
	for _, service := range p.list(apiServiceResource) {
		changed := service.DeepCopy()
		spec, _, _ := unstructured.NestedMap(changed.Object, "spec")
		if spec["service"] != nil && setCA(spec, choose(service, spec)) {
			unstructured.SetNestedMap(changed.Object, spec, "spec")
			failures = append(failures, update(ctx, p.dynamic.Resource(apiServiceResource), changed))
		}
	}
	failures = append(failures, p.eachConversion(ctx, choose))
	return errors.Join(failures...)
}

// eachConversion looks at the definitions that may have a conversion webhook: only their metadata is cached, so
// they are fetched once for each version of them.
func (p *platform) eachConversion(ctx context.Context, choose func(*unstructured.Unstructured, map[string]any) []byte) error {
	for _, item := range p.cacheOf(crdResource).informer.GetStore().List() {
		metadata, ok := item.(*metav1.PartialObjectMetadata)
		if !ok || !p.mayConvert(metadata) {
			continue
		}
		found := p.known(ctx, crdResource, "", metadata.Name)
		if found == nil {
			continue
		}
		full, err := p.conversions.fetch(found, func() (*unstructured.Unstructured, error) {
			return p.dynamic.Resource(crdResource).Get(ctx, metadata.Name, metav1.GetOptions{})
		})
		if err != nil {
			return err
		}
		client, found2, _ := unstructured.NestedMap(full.Object, "spec", "conversion", "webhook", "clientConfig")
		if !found2 || !setCA(client, choose(full, client)) {
			continue
		}
		patch := map[string]any{"spec": map[string]any{"conversion": map[string]any{"webhook": map[string]any{"clientConfig": client}}}}
		if err := p.mergePatch(ctx, crdResource, full, patch); err != nil {
			return err
		}
	}
	return nil
}

// mayConvert limits the fetching to definitions of operators whose charts bring conversion webhooks.
func (p *platform) mayConvert(definition *metav1.PartialObjectMetadata) bool {
	if definition.Annotations["cert-manager.io/inject-ca-from"] != "" ||
		definition.Annotations["cert-manager.io/inject-ca-from-secret"] != "" {
		return true
	}
	return slices.Contains(p.table.Conversions, definition.Name)
}

// setCA puts a CA into a client configuration and tells whether that changed it.
func setCA(client map[string]any, authority []byte) bool {
	if client == nil || len(authority) == 0 {
		return false
	}
	text := base64.StdEncoding.EncodeToString(authority)
	if client["caBundle"] == text {
		return false
	}
	client["caBundle"] = text
	return true
}

func update(ctx context.Context, api dynamic.ResourceInterface, object *unstructured.Unstructured) error {
	_, err := api.Update(ctx, object, metav1.UpdateOptions{FieldManager: "cert-manager-cainjector"})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// serviceReady tells whether a Service has a Ready pod.
func (p *platform) serviceReady(ctx context.Context, namespace, name string) bool {
	service := p.known(ctx, serviceResource, namespace, name)
	if service == nil {
		return false
	}
	selector, _, _ := unstructured.NestedStringMap(service.Object, "spec", "selector")
	if len(selector) == 0 {
		return false
	}
	for _, pod := range p.list(podResource) {
		if pod.GetNamespace() != namespace || conditionStatus(pod, string(corev1.PodReady)) != "True" {
			continue
		}
		labels, fits := pod.GetLabels(), true
		for name, value := range selector {
			fits = fits && labels[name] == value
		}
		if fits {
			return true
		}
	}
	return false
}

// jobMayRun does what the pod of a known Job does, and tells whether it could.
func (p *platform) jobMayRun(ctx context.Context, pod *corev1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.Kind != "Job" {
		return true
	}
	for _, row := range p.table.Jobs {
		if !matches(row.Name, owner.Name) {
			continue
		}
		if err := p.runJob(ctx, row, pod.Namespace, owner.Name); err != nil {
			p.warn("job %s/%s: %v", pod.Namespace, owner.Name, err)
			p.poke()
			return false
		}
	}
	return true
}

func (p *platform) runJob(ctx context.Context, row jobRow, namespace, job string) error {
	stem := strings.TrimSuffix(job, strings.TrimLeft(row.Name, "*"))
	named := func(text string) string {
		return strings.NewReplacer("<namespace>", namespace, "<stem>", stem).Replace(text)
	}
	for _, secret := range row.Makes {
		if p.known(ctx, secretResource, namespace, named(secret.Name)) != nil {
			continue
		}
		made := secretRow{Name: named(secret.Name), Type: secret.Type, Keys: secret.Keys}
		for _, name := range secret.Certificate {
			made.Certificate = append(made.Certificate, named(name))
		}
		if err := p.createSecret(ctx, namespace, made, nil); err != nil {
			return err
		}
	}
	if row.Injects != nil {
		if err := p.injectByJob(ctx, row.Injects, namespace, named); err != nil {
			return err
		}
	}
	if row.Needs != "" && !p.webhookAnswers(ctx, namespace, row.Needs) {
		return fmt.Errorf("webhook behind Service %s does not answer yet", row.Needs)
	}
	return nil
}

func (p *platform) injectByJob(ctx context.Context, row *injectRow, namespace string, named func(string) string) error {
	secret, err := p.secret(ctx, namespace, named(row.Secret))
	if err != nil {
		return err
	}
	return p.eachConfiguration(ctx, func(configuration *unstructured.Unstructured, _ map[string]any) []byte {
		if !matches(named(row.Configurations), configuration.GetName()) {
			return nil
		}
		return secret.Data[row.Key]
	})
}

// webhookAnswers tells whether a Service has a Ready pod and its configurations a CA.
func (p *platform) webhookAnswers(ctx context.Context, namespace, service string) bool {
	if !p.serviceReady(ctx, namespace, service) {
		return false
	}
	for _, resource := range []schema.GroupVersionResource{validatingResource, mutatingResource} {
		for _, configuration := range p.list(resource) {
			webhooks, _, _ := unstructured.NestedSlice(configuration.Object, "webhooks")
			for _, item := range webhooks {
				client := dig(item, "clientConfig")
				if dig(client, "service.name") == service && dig(client, "service.namespace") == namespace &&
					dig(client, "caBundle") == "" {
					return false
				}
			}
		}
	}
	return true
}
