"""Istio's own gateway, for Gateways and VirtualServices of the user's."""

from __future__ import annotations

from catalogue import addresses, monitors
from catalogue.pods import resources
from cluster.component import Component, Object, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Rollout
from cluster.versions import CHARTS

NAMESPACE = "istio-ingress"
NAME = "istio-gateway"


def _has_address(cluster: Cluster) -> bool:
    """Whether its Service can have an address.

    ServiceLB opens ports of the nodes, of which an ingress has 80 and 443.
    """
    stack = cluster.stack
    return stack.own_addresses or (stack.load_balancer == "servicelb" and stack.ingress == "none")


def values(cluster: Cluster) -> Values:
    """One pod; its Service takes any address of the pool, or none."""
    return {
        "service": {"type": "LoadBalancer" if _has_address(cluster) else "ClusterIP"},
        "autoscaling": {"enabled": False},
        "replicaCount": 1,
        "resources": resources("64Mi", "256Mi", "20m"),
    }


def release_ready(cluster: Cluster) -> list[Check]:
    """It runs, and has its address."""
    return [
        Rollout("Deployment", NAME, NAMESPACE),
        *(addresses.given(cluster, NAME, NAMESPACE) if _has_address(cluster) else []),
    ]


def objects(cluster: Cluster) -> list[Object]:
    """Its figures."""
    return monitors.pod_monitor(
        cluster, NAME, NAMESPACE, {"istio": "gateway"}, "http-envoy-prom", path="/stats/prometheus"
    )


component = Component(
    name="istio-gateway",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.mesh == "istio",
    needs=("istiod", "load-balancer", "metrics-crds"),
    release=Release(CHARTS["istio-gateway"], values),
    release_ready=release_ready,
    objects=objects,
    on_failure="rollback",
)
