package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sirupsen/logrus"
)

// network simulates what Flannel or another CNI leaves on a host: links, addresses, chains and files are
// real, but no pod is connected to them.
type network struct {
	n        *node
	flannel  bool
	prepared bool
}

func newNetwork(n *node) *network {
	return &network{n: n, flannel: n.remote.FlannelBackend != "none"}
}

// confDir is where the container runtime looks for its CNI configuration (k3s.md §6.3).
func (w *network) confDir() string {
	if w.flannel {
		return w.n.agent("etc", "cni", "net.d")
	}
	return "/etc/cni/net.d"
}

// start makes the host side of kube-proxy and, with Flannel, of the pod network.
func (w *network) start(podCIDR string) error {
	if !w.n.remote.DisableKubeProxy {
		w.chains("nat", "KUBE-SERVICES", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-NODEPORTS")
		w.chains("filter", "KUBE-FORWARD", "KUBE-FIREWALL", "KUBE-EXTERNAL-SERVICES")
	}
	if !w.n.remote.DisableNPC {
		w.chains("filter", "KUBE-ROUTER-INPUT", "KUBE-ROUTER-FORWARD", "KUBE-ROUTER-OUTPUT")
	}
	if !w.flannel {
		return nil
	}
	if err := w.flannelFiles(podCIDR); err != nil {
		return err
	}
	w.flannelLinks(podCIDR)
	w.chains("nat", "FLANNEL-POSTRTG")
	w.chains("filter", "FLANNEL-FWD")
	w.prepared = true
	return nil
}

func (w *network) flannelFiles(podCIDR string) error {
	n := w.n
	// flannel's names and values: the file is what its own CNI plug-in reads.
	conflist := `{
  "name":"cbr0",
  "cniVersion":"1.0.0",
  "plugins":[
    {"type":"flannel","delegate":{"hairpinMode":true,"forceAddress":true,"isDefaultGateway":true}},
    {"type":"portmap","capabilities":{"portMappings":true}},
    {"type":"bandwidth","capabilities":{"bandwidth":true}}
  ]
}
`
	if err := writeFile(filepath.Join(w.confDir(), "10-flannel.conflist"), []byte(conflist), 0600); err != nil {
		return err
	}
	netConf := fmt.Sprintf("{\n\t\"Network\": %q,\n\t\"EnableIPv6\": false,\n\t\"EnableIPv4\": true,\n"+
		"\t\"Backend\": {\n\t\"Type\": %q\n}\n}\n", n.remote.ClusterIPRange, n.remote.FlannelBackend)
	if err := writeFile(n.agent("etc", "flannel", "net-conf.json"), []byte(netConf), 0600); err != nil {
		return err
	}
	subnet := fmt.Sprintf("FLANNEL_NETWORK=%s\nFLANNEL_SUBNET=%s\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
		n.remote.ClusterIPRange, gateway(podCIDR))
	if err := os.MkdirAll("/run/flannel", 0755); err != nil {
		return err
	}
	return writeFile("/run/flannel/subnet.env", []byte(subnet), 0644)
}

// gateway is the first address of a pod range with its length, e.g. 10.42.1.1/24.
func gateway(podCIDR string) string {
	_, length, _ := strings.Cut(podCIDR, "/")
	return nthIP(podCIDR, 1) + "/" + length
}

// flannelLinks makes flannel.1 and cni0 with one pod's veth pair; without the right to it, it only logs.
func (w *network) flannelLinks(podCIDR string) {
	name := "flannel.1"
	link := []string{"link", "add", name, "type", "vxlan", "id", "1", "local", w.n.nodeIP, "dstport", "8472", "nolearning"}
	if device := deviceOf(w.n.nodeIP); device != "" {
		link = append(link, "dev", device)
	}
	if w.n.remote.FlannelBackend == "wireguard-native" {
		name = "flannel-wg"
		link = []string{"link", "add", name, "type", "dummy"} // a real one needs the wireguard module
	}
	if w.n.remote.FlannelBackend != "host-gw" {
		w.ip(name, link...)
		w.ip("", "address", "replace", nthIP(podCIDR, 0)+"/32", "dev", name)
		w.ip("", "link", "set", name, "up")
	}
	w.ip("cni0", "link", "add", "cni0", "type", "bridge")
	w.ip("", "address", "replace", gateway(podCIDR), "dev", "cni0")
	w.ip("", "link", "set", "cni0", "up")
	if !linkExists("veth5a9d0001") {
		w.ip("veth5a9d0001", "link", "add", "veth5a9d0001", "type", "veth", "peer", "name", "veth5a9d0002")
		w.ip("", "link", "set", "veth5a9d0001", "master", "cni0", "up")
		w.ip("", "netns", "add", "cni-5a9d0000-0000-4000-8000-000000000001")
		w.ip("", "link", "set", "veth5a9d0002", "netns", "cni-5a9d0000-0000-4000-8000-000000000001")
	}
}

// ip runs the ip tool; created names the link that need not be made when it is there already.
func (w *network) ip(created string, args ...string) {
	if created != "" && linkExists(created) {
		return
	}
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		logrus.Warnf("stand-in: ip %s: %v: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
}

func linkExists(name string) bool { return exists("/sys/class/net/" + name) }

func deviceOf(ip string) string {
	links, _ := net.Interfaces()
	for _, link := range links {
		addresses, _ := link.Addrs()
		for _, address := range addresses {
			if network, ok := address.(*net.IPNet); ok && network.IP.String() == ip {
				return link.Name
			}
		}
	}
	return ""
}

// chains makes iptables chains with one rule each, when the tool is there.
func (w *network) chains(table string, names ...string) {
	var script strings.Builder
	fmt.Fprintf(&script, "*%s\n", table)
	for _, name := range names {
		fmt.Fprintf(&script, ":%s - [0:0]\n", name)
	}
	for _, name := range names {
		fmt.Fprintf(&script, "-A %s -m comment --comment \"stand-in\" -j RETURN\n", name)
	}
	script.WriteString("COMMIT\n")
	command := exec.Command("iptables-restore", "--noflush", "-w", "5")
	command.Stdin = strings.NewReader(script.String())
	if out, err := command.CombinedOutput(); err != nil {
		logrus.Warnf("stand-in: iptables-restore: %v: %s", err, strings.TrimSpace(string(out)))
	}
}

// ready is kubelet's view: a CNI configuration is in the runtime's directory. With flannel-backend none the
// running pod of a CNI's DaemonSet brings it.
func (w *network) ready(ctx context.Context) bool {
	if w.flannel && !w.prepared {
		return false
	}
	if hasConf(w.confDir()) {
		return true
	}
	if !w.flannel && w.n.pods.cniRuns(ctx) {
		w.installCNI()
		return hasConf(w.confDir())
	}
	return false
}

func hasConf(dir string) bool {
	files, _ := os.ReadDir(dir)
	for _, file := range files {
		switch filepath.Ext(file.Name()) {
		case ".conf", ".conflist", ".json":
			return true
		}
	}
	return false
}

// installCNI does what Cilium's agent leaves on its host: the configuration file and its links.
func (w *network) installCNI() {
	conflist := "{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"cilium\",\n  \"plugins\": [\n    {\n" +
		"       \"type\": \"cilium-cni\",\n       \"enable-debug\": false,\n" +
		"       \"log-file\": \"/var/run/cilium/cilium-cni.log\"\n    }\n  ]\n}\n"
	if err := os.MkdirAll(w.confDir(), 0755); err != nil {
		logrus.Warn(err)
	}
	if err := writeFile(filepath.Join(w.confDir(), "05-cilium.conflist"), []byte(conflist), 0600); err != nil {
		logrus.Warn(err)
	}
	w.ip("cilium_host", "link", "add", "cilium_host", "type", "veth", "peer", "name", "cilium_net")
	w.ip("", "link", "set", "cilium_net", "up")
	w.ip("", "link", "set", "cilium_host", "up")
	w.ip("cilium_vxlan", "link", "add", "cilium_vxlan", "type", "vxlan", "id", "2", "dstport", "8473", "nolearning")
	w.chains("nat", "CILIUM_POST_nat")
	w.chains("filter", "CILIUM_INPUT", "CILIUM_FORWARD")
}
