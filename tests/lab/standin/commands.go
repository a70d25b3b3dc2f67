package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"

	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

const defaultDataDir = "/var/lib/rancher/k3s"

// dataDirFor is the data directory for commands without flags of their own.
func dataDirFor(args []string) string {
	if dir := os.Getenv("K3S_DATA_DIR"); dir != "" {
		return dir
	}
	return findString(args, "data-dir", defaultDataDir)
}

// kubectlCommand runs the linked kubectl with K3s' kubeconfig.
func kubectlCommand(args []string) {
	if os.Getenv("KUBECONFIG") == "" && exists(defaultKubeconfig) {
		file, err := os.Open(defaultKubeconfig)
		if err != nil {
			logrus.Warnf(unreadableConfig, defaultKubeconfig)
			os.Exit(1)
		}
		file.Close()
		os.Setenv("KUBECONFIG", defaultKubeconfig)
	}
	os.Args = append([]string{"kubectl"}, args...)
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}

// runtimePods asks the simulated container runtime for the node's pods.
func runtimePods() ([]corev1.Pod, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", runtimeSocket)
	}}}
	response, err := client.Get("http://runtime/")
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		return nil, fmt.Errorf("runtime: %s", text)
	}
	var pods []corev1.Pod
	return pods, json.NewDecoder(response.Body).Decode(&pods)
}

// crictlCommand answers ps, pods and images from the simulated pods.
func crictlCommand(args []string) {
	if len(args) == 0 || args[0] == "--version" || args[0] == "version" {
		fmt.Printf("crictl version %s (stand-in)\n", version)
		return
	}
	pods, err := runtimePods()
	if err != nil {
		fmt.Fprintf(os.Stderr, "FATA[0000] validate service connection: validate CRI v1 runtime API for endpoint "+
			"\"unix://%s\": %v\n", runtimeSocket, err)
		os.Exit(1)
	}
	asJSON := slices.Contains(args, "json") || slices.Contains(args, "-o=json") || slices.Contains(args, "--output=json")
	switch args[0] {
	case "ps":
		printContainers(pods, asJSON)
	case "pods":
		printPods(pods, asJSON)
	case "images", "image", "img":
		printImages(pods, asJSON)
	case "info", "rmi", "pull", "stop", "rm", "stopp", "rmp":
		fmt.Println("{}")
	default:
		fmt.Fprintf(os.Stderr, "No help topic for '%s'\n", args[0])
		os.Exit(3)
	}
}

func printJSON(value any) {
	data, _ := json.MarshalIndent(value, "", "  ")
	fmt.Println(string(data))
}

func printContainers(pods []corev1.Pod, asJSON bool) {
	containers := []map[string]any{}
	for _, pod := range pods {
		for _, status := range pod.Status.ContainerStatuses {
			state := "CONTAINER_EXITED"
			if status.State.Running != nil {
				state = "CONTAINER_RUNNING"
			}
			containers = append(containers, map[string]any{"id": sha256Hex([]byte(string(pod.UID) + status.Name)),
				"podSandboxId": sha256Hex([]byte(pod.UID)), "metadata": map[string]any{"name": status.Name, "attempt": 0},
				"image": map[string]string{"image": status.Image}, "imageRef": status.Image, "state": state,
				"createdAt": fmt.Sprint(pod.CreationTimestamp.UnixNano()),
				"labels": map[string]string{"io.kubernetes.container.name": status.Name,
					"io.kubernetes.pod.name": pod.Name, "io.kubernetes.pod.namespace": pod.Namespace,
					"io.kubernetes.pod.uid": string(pod.UID)}})
		}
	}
	if asJSON {
		printJSON(map[string]any{"containers": containers})
		return
	}
	fmt.Println("CONTAINER           IMAGE               STATE               NAME                POD")
	for _, c := range containers {
		labels := c["labels"].(map[string]string)
		fmt.Printf("%.13s       %s   %s   %s   %s\n", c["id"], c["imageRef"], c["state"],
			labels["io.kubernetes.container.name"], labels["io.kubernetes.pod.name"])
	}
}

func printPods(pods []corev1.Pod, asJSON bool) {
	items := []map[string]any{}
	for _, pod := range pods {
		items = append(items, map[string]any{"id": sha256Hex([]byte(pod.UID)), "state": "SANDBOX_READY",
			"metadata":  map[string]any{"name": pod.Name, "namespace": pod.Namespace, "uid": string(pod.UID), "attempt": 0},
			"createdAt": fmt.Sprint(pod.CreationTimestamp.UnixNano()), "labels": pod.Labels})
	}
	if asJSON {
		printJSON(map[string]any{"items": items})
		return
	}
	fmt.Println("POD ID              STATE               NAME                NAMESPACE")
	for _, item := range items {
		metadata := item["metadata"].(map[string]any)
		fmt.Printf("%.13s       Ready               %s   %s\n", item["id"], metadata["name"], metadata["namespace"])
	}
}

func printImages(pods []corev1.Pod, asJSON bool) {
	images := []map[string]any{}
	seen := map[string]bool{}
	for _, pod := range pods {
		for _, container := range append(slices.Clone(pod.Spec.InitContainers), pod.Spec.Containers...) {
			if !seen[container.Image] {
				seen[container.Image] = true
				images = append(images, map[string]any{"id": "sha256:" + sha256Hex([]byte(container.Image)),
					"repoTags": []string{container.Image}, "repoDigests": []string{}, "size": "0"})
			}
		}
	}
	if asJSON {
		printJSON(map[string]any{"images": images})
		return
	}
	fmt.Println("IMAGE               TAG                 IMAGE ID            SIZE")
	for _, image := range images {
		fmt.Printf("%s   %.20s   0B\n", image["repoTags"].([]string)[0], image["id"])
	}
}

// ctrCommand accepts image imports and lists, the only uses a deploy has for it.
func ctrCommand(args []string) {
	if _, err := net.Dial("unix", runtimeSocket); err != nil {
		fmt.Fprintf(os.Stderr, "ctr: failed to dial %q: %v\n", runtimeSocket, err)
		os.Exit(1)
	}
	fmt.Println("REF TYPE DIGEST SIZE PLATFORMS LABELS")
}

func completionCommand(args []string) {
	if len(args) == 0 || args[0] != "bash" && args[0] != "zsh" {
		fatal(fmt.Errorf("must provide a valid SHELL argument"))
	}
	fmt.Println("complete -W 'server agent kubectl crictl ctr check-config token etcd-snapshot secrets-encrypt certificate' k3s")
}
