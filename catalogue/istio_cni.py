"""Istio's agent on each node: it leads the traffic of pods in the mesh to ztunnel."""

from __future__ import annotations

from catalogue.pods import resources
from cluster.component import Component, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Rollout
from cluster.versions import CHARTS


def values(cluster: Cluster) -> Values:
    """Ambient mode, in the directories where the CNI of the stack is.

    K3s has its own only for its Flannel. With another CNI containerd looks into the usual ones,
    where Cilium writes, and Istio's platform `k3s` would be wrong.
    """
    flannel = cluster.stack.cni == "flannel"
    return {
        "profile": "ambient",
        **({"global": {"platform": "k3s"}} if flannel else {}),
        "ambient": {"ipv6": False},  # the cluster has none
        "resources": resources("64Mi", "256Mi", "20m"),
    }


def release_ready(cluster: Cluster) -> list[Check]:
    """It runs on every node."""
    return [Rollout("DaemonSet", "istio-cni-node", component.namespace)]


component = Component(
    name="istio-cni",
    namespace="istio-system",
    wanted=lambda cluster: cluster.stack.mesh == "istio",
    role="mesh",
    needs=("cni", "istio-base"),
    release=Release(CHARTS["istio-cni"], values),
    release_ready=release_ready,
)
