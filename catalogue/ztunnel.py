"""ztunnel, which carries and encrypts the mesh's traffic on each node."""

from __future__ import annotations

from catalogue import monitors
from catalogue.pods import resources
from cluster.component import Component, Object, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Rollout
from cluster.versions import CHARTS

NAMESPACE = "istio-system"


def values(cluster: Cluster) -> Values:
    """A quarter of what the chart asks for: it is sized for thousands of pods."""
    return {"profile": "ambient", "resources": resources("64Mi", "256Mi", "50m")}


def release_ready(cluster: Cluster) -> list[Check]:
    """It runs on every node."""
    return [Rollout("DaemonSet", "ztunnel", NAMESPACE)]


def objects(cluster: Cluster) -> list[Object]:
    """Its figures: it has no Service."""
    labels = {"app": "ztunnel"}
    return monitors.pod_monitor(
        cluster, "ztunnel", NAMESPACE, labels, "ztunnel-stats", path="/stats/prometheus"
    )


component = Component(
    name="ztunnel",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.mesh == "istio",
    role="mesh",
    needs=("istiod", "istio-cni", "metrics-crds"),
    release=Release(CHARTS["ztunnel"], values),
    release_ready=release_ready,
    objects=objects,
)
