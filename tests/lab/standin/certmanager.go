package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// cert-manager's controller: issuers, Certificates with real keys and chains, Certificates for annotated Ingresses
// and Gateways. ACME issuers are simulated: a CA of the stand-in signs and nobody is asked.

const (
	certManager        = "cert-manager"
	certificateKinds   = "certificates.cert-manager.io"
	acmeAuthority      = "stand-in-acme-ca"
	annotationIssuer   = "cert-manager.io/issuer"
	annotationCluster  = "cert-manager.io/cluster-issuer"
	annotationCertName = "cert-manager.io/certificate-name"
	defaultLife        = 90 * 24 * time.Hour // cert-manager's default duration
)

// manageCertificates does one step for all objects of cert-manager.
func (p *platform) manageCertificates(ctx context.Context) error {
	if !p.operates(certManager) {
		return nil
	}
	var failures []error
	for _, resource := range []string{"issuers.cert-manager.io", "clusterissuers.cert-manager.io"} {
		gvr, known := p.follow(ctx, resource)
		if !known {
			return nil
		}
		for _, issuer := range p.list(gvr) {
			if p.matured(issuer, certManager) {
				failures = append(failures, p.setStatus(ctx, gvr, issuer, p.issuerStatus(ctx, issuer)))
			}
		}
	}
	certificates, known := p.follow(ctx, certificateKinds)
	if !known {
		return nil
	}
	failures = append(failures, p.shimCertificates(ctx))
	for _, certificate := range p.list(certificates) {
		if certificate.GetDeletionTimestamp() == nil && p.matured(certificate, certManager) {
			failures = append(failures, p.handleCertificate(ctx, certificate))
		}
	}
	return errors.Join(slices.DeleteFunc(failures, func(err error) bool {
		return err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err)
	})...)
}

// issuerStatus says whether an issuer can sign, with cert-manager's reasons.
func (p *platform) issuerStatus(ctx context.Context, issuer *unstructured.Unstructured) map[string]any {
	status, reason, message := "True", "IsReady", ""
	acme := map[string]any{}
	spec, _, _ := unstructured.NestedMap(issuer.Object, "spec")
	switch {
	case spec["ca"] != nil:
		reason, message = "KeyPairVerified", "Signing CA verified"
		if _, err := p.issuerAuthority(ctx, issuer); err != nil {
			status, reason, message = "False", "ErrGetKeyPair", "Error getting keypair for CA issuer: "+err.Error()
		}
	case spec["acme"] != nil:
		reason, message = "ACMEAccountRegistered", "The ACME account was registered with the ACME server (simulated)"
		acme["uri"] = fmt.Sprintf("%v/simulated-account", dig(spec, "acme.server", ""))
		acme["lastRegisteredEmail"] = dig(spec, "acme.email", "")
		if err := p.accountKey(ctx, issuer); err != nil {
			status, reason, message = "False", "ErrRegisterACMEAccount", err.Error()
		}
	}
	result, _ := parseObject("conditions: [" + conditionText("Ready", status, reason, message, issuer.GetGeneration()) + "]")
	if len(acme) > 0 {
		result["acme"] = acme
	}
	return result
}

// issuerNamespace is where an issuer's Secrets lie: cert-manager's own namespace for a ClusterIssuer.
func (p *platform) issuerNamespace(issuer *unstructured.Unstructured) string {
	if issuer.GetNamespace() != "" {
		return issuer.GetNamespace()
	}
	return p.namespaceOf(certManager)
}

