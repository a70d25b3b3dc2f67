package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// The API of metrics-server: its pods are simulated, so servers answer it on their kubelet port, with
// constant usage figures, and a hand-made EndpointSlice leads the aggregator there.

const metricsGroup = "metrics.k8s.io/v1beta1"

func serveMetricsAPI(mux *http.ServeMux, n *node) {
	if !n.isServer {
		return
	}
	answer := func(path string, value func(r *http.Request) any) {
		mux.HandleFunc("/apis/"+metricsGroup+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(value(r))
		})
	}
	answer("", func(*http.Request) any {
		return metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
			GroupVersion: metricsGroup, APIResources: []metav1.APIResource{
				{Name: "nodes", Kind: "NodeMetrics", Verbs: []string{"get", "list"}},
				{Name: "pods", Kind: "PodMetrics", Namespaced: true, Verbs: []string{"get", "list"}}}}
	})
	answer("/nodes", func(r *http.Request) any { return nodeMetrics(r.Context(), n) })
	answer("/pods", func(*http.Request) any { return emptyMetrics("PodMetricsList") })
	answer("/namespaces/", func(r *http.Request) any { return emptyMetrics("PodMetricsList") })
}

func emptyMetrics(kind string) map[string]any {
	return map[string]any{"kind": kind, "apiVersion": metricsGroup, "metadata": map[string]any{}, "items": []any{}}
}

func nodeMetrics(ctx context.Context, n *node) map[string]any {
	list := emptyMetrics("NodeMetricsList")
	// Only this node's own object is readable with kubelet's rights.
	items := []any{}
	if current, err := n.kube.CoreV1().Nodes().Get(ctx, n.nodeName, metav1.GetOptions{}); err == nil {
		items = append(items, map[string]any{"metadata": map[string]any{"name": current.Name},
			"timestamp": time.Now().UTC().Format(time.RFC3339), "window": "10s",
			"usage": map[string]string{"cpu": "200m", "memory": "768Mi"}})
	}
	list["items"] = items
	return list
}

// followMetricsEndpoints keeps the Service metrics-server pointing to the servers.
func (s *server) followMetricsEndpoints(ctx context.Context) {
	slices := s.kube.DiscoveryV1().EndpointSlices("kube-system")
	for sleep(ctx, 2*time.Second) == nil {
		if s.c.disabled["metrics-server"] || !s.leads() {
			continue
		}
		servers, err := kubernetesEndpoints(ctx, s.kube)
		if err != nil || len(servers) == 0 {
			continue
		}
		wanted := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "metrics-server-stand-in",
			Labels: map[string]string{discoveryv1.LabelServiceName: "metrics-server"}},
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: ptr.To("https"),
				Port: ptr.To(int32(kubeletPort))}}}
		var addresses []string
		for _, server := range servers {
			address, _, _ := strings.Cut(server, ":")
			addresses = append(addresses, address)
			wanted.Endpoints = append(wanted.Endpoints, discoveryv1.Endpoint{Addresses: []string{address},
				Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}})
		}
		current, err := slices.Get(ctx, wanted.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			_, err = slices.Create(ctx, wanted, metav1.CreateOptions{})
		case err == nil && !sameAddresses(current, addresses):
			current.Endpoints = wanted.Endpoints
			_, err = slices.Update(ctx, current, metav1.UpdateOptions{})
		}
		if err != nil {
			continue
		}
		if sleep(ctx, 10*time.Second) != nil {
			return
		}
	}
}

func sameAddresses(slice *discoveryv1.EndpointSlice, addresses []string) bool {
	if len(slice.Endpoints) != len(addresses) {
		return false
	}
	for i, endpoint := range slice.Endpoints {
		if len(endpoint.Addresses) != 1 || endpoint.Addresses[0] != addresses[i] {
			return false
		}
	}
	return true
}
