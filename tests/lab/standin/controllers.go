package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

const (
	annotationNode    = "etcd.k3s.cattle.io/node-name"
	annotationAddress = "etcd.k3s.cattle.io/node-address"
	annotationRemove  = "etcd.k3s.cattle.io/remove"
	annotationRemoved = "etcd.k3s.cattle.io/removed-node-name"
	labelControlPlane = "node-role.kubernetes.io/control-plane"
	labelEtcd         = "node-role.kubernetes.io/etcd"
	taintCloud        = "node.cloudprovider.kubernetes.io/uninitialized"
)

// startControllers starts K3s' own controllers. What concerns the whole cluster is done by the server
// that leads etcd (K3s uses Leases for that); with sqlite there is only one server.
func (s *server) startControllers(ctx context.Context) error {
	factory := informers.NewSharedInformerFactory(s.kube, 0)
	nodes := factory.Core().V1().Nodes()
	changed := make(chan struct{}, 1)
	poke := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	_, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { poke() }, UpdateFunc: func(any, any) { poke() }, DeleteFunc: func(any) { poke() }})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	go s.nodeLoop(ctx, nodes.Lister(), changed)
	if s.store.member != nil {
		go s.memberLoop(ctx)
		go s.snapshotSchedule(ctx)
	}
	go s.runPlatform(ctx)
	return s.startDeploy(ctx)
}

func (s *server) leads() bool { return s.store.member == nil || s.store.member.isLeader() }

// nodeLoop handles all nodes after a change and at least each five seconds.
func (s *server) nodeLoop(ctx context.Context, lister corelisters.NodeLister, changed <-chan struct{}) {
	ticker := time.NewTicker(5 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-ticker.C:
		}
		all, err := lister.List(labels.Everything())
		if err != nil {
			continue
		}
		for _, current := range all {
			if err := s.handleNode(ctx, current); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				logrus.Errorf("error syncing node %s: %v", current.Name, err)
			}
		}
		if s.leads() {
			s.updateNodeHosts(ctx, all)
		}
		// A burst of changes becomes one pass.
		if sleep(ctx, 200*time.Millisecond) != nil {
			return
		}
	}
}

func (s *server) handleNode(ctx context.Context, current *corev1.Node) error {
	if current.DeletionTimestamp != nil {
		if s.leads() {
			return s.finishDeletion(ctx, current)
		}
		return nil
	}
	wanted := current.DeepCopy()
	if current.Name == s.c.nodeName && !s.c.flag("disable-agent") {
		s.markOwnNode(wanted)
	}
	if s.leads() {
		if err := s.removeOnRequest(ctx, wanted); err != nil {
			return err
		}
		s.markNode(wanted)
	}
	if err := s.patchNode(ctx, current, wanted, ""); err != nil {
		return err
	}
	if current.Name == s.c.nodeName && s.store.member != nil {
		withCondition := current.DeepCopy()
		s.setVoterCondition(ctx, withCondition)
		return s.patchNode(ctx, current, withCondition, "status")
	}
	return nil
}

// markOwnNode sets the role labels and, with etcd, the member's annotations on this server's node.
func (s *server) markOwnNode(n *corev1.Node) {
	setLabel(n, labelControlPlane, "true")
	if hash := s.encryptionHash.Load().(string); hash != "" {
		metav1.SetMetaDataAnnotation(&n.ObjectMeta, annotationEncryption, hash)
	}
	if s.store.member == nil {
		return
	}
	if n.Annotations[annotationRemoved] == s.store.member.name {
		return
	}
	setLabel(n, labelEtcd, "true")
	metav1.SetMetaDataAnnotation(&n.ObjectMeta, annotationNode, s.store.member.name)
	metav1.SetMetaDataAnnotation(&n.ObjectMeta, annotationAddress, s.c.nodeIP)
	addFinalizer(n, etcdFinalizer)
}

