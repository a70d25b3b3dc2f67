package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	longhornDriver     = "driver.longhorn.io"
	localPathDriver    = "rancher.io/local-path"
	selectedNode       = "volume.kubernetes.io/selected-node"
	storageProvisioner = "volume.kubernetes.io/storage-provisioner"
	provisionedBy      = "pv.kubernetes.io/provisioned-by"
	longhornVolumes    = "volumes.longhorn.io"
)

// provisioners are the storage drivers that are simulated, with the operator that plays each.
var provisioners = map[string]string{longhornDriver: "longhorn-csi", localPathDriver: "local-path"}

// provisionVolumes does the work of external-provisioner, external-attacher and of kubelet's CSI registration.
func (p *platform) provisionVolumes(ctx context.Context) error {
	var failures []error
	for _, object := range p.list(claimResource) {
		failures = append(failures, p.provisionClaim(ctx, object))
	}
	for _, object := range p.list(volumeResource) {
		failures = append(failures, p.reclaim(ctx, object))
	}
	if p.operates("longhorn-csi") {
		failures = append(failures, p.attach(ctx), p.registerDriver(ctx))
	}
	return errors.Join(slices.DeleteFunc(failures, func(err error) bool {
		return err == nil || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err)
	})...)
}

// provisionClaim makes a volume for a claim that waits for its provisioner; binding is the real controller's work.
func (p *platform) provisionClaim(ctx context.Context, object *unstructured.Unstructured) error {
	annotations := object.GetAnnotations()
	operator, simulated := provisioners[annotations[storageProvisioner]]
	phase, _, _ := unstructured.NestedString(object.Object, "status", "phase")
	if !simulated || !p.operates(operator) || phase == string(corev1.ClaimBound) || object.GetDeletionTimestamp() != nil ||
		!p.matured(object, operator) {
		return nil
	}
	claim, err := typed[corev1.PersistentVolumeClaim](object)
	if err != nil {
		return err
	}
	if claim.Spec.StorageClassName == nil || claim.Spec.VolumeName != "" {
		return nil
	}
	found := p.known(ctx, classResource, "", *claim.Spec.StorageClassName)
	if found == nil {
		return nil
	}
	class, err := typed[storagev1.StorageClass](found)
	if err != nil {
		return err
	}
	waits := class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	if waits && annotations[selectedNode] == "" {
		return nil
	}
	volume := volumeFor(claim, class, annotations[selectedNode])
	if p.known(ctx, volumeResource, "", volume.Name) != nil {
		return nil
	}
	if class.Provisioner == longhornDriver {
		if err := p.makeLonghornVolume(ctx, claim, class, volume); err != nil {
			return err
		}
	}
	_, err = p.kube.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	return err
}

func volumeFor(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node string) *corev1.PersistentVolume {
	name := "pvc-" + string(claim.UID)
	policy := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: class.Provisioner}},
		Spec: corev1.PersistentVolumeSpec{AccessModes: claim.Spec.AccessModes, VolumeMode: claim.Spec.VolumeMode,
			Capacity: corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			ClaimRef: &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace,
				Name: claim.Name, UID: claim.UID, ResourceVersion: claim.ResourceVersion},
			PersistentVolumeReclaimPolicy: policy, StorageClassName: class.Name, MountOptions: class.MountOptions}}
	if class.Provisioner == localPathDriver {
		kind := corev1.HostPathDirectoryOrCreate
		volume.Spec.HostPath = &corev1.HostPathVolumeSource{Type: &kind,
			Path: fmt.Sprintf("/var/lib/rancher/k3s/storage/%s_%s_%s", name, claim.Namespace, claim.Name)}
		volume.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{
				Key: "kubernetes.io/hostname", Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}}}}
		return volume
	}
	attributes := map[string]string{}
	for key, value := range class.Parameters {
		attributes[key] = value
	}
	volume.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: class.Provisioner, VolumeHandle: name,
		FSType: class.Parameters["fsType"], VolumeAttributes: attributes}
	return volume
}

