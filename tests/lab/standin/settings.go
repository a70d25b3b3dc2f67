package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// nodeConfig holds what servers and agents have in common.
type nodeConfig struct {
	*options
	paths
	nodeName, nodeIP string
}

// serverConfig is the checked configuration of a server.
type serverConfig struct {
	nodeConfig
	port                              int
	clusterCIDR, serviceCIDR, dnsIPs  []string
	clusterDomain, advertiseIP, token string
	disabled                          map[string]bool
}

func newNodeConfig(o *options) (nodeConfig, error) {
	n := nodeConfig{options: o, paths: paths{o.text("data-dir")}}
	n.nodeName = strings.ToLower(o.text("node-name"))
	if n.nodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return n, err
		}
		n.nodeName = strings.ToLower(name)
	}
	if o.flag("with-node-id") {
		id, err := nodeID()
		if err != nil {
			return n, err
		}
		n.nodeName += "-" + id
	}
	if ips := o.split("node-ip"); len(ips) > 0 {
		n.nodeIP = ips[0]
		if net.ParseIP(n.nodeIP) == nil {
			return n, fmt.Errorf("invalid node-ip: invalid ip format '%s'", n.nodeIP)
		}
		return n, nil
	}
	if name := o.text("flannel-iface"); name != "" {
		ip, err := interfaceIP(name)
		n.nodeIP = ip
		return n, err
	}
	ip, err := utilnet.ChooseHostInterface()
	if err != nil {
		return n, fmt.Errorf("failed to get node IP from default route: %w", err)
	}
	n.nodeIP = ip.String()
	return n, nil
}

func interfaceIP(name string) (string, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return "", fmt.Errorf("unable to find interface %s: %w", name, err)
	}
	addresses, err := link.Addrs()
	if err != nil {
		return "", err
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.To4() != nil {
			return network.IP.String(), nil
		}
	}
	return "", fmt.Errorf("no IPv4 address on interface %s", name)
}

// newServerConfig checks the combination rules of k3s.md §3.6 and fills in computed defaults.
func newServerConfig(o *options) (*serverConfig, error) {
	if os.Getuid() != 0 && !o.flag("rootless") {
		return nil, errors.New(notRootText)
	}
	for _, rule := range []struct {
		broken bool
		text   string
	}{
		{o.given("cluster-reset-restore-path") && !o.flag("cluster-reset"),
			"invalid flag use; --cluster-reset required with --cluster-reset-restore-path"},
		{o.flag("disable-etcd") && !o.given("server"), "invalid flag use; --server is required with --disable-etcd"},
		{o.flag("disable-apiserver") && o.given("datastore-endpoint"),
			"invalid flag use; cannot use --disable-apiserver with --datastore-endpoint"},
		{o.flag("disable-etcd") && o.given("datastore-endpoint"),
			"invalid flag use; cannot use --disable-etcd with --datastore-endpoint"},
		{o.flag("cluster-reset") && o.text("server") != "",
			"cannot perform cluster-reset while server URL is set - remove server from configuration before resetting"},
	} {
		if rule.broken {
			return nil, errors.New(rule.text)
		}
	}
	n, err := newNodeConfig(o)
	if err != nil {
		return nil, err
	}
	c := &serverConfig{nodeConfig: n, port: o.number("https-listen-port"), clusterDomain: o.text("cluster-domain"),
		clusterCIDR: o.split("cluster-cidr"), serviceCIDR: o.split("service-cidr"), dnsIPs: o.split("cluster-dns"),
		disabled: map[string]bool{}}
	for _, item := range o.split("disable") {
		c.disabled[item] = true
	}
	if o.text("server") != "" {
		if err := checkURL(o.text("server")); err != nil {
			return nil, err
		}
	}
	if c.advertiseIP = o.text("advertise-address"); c.advertiseIP == "" {
		c.advertiseIP = c.nodeIP
		if external := o.split("node-external-ip"); len(external) > 0 {
			c.advertiseIP = external[0]
		}
	}
	if err := c.checkNetworks(); err != nil {
		return nil, err
	}
	if c.token, err = tokenFromFlags(o); err != nil {
		return nil, err
	}
	if o.flag("cluster-reset") && o.given("cluster-reset-restore-path") && c.token == "" &&
		!exists(c.server("token")) {
		return nil, fmt.Errorf("%s does not exist, please pass --token to complete the restoration", c.server("token"))
	}
	return c, nil
}

