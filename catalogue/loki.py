"""Loki in one process: the light way to keep logs, on a volume of its own."""

from __future__ import annotations

from catalogue import monitors, pods
from cluster.component import Component, Object, Release, Values
from cluster.model import Cluster
from cluster.readiness import Rollout
from cluster.versions import CHARTS

NAMESPACE = "loki"
SERVICE, PORT = "loki", 3100
URL = f"http://{SERVICE}.{NAMESPACE}:{PORT}"


def values(cluster: Cluster) -> Values:
    """One pod, nothing around it.

    The chart's caches ask for 9 GiB of memory; gateway, canary and side car serve what is not
    used here.
    """
    metrics = monitors.wanted(cluster)
    return {
        "deploymentMode": "Monolithic",
        "global": {"clusterDomain": cluster.network.cluster_domain},
        "loki": {
            "auth_enabled": False,
            "commonConfig": {"replication_factor": 1},
            "storage": {"type": "filesystem"},
            "schemaConfig": {
                "configs": [
                    {
                        "from": "2024-04-01",
                        "store": "tsdb",
                        "object_store": "filesystem",
                        "schema": "v13",
                        "index": {"prefix": "loki_index_", "period": "24h"},
                    }
                ]
            },
            "limits_config": {"retention_period": f"{24 * cluster.platform.logs.keep_days}h"},
            # Without it nothing is ever deleted, and the volume fills up.
            "compactor": {
                "working_directory": "/var/loki/compactor",
                "retention_enabled": True,
                "delete_request_store": "filesystem",
            },
            "analytics": {"reporting_enabled": False},
        },
        "singleBinary": {
            "replicas": 1,
            "persistence": {
                "size": cluster.platform.logs.size,
                "storageClass": cluster.stack.storage,
            },
            "resources": pods.resources("256Mi", "1Gi", "100m"),
            # With a single pod it could only forbid to drain its node.
            "podDisruptionBudget": {"enabled": False},
        },
        # The chart counts them also in this mode.
        **{part: {"replicas": 0} for part in ("read", "write", "backend")},
        "gateway": {"enabled": False},
        "chunksCache": {"enabled": False},
        "resultsCache": {"enabled": False},
        "lokiCanary": {"enabled": False},
        "test": {"enabled": False},
        "sidecar": {"rules": {"enabled": False}},
        "monitoring": {
            "serviceMonitor": {"enabled": metrics},
            "dashboards": {"enabled": metrics, "annotations": {"grafana_folder": "Logs"}},
            "rules": {"enabled": metrics},
            "alerts": {"enabled": metrics},
        },
    }


def objects(cluster: Cluster) -> list[Object]:
    """Rules of ours."""
    return monitors.own(cluster, "loki", NAMESPACE)


component = Component(
    name="loki",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.logs == "loki",
    role="logs",
    needs=("storage", "mesh", "metrics-crds"),
    release=Release(CHARTS["loki"], values),
    release_ready=lambda cluster: [Rollout("StatefulSet", "loki", NAMESPACE)],
    objects=objects,
)
