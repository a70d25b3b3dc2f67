package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// webhookServer answers the API server's calls to Services whose pods are simulated: admission webhooks,
// conversion webhooks and aggregated APIs. Each server has its own, because each API server calls for itself.
type webhookServer struct {
	address  string
	table    *platformTable
	services corelisters.ServiceLister
	real     aggregator.ServiceResolver
	mutex    sync.Mutex
	kube     func() secretReader
	pairs    map[string]servedPair
}

type secretReader interface {
	secretsIn(ctx context.Context, namespace string) ([]corev1.Secret, error)
}

type servedPair struct {
	pair  *tls.Certificate
	until time.Time
}

// newWebhookServer listens on a free port of loopback and makes the API server resolve Services through it.
func newWebhookServer(s *server) (*webhookServer, error) {
	table, err := loadPlatformTable()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &webhookServer{address: listener.Addr().String(), table: table, pairs: map[string]servedPair{},
		kube: func() secretReader { return s }}
	server := &http.Server{Handler: w, TLSConfig: &tls.Config{GetCertificate: w.certificate},
		ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 10 * time.Second}
	// Each call connects anew, so that it sees whether a pod is still Ready.
	server.SetKeepAlivesEnabled(false)
	go server.ServeTLS(listener, "", "")
	apiserver.SetServiceResolverForTests(w)
	return w, nil
}

// connect gives the resolver the API server's own informers, before they start.
func (w *webhookServer) connect(all informers.SharedInformerFactory, loopback string) error {
	slices, err := proxy.NewEndpointSliceIndexerGetter(all.Discovery().V1().EndpointSlices())
	if err != nil {
		return err
	}
	host, err := url.Parse(loopback)
	if err != nil {
		return err
	}
	w.services = all.Core().V1().Services().Lister()
	w.real = aggregator.NewLoopbackServiceResolver(aggregator.NewEndpointServiceResolver(w.services, slices), host)
	return nil
}

// ResolveEndpoint fails as in life while no pod of a Service is Ready. A Service with a selector has simulated
// pods, for which this process answers; one without has real endpoints.
func (w *webhookServer) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	if w.real == nil {
		return nil, errors.New("the API server is starting")
	}
	found, err := w.real.ResolveEndpoint(namespace, name, port)
	if err != nil {
		return nil, err
	}
	service, err := w.services.Services(namespace).Get(name)
	if err != nil || len(service.Spec.Selector) == 0 {
		return found, nil
	}
	return &url.URL{Scheme: "https", Host: w.address}, nil
}

// certificate takes the pair that the operator's Secret holds for <service>.<namespace>.svc; without one it is a
// certificate that nobody trusts.
func (w *webhookServer) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	name := hello.ServerName
	if known, found := w.pairs[name]; found && time.Now().Before(known.until) {
		return known.pair, nil
	}
	pair := w.fromSecrets(hello.Context(), name)
	life := 2 * time.Second
	if pair == nil {
		_, cert, key, err := makePair([]string{strings.TrimSpace(name + " ")})
		if err != nil {
			return nil, err
		}
		made, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		pair, life = &made, time.Second
	}
	w.pairs[name] = servedPair{pair, time.Now().Add(life)}
	return pair, nil
}

