package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
)

// addressPool is a pool of either announcer.
type addressPool struct {
	name     string
	ranges   []addressRange
	selector labels.Selector
	auto     bool
}

type addressRange struct{ first, last netip.Addr }

func (r addressRange) contains(address netip.Addr) bool {
	return r.first.Compare(address) <= 0 && address.Compare(r.last) <= 0
}

// announcer gives addresses to Services of type LoadBalancer.
type announcer struct {
	operator  string
	pools     func(context.Context) []addressPool
	requested []string // annotations with wanted addresses, comma separated
	pool      string   // annotation with a wanted pool
	sharing   []string // annotations with a sharing key
	classes   []string
}

func (p *platform) announcers() []announcer {
	return []announcer{
		{operator: "metallb", pools: p.metallbPools, pool: "metallb.io/address-pool",
			requested: []string{"metallb.io/loadBalancerIPs", "metallb.universe.tf/loadBalancerIPs"},
			sharing:   []string{"metallb.io/allow-shared-ip", "metallb.universe.tf/allow-shared-ip"}, classes: []string{""}},
		{operator: "cilium", pools: p.ciliumPools,
			requested: []string{"lbipam.cilium.io/ips", "io.cilium/lb-ipam-ips"},
			sharing:   []string{"lbipam.cilium.io/sharing-key", "io.cilium/lb-ipam-sharing-key"},
			classes:   []string{"", "io.cilium/l2-announcer", "io.cilium/bgp-control-plane"}},
	}
}

// assignAddresses gives pending LoadBalancer Services an address of a pool.
func (p *platform) assignAddresses(ctx context.Context) error {
	var failures []error
	for _, who := range p.announcers() {
		if !p.operates(who.operator) {
			continue
		}
		pools := who.pools(ctx)
		for _, object := range p.list(serviceResource) {
			kind, _, _ := unstructured.NestedString(object.Object, "spec", "type")
			if kind != string(corev1.ServiceTypeLoadBalancer) || object.GetDeletionTimestamp() != nil {
				continue
			}
			failures = append(failures, p.assignAddress(ctx, who, pools, object))
		}
	}
	return errors.Join(slices.DeleteFunc(failures, func(err error) bool {
		return err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err)
	})...)
}

func (p *platform) assignAddress(ctx context.Context, who announcer, pools []addressPool, object *unstructured.Unstructured) error {
	service, err := typed[corev1.Service](object)
	if err != nil {
		return err
	}
	class := ""
	if service.Spec.LoadBalancerClass != nil {
		class = *service.Spec.LoadBalancerClass
	}
	if !slices.Contains(who.classes, class) || len(pools) == 0 || !p.matured(object, who.operator) {
		return nil
	}
	wanted, explicit := wantedAddresses(who, service)
	if current := service.Status.LoadBalancer.Ingress; len(current) > 0 {
		if !explicit || len(wanted) == len(current) && current[0].IP == wanted[0].String() {
			return nil
		}
	}
	chosen, pool := p.choose(who, pools, service, wanted, explicit)
	if pool == "" {
		return p.noAddress(ctx, who, service, chosen)
	}
	return p.writeAddresses(ctx, who, object, chosen, pool)
}

func wantedAddresses(who announcer, service *corev1.Service) ([]netip.Addr, bool) {
	text := service.Spec.LoadBalancerIP
	for _, annotation := range who.requested {
		if value := service.Annotations[annotation]; value != "" {
			text = value
		}
	}
	var found []netip.Addr
	for _, part := range strings.Split(text, ",") {
		if address, err := netip.ParseAddr(strings.TrimSpace(part)); err == nil {
			found = append(found, address)
		}
	}
	return found, len(found) > 0
}

