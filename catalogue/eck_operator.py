"""The operator of Elasticsearch and Kibana."""

from __future__ import annotations

from catalogue import mesh, monitors
from cluster.component import Component, Object, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Established, Rollout
from cluster.versions import CHARTS

NAME = "elastic-operator"  # the chart names everything so, whatever the release is called


def values(cluster: Cluster) -> Values:
    """One namespace to watch, no reports to Elastic, metrics for Prometheus."""
    metrics = monitors.wanted(cluster)
    return {
        "managedNamespaces": [component.namespace],
        "telemetry": {"disabled": True},
        "resources": {
            "requests": {"cpu": "50m", "memory": "150Mi"},
            "limits": {"cpu": None, "memory": "512Mi"},
        },
        "config": {"metrics": {"port": "9090" if metrics else "0"}},
        "podMonitor": {"enabled": metrics, "interval": "1m"},
        # It stands for a second way to the same figures, over TLS.
        "serviceMonitor": {"enabled": False},
    }


def release_ready(cluster: Cluster) -> list[Check]:
    """The CRDs come with the release, and the operator runs."""
    return [
        Established(
            ("elasticsearches.elasticsearch.k8s.elastic.co", "kibanas.kibana.k8s.elastic.co")
        ),
        Rollout("StatefulSet", NAME, component.namespace),
    ]


def before(cluster: Cluster) -> list[Object]:
    """The API server, which is in no mesh, asks the webhook."""
    labels = {"control-plane": "elastic-operator"}
    return mesh.plain_ports(cluster, "elastic-operator-webhook", component.namespace, labels, 9443)


component = Component(
    name="eck-operator",
    namespace="elastic",
    wanted=lambda cluster: cluster.stack.logs == "elasticsearch",
    needs=("cni", "mesh", "metrics-crds"),
    before=before,
    release=Release(CHARTS["eck-operator"], values),
    release_ready=release_ready,
    # Removing it would remove the CRDs' owner while data lives under them.
    holds_data=("elasticsearch.k8s.elastic.co", "kibana.k8s.elastic.co"),
)