func (w *webhookServer) fromSecrets(ctx context.Context, name string) *tls.Certificate {
	parts := strings.Split(name, ".")
	if len(parts) < 3 || parts[2] != "svc" {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	secrets, err := w.kube().secretsIn(limited, parts[1])
	if err != nil {
		return nil
	}
	var best *tls.Certificate
	for _, secret := range secrets {
		for _, names := range [][2]string{{"tls.crt", "tls.key"}, {"cert", "key"}, {"cert-chain.pem", "key.pem"}} {
			pair, err := tls.X509KeyPair(secret.Data[names[0]], secret.Data[names[1]])
			if err != nil {
				continue
			}
			leaf, err := x509.ParseCertificate(pair.Certificate[0])
			if err != nil || leaf.VerifyHostname(name) != nil {
				continue
			}
			if best == nil || w.keeps(parts[0], secret.Name) {
				best = &pair
			}
		}
	}
	return best
}

// keeps tells whether the table says that a Service's certificate lies in this Secret.
func (w *webhookServer) keeps(service, secret string) bool {
	for _, row := range w.table.Webhooks {
		if matches(row.Service, service) && row.Secret == secret {
			return true
		}
	}
	return false
}

func (s *server) secretsIn(ctx context.Context, namespace string) ([]corev1.Secret, error) {
	if s.kube == nil {
		return nil, errors.New("the API server is starting")
	}
	list, err := s.kube.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// ServeHTTP allows every admission, converts by changing the version only, and lists an aggregated API as empty.
func (w *webhookServer) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	if in.Method == http.MethodGet {
		w.serveAPI(out, in)
		return
	}
	data, err := io.ReadAll(io.LimitReader(in.Body, 16<<20))
	var kind metav1.TypeMeta
	if err == nil {
		err = json.Unmarshal(data, &kind)
	}
	var answer any
	if err == nil {
		switch kind.Kind {
		case "AdmissionReview":
			answer, err = w.admit(data)
		case "ConversionReview":
			answer, err = convert(data)
		default:
			err = fmt.Errorf("unknown kind %q", kind.Kind)
		}
	}
	if err != nil {
		http.Error(out, err.Error(), http.StatusBadRequest)
		return
	}
	out.Header().Set("Content-Type", "application/json")
	json.NewEncoder(out).Encode(answer)
}

func (w *webhookServer) serveAPI(out http.ResponseWriter, in *http.Request) {
	parts := strings.Split(strings.Trim(in.URL.Path, "/"), "/")
	out.Header().Set("Content-Type", "application/json")
	if len(parts) == 3 && parts[0] == "apis" {
		json.NewEncoder(out).Encode(metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
			GroupVersion: parts[1] + "/" + parts[2], APIResources: []metav1.APIResource{}})
		return
	}
	out.WriteHeader(http.StatusNotFound)
	json.NewEncoder(out).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound})
}

// admit allows, and answers a mutating call for a kind with defaults with what is absent.
func (w *webhookServer) admit(data []byte) (*admissionv1.AdmissionReview, error) {
	review := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(data, review); err != nil {
		return nil, err
	}
	if review.Request == nil {
		return nil, errors.New("no request")
	}
	request := review.Request
	review.Request = nil
	review.Response = &admissionv1.AdmissionResponse{UID: request.UID, Allowed: true}
	for _, row := range w.table.Defaults {
		if row.Kind != request.Kind.Kind+"."+request.Kind.Group || len(request.Object.Raw) == 0 {
			continue
		}
		var object map[string]any
		if err := json.Unmarshal(request.Object.Raw, &object); err != nil {
			return nil, err
		}
		patch := absent("", object, row.Object)
		if len(patch) == 0 {
			continue
		}
		text, err := json.Marshal(patch)
		if err != nil {
			return nil, err
		}
		kind := admissionv1.PatchTypeJSONPatch
		review.Response.Patch, review.Response.PatchType = text, &kind
	}
	return review, nil
}

type patchStep struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// absent lists what must be added to an object so that it has all defaults.
func absent(path string, object, defaults map[string]any) []patchStep {
	var steps []patchStep
	for name, value := range defaults {
		here := path + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
		present, found := object[name]
		if !found {
			steps = append(steps, patchStep{"add", here, value})
			continue
		}
		inner, isMap := value.(map[string]any)
		old, wasMap := present.(map[string]any)
		if isMap && wasMap {
			steps = append(steps, absent(here, old, inner)...)
		}
	}
	return steps
}

func convert(data []byte) (*apiextensionsv1.ConversionReview, error) {
	review := &apiextensionsv1.ConversionReview{}
	if err := json.Unmarshal(data, review); err != nil {
		return nil, err
	}
	if review.Request == nil {
		return nil, errors.New("no request")
	}
	response := &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
	for _, raw := range review.Request.Objects {
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(raw.Raw); err != nil {
			return nil, err
		}
		object.SetAPIVersion(review.Request.DesiredAPIVersion)
		response.ConvertedObjects = append(response.ConvertedObjects, runtime.RawExtension{Object: object})
	}
	review.Request, review.Response = nil, response
	return review, nil
}
