package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-helpers/apimachinery/lease"
	"k8s.io/utils/clock"
)

// node is the agent part of a host: it does what kubelet does with the Node object and the Lease, while
// kwok plays the pods.
type node struct {
	nodeConfig
	supervisor *supervisor
	apiURL     string
	isServer   bool

	kube    kubernetes.Interface
	remote  remoteConfig
	network *network
	pods    *podSource
}

// remoteConfig is what an agent takes from /v1-k3s/config.
type remoteConfig struct {
	ClusterDomain, ClusterDNS, ClusterIPRange, FlannelBackend string
	DisableKubeProxy, DisableCCM, DisableNPC                  bool
}

// run brings the node up, calls registered once its Node object exists, and keeps it alive.
func (n *node) run(ctx context.Context, registered func()) error {
	if err := n.checkLabels(); err != nil {
		return err
	}
	password, err := nodePassword()
	if err != nil {
		return err
	}
	if err := retry(ctx, func() error { return n.fetchConfiguration(ctx, password) }); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", n.agent("kubelet.kubeconfig"))
	if err != nil {
		return err
	}
	if n.kube, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	n.pods = newPodSource(n.kube, n.nodeName)
	n.network = newNetwork(n)
	if err := n.writeRuntimeFiles(); err != nil {
		return err
	}
	if err := n.serveKubelet(); err != nil {
		return err
	}
	if err := n.register(ctx); err != nil {
		return err
	}
	go lease.NewController(clock.RealClock{}, n.kube, n.nodeName, nodeLeaseSeconds, nil,
		nodeLeaseSeconds*time.Second/4, n.nodeName, corev1.NamespaceNodeLease, n.ownLease(ctx)).Run(ctx)
	registered()
	cidr, err := n.waitPodCIDR(ctx)
	if err != nil {
		return err
	}
	if err := n.network.start(cidr); err != nil {
		logrus.Warnf("Network of the node is incomplete: %v", err)
	}
	if err := n.waitSimulatorRights(ctx); err != nil {
		return err
	}
	if err := startSimulator(n, cidr); err != nil {
		return fmt.Errorf("node simulator: %w", err)
	}
	n.keepStatus(ctx)
	return nil
}

// checkLabels refuses what kubelet refuses: labels of the kubernetes.io and k8s.io domains that nodes may
// not set themselves.
func (n *node) checkLabels() error {
	allowed := []string{"kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os", "beta.kubernetes.io/arch",
		"beta.kubernetes.io/os", "node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type",
		"topology.kubernetes.io/zone", "topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/zone",
		"failure-domain.beta.kubernetes.io/region"}
	var unknown []string
	for _, text := range n.list("node-label") {
		key, _, _ := strings.Cut(text, "=")
		domain, _, found := strings.Cut(key, "/")
		if !found || slices.Contains(allowed, key) {
			continue
		}
		inDomain := func(suffix string) bool { return domain == suffix || strings.HasSuffix(domain, "."+suffix) }
		if !inDomain("kubernetes.io") && !inDomain("k8s.io") || inDomain("kubelet.kubernetes.io") ||
			inDomain("node.kubernetes.io") {
			continue
		}
		unknown = append(unknown, key)
	}
	if len(unknown) > 0 {
		return fmt.Errorf("kubelet exited: failed to validate kubelet flags: unknown 'kubernetes.io' or 'k8s.io' "+
			"labels specified with --node-labels: %v", unknown)
	}
	return nil
}

