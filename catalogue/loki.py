"""Loki in one process: the light way to keep logs, on a volume of its own or in the S3 service."""

from __future__ import annotations

from collections.abc import Sequence

from catalogue import monitors, pods, s3
from cluster.component import Component, Object, Release, SecretObject, Values
from cluster.model import Cluster
from cluster.readiness import Rollout
from cluster.versions import CHARTS

NAMESPACE = "loki"
SERVICE, PORT = "loki", 3100
URL = f"http://{SERVICE}.{NAMESPACE}:{PORT}"
SECRET = "loki-s3"
CA_FOLDER = "/etc/loki/s3-ca"
_KEYS = {
    "AWS_ACCESS_KEY_ID": "s3.loki.access_key",
    "AWS_SECRET_ACCESS_KEY": "s3.loki.secret_key",
}


def in_s3(cluster: Cluster) -> bool:
    """Whether logs are kept in the S3 service."""
    return cluster.platform.logs.in_s3 and s3.wanted(cluster)


def values(cluster: Cluster) -> Values:
    """One pod, nothing around it.

    The chart's caches ask for 9 GiB of memory; gateway, canary and side car serve what is not
    used here.
    """
    metrics = monitors.wanted(cluster)
    store = "s3" if in_s3(cluster) else "filesystem"
    return {
        "deploymentMode": "Monolithic",
        "global": {"clusterDomain": cluster.network.cluster_domain},
        "loki": {
            "auth_enabled": False,
            "commonConfig": {"replication_factor": 1},
            "storage": _storage(cluster),
            "schemaConfig": {
                "configs": [
                    {
                        "from": "2024-04-01",
                        "store": "tsdb",
                        "object_store": store,
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
                "delete_request_store": store,
            },
            "analytics": {"reporting_enabled": False},
        },
        "singleBinary": {
            "replicas": 1,
            "persistence": {
                "size": cluster.platform.logs.size,
                "storageClass": cluster.stack.storage,
                "enableStatefulSetAutoDeletePVC": False,  # the volume outlives the release
            },
            "resources": pods.resources("256Mi", "1Gi", "100m"),
            # With a single pod it could only forbid to drain its node.
            "podDisruptionBudget": {"enabled": False},
            **_account(cluster),
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


def _storage(cluster: Cluster) -> Values:
    """Where chunks and index lie; keys come by the environment, where Amazon's library looks."""
    if not in_s3(cluster):
        return {"type": "filesystem"}
    backup = cluster.backup
    ca = {"http_config": {"ca_file": f"{CA_FOLDER}/ca.crt"}} if backup.ca else {}
    return {
        "type": "s3",
        "bucketNames": {"chunks": backup.buckets.loki, "ruler": backup.buckets.loki},
        "s3": {
            "endpoint": backup.s3_endpoint,
            "region": backup.region,
            "s3ForcePathStyle": True,
            "insecure": False,
            **ca,
        },
    }


def _account(cluster: Cluster) -> Values:
    """The keys of the bucket and the CA of the service, for the pod."""
    if not in_s3(cluster):
        return {}
    env = [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key}}} for key in _KEYS
    ]
    if not cluster.backup.ca:
        return {"extraEnv": env}
    source = {"secretName": SECRET, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    return {
        "extraEnv": env,
        "extraVolumes": [{"name": "s3-ca", "secret": source}],
        "extraVolumeMounts": [{"name": "s3-ca", "mountPath": CA_FOLDER, "readOnly": True}],
    }


def secrets(cluster: Cluster) -> Sequence[SecretObject]:
    """The account of the bucket."""
    if not in_s3(cluster):
        return []
    ca = cluster.backup.ca
    return [SecretObject(SECRET, NAMESPACE, _KEYS, plain={"ca.crt": ca} if ca else {})]


def objects(cluster: Cluster) -> list[Object]:
    """Rules of ours."""
    return monitors.own(cluster, "loki", NAMESPACE)


component = Component(
    name="loki",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.logs == "loki",
    role="logs",
    needs=("storage", "mesh", "metrics-crds"),
    secrets=secrets,
    release=Release(CHARTS["loki"], values),
    release_ready=lambda cluster: [Rollout("StatefulSet", "loki", NAMESPACE)],
    objects=objects,
)