func (c *serverConfig) checkNetworks() error {
	for flag, cidrs := range map[string][]string{"cluster-cidr": c.clusterCIDR, "service-cidr": c.serviceCIDR} {
		for _, cidr := range cidrs {
			if _, _, err := net.ParseCIDR(cidr); err != nil {
				return fmt.Errorf("invalid %s %s", flag, cidr)
			}
		}
	}
	if families(c.clusterCIDR) != families(c.serviceCIDR) {
		return fmt.Errorf("cluster-cidr: %v and service-cidr: %v, must share the same IP version "+
			"(IPv4, IPv6 or dual-stack)", c.clusterCIDR, c.serviceCIDR)
	}
	if len(c.dnsIPs) == 0 {
		for i := range c.serviceCIDR {
			c.dnsIPs = append(c.dnsIPs, nthIP(c.serviceCIDR[i], 10))
		}
	}
	for _, ip := range c.dnsIPs {
		if net.ParseIP(ip) == nil {
			return fmt.Errorf("invalid cluster-dns address %s", ip)
		}
	}
	if _, err := utilnet.ParsePortRange(c.text("service-node-port-range")); err != nil {
		return fmt.Errorf("invalid port range %s", c.text("service-node-port-range"))
	}
	switch mode := c.text("egress-selector-mode"); mode {
	case "agent", "cluster", "pod", "disabled":
	default:
		return fmt.Errorf("invalid egress-selector-mode %s", mode)
	}
	switch backend := c.text("flannel-backend"); backend {
	case "none", "vxlan", "host-gw", "wireguard-native", "tailscale":
	default:
		return fmt.Errorf("unknown flannel backend '%s'", backend)
	}
	return nil
}

// families describes the IP families of CIDRs, e.g. "4" or "46".
func families(cidrs []string) string {
	found := map[bool]bool{}
	for _, cidr := range cidrs {
		found[strings.Contains(cidr, ":")] = true
	}
	text := ""
	if found[false] {
		text += "4"
	}
	if found[true] {
		text += "6"
	}
	return text
}

// nthIP returns the n-th address of a CIDR.
func nthIP(cidr string, n int) string {
	_, network, err := net.ParseCIDR(cidr)
	if err != nil {
		return ""
	}
	ip := append(net.IP{}, network.IP...)
	for i := len(ip) - 1; i >= 0 && n > 0; i-- {
		n += int(ip[i])
		ip[i] = byte(n)
		n >>= 8
	}
	return ip.String()
}

func (c *serverConfig) serviceIP(n int) string { return nthIP(c.serviceCIDR[0], n) }

// apiPort is the port of the local kube-apiserver.
func (c *serverConfig) apiPort() int {
	if c.given("apiserver-port") {
		return c.number("apiserver-port")
	}
	return c.port + 1
}

func (c *serverConfig) advertisePort() int {
	if c.given("advertise-port") {
		return c.number("advertise-port")
	}
	return c.port
}

func (c *serverConfig) localAPI() string { return fmt.Sprintf("https://127.0.0.1:%d", c.apiPort()) }

func checkURL(text string) error {
	parsed, err := url.Parse(text)
	if err != nil {
		return fmt.Errorf("invalid server url, failed to parse: %s: %w", text, err)
	}
	if parsed.Scheme != "https" {
		return fmt.Errorf("only https:// URLs are supported, invalid scheme: %s", text)
	}
	return nil
}

// critical are the values that a joining server must share with the first one; the names are the JSON
// fields of /v1-k3s/config (k3s.md §3.3).
func (c *serverConfig) critical() map[string]any {
	return map[string]any{
		"ClusterDNS": c.dnsIPs[0], "ClusterDNSs": c.dnsIPs, "ClusterDomain": c.clusterDomain,
		"ClusterIPRange": c.clusterCIDR[0], "ClusterIPRanges": c.clusterCIDR,
		"ServiceIPRange": c.serviceCIDR[0], "ServiceIPRanges": c.serviceCIDR,
		"DisableCCM": c.flag("disable-cloud-controller"), "DisableHelmController": c.flag("disable-helm-controller"),
		"DisableNPC": c.flag("disable-network-policy"), "DisableServiceLB": c.disabled["servicelb"],
		"EncryptSecrets": c.flag("secrets-encryption"), "EncryptProvider": c.text("secrets-encryption-provider"),
		"EmbeddedRegistry": c.flag("embedded-registry"), "FlannelBackend": c.text("flannel-backend"),
		"FlannelIPv6Masq": c.flag("flannel-ipv6-masq"), "FlannelExternalIP": c.flag("flannel-external-ip"),
		"EgressSelectorMode": c.text("egress-selector-mode"), "SupervisorMetrics": c.flag("supervisor-metrics"),
	}
}

// controlConfig is the answer of /v1-k3s/config.
func (c *serverConfig) controlConfig() map[string]any {
	all := c.critical()
	all["HTTPSPort"], all["SupervisorPort"], all["APIServerPort"] = c.port, c.port, c.apiPort()
	all["DisableKubeProxy"] = c.flag("disable-kube-proxy")
	all["SystemDefaultRegistry"] = c.text("system-default-registry")
	return all
}