// accountKey makes the Secret with the key of an ACME account.
func (p *platform) accountKey(ctx context.Context, issuer *unstructured.Unstructured) error {
	name, _ := dig(issuer.Object, "spec.acme.privateKeySecretRef.name", "").(string)
	namespace := p.issuerNamespace(issuer)
	if name == "" || p.known(ctx, secretResource, namespace, name) != nil {
		return nil
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	text, err := encodeKey(key)
	if err != nil {
		return err
	}
	return p.createSecret(ctx, namespace, secretRow{Name: name, Data: map[string]string{"tls.key": string(text)}}, nil)
}

// issuerAuthority returns what an issuer signs with; nil for self-signed ones.
func (p *platform) issuerAuthority(ctx context.Context, issuer *unstructured.Unstructured) (*authority, error) {
	spec, _, _ := unstructured.NestedMap(issuer.Object, "spec")
	if spec["selfSigned"] != nil {
		return nil, nil
	}
	if spec["ca"] == nil {
		return p.simulatedAuthority(ctx)
	}
	name, _ := dig(spec, "ca.secretName", "").(string)
	secret, err := p.secret(ctx, p.issuerNamespace(issuer), name)
	if err != nil {
		return nil, fmt.Errorf("secret %q not found", name)
	}
	cert, key, err := parsePair(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil {
		return nil, err
	}
	if !cert.IsCA {
		return nil, errors.New("certificate is not a CA")
	}
	root := secret.Data["ca.crt"]
	if len(root) == 0 {
		root = secret.Data["tls.crt"]
	}
	return &authority{cert: cert, key: key, pem: secret.Data["tls.crt"], root: root}, nil
}

// simulatedAuthority stands for every CA outside the cluster; it is kept in a Secret.
func (p *platform) simulatedAuthority(ctx context.Context) (*authority, error) {
	secret, err := p.secret(ctx, metav1.NamespaceSystem, acmeAuthority)
	if apierrors.IsNotFound(err) {
		made, err := makeAuthority("stand-in: simulated ACME authority")
		if err != nil {
			return nil, err
		}
		private, err := encodeKey(made.key)
		if err != nil {
			return nil, err
		}
		return made, p.createSecret(ctx, metav1.NamespaceSystem, secretRow{Name: acmeAuthority,
			Data: map[string]string{"tls.crt": string(made.pem), "tls.key": string(private)}}, nil)
	}
	if err != nil {
		return nil, err
	}
	cert, key, err := parsePair(secret.Data["tls.crt"], secret.Data["tls.key"])
	return &authority{cert: cert, key: key, pem: secret.Data["tls.crt"]}, err
}

// findIssuer returns the issuer of a reference.
func (p *platform) findIssuer(ctx context.Context, namespace string, reference map[string]any) *unstructured.Unstructured {
	name, _ := reference["name"].(string)
	resource := "issuers.cert-manager.io"
	if reference["kind"] == "ClusterIssuer" {
		resource, namespace = "clusterissuers.cert-manager.io", ""
	}
	gvr, known := p.follow(ctx, resource)
	if !known {
		return nil
	}
	return p.known(ctx, gvr, namespace, name)
}

// handleCertificate issues a Certificate that has no matching Secret and writes its conditions.
func (p *platform) handleCertificate(ctx context.Context, certificate *unstructured.Unstructured) error {
	gvr, _ := p.follow(ctx, certificateKinds)
	spec, _, _ := unstructured.NestedMap(certificate.Object, "spec")
	reference, _ := spec["issuerRef"].(map[string]any)
	if group := dig(reference, "group", "cert-manager.io"); group != "cert-manager.io" {
		return nil
	}
	name, _ := spec["secretName"].(string)
	secret, err := p.secret(ctx, certificate.GetNamespace(), name)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	reason, message := certificateGap(secret, spec)
	if reason == "" {
		return p.setStatus(ctx, gvr, certificate, certificateStatus(certificate, secret))
	}
	issuer := p.findIssuer(ctx, certificate.GetNamespace(), reference)
	if issuer == nil || conditionStatus(issuer, "Ready") != "True" {
		text := "conditions:\n- " + conditionText("Ready", "False", reason, message, certificate.GetGeneration()) +
			"\n- " + conditionText("Issuing", "True", reason, message, certificate.GetGeneration())
		waiting, _ := parseObject(text)
		return p.setStatus(ctx, gvr, certificate, waiting)
	}
	return p.issue(ctx, certificate, issuer, secret)
}

// certificateGap is why a Certificate must be issued, in cert-manager's words, or "".
func certificateGap(secret *corev1.Secret, spec map[string]any) (reason, message string) {
	if secret == nil {
		return "DoesNotExist", "Issuing certificate as Secret does not exist"
	}
	cert, _, err := parsePair(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil {
		return "InvalidKeyPair", "Issuing certificate as Secret contains an invalid key-pair: " + err.Error()
	}
	reference, _ := spec["issuerRef"].(map[string]any)
	if secret.Annotations["cert-manager.io/issuer-name"] != reference["name"] ||
		secret.Annotations["cert-manager.io/issuer-kind"] != dig(reference, "kind", "Issuer") {
		return "IncorrectIssuer", "Issuing certificate as Secret was previously issued by another issuer"
	}
	if !sameWords(cert.DNSNames, texts(spec["dnsNames"])) || cert.IsCA != (spec["isCA"] == true) ||
		spec["commonName"] != nil && cert.Subject.CommonName != spec["commonName"] {
		return "SecretMismatch", "Issuing certificate as Existing issued Secret is not up to date for spec"
	}
	if time.Now().After(cert.NotAfter) {
		return "Expired", "Issuing certificate as Secret contains a certificate that has expired"
	}
	return "", ""
}

func texts(value any) []string {
	var found []string
	items, _ := value.([]any)
	for _, item := range items {
		if text, ok := item.(string); ok {
			found = append(found, text)
		}
	}
	return found
}

func sameWords(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

func certificateStatus(certificate *unstructured.Unstructured, secret *corev1.Secret) map[string]any {
	cert, _, err := parsePair(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil {
		return nil
	}
	life := cert.NotAfter.Sub(cert.NotBefore)
	before := life / 3
	if text, ok := dig(certificate.Object, "spec.renewBefore", "").(string); ok && text != "" {
		if parsed, err := time.ParseDuration(text); err == nil {
			before = parsed
		}
	}
	status, _ := parseObject("conditions: [" + conditionText("Ready", "True", "Ready",
		"Certificate is up to date and has not expired", certificate.GetGeneration()) + "]")
	status["notBefore"], status["notAfter"] = timeText(cert.NotBefore), timeText(cert.NotAfter)
	status["renewalTime"] = timeText(cert.NotAfter.Add(-before))
	// The condition Issuing of an earlier pass is over.
	old, _, _ := unstructured.NestedSlice(certificate.Object, "status", "conditions")
	for _, item := range old {
		if condition, ok := item.(map[string]any); ok && condition["type"] == "Issuing" && condition["status"] == "True" {
			status["conditions"] = append(status["conditions"].([]any), map[string]any{"type": "Issuing", "status": "False",
				"reason": "Issued", "message": "The certificate has been successfully issued", "lastTransitionTime": nowText,
				"observedGeneration": certificate.GetGeneration()})
		}
	}
	return status
}

// issue makes key and certificate and writes the Secret.
func (p *platform) issue(ctx context.Context, certificate, issuer *unstructured.Unstructured, old *corev1.Secret) error {
	spec, _, _ := unstructured.NestedMap(certificate.Object, "spec")
	signer, err := p.issuerAuthority(ctx, issuer)
	if err != nil {
		return err
	}
	key, err := makePrivateKey(dig(spec, "privateKey.algorithm", "RSA").(string), toInt(dig(spec, "privateKey.size", 0)))
	if err != nil {
		return err
	}
	private, err := encodePrivateKey(key, dig(spec, "privateKey.encoding", "PKCS1").(string))
	if err != nil {
		return err
	}
	template, err := templateOf(spec)
	if err != nil {
		return err
	}
	if signer == nil {
		signer = &authority{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, key.Public(), signer.key)
	if err != nil {
		return err
	}
	chain, root := encodeCert(der), signer.rootPEM()
	if root == nil {
		root = chain // self-signed
	} else if string(signer.pem) != string(root) {
		chain = append(chain, signer.pem...) // an intermediate belongs to the chain, a root does not
	}
	data := map[string][]byte{"ca.crt": root, "tls.crt": chain, "tls.key": private}
	return p.writeCertificateSecret(ctx, certificate, old, data)
}

// rootPEM is the CA that a client must trust; nil for a self-signed certificate.
func (a *authority) rootPEM() []byte {
	if a.root != nil {
		return a.root
	}
	return a.pem
}

func templateOf(spec map[string]any) (*x509.Certificate, error) {
	life := defaultLife
	if text, ok := spec["duration"].(string); ok {
		parsed, err := time.ParseDuration(text)
		if err != nil {
			return nil, err
		}
		life = parsed
	}
	commonName, _ := spec["commonName"].(string)
	template := certificateTemplate(commonName, life)
	template.Subject.Organization = texts(dig(spec, "subject.organizations"))
	template.EmailAddresses = texts(spec["emailAddresses"])
	template.DNSNames = texts(spec["dnsNames"])
	addNames(template, texts(spec["ipAddresses"]))
	for _, text := range texts(spec["uris"]) {
		parsed, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		template.URIs = append(template.URIs, parsed)
	}
	if spec["isCA"] == true {
		markAuthority(template)
	}
	for _, usage := range texts(spec["usages"]) {
		switch usage {
		case "server auth":
			template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		case "client auth":
			template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
		}
	}
	return template, nil
}

func (p *platform) writeCertificateSecret(ctx context.Context, certificate *unstructured.Unstructured, old *corev1.Secret, data map[string][]byte) error {
	spec, _, _ := unstructured.NestedMap(certificate.Object, "spec")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: certificate.GetNamespace()}, Type: corev1.SecretTypeTLS}
	if old != nil {
		secret = old.DeepCopy()
	}
	secret.Name, _ = spec["secretName"].(string)
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	for name, content := range data {
		secret.Data[name] = content
	}
	annotations := map[string]string{annotationCertName: certificate.GetName(),
		"cert-manager.io/alt-names":    strings.Join(texts(spec["dnsNames"]), ","),
		"cert-manager.io/common-name":  fmt.Sprint(dig(spec, "commonName", "")),
		"cert-manager.io/ip-sans":      strings.Join(texts(spec["ipAddresses"]), ","),
		"cert-manager.io/uri-sans":     strings.Join(texts(spec["uris"]), ","),
		"cert-manager.io/issuer-group": fmt.Sprint(dig(spec, "issuerRef.group", "")),
		"cert-manager.io/issuer-kind":  fmt.Sprint(dig(spec, "issuerRef.kind", "Issuer")),
		"cert-manager.io/issuer-name":  fmt.Sprint(dig(spec, "issuerRef.name", ""))}
	labels := map[string]string{"controller.cert-manager.io/fao": "true"}
	copyTexts(annotations, dig(spec, "secretTemplate.annotations"))
	copyTexts(labels, dig(spec, "secretTemplate.labels"))
	for name, value := range annotations {
		metav1.SetMetaDataAnnotation(&secret.ObjectMeta, name, value)
	}
	if secret.Labels == nil {
		secret.Labels = map[string]string{}
	}
	for name, value := range labels {
		secret.Labels[name] = value
	}
	api := p.kube.CoreV1().Secrets(secret.Namespace)
	var err error
	if old == nil {
		_, err = api.Create(ctx, secret, metav1.CreateOptions{FieldManager: "cert-manager-certificates-issuing"})
	} else {
		_, err = api.Update(ctx, secret, metav1.UpdateOptions{FieldManager: "cert-manager-certificates-issuing"})
	}
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func copyTexts(target map[string]string, source any) {
	fields, _ := source.(map[string]any)
	for name, value := range fields {
		if text, ok := value.(string); ok {
			target[name] = text
		}
	}
}

// shimCertificates makes Certificates for annotated Ingresses and Gateways.
func (p *platform) shimCertificates(ctx context.Context) error {
	var failures []error
	for _, ingress := range p.list(ingressResource) {
		entries, _, _ := unstructured.NestedSlice(ingress.Object, "spec", "tls")
		for _, item := range entries {
			secret, _ := dig(item, "secretName", "").(string)
			failures = append(failures, p.shimCertificate(ctx, ingress, secret, texts(dig(item, "hosts"))))
		}
	}
	gateways, known := p.follow(ctx, "gateways.gateway.networking.k8s.io")
	if !known {
		return errors.Join(failures...)
	}
	for _, gateway := range p.list(gateways) {
		names := map[string][]string{}
		listeners, _, _ := unstructured.NestedSlice(gateway.Object, "spec", "listeners")
		for _, listener := range listeners {
			references, _ := dig(listener, "tls.certificateRefs").([]any)
			host, _ := dig(listener, "hostname", "").(string)
			for _, reference := range references {
				secret, _ := dig(reference, "name", "").(string)
				if host != "" {
					names[secret] = append(names[secret], host)
				}
			}
		}
		for secret, hosts := range names {
			failures = append(failures, p.shimCertificate(ctx, gateway, secret, hosts))
		}
	}
	return errors.Join(failures...)
}

func (p *platform) shimCertificate(ctx context.Context, source *unstructured.Unstructured, secret string, hosts []string) error {
	annotations := source.GetAnnotations()
	issuer, kind := annotations[annotationCluster], "ClusterIssuer"
	if issuer == "" {
		issuer, kind = annotations[annotationIssuer], "Issuer"
	}
	if issuer == "" || secret == "" || len(hosts) == 0 || source.GetDeletionTimestamp() != nil {
		return nil
	}
	gvr, known := p.follow(ctx, certificateKinds)
	if !known {
		return nil
	}
	if existing := p.known(ctx, gvr, source.GetNamespace(), secret); existing != nil && !metav1.IsControlledBy(existing, source) {
		return nil
	}
	spec := map[string]any{"secretName": secret, "dnsNames": toAny(hosts),
		"issuerRef": map[string]any{"name": issuer, "kind": kind, "group": "cert-manager.io"},
		"usages":    []any{"digital signature", "key encipherment"}}
	for annotation, field := range map[string]string{"cert-manager.io/common-name": "commonName",
		"cert-manager.io/duration": "duration", "cert-manager.io/renew-before": "renewBefore"} {
		if value := annotations[annotation]; value != "" {
			spec[field] = value
		}
	}
	wanted := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "cert-manager.io/v1", "kind": "Certificate",
		"metadata": map[string]any{"name": secret, "namespace": source.GetNamespace()}, "spec": spec}}
	wanted.SetOwnerReferences(ownedBy(source))
	return p.apply(ctx, "cert-manager-ingress-shim", wanted, false)
}

func toAny(items []string) []any {
	var all []any
	for _, item := range items {
		all = append(all, item)
	}
	return all
}
