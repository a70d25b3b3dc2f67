package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// kwok moves a bound pod to Running only when its condition PodReadyToStartContainers is True. Here that
// condition is given, once everything is there that kubelet would need: Secrets, ConfigMaps, image and time.

const (
	neverReadyTag        = ":never-ready"
	neverReadyAnnotation = "stand-in/never-ready"
	podWorkers           = 4
)

// obstacle is why a container cannot start: what kubelet says in its state and in events.
type obstacle struct{ reason, message, event, eventMessage string }

// podState is what the simulated kubelet says of a pod that does not run yet.
type podState struct {
	started bool
	// mount is why no container can start, waiting holds the obstacle of single containers.
	mount   *obstacle
	waiting map[string]obstacle
	delayed bool
}

// startPods lets bound pods start, or says why they do not.
func (p *platform) startPods(ctx context.Context) error {
	var waiting []*corev1.Pod
	for _, object := range p.list(podResource) {
		if !wantsStart(object) {
			continue
		}
		pod, err := typed[corev1.Pod](object)
		if err != nil {
			return err
		}
		waiting = append(waiting, pod)
	}
	states := make([]podState, len(waiting))
	for i, pod := range waiting { // reads caches that only this goroutine may fill
		states[i] = p.podState(ctx, pod)
	}
	var group sync.WaitGroup
	slots := make(chan struct{}, podWorkers)
	for i, pod := range waiting {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			p.reportPod(ctx, pod, states[i])
		})
	}
	group.Wait()
	return nil
}

// wantsStart tells whether a pod is bound and was not started yet.
func wantsStart(object *unstructured.Unstructured) bool {
	node, _, _ := unstructured.NestedString(object.Object, "spec", "nodeName")
	phase, _, _ := unstructured.NestedString(object.Object, "status", "phase")
	if node == "" || phase != string(corev1.PodPending) || object.GetDeletionTimestamp() != nil {
		return false
	}
	return conditionStatus(object, string(corev1.PodReadyToStartContainers)) != "True"
}

// conditionStatus returns the status of a condition of any object, or "".
func conditionStatus(object *unstructured.Unstructured, kind string) string {
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, item := range conditions {
		if condition, ok := item.(map[string]any); ok && condition["type"] == kind {
			status, _ := condition["status"].(string)
			return status
		}
	}
	return ""
}

func (p *platform) podState(ctx context.Context, pod *corev1.Pod) podState {
	state := podState{waiting: map[string]obstacle{}}
	state.mount = p.missingVolume(ctx, pod)
	for _, container := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		if found := p.containerObstacle(ctx, pod, container); found != nil {
			state.waiting[container.Name] = *found
		}
	}
	state.delayed = !p.due(boundAt(pod), p.delays.rollout(pod.Namespace, workloadName(pod)))
	blocked := state.mount != nil || len(state.waiting) > 0 || state.delayed
	state.started = !blocked && p.jobMayRun(ctx, pod)
	return state
}

// boundAt is the time when the scheduler bound the pod.
func boundAt(pod *corev1.Pod) time.Time {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionTrue {
			return condition.LastTransitionTime.Time
		}
	}
	return pod.CreationTimestamp.Time
}

// workloadName is the name of what a person calls the pod's workload: the Deployment for its ReplicaSet's pods.
func workloadName(pod *corev1.Pod) string {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return pod.Name
	}
	if hash := pod.Labels["pod-template-hash"]; owner.Kind == "ReplicaSet" && hash != "" {
		return strings.TrimSuffix(owner.Name, "-"+hash)
	}
	return owner.Name
}

// missingVolume looks for Secrets and ConfigMaps that volumes need.
func (p *platform) missingVolume(ctx context.Context, pod *corev1.Pod) *obstacle {
	for _, volume := range pod.Spec.Volumes {
		for _, needed := range volumeReferences(volume) {
			if text := p.missing(ctx, pod.Namespace, needed); text != "" {
				message := fmt.Sprintf("MountVolume.SetUp failed for volume %q : %s", volume.Name, text)
				return &obstacle{"ContainerCreating", "", "FailedMount", message}
			}
		}
	}
	return nil
}

// reference is a Secret or ConfigMap that a pod needs, with the keys that must be in it.
type reference struct {
	kind, name string
	keys       []string
	optional   *bool
}

func volumeReferences(volume corev1.Volume) []reference {
	items := func(list []corev1.KeyToPath) []string {
		var keys []string
		for _, item := range list {
			keys = append(keys, item.Key)
		}
		return keys
	}
	var found []reference
	if s := volume.Secret; s != nil {
		found = append(found, reference{"secret", s.SecretName, items(s.Items), s.Optional})
	}
	if c := volume.ConfigMap; c != nil {
		found = append(found, reference{"configmap", c.Name, items(c.Items), c.Optional})
	}
	if volume.Projected != nil {
		for _, source := range volume.Projected.Sources {
			if s := source.Secret; s != nil {
				found = append(found, reference{"secret", s.Name, items(s.Items), s.Optional})
			}
			if c := source.ConfigMap; c != nil {
				found = append(found, reference{"configmap", c.Name, items(c.Items), c.Optional})
			}
		}
	}
	return found
}