// fetchConfiguration does step 3 of k3s.md §4.3: configuration, CAs and certificates.
func (n *node) fetchConfiguration(ctx context.Context, password string) error {
	if err := n.supervisor.getJSON(ctx, "/v1-k3s/config", &n.remote); err != nil {
		return err
	}
	for _, name := range []string{"client-ca.crt", "server-ca.crt"} {
		data, err := n.supervisor.get(ctx, "/v1-k3s/"+name)
		if err != nil {
			return err
		}
		if err := writeFile(n.agent(name), data, 0644); err != nil {
			return err
		}
	}
	header := http.Header{"K3s-Node-Name": {n.nodeName}, "K3s-Node-Password": {password}, "K3s-Node-Ip": {n.nodeIP}}
	for _, name := range []string{"serving-kubelet", "client-kubelet", "client-kube-proxy", "client-k3s-controller"} {
		key, err := loadOrMakeKey(n.agent(name + ".key"))
		if err != nil {
			return err
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: n.nodeName}}, key)
		if err != nil {
			return err
		}
		request := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
		chain, err := n.supervisor.request(ctx, http.MethodPost, "/v1-k3s/"+name+".crt", header, request)
		if err != nil {
			return err
		}
		if err := writeFile(n.agent(name+".crt"), chain, 0644); err != nil {
			return err
		}
	}
	for file, cert := range map[string]string{"kubelet": "client-kubelet", "kubeproxy": "client-kube-proxy",
		"k3scontroller": "client-k3s-controller"} {
		config, err := kubeconfigFor(n.apiURL, n.agent("server-ca.crt"), n.agent(cert), "local", false)
		if err != nil {
			return err
		}
		if err := writeKubeconfig(n.agent(file+".kubeconfig"), config, 0600); err != nil {
			return err
		}
	}
	return nil
}

// register makes the Node object, or brings an existing one to this start's labels and annotations.
func (n *node) register(ctx context.Context) error {
	for {
		err := n.tryRegister(ctx)
		if err == nil {
			return nil
		}
		if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) && strings.Contains(err.Error(), "is not allowed") {
			return fmt.Errorf("kubelet exited: %w", err)
		}
		logrus.Infof("Waiting for node registration: %v", err)
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

func (n *node) tryRegister(ctx context.Context) error {
	nodes := n.kube.CoreV1().Nodes()
	labels, annotations := n.labels(), n.annotations()
	current, err := nodes.Get(ctx, n.nodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		taints, err := parseTaints(n.list("node-taint"))
		if err != nil {
			return err
		}
		if !n.remote.DisableCCM {
			taints = append(taints, corev1.Taint{Key: "node.cloudprovider.kubernetes.io/uninitialized",
				Value: "true", Effect: corev1.TaintEffectNoSchedule})
		}
		fresh := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.nodeName, Labels: labels, Annotations: annotations},
			Spec: corev1.NodeSpec{Taints: taints}}
		n.fillStatus(&fresh.Status, false)
		_, err = nodes.Create(ctx, fresh, metav1.CreateOptions{})
		if err == nil {
			logrus.Infof("Successfully registered node %s", n.nodeName)
		}
		return err
	}
	if err != nil {
		return err
	}
	changed := current.DeepCopy()
	if changed.Labels == nil {
		changed.Labels = map[string]string{}
	}
	for key, value := range labels {
		changed.Labels[key] = value
	}
	for key, value := range annotations {
		metav1.SetMetaDataAnnotation(&changed.ObjectMeta, key, value)
	}
	return n.patch(ctx, current, changed, "")
}

// patch sends the difference of two Node objects; subresource is "" or "status".
func (n *node) patch(ctx context.Context, before, after *corev1.Node, subresource string) error {
	data, err := mergePatch(before, after)
	if err != nil || string(data) == "{}" {
		return err
	}
	var subresources []string
	if subresource != "" {
		subresources = []string{subresource}
	}
	_, err = n.kube.CoreV1().Nodes().Patch(ctx, n.nodeName, types.StrategicMergePatchType, data, metav1.PatchOptions{},
		subresources...)
	return err
}

func (n *node) labels() map[string]string {
	labels := map[string]string{"kubernetes.io/hostname": n.nodeName, "kubernetes.io/os": "linux",
		"kubernetes.io/arch": runtime.GOARCH, "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": runtime.GOARCH}
	for _, text := range n.list("node-label") {
		key, value, _ := strings.Cut(text, "=")
		labels[key] = value
	}
	return labels
}

