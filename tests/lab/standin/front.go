package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/http/pprof"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// front answers on 6443: the supervisor's own end points, and the Kubernetes API by an authenticating
// proxy to the kube-apiserver on 127.0.0.1:6444.
type front struct {
	s         *server
	clientCAs *x509.CertPool
	plain     *httputil.ReverseProxy // bearer tokens and anonymous requests
	asUser    *httputil.ReverseProxy // verified client certificates
	apiReady  atomic.Bool
	coreReady atomic.Bool
}

func newFront(s *server) (*front, error) {
	f := &front{s: s}
	var err error
	if f.clientCAs, err = certPool(s.c.tls("client-ca.crt")); err != nil {
		return nil, err
	}
	serverCAs, err := certPool(s.c.tls("server-ca.crt"))
	if err != nil {
		return nil, err
	}
	certificate, err := tls.LoadX509KeyPair(s.c.tls("client-auth-proxy.crt"), s.c.tls("client-auth-proxy.key"))
	if err != nil {
		return nil, err
	}
	f.plain = s.proxy(&tls.Config{RootCAs: serverCAs})
	f.asUser = s.proxy(&tls.Config{RootCAs: serverCAs, Certificates: []tls.Certificate{certificate}})
	return f, nil
}

func (s *server) proxy(config *tls.Config) *httputil.ReverseProxy {
	target, _ := url.Parse(s.c.localAPI())
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: 64, IdleConnTimeout: 90 * time.Second}
	proxy.FlushInterval = -1
	proxy.ErrorLog = log.New(discard{}, "", 0)
	proxy.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		if r.Context().Err() == nil {
			sendError(w, r, http.StatusServiceUnavailable, "apiserver not ready")
		}
	}
	return proxy
}

type discard struct{}

func (discard) Write(data []byte) (int, error) { return len(data), nil }

// listen opens the port and serves until the process ends.
func (f *front) listen() error {
	certificate, err := f.servingCertificate()
	if err != nil {
		return err
	}
	address := net.JoinHostPort(f.s.c.text("bind-address"), fmt.Sprint(f.s.c.port))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen tcp :%d: %w", f.s.c.port, errors.Unwrap(err))
	}
	config := &tls.Config{Certificates: []tls.Certificate{*certificate}, ClientAuth: tls.RequestClientCert,
		NextProtos: []string{"http/1.1"}}
	httpServer := &http.Server{Handler: f.handler(), TLSConfig: config, ErrorLog: log.New(discard{}, "", 0)}
	go func() {
		if err := httpServer.Serve(tls.NewListener(listener, config)); err != nil {
			fatal(fmt.Errorf("listener on %s: %w", address, err))
		}
	}()
	logrus.Infof("Listening on %s", address)
	return nil
}

// servingCertificate makes or renews the certificate of 6443; names are only ever added to it.
func (f *front) servingCertificate() (*tls.Certificate, error) {
	c := f.s.c
	host, _ := os.Hostname()
	names := append([]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc." + c.clusterDomain, "localhost", "127.0.0.1", "::1", c.serviceIP(1), c.nodeIP,
		c.advertiseIP, c.nodeName, host}, c.split("node-ip")...)
	names = append(append(names, c.split("node-external-ip")...), c.split("tls-san")...)
	base := c.tls("dynamic-cert")
	if exists(c.tls("dynamic-cert-regenerate")) {
		os.Remove(base + ".json")
		os.Remove(c.tls("dynamic-cert-regenerate"))
	}
	spec := leafSpec{commonName: "k3s", groups: []string{"k3s"}, names: names, usages: serverUsage}
	if text := os.Getenv(envNotBefore); text != "" {
		start, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", envNotBefore, err)
		}
		spec.notBefore = start
	}
	return dynamicCertificate(base+".json", f.s.cas.server, spec)
}

// dynamicCertificate keeps certificate and key in one JSON file shaped like a Secret, as K3s does.
func dynamicCertificate(path string, ca *authority, spec leafSpec) (*tls.Certificate, error) {
	var stored struct {
		Kind string            `json:"kind"`
		Data map[string][]byte `json:"data"`
	}
	if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &stored) == nil {
		pair, err := tls.X509KeyPair(stored.Data["tls.crt"], stored.Data["tls.key"])
		if err == nil && pair.Leaf != nil {
			if reusable(pair.Leaf, ca, spec) {
				return &pair, nil
			}
			spec.names = append(spec.names, pair.Leaf.DNSNames...)
			for _, ip := range pair.Leaf.IPAddresses {
				spec.names = append(spec.names, ip.String())
			}
		}
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	chain, err := ca.sign(key.Public(), spec)
	if err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	stored.Kind, stored.Data = "Secret", map[string][]byte{"tls.crt": chain, "tls.key": keyPEM}
	data, err := json.Marshal(stored)
	if err != nil {
		return nil, err
	}
	if err := writeFile(path, data, 0600); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(chain, keyPEM)
	return &pair, err
}

