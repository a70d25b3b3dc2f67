package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"

	"github.com/sirupsen/logrus"
	authv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/metrics/legacyregistry"
)

const kubeletPort = 10250

// serveKubelet opens the ports of kubelet (10250, 10248) and kube-proxy (10256, 10249). As all components
// share one process, every /metrics returns the same registry, as with K3s.
func (n *node) serveKubelet() error {
	certificate, err := tls.LoadX509KeyPair(n.agent("serving-kubelet.crt"), n.agent("serving-kubelet.key"))
	if err != nil {
		return err
	}
	clients, err := certPool(n.agent("client-ca.crt"))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", legacyregistry.Handler())
	for _, path := range []string{"/metrics/cadvisor", "/metrics/probes", "/metrics/resource"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/plain") })
	}
	mux.HandleFunc("/healthz", healthy)
	mux.HandleFunc("/containerLogs/", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "stand-in: containers are simulated and write no logs\n")
	})
	serveMetricsAPI(mux, n)
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert}
	listener, err := tls.Listen("tcp", fmt.Sprintf(":%d", kubeletPort), config)
	if err != nil {
		return err
	}
	serve(listener, n.authenticated(mux, clients))
	if err := serveLocal(10248, http.HandlerFunc(healthy)); err != nil {
		return err
	}
	if n.remote.DisableKubeProxy {
		return nil
	}
	if err := serveLocal(10256, http.HandlerFunc(healthy)); err != nil {
		return err
	}
	address := "127.0.0.1:10249"
	for _, arg := range n.list("kube-proxy-arg") {
		if value, found := strings.CutPrefix(strings.TrimLeft(arg, "-"), "metrics-bind-address="); found {
			address = value
			if !strings.Contains(value, ":") {
				address = net.JoinHostPort(value, "10249")
			}
		}
	}
	plain, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	serve(plain, legacyregistry.Handler())
	return nil
}

func serveLocal(port int, handler http.Handler) error {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	serve(listener, handler)
	return nil
}

func serve(listener net.Listener, handler http.Handler) {
	go func() {
		server := &http.Server{Handler: handler, ErrorLog: log.New(discard{}, "", 0)}
		if err := server.Serve(listener); err != nil {
			logrus.Errorf("Listener %s: %v", listener.Addr(), err)
		}
	}()
}

func healthy(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }

// authenticated lets client certificates of the cluster and valid bearer tokens through; the check of
// rights (nodes/metrics) is left out.
func (n *node) authenticated(next http.Handler, clients *x509.CertPool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 {
			_, err := r.TLS.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: clients, KeyUsages: clientUsage})
			if err == nil {
				next.ServeHTTP(w, r)
				return
			}
		}
		if strings.HasPrefix(r.URL.Path, "/apis/metrics.k8s.io") || strings.HasPrefix(r.URL.Path, "/openapi/") {
			next.ServeHTTP(w, r) // asked by the aggregator with its own client certificate
			return
		}
		bearer, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if found {
			review, err := n.kube.AuthenticationV1().TokenReviews().Create(r.Context(),
				&authv1.TokenReview{Spec: authv1.TokenReviewSpec{Token: bearer}}, metav1.CreateOptions{})
			if err == nil && review.Status.Authenticated {
				next.ServeHTTP(w, r)
				return
			}
		}
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	})
}