// makeLonghornVolume makes the object that longhorn-manager keeps for a volume.
func (p *platform) makeLonghornVolume(ctx context.Context, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, volume *corev1.PersistentVolume) error {
	gvr, known := p.follow(ctx, longhornVolumes)
	if !known {
		return errNotWatched
	}
	namespace := p.namespaceOf("longhorn-manager")
	replicas := int64(3)
	fmt.Sscan(class.Parameters["numberOfReplicas"], &replicas)
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	access := "rwo"
	if slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteMany) {
		access = "rwx"
	}
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": gvr.GroupVersion().String(), "kind": "Volume",
		"metadata": map[string]any{"name": volume.Name, "namespace": namespace},
		"spec": map[string]any{"size": fmt.Sprint(size.Value()), "numberOfReplicas": replicas, "accessMode": access,
			"frontend": "blockdev"}}}
	_, err := p.namespaced(gvr, namespace).Create(ctx, object, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// reclaim deletes a released volume whose policy says so, and Longhorn's object with it.
func (p *platform) reclaim(ctx context.Context, object *unstructured.Unstructured) error {
	operator, simulated := provisioners[object.GetAnnotations()[provisionedBy]]
	phase, _, _ := unstructured.NestedString(object.Object, "status", "phase")
	policy, _, _ := unstructured.NestedString(object.Object, "spec", "persistentVolumeReclaimPolicy")
	if !simulated || !p.operates(operator) || phase != string(corev1.VolumeReleased) ||
		policy != string(corev1.PersistentVolumeReclaimDelete) {
		return nil
	}
	if gvr, known := p.follow(ctx, longhornVolumes); known && operator == "longhorn-csi" {
		err := p.namespaced(gvr, p.namespaceOf("longhorn-manager")).Delete(ctx, object.GetName(), metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return p.kube.CoreV1().PersistentVolumes().Delete(ctx, object.GetName(), metav1.DeleteOptions{})
}

// attach answers VolumeAttachments of the attach controller.
func (p *platform) attach(ctx context.Context) error {
	for _, attachment := range p.list(attachmentResource) {
		driver, _, _ := unstructured.NestedString(attachment.Object, "spec", "attacher")
		done, _, _ := unstructured.NestedBool(attachment.Object, "status", "attached")
		if driver != longhornDriver || done {
			continue
		}
		patch := map[string]any{"status": map[string]any{"attached": true}}
		if err := p.mergePatch(ctx, attachmentResource, attachment, patch, "status"); err != nil {
			return err
		}
	}
	return nil
}

// registerDriver enters Longhorn's driver for each node where its plugin runs, as kubelet does.
func (p *platform) registerDriver(ctx context.Context) error {
	for _, pod := range p.list(podResource) {
		if pod.GetLabels()["app"] != "longhorn-csi-plugin" || conditionStatus(pod, string(corev1.PodReady)) != "True" {
			continue
		}
		node, _, _ := unstructured.NestedString(pod.Object, "spec", "nodeName")
		if err := p.registerOn(ctx, node); err != nil {
			return err
		}
	}
	return nil
}

func (p *platform) registerOn(ctx context.Context, name string) error {
	driver := storagev1.CSINodeDriver{Name: longhornDriver, NodeID: name, TopologyKeys: []string{}}
	object := p.known(ctx, csiNodeResource, "", name)
	if object == nil {
		node := p.known(ctx, nodeResource, "", name)
		if node == nil {
			return nil
		}
		owner := metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: name, UID: node.GetUID()}
		_, err := p.kube.StorageV1().CSINodes().Create(ctx, &storagev1.CSINode{
			ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{owner}},
			Spec:       storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{driver}}}, metav1.CreateOptions{})
		return err
	}
	current, err := typed[storagev1.CSINode](object)
	if err != nil || slices.ContainsFunc(current.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == longhornDriver }) {
		return err
	}
	current.Spec.Drivers = append(current.Spec.Drivers, driver)
	_, err = p.kube.StorageV1().CSINodes().Update(ctx, current, metav1.UpdateOptions{})
	return err
}

// podUsing returns the node of a running pod that mounts a claim, or "".
func (p *platform) podUsing(namespace, claim string) string {
	for _, pod := range p.list(podResource) {
		phase, _, _ := unstructured.NestedString(pod.Object, "status", "phase")
		if pod.GetNamespace() != namespace || phase != string(corev1.PodRunning) {
			continue
		}
		volumes, _, _ := unstructured.NestedSlice(pod.Object, "spec", "volumes")
		for _, volume := range volumes {
			if dig(volume, "persistentVolumeClaim.claimName") == claim {
				node, _, _ := unstructured.NestedString(pod.Object, "spec", "nodeName")
				return node
			}
		}
	}
	return ""
}