func reusable(leaf *x509.Certificate, ca *authority, spec leafSpec) bool {
	start := spec.notBefore.IsZero() && !leaf.NotBefore.After(time.Now()) || spec.notBefore.Equal(leaf.NotBefore)
	return start && leaf.CheckSignatureFrom(ca.cert) == nil && time.Until(leaf.NotAfter) > renewBefore &&
		covers(leaf, spec.names)
}

// sendError answers with a Kubernetes Status, like K3s.
func sendError(w http.ResponseWriter, r *http.Request, code int, message string) {
	logrus.Errorf("Sending HTTP/1.1 %d response to %s: %s", code, r.RemoteAddr, message)
	reasons := map[int]metav1.StatusReason{400: metav1.StatusReasonBadRequest, 401: metav1.StatusReasonUnauthorized,
		403: metav1.StatusReasonForbidden, 404: metav1.StatusReasonNotFound, 503: metav1.StatusReasonServiceUnavailable}
	status := metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure",
		Message: message, Reason: reasons[code], Code: int32(code)}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(status)
}

// verifiedUser returns the subject of a client certificate that the cluster's client CA has signed.
func (f *front) verifiedUser(r *http.Request) (name string, groups []string) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return "", nil
	}
	leaf := r.TLS.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: f.clientCAs, KeyUsages: clientUsage}); err != nil {
		return "", nil
	}
	return leaf.Subject.CommonName, leaf.Subject.Organization
}

// kubernetes proxies to the API server.
func (f *front) kubernetes(w http.ResponseWriter, r *http.Request) {
	if !f.apiReady.Load() {
		message := "apiserver not ready"
		if f.s.c.flag("disable-apiserver") {
			message = "apiserver disabled"
		}
		sendError(w, r, http.StatusServiceUnavailable, message)
		return
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Remote-") {
			delete(r.Header, name)
		}
	}
	name, groups := f.verifiedUser(r)
	if name == "" {
		f.plain.ServeHTTP(w, r)
		return
	}
	r.Header.Set("X-Remote-User", name)
	for _, group := range groups {
		r.Header.Add("X-Remote-Group", group)
	}
	f.asUser.ServeHTTP(w, r)
}

func (f *front) handler() http.Handler {
	mux := http.NewServeMux()
	text := func(content func() []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Write(content())
		}
	}
	mux.HandleFunc("GET /ping", text(func() []byte { return []byte("pong") }))
	mux.HandleFunc("GET /cacerts", text(func() []byte { return f.s.cas.server.pem }))
	mux.Handle("GET /static/", http.StripPrefix("/static/", http.FileServer(http.Dir(f.s.c.server("static")))))
	f.nodeEndpoints(mux)
	f.serverEndpoints(mux)
	if f.s.c.flag("enable-pprof") {
		mux.HandleFunc("/debug/pprof/", f.only(serverRole, pprof.Index))
		mux.HandleFunc("/debug/pprof/profile", f.only(serverRole, pprof.Profile))
	}
	mux.HandleFunc("/", f.kubernetes)
	return mux
}

// role of a supervisor request.
type role int

const (
	nobody role = iota
	nodeRole
	serverRole
)

// roleOf authenticates basic, bearer and certificate credentials.
func (f *front) roleOf(r *http.Request) (role, error) {
	if user, password, ok := r.BasicAuth(); ok {
		passwords := readPasswords(f.s.c.paths)
		switch {
		case user == "server" && password == passwords.server:
			return serverRole, nil
		case user == "node" && password == passwords.node:
			return nodeRole, nil
		}
		return nobody, errors.New("not authorized")
	}
	if bearer, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); found {
		if !f.s.validBootstrapToken(r.Context(), bearer) {
			return nobody, errors.New("not authorized")
		}
		return nodeRole, nil
	}
	name, groups := f.verifiedUser(r)
	for _, group := range groups {
		if group == "system:nodes" {
			if !f.s.nodeExists(r.Context(), strings.TrimPrefix(name, "system:node:")) {
				return nobody, errors.New("unable to verify node identity")
			}
			return nodeRole, nil
		}
		if group == "system:masters" {
			return serverRole, nil
		}
	}
	return nobody, errors.New("not authorized")
}

// only lets requests of one role through.
func (f *front) only(wanted role, handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		found, err := f.roleOf(r)
		switch {
		case err != nil:
			sendError(w, r, http.StatusUnauthorized, err.Error())
		case found != wanted:
			sendError(w, r, http.StatusForbidden, "forbidden")
		default:
			handle(w, r)
		}
	}
}

func sendJSON(w http.ResponseWriter, r *http.Request, value any, err error) {
	if err != nil {
		sendError(w, r, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(value)
}

func loopback(r *http.Request) bool {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func withTimeout(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), 2*time.Minute)
}