// markNode does the cloud controller's part for any node and adds the finalizer of the node controller.
func (s *server) markNode(n *corev1.Node) {
	addFinalizer(n, nodeFinalizer)
	if s.c.flag("disable-cloud-controller") {
		return
	}
	if n.Spec.ProviderID == "" {
		n.Spec.ProviderID = "k3s://" + n.Name
	}
	setLabel(n, "node.kubernetes.io/instance-type", "k3s")
	setLabel(n, "beta.kubernetes.io/instance-type", "k3s")
	n.Spec.Taints = slices.DeleteFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taintCloud })
}

func setLabel(n *corev1.Node, key, value string) {
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[key] = value
}

func addFinalizer(n *corev1.Node, name string) {
	if !slices.Contains(n.Finalizers, name) {
		n.Finalizers = append(n.Finalizers, name)
	}
}

// setVoterCondition reports this member's part in the etcd cluster.
func (s *server) setVoterCondition(ctx context.Context, n *corev1.Node) {
	wanted := corev1.NodeCondition{Type: "EtcdIsVoter", Status: corev1.ConditionFalse, Reason: "NotAMember",
		Message: "Node is not a member of the etcd cluster"}
	limited, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	list, err := s.store.client.MemberList(limited)
	if err != nil {
		wanted.Reason, wanted.Message = "Unhealthy", "Node is unhealthy: "+err.Error()
	}
	if list != nil {
		for _, member := range list.Members {
			if member.ID != uint64(s.store.member.server.Server.MemberID()) {
				continue
			}
			wanted.Reason, wanted.Message = "MemberIsLearner", "Node has not been promoted to voting member of the etcd cluster"
			if !member.IsLearner {
				wanted.Status, wanted.Reason = corev1.ConditionTrue, "MemberNotLearner"
				wanted.Message = "Node is a voting member of the etcd cluster"
			}
		}
	}
	now := metav1.Now()
	wanted.LastHeartbeatTime, wanted.LastTransitionTime = now, now
	for i, condition := range n.Status.Conditions {
		if condition.Type != wanted.Type {
			continue
		}
		if condition.Status != wanted.Status || condition.Reason != wanted.Reason {
			n.Status.Conditions[i] = wanted
		}
		return
	}
	n.Status.Conditions = append(n.Status.Conditions, wanted)
}

