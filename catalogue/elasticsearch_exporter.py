"""Elasticsearch's figures for Prometheus."""

from __future__ import annotations

from catalogue import elasticsearch, monitors, pods
from cluster.component import Component, Object, Release, Values
from cluster.model import Cluster
from cluster.readiness import Rollout
from cluster.versions import CHARTS

NAME = (
    "prometheus-elasticsearch-exporter"  # of the release, so that its Deployment is called the same
)
USER = elasticsearch.user_secret("exporter")


def values(cluster: Cluster) -> Values:
    """Reads with an account that may read figures only."""
    return {
        "es": {
            "uri": elasticsearch.URL,
            "ilm": True,
            "data_stream": True,
            # No snapshot repository, and no right to look for one.
            "snapshots": False,
            # One series for each field of each index.
            "indices_mappings": False,
        },
        "extraEnvSecrets": {
            "ES_USERNAME": {"secret": USER, "key": "username"},
            "ES_PASSWORD": {"secret": USER, "key": "password"},
        },
        "resources": pods.resources("32Mi", "128Mi", "20m"),
        "serviceMonitor": {"enabled": True, "interval": "30s"},
    }


def objects(cluster: Cluster) -> list[Object]:
    """Rules and dashboard of Elasticsearch."""
    return monitors.own(cluster, "elasticsearch", elasticsearch.NAMESPACE)


component = Component(
    name="elasticsearch-exporter",
    namespace=elasticsearch.NAMESPACE,
    wanted=lambda cluster: (
        cluster.stack.logs == "elasticsearch" and cluster.stack.metrics != "none"
    ),
    needs=("elasticsearch", "metrics-crds"),
    release=Release(CHARTS["elasticsearch-exporter"], values, NAME),
    release_ready=lambda cluster: [Rollout("Deployment", NAME, elasticsearch.NAMESPACE)],
    objects=objects,
    on_failure="rollback",
)