// choose returns addresses and their pool; without a fitting pool the name is "".
func (p *platform) choose(who announcer, pools []addressPool, service *corev1.Service, wanted []netip.Addr, explicit bool) ([]netip.Addr, string) {
	taken := p.takenAddresses(who, service)
	for _, pool := range pools {
		if !pool.fits(who, service, explicit) {
			continue
		}
		if explicit {
			inside := !slices.ContainsFunc(wanted, func(address netip.Addr) bool {
				return taken[address] || !slices.ContainsFunc(pool.ranges, func(r addressRange) bool { return r.contains(address) })
			})
			if inside {
				return wanted, pool.name
			}
			continue
		}
		for _, span := range pool.ranges {
			for address := span.first; address.IsValid() && span.contains(address); address = address.Next() {
				if !taken[address] {
					return []netip.Addr{address}, pool.name
				}
			}
		}
	}
	return nil, ""
}

func (pool addressPool) fits(who announcer, service *corev1.Service, explicit bool) bool {
	if named := service.Annotations[who.pool]; who.pool != "" && named != "" {
		return pool.name == named
	}
	set := labels.Set{"io.kubernetes.service.namespace": service.Namespace, "io.kubernetes.service.name": service.Name}
	for name, value := range service.Labels {
		set[name] = value
	}
	return (pool.auto || explicit) && pool.selector.Matches(set)
}

// takenAddresses are those of other Services that do not share them with this one.
func (p *platform) takenAddresses(who announcer, service *corev1.Service) map[netip.Addr]bool {
	taken := map[netip.Addr]bool{}
	for _, other := range p.list(serviceResource) {
		if key(other) == service.Namespace+"/"+service.Name || sharesWith(who, service.Annotations, other.GetAnnotations()) {
			continue
		}
		entries, _, _ := unstructured.NestedSlice(other.Object, "status", "loadBalancer", "ingress")
		for _, entry := range entries {
			text, _ := dig(entry, "ip").(string)
			if address, err := netip.ParseAddr(text); err == nil {
				taken[address] = true
			}
		}
	}
	return taken
}

func sharesWith(who announcer, a, b map[string]string) bool {
	for _, annotation := range who.sharing {
		if a[annotation] != "" && a[annotation] == b[annotation] {
			return true
		}
	}
	return false
}

func (p *platform) writeAddresses(ctx context.Context, who announcer, object *unstructured.Unstructured, chosen []netip.Addr, pool string) error {
	var ingress []any
	for _, address := range chosen {
		ingress = append(ingress, map[string]any{"ip": address.String(), "ipMode": "VIP"})
	}
	status := map[string]any{"loadBalancer": map[string]any{"ingress": ingress}}
	if who.operator == "cilium" {
		status["conditions"] = p.serviceConditions(object, "True", "satisfied", "")
	} else if err := p.mergePatch(ctx, serviceResource, object, map[string]any{"metadata": map[string]any{
		"annotations": map[string]any{"metallb.io/ip-allocated-from-pool": pool}}}); err != nil {
		return err
	}
	return p.mergePatch(ctx, serviceResource, object, map[string]any{"status": status}, "status")
}

func (p *platform) serviceConditions(object *unstructured.Unstructured, status, reason, message string) any {
	fresh, _ := parseObject("conditions: [" + conditionText("cilium.io/IPAMRequestSatisfied", status, reason, message) + "]")
	current, _, _ := unstructured.NestedMap(object.Object, "status")
	settled, _ := settle(current, fresh, metav1.Now().Time).(map[string]any)
	return settled["conditions"]
}

// noAddress says why a Service stays pending, once: MetalLB by an event, Cilium by a condition.
func (p *platform) noAddress(ctx context.Context, who announcer, service *corev1.Service, _ []netip.Addr) error {
	text := fmt.Sprintf("no-address %s %s/%s %s", who.operator, service.Namespace, service.Name, service.UID)
	if !p.first(text) {
		return nil
	}
	if who.operator == "cilium" {
		object := p.known(ctx, serviceResource, service.Namespace, service.Name)
		if object == nil {
			return nil
		}
		status := map[string]any{"conditions": p.serviceConditions(object, "False", "no_pool", "No pool exists with a CIDR matching any requested IP")}
		return p.mergePatch(ctx, serviceResource, object, map[string]any{"status": status}, "status")
	}
	now := metav1.Now()
	_, err := p.kube.CoreV1().Events(service.Namespace).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: service.Name + ".", Namespace: service.Namespace},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Name: service.Name,
			Namespace: service.Namespace, UID: service.UID},
		Reason: "AllocationFailed", Type: corev1.EventTypeWarning, Count: 1, FirstTimestamp: now, LastTimestamp: now,
		Message: fmt.Sprintf("Failed to allocate IP for %q: no available IPs", service.Namespace+"/"+service.Name),
		Source:  corev1.EventSource{Component: "metallb-controller"}}, metav1.CreateOptions{})
	return err
}