// finishDeletion removes the etcd member and the node password of a deleted node, then the finalizers.
func (s *server) finishDeletion(ctx context.Context, n *corev1.Node) error {
	if slices.Contains(n.Finalizers, etcdFinalizer) && s.store.member != nil {
		if err := s.removeMember(ctx, n.Annotations[annotationNode], n.Annotations[annotationAddress]); err != nil {
			return err
		}
	}
	err := s.kube.CoreV1().Secrets("kube-system").Delete(ctx, passwordSecret(n.Name), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	wanted := n.DeepCopy()
	wanted.Finalizers = slices.DeleteFunc(wanted.Finalizers, func(name string) bool {
		return name == nodeFinalizer || name == etcdFinalizer
	})
	if len(wanted.Finalizers) == len(n.Finalizers) {
		return nil
	}
	_, err = s.kube.CoreV1().Nodes().Update(ctx, wanted, metav1.UpdateOptions{})
	return err
}

// removeOnRequest handles the annotation etcd.k3s.cattle.io/remove=true.
func (s *server) removeOnRequest(ctx context.Context, n *corev1.Node) error {
	if n.Annotations[annotationRemove] != "true" || n.Annotations[annotationNode] == "" || s.store.member == nil {
		return nil
	}
	name := n.Annotations[annotationNode]
	if n.Annotations[annotationRemoved] == name {
		return nil
	}
	if err := s.removeMember(ctx, name, n.Annotations[annotationAddress]); err != nil {
		return err
	}
	metav1.SetMetaDataAnnotation(&n.ObjectMeta, annotationRemoved, name)
	return nil
}

// removeMember takes a member out of etcd when name and address match; a leader that shall go hands its
// lead over first and leaves the removal to its successor.
func (s *server) removeMember(ctx context.Context, name, address string) error {
	list, err := s.store.client.MemberList(ctx)
	if err != nil {
		return err
	}
	for _, member := range list.Members {
		if member.Name != name || len(member.PeerURLs) == 0 {
			continue
		}
		if parsed, err := url.Parse(member.PeerURLs[0]); err != nil || parsed.Hostname() != address {
			continue
		}
		if member.ID == uint64(s.store.member.server.Server.MemberID()) && len(list.Members) > 1 {
			return s.handOver(ctx, list.Members)
		}
		logrus.Infof("Removing name=%s id=%d address=%s from etcd", name, member.ID, address)
		if _, err := s.store.client.MemberRemove(ctx, member.ID); err != nil && !errors.Is(err, rpctypes.ErrMemberNotFound) {
			return err
		}
	}
	return nil
}

func (s *server) handOver(ctx context.Context, members []*etcdserverpb.Member) error {
	own := uint64(s.store.member.server.Server.MemberID())
	for _, member := range members {
		if member.ID == own || member.IsLearner {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, 8*time.Second)
		err := s.store.member.server.Server.MoveLeader(limited, own, member.ID)
		cancel()
		if err == nil {
			return fmt.Errorf("leadership of etcd moved to %s, which removes this member", member.Name)
		}
	}
	return errors.New("no other etcd member can take the lead")
}

// memberLoop promotes learners that their own server forgot, and removes those that never catch up.
func (s *server) memberLoop(ctx context.Context) {
	since := map[uint64]time.Time{}
	for sleep(ctx, memberTick) == nil {
		if !s.store.member.isLeader() {
			clear(since)
			continue
		}
		limited, cancel := context.WithTimeout(ctx, 5*time.Second)
		list, err := s.store.client.MemberList(limited)
		if err == nil {
			s.promoteLearners(limited, list.Members, since)
		}
		cancel()
	}
}

func (s *server) promoteLearners(ctx context.Context, members []*etcdserverpb.Member, since map[uint64]time.Time) {
	for _, member := range members {
		if !member.IsLearner {
			continue
		}
		if _, seen := since[member.ID]; !seen {
			since[member.ID] = time.Now()
		}
		if _, err := s.store.client.MemberPromote(ctx, member.ID); err == nil {
			logrus.Infof("Promoted learner %s", member.Name)
			continue
		}
		if time.Since(since[member.ID]) > learnerMaxStall {
			if _, err := s.store.client.MemberRemove(ctx, member.ID); err == nil {
				logrus.Warnf("Removed learner %s from etcd cluster", member.Name)
			}
		}
	}
}

func mergePatch(before, after *corev1.Node) ([]byte, error) {
	old, err := json.Marshal(before)
	if err != nil {
		return nil, err
	}
	fresh, err := json.Marshal(after)
	if err != nil {
		return nil, err
	}
	return strategicpatch.CreateTwoWayMergePatch(old, fresh, corev1.Node{})
}

func (s *server) patchNode(ctx context.Context, before, after *corev1.Node, subresource string) error {
	data, err := mergePatch(before, after)
	if err != nil || string(data) == "{}" {
		return err
	}
	_, err = s.kube.CoreV1().Nodes().Patch(ctx, before.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{},
		strings.Fields(subresource)...)
	return err
}

// updateNodeHosts keeps the key NodeHosts of CoreDNS' ConfigMap equal to the nodes, as K3s does.
func (s *server) updateNodeHosts(ctx context.Context, nodes []*corev1.Node) {
	configMaps := s.kube.CoreV1().ConfigMaps("kube-system")
	current, err := configMaps.Get(ctx, "coredns", metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		return
	}
	var lines []string
	for _, n := range nodes {
		for _, address := range n.Status.Addresses {
			if address.Type == corev1.NodeInternalIP {
				lines = append(lines, address.Address+" "+n.Name+"\n")
			}
		}
	}
	slices.Sort(lines)
	text := strings.Join(lines, "")
	if current.Data["NodeHosts"] == text {
		return
	}
	patch, _ := json.Marshal(map[string]any{"data": map[string]string{"NodeHosts": text}})
	if _, err := configMaps.Patch(ctx, "coredns", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		logrus.Warnf("Unable to update NodeHosts: %v", err)
	}
}
