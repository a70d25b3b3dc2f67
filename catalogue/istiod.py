"""Istio's control plane, and what holds for all pods in the mesh."""

from __future__ import annotations

from catalogue import mesh, monitors, namespaces
from catalogue.pods import resources
from cluster.component import Component, Object, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Rollout, Webhook
from cluster.versions import CHARTS

NAMESPACE = "istio-system"


def values(cluster: Cluster) -> Values:
    """Small, and one: the chart's own request is 2 GiB, and its budget keeps one from moving."""
    domain = cluster.network.cluster_domain
    return {
        "profile": "ambient",
        "autoscaleEnabled": False,
        "replicaCount": 1,
        "resources": resources("192Mi", "1Gi", "50m"),
        "meshConfig": {"trustDomain": domain},
        "global": {
            "defaultPodDisruptionBudget": {"enabled": False},
            "proxy": {"clusterDomain": domain, "resources": resources("64Mi", "256Mi", "20m")},
            "waypoint": {"resources": resources("64Mi", "256Mi", "20m")},
        },
    }


def release_ready(cluster: Cluster) -> list[Check]:
    """It injects gateways and judges objects."""
    webhooks = (
        ("MutatingWebhookConfiguration", "istio-sidecar-injector"),
        ("ValidatingWebhookConfiguration", f"istio-validator-{NAMESPACE}"),
        ("ValidatingWebhookConfiguration", "istiod-default-validator"),
    )
    return [
        Rollout("Deployment", "istiod", NAMESPACE),
        *(Webhook(kind, name, "istiod", NAMESPACE) for kind, name in webhooks),
    ]


def objects(cluster: Cluster) -> list[Object]:
    """Pods in the mesh take what comes from the mesh; exceptions: `mesh.plain_ports`."""
    return [
        *namespaces.of_user(cluster),
        mesh.peers("default", NAMESPACE),
        *monitors.service_monitor(
            cluster, "istiod", NAMESPACE, {"istio": "pilot"}, "http-monitoring"
        ),
    ]


component = Component(
    name="istiod",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.mesh == "istio",
    role="mesh",
    needs=("cni", "istio-base", "metrics-crds"),
    release=Release(CHARTS["istiod"], values),
    release_ready=release_ready,
    objects=objects,
)
