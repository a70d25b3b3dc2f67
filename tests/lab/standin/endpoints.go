package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
	clientv3 "go.etcd.io/etcd/client/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// nodeEndpoints are the end points for agents (k3s.md §4.2).
func (f *front) nodeEndpoints(mux *http.ServeMux) {
	c := f.s.c
	mux.HandleFunc("GET /v1-k3s/readyz", f.only(nodeRole, func(w http.ResponseWriter, r *http.Request) {
		if !f.coreReady.Load() {
			sendError(w, r, http.StatusServiceUnavailable, "runtime core not ready")
			return
		}
		io.WriteString(w, "ok")
	}))
	mux.HandleFunc("GET /v1-k3s/config", f.only(nodeRole, func(w http.ResponseWriter, r *http.Request) {
		sendJSON(w, r, c.controlConfig(), nil)
	}))
	mux.HandleFunc("GET /v1-k3s/apiservers", f.only(nodeRole, func(w http.ResponseWriter, r *http.Request) {
		servers, err := f.s.apiServers(r.Context())
		sendJSON(w, r, servers, err)
	}))
	mux.HandleFunc("GET /v1-k3s/client-ca.crt", f.only(nodeRole, func(w http.ResponseWriter, _ *http.Request) {
		w.Write(f.s.cas.client.pem)
	}))
	mux.HandleFunc("GET /v1-k3s/server-ca.crt", f.only(nodeRole, func(w http.ResponseWriter, _ *http.Request) {
		w.Write(f.s.cas.server.pem)
	}))
	for path, spec := range map[string]struct {
		ca   *authority
		leaf func(r *http.Request, node string) leafSpec
	}{
		"serving-kubelet.crt": {f.s.cas.server, func(r *http.Request, node string) leafSpec {
			names := append([]string{node, "localhost", "127.0.0.1"}, strings.Split(r.Header.Get("k3s-Node-IP"), ",")...)
			return leafSpec{commonName: node, names: names, usages: serverUsage}
		}},
		"client-kubelet.crt": {f.s.cas.client, func(_ *http.Request, node string) leafSpec {
			return leafSpec{commonName: "system:node:" + node, groups: []string{"system:nodes"}, usages: clientUsage}
		}},
		"client-kube-proxy.crt": {f.s.cas.client, func(*http.Request, string) leafSpec {
			return leafSpec{commonName: "system:kube-proxy", usages: clientUsage}
		}},
		"client-k3s-controller.crt": {f.s.cas.client, func(*http.Request, string) leafSpec {
			return leafSpec{commonName: "system:k3s-controller", usages: clientUsage}
		}},
	} {
		checksNode := strings.Contains(path, "kubelet")
		mux.HandleFunc("POST /v1-k3s/"+path, f.only(nodeRole, func(w http.ResponseWriter, r *http.Request) {
			node := strings.ToLower(r.Header.Get("k3s-Node-Name"))
			if checksNode {
				if code, err := f.s.verifyNode(r.Context(), node, r.Header.Get("k3s-Node-Password")); err != nil {
					sendError(w, r, code, err.Error())
					return
				}
			}
			f.issue(w, r, spec.ca, spec.leaf(r, node))
		}))
	}
}