// annotations are those of K3s' agent and of flannel.
func (n *node) annotations() map[string]string {
	args, env := n.nodeArgs(), nodeEnv()
	sum := sha256.Sum256([]byte(args + env))
	all := map[string]string{"k3s.io/hostname": n.nodeName, "k3s.io/internal-ip": n.nodeIP, "k3s.io/node-args": args,
		"k3s.io/node-env": env, "k3s.io/node-config-hash": base32.StdEncoding.EncodeToString(sum[:]),
		"alpha.kubernetes.io/provided-node-ip":                   n.nodeIP,
		"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
	if external := n.split("node-external-ip"); len(external) > 0 {
		all["k3s.io/external-ip"] = strings.Join(external, ",")
	}
	if n.remote.FlannelBackend != "none" {
		all["flannel.alpha.coreos.com/backend-type"] = n.remote.FlannelBackend
		all["flannel.alpha.coreos.com/kube-subnet-manager"] = "true"
		all["flannel.alpha.coreos.com/public-ip"] = n.nodeIP
	}
	return all
}

// nodeArgs is the JSON array of the command line with secrets hidden.
func (n *node) nodeArgs() string {
	args := []string{n.command}
	var names []string
	for name, value := range n.values {
		if len(value.items) > 0 {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		for _, item := range n.values[name].items {
			if secretFlag(name) {
				item = "********"
			}
			args = append(args, "--"+name, item)
		}
	}
	data, _ := json.Marshal(args)
	return string(data)
}

func secretFlag(name string) bool {
	return slices.Contains([]string{"token", "agent-token", "datastore-endpoint", "etcd-s3-access-key",
		"etcd-s3-secret-key", "etcd-s3-session-token", "vpn-auth"}, name)
}

func nodeEnv() string {
	env := map[string]string{}
	for _, entry := range os.Environ() {
		key, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(key, "K3S_") || strings.HasPrefix(key, "K3S_STANDIN_") {
			continue
		}
		if strings.Contains(key, "TOKEN") || strings.Contains(key, "SECRET") || key == "K3S_DATASTORE_ENDPOINT" {
			value = "********"
		}
		env[key] = value
	}
	data, _ := json.Marshal(env)
	return string(data)
}

func parseTaints(texts []string) ([]corev1.Taint, error) {
	var taints []corev1.Taint
	for _, text := range texts {
		rest, effect, found := strings.Cut(text, ":")
		key, value, _ := strings.Cut(rest, "=")
		if !found || key == "" {
			return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Taint").GroupKind(), text, nil)
		}
		taints = append(taints, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
	}
	return taints, nil
}

// fillStatus writes what kubelet reports.
func (n *node) fillStatus(status *corev1.NodeStatus, ready bool) {
	size := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(nodeCPU),
		corev1.ResourceMemory: resource.MustParse(nodeMemory), corev1.ResourcePods: resource.MustParse(nodePods),
		corev1.ResourceEphemeralStorage: resource.MustParse("100Gi")}
	status.Capacity, status.Allocatable = size, size
	status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: n.nodeIP}}
	for _, ip := range n.split("node-external-ip") {
		status.Addresses = append(status.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: ip})
	}
	status.Addresses = append(status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: n.nodeName})
	status.DaemonEndpoints.KubeletEndpoint.Port = kubeletPort
	status.NodeInfo = hostInfo()
	conditions := []corev1.NodeCondition{
		{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientMemory",
			Message: "kubelet has sufficient memory available"},
		{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasNoDiskPressure",
			Message: "kubelet has no disk pressure"},
		{Type: corev1.NodePIDPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientPID",
			Message: "kubelet has sufficient PID available"},
		{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "KubeletNotReady", Message: readyNotReadyMessage},
	}
	if ready {
		conditions[3].Status, conditions[3].Reason = corev1.ConditionTrue, "KubeletReady"
		conditions[3].Message = "kubelet is posting ready status"
	}
	now := metav1.Now()
	for _, wanted := range conditions {
		wanted.LastHeartbeatTime, wanted.LastTransitionTime = now, now
		i := slices.IndexFunc(status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == wanted.Type })
		if i < 0 {
			status.Conditions = append(status.Conditions, wanted)
			continue
		}
		if status.Conditions[i].Status == wanted.Status {
			wanted.LastTransitionTime = status.Conditions[i].LastTransitionTime
		}
		status.Conditions[i] = wanted
	}
}