// metallbPools are the IPAddressPools that an advertisement announces. In life MetalLB gives addresses of the
// others too, but they would be dead; here the Service stays pending.
func (p *platform) metallbPools(ctx context.Context) []addressPool {
	pools, known := p.follow(ctx, "ipaddresspools.metallb.io")
	if !known {
		return nil
	}
	announced, all := map[string]bool{}, false
	for _, resource := range []string{"l2advertisements.metallb.io", "bgpadvertisements.metallb.io"} {
		gvr, known := p.follow(ctx, resource)
		if !known {
			continue
		}
		for _, advertisement := range p.list(gvr) {
			names := texts(dig(advertisement.Object, "spec.ipAddressPools"))
			selectors, _ := dig(advertisement.Object, "spec.ipAddressPoolSelectors").([]any)
			all = all || len(names)+len(selectors) == 0
			for _, name := range names {
				announced[name] = true
			}
			for _, pool := range p.list(pools) {
				announced[pool.GetName()] = announced[pool.GetName()] || slices.ContainsFunc(selectors, func(s any) bool {
					return selectorOf(s, labels.Nothing()).Matches(labels.Set(pool.GetLabels()))
				})
			}
		}
	}
	var found []addressPool
	for _, pool := range p.list(pools) {
		if !all && !announced[pool.GetName()] {
			continue
		}
		found = append(found, addressPool{name: pool.GetName(), ranges: parseRanges(texts(dig(pool.Object, "spec.addresses"))),
			selector: labels.Everything(), auto: dig(pool.Object, "spec.autoAssign", true) == true})
	}
	return found
}

// ciliumPools are the CiliumLoadBalancerIPPools that are not disabled.
func (p *platform) ciliumPools(ctx context.Context) []addressPool {
	gvr, known := p.follow(ctx, "ciliumloadbalancerippools.cilium.io")
	if !known {
		return nil
	}
	var found []addressPool
	for _, pool := range p.list(gvr) {
		if dig(pool.Object, "spec.disabled", false) == true {
			continue
		}
		var ranges []string
		blocks, _ := dig(pool.Object, "spec.blocks").([]any)
		for _, block := range blocks {
			if cidr, ok := dig(block, "cidr").(string); ok && cidr != "" {
				ranges = append(ranges, cidr)
				continue
			}
			ranges = append(ranges, fmt.Sprintf("%v-%v", dig(block, "start"), dig(block, "stop", dig(block, "start"))))
		}
		found = append(found, addressPool{name: pool.GetName(), ranges: parseRanges(ranges), auto: true,
			selector: selectorOf(dig(pool.Object, "spec.serviceSelector", nil), labels.Everything())})
	}
	return found
}

func selectorOf(value any, fallback labels.Selector) labels.Selector {
	fields, ok := value.(map[string]any)
	if !ok {
		return fallback
	}
	selector, err := typed[metav1.LabelSelector](&unstructured.Unstructured{Object: fields})
	if err != nil {
		return labels.Nothing()
	}
	found, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return labels.Nothing()
	}
	return found
}

// parseRanges reads CIDRs and ranges "first-last".
func parseRanges(items []string) []addressRange {
	var found []addressRange
	for _, item := range items {
		if prefix, err := netip.ParsePrefix(strings.TrimSpace(item)); err == nil {
			found = append(found, addressRange{prefix.Masked().Addr(), lastOf(prefix.Masked())})
			continue
		}
		first, last, _ := strings.Cut(item, "-")
		from, err := netip.ParseAddr(strings.TrimSpace(first))
		to, err2 := netip.ParseAddr(strings.TrimSpace(last))
		if err == nil && err2 == nil {
			found = append(found, addressRange{from, to})
		}
	}
	return found
}

func lastOf(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 1 << (7 - bit%8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}