func environmentReferences(container corev1.Container) []reference {
	var found []reference
	for _, source := range container.EnvFrom {
		if s := source.SecretRef; s != nil {
			found = append(found, reference{"secret", s.Name, nil, s.Optional})
		}
		if c := source.ConfigMapRef; c != nil {
			found = append(found, reference{"configmap", c.Name, nil, c.Optional})
		}
	}
	for _, variable := range container.Env {
		if variable.ValueFrom == nil {
			continue
		}
		if s := variable.ValueFrom.SecretKeyRef; s != nil {
			found = append(found, reference{"secret", s.Name, []string{s.Key}, s.Optional})
		}
		if c := variable.ValueFrom.ConfigMapKeyRef; c != nil {
			found = append(found, reference{"configmap", c.Name, []string{c.Key}, c.Optional})
		}
	}
	return found
}

// missing says in kubelet's words what a reference lacks, or "".
func (p *platform) missing(ctx context.Context, namespace string, needed reference) string {
	if needed.optional != nil && *needed.optional {
		return ""
	}
	keys := map[string]bool{}
	var err error
	if needed.kind == "secret" {
		var secret *corev1.Secret
		if secret, err = p.secret(ctx, namespace, needed.name); err == nil {
			for name := range secret.Data {
				keys[name] = true
			}
		}
	} else {
		var config *corev1.ConfigMap
		if config, err = p.configMap(ctx, namespace, needed.name); err == nil {
			for name := range config.Data {
				keys[name] = true
			}
			for name := range config.BinaryData {
				keys[name] = true
			}
		}
	}
	if apierrors.IsNotFound(err) {
		return fmt.Sprintf("%s %q not found", needed.kind, needed.name)
	}
	if err != nil {
		return err.Error()
	}
	for _, name := range needed.keys {
		if !keys[name] {
			kind := map[string]string{"secret": "Secret", "configmap": "ConfigMap"}[needed.kind]
			return fmt.Sprintf("couldn't find key %s in %s %s/%s", name, kind, namespace, needed.name)
		}
	}
	return ""
}

func (p *platform) containerObstacle(ctx context.Context, pod *corev1.Pod, container corev1.Container) *obstacle {
	if strings.HasSuffix(container.Image, neverReadyTag) || pod.Annotations[neverReadyAnnotation] == "true" {
		text := fmt.Sprintf("rpc error: code = NotFound desc = failed to pull and unpack image %q: not found", container.Image)
		return &obstacle{"ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %s", container.Image, text),
			"Failed", fmt.Sprintf("Failed to pull image %q: %s", container.Image, text)}
	}
	for _, needed := range environmentReferences(container) {
		if text := p.missing(ctx, pod.Namespace, needed); text != "" {
			return &obstacle{"CreateContainerConfigError", text, "Failed", "Error: " + text}
		}
	}
	return nil
}

// reportPod writes the state, when it is new.
func (p *platform) reportPod(ctx context.Context, pod *corev1.Pod, state podState) {
	now := metav1.Now()
	patch := map[string]any{}
	if state.started {
		patch["conditions"] = []corev1.PodCondition{{Type: corev1.PodReadyToStartContainers,
			Status: corev1.ConditionTrue, LastTransitionTime: now}}
	} else {
		wanted := waitingStatuses(pod.Spec.Containers, state)
		wantedInit := waitingStatuses(pod.Spec.InitContainers, state)
		if sameStatuses(pod.Status.ContainerStatuses, wanted) && sameStatuses(pod.Status.InitContainerStatuses, wantedInit) {
			return
		}
		patch["containerStatuses"], patch["initContainerStatuses"] = wanted, wantedInit
		patch["conditions"] = []corev1.PodCondition{
			{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionFalse, LastTransitionTime: now},
			{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: now, Reason: "ContainersNotReady",
				Message: "containers are not ready"}}
	}
	data, err := json.Marshal(map[string]any{"status": patch})
	if err == nil {
		_, err = p.kube.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, data,
			metav1.PatchOptions{}, "status")
	}
	if err != nil && !apierrors.IsNotFound(err) {
		p.poke()
		return
	}
	if state.mount != nil {
		p.podEvent(ctx, pod, *state.mount)
	}
	for _, found := range state.waiting {
		p.podEvent(ctx, pod, found)
	}
}

func waitingStatuses(containers []corev1.Container, state podState) []corev1.ContainerStatus {
	var all []corev1.ContainerStatus
	for _, container := range containers {
		waiting := corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
		if found, blocked := state.waiting[container.Name]; blocked && state.mount == nil {
			waiting = corev1.ContainerStateWaiting{Reason: found.reason, Message: found.message}
		}
		started := false
		all = append(all, corev1.ContainerStatus{Name: container.Name, Image: container.Image, Started: &started,
			State: corev1.ContainerState{Waiting: &waiting}})
	}
	return all
}

func sameStatuses(before, after []corev1.ContainerStatus) bool {
	if len(before) != len(after) {
		return false
	}
	for i := range before {
		if before[i].State.Waiting == nil || *before[i].State.Waiting != *after[i].State.Waiting {
			return false
		}
	}
	return true
}

// podEvent reports what kubelet would; it is called only when the pod's state changed.
func (p *platform) podEvent(ctx context.Context, pod *corev1.Pod, found obstacle) {
	now := metav1.Now()
	p.kube.CoreV1().Events(pod.Namespace).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: pod.Name + ".", Namespace: pod.Namespace},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, Namespace: pod.Namespace,
			UID: pod.UID},
		Reason: found.event, Message: found.eventMessage, Type: corev1.EventTypeWarning, FirstTimestamp: now,
		LastTimestamp: now, Count: 1, Source: corev1.EventSource{Component: "kubelet", Host: pod.Spec.NodeName},
	}, metav1.CreateOptions{})
}