// hostInfo reads what kubelet reports about the machine; kubelet's version is the stamped one.
func hostInfo() corev1.NodeSystemInfo {
	read := func(path string) string {
		text, _ := readTrimmed(path)
		return text
	}
	image := "unknown"
	for _, line := range strings.Split(read("/etc/os-release"), "\n") {
		if value, found := strings.CutPrefix(line, "PRETTY_NAME="); found {
			image = strings.Trim(value, `"`)
		}
	}
	return corev1.NodeSystemInfo{MachineID: read("/etc/machine-id"), SystemUUID: read("/etc/machine-id"),
		BootID: read("/proc/sys/kernel/random/boot_id"), KernelVersion: read("/proc/sys/kernel/osrelease"),
		OSImage: image, ContainerRuntimeVersion: containerRuntimeVersion, KubeletVersion: version,
		OperatingSystem: "linux", Architecture: runtime.GOARCH}
}

// ownLease lets the Lease end with the Node object.
func (n *node) ownLease(ctx context.Context) lease.ProcessLeaseFunc {
	return func(l *coordinationv1.Lease) error {
		if len(l.OwnerReferences) > 0 {
			return nil
		}
		current, err := n.kube.CoreV1().Nodes().Get(ctx, n.nodeName, metav1.GetOptions{})
		if err == nil {
			l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.nodeName, UID: current.UID}}
		}
		return err
	}
}

// waitPodCIDR waits for the controller manager to give the node its range.
func (n *node) waitPodCIDR(ctx context.Context) (string, error) {
	for {
		current, err := n.kube.CoreV1().Nodes().Get(ctx, n.nodeName, metav1.GetOptions{})
		if err == nil && current.Spec.PodCIDR != "" {
			return current.Spec.PodCIDR, nil
		}
		if err := sleep(ctx, 300*time.Millisecond); err != nil {
			return "", err
		}
	}
}

// waitSimulatorRights waits until the deploy controller has given the simulator's user its rights.
func (n *node) waitSimulatorRights(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", n.agent("k3scontroller.kubeconfig"))
	if err != nil {
		return err
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	for {
		if _, err := kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{Limit: 1}); err == nil {
			return nil
		}
		if err := sleep(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
}

// keepStatus reports Ready as soon as the network is there, on every change and each five minutes. A Node
// object that somebody deleted comes back only with the next start, as with K3s.
func (n *node) keepStatus(ctx context.Context) {
	reported, checked, known := time.Time{}, time.Now(), false
	for {
		ready := n.network.ready(ctx)
		overruled := false
		if time.Since(checked) > 10*time.Second { // kubelet's nodeStatusUpdateFrequency
			checked, overruled = time.Now(), n.overruled(ctx, ready)
		}
		if ready != known || overruled || time.Since(reported) > 5*time.Minute {
			if err := n.reportStatus(ctx, ready); err == nil {
				known, reported = ready, time.Now()
			} else if ctx.Err() == nil && !apierrors.IsNotFound(err) {
				logrus.Warnf("Unable to update node status: %v", err)
			}
		}
		if sleep(ctx, time.Second) != nil {
			return
		}
	}
}

// overruled tells whether the API says otherwise of the node: the node lifecycle controller declares a node
// lost whose Lease came late, and kubelet then says again what is true.
func (n *node) overruled(ctx context.Context, ready bool) bool {
	current, err := n.kube.CoreV1().Nodes().Get(ctx, n.nodeName, metav1.GetOptions{})
	if err != nil {
		return false
	}
	for _, condition := range current.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return (condition.Status == corev1.ConditionTrue) != ready
		}
	}
	return true
}

func (n *node) reportStatus(ctx context.Context, ready bool) error {
	current, err := n.kube.CoreV1().Nodes().Get(ctx, n.nodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	changed := current.DeepCopy()
	n.fillStatus(&changed.Status, ready)
	return n.patch(ctx, current, changed, "status")
}