// issue signs the request in the body.
func (f *front) issue(w http.ResponseWriter, r *http.Request, ca *authority, spec leafSpec) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		sendError(w, r, http.StatusBadRequest, err.Error())
		return
	}
	if block, _ := pem.Decode(body); block != nil {
		body = block.Bytes
	}
	request, err := x509.ParseCertificateRequest(body)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		sendError(w, r, http.StatusBadRequest, "invalid certificate request: "+err.Error())
		return
	}
	chain, err := ca.sign(request.PublicKey, spec)
	if err != nil {
		sendError(w, r, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Write(chain)
}

// serverEndpoints are the end points for joining servers and the operating commands.
func (f *front) serverEndpoints(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1-k3s/server-bootstrap", f.only(serverRole, func(w http.ResponseWriter, r *http.Request) {
		if f.s.store.member == nil {
			logrus.Warnf("Received HTTP bootstrap request from %s, but embedded etcd is not enabled.", r.RemoteAddr)
			sendError(w, r, http.StatusBadRequest, "etcd disabled")
			return
		}
		data, err := collectBootstrap(f.s.c.paths)
		sendJSON(w, r, data, err)
	}))
	info := f.only(serverRole, f.databaseInfo)
	mux.HandleFunc("GET /db/info", func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); !ok && loopback(r) {
			f.databaseInfo(w, r)
			return
		}
		info(w, r)
	})
	mux.HandleFunc("POST /db/snapshot", f.only(serverRole, f.snapshot))
	mux.HandleFunc("PUT /v1-k3s/token", f.only(serverRole, func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			NewToken string `json:"newToken"`
		}
		err := json.NewDecoder(r.Body).Decode(&body)
		if err == nil {
			ctx, cancel := withTimeout(r)
			defer cancel()
			err = f.s.rotateToken(ctx, body.NewToken)
		}
		if err != nil {
			sendHidden(w, r, "token", err)
		}
	}))
	mux.HandleFunc("GET /v1-k3s/encrypt/status", f.only(serverRole, func(w http.ResponseWriter, r *http.Request) {
		status, err := f.s.encryptionStatus(r.Context())
		sendJSON(w, r, status, err)
	}))
	mux.HandleFunc("PUT /v1-k3s/encrypt/config", f.only(serverRole, func(w http.ResponseWriter, r *http.Request) {
		var body encryptionRequest
		err := json.NewDecoder(r.Body).Decode(&body)
		if err == nil {
			ctx, cancel := withTimeout(r)
			defer cancel()
			err = f.s.changeEncryption(ctx, body)
		}
		if err != nil {
			sendHidden(w, r, "secret-encrypt", err)
		}
	}))
}

// databaseInfo lists the etcd members.
func (f *front) databaseInfo(w http.ResponseWriter, r *http.Request) {
	if f.s.store.member == nil || f.s.store.client == nil {
		sendError(w, r, http.StatusNotFound, "etcd disabled")
		return
	}
	list, err := f.s.store.client.MemberList(r.Context(), clientv3.WithSerializable())
	if err != nil {
		sendError(w, r, http.StatusServiceUnavailable, err.Error())
		return
	}
	members := []map[string]any{}
	for _, m := range list.Members {
		entry := map[string]any{"ID": m.ID, "name": m.Name, "peerURLs": m.PeerURLs, "clientURLs": m.ClientURLs}
		if m.IsLearner {
			entry["isLearner"] = true
		}
		members = append(members, entry)
	}
	sendJSON(w, r, map[string]any{"members": members}, nil)
}

// sendHidden logs the error and answers only with an id, as K3s does where secrets could be in the text.
func sendHidden(w http.ResponseWriter, r *http.Request, part string, err error) {
	id := fmt.Sprintf("%05d", len(err.Error())*7919%100000)
	logrus.Errorf("%s error ID %s: %v", part, id, err)
	sendError(w, r, http.StatusInternalServerError, fmt.Sprintf("%s error ID %s", part, id))
}

// apiServers lists the API servers' addresses out of the "kubernetes" EndpointSlice.
func (s *server) apiServers(ctx context.Context) ([]string, error) {
	own := net.JoinHostPort(s.c.advertiseIP, fmt.Sprint(s.c.advertisePort()))
	if s.kube == nil {
		return []string{own}, nil
	}
	servers, err := kubernetesEndpoints(ctx, s.kube)
	if err != nil || len(servers) == 0 {
		return []string{own}, nil
	}
	return servers, nil
}

func kubernetesEndpoints(ctx context.Context, kube kubernetes.Interface) ([]string, error) {
	slice, err := kube.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	var servers []string
	for _, endpoint := range slice.Endpoints {
		for _, address := range endpoint.Addresses {
			for _, port := range slice.Ports {
				servers = append(servers, net.JoinHostPort(address, fmt.Sprint(*port.Port)))
			}
		}
	}
	slices.Sort(servers)
	return servers, nil
}

func (s *server) nodeExists(ctx context.Context, name string) bool {
	if s.kube == nil {
		return true
	}
	_, err := s.kube.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	return !apierrors.IsNotFound(err)
}

// validBootstrapToken checks <id>.<secret> against its Secret.
func (s *server) validBootstrapToken(ctx context.Context, text string) bool {
	id, secret, found := strings.Cut(text, ".")
	if !found || s.kube == nil {
		return false
	}
	stored, err := s.kube.CoreV1().Secrets("kube-system").Get(ctx, "bootstrap-token-"+id, metav1.GetOptions{})
	return err == nil && string(stored.Data["token-secret"]) == secret &&
		string(stored.Data["usage-bootstrap-authentication"]) == "true"
}

var errNotReady = errors.New("runtime core not ready")
