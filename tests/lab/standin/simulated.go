package main

import "time"

// What K3s does only by inference ([inf] in k3s.md) or what the stand-in does on purpose otherwise than
// K3s stands here, so that a first comparison with a real K3s can correct it in one place. Tests must
// not rest on these values. README.md lists them with their sources.
const (
	// Shorter than K3s' 40 s, so that the lab sees a dead node soon.
	nodeMonitorGracePeriod = 16 * time.Second
	nodeMonitorPeriod      = 4 * time.Second
	nodeLeaseSeconds       = 20

	// K3s' leader promotes learners at each 15 s tick; the joiner itself asks at this pace.
	promoteInterval = 500 * time.Millisecond
	memberTick      = 15 * time.Second
	learnerMaxStall = 5 * time.Minute

	// K3s has 5 s; each notice goes to the watches of all kinds, and nobody waits for one.
	progressNotices = time.Minute

	// The agent's loops of k3s.md §4.3.
	validateInterval   = 2 * time.Second
	agentConfigPause   = 5 * time.Second
	apiserversInterval = 10 * time.Second

	deployScanInterval = 15 * time.Second
	encryptionReload   = time.Second

	// Size of a simulated node.
	nodeCPU    = "4"
	nodeMemory = "8Gi"
	nodePods   = "110"

	containerRuntimeVersion = "containerd://2.3.2-k3s1"
	readyNotReadyMessage    = "container runtime network not ready: NetworkReady=false " +
		"reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"

	nodeFinalizer = "wrangler.cattle.io/node"
	etcdFinalizer = "wrangler.cattle.io/managed-etcd-controller"

	removedMemberText = "the member has been permanently removed from the cluster"
	unreadableConfig  = "Unable to read %s, please start server with --write-kubeconfig-mode or " +
		"--write-kubeconfig-group to modify kube config permissions"
	notRootText = "server must run as root, or with --rootless and/or --disable-agent"
)

// cniPodSelector finds the pods of a CNI's DaemonSet; the node's network counts as ready when one runs.
const cniPodSelector = "k8s-app in (cilium, calico-node, canal, kube-router, flannel)"

// Switches for tests of bad days; they live in the unit's environment file.
const (
	envNotBefore  = "K3S_STANDIN_CERT_NOT_BEFORE"
	envNeverReady = "K3S_STANDIN_NEVER_READY"
	envFail       = "K3S_STANDIN_FAIL"
)
