"""Velero: a daily backup of the cluster's objects and volumes in S3."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from catalogue import longhorn, monitors, s3, snapshot_controller
from catalogue.pods import resources
from cluster.component import Component, Object, Release, SecretObject, Values
from cluster.model import Cluster
from cluster.readiness import Check, Field, Rollout
from cluster.versions import CHARTS, IMAGES

NAMESPACE = "velero"
API = "velero.io/v1"
LOCATION = "default"
SECRET = "velero-s3"
SCHEDULE = "full"
PLUGIN = "velero-plugin-for-aws"
SNAPSHOT_CLASS = "velero-longhorn-backup-vsc"

RULES = [
    {
        "name": "velero",
        "rules": [
            {
                "alert": "VeleroBackupFailed",
                "expr": 'velero_backup_last_status{schedule!=""} != 1',
                "for": "15m",
                "labels": {"severity": "critical"},
                "annotations": {"summary": "The last backup {{ $labels.schedule }} has failed"},
            },
            {
                "alert": "VeleroBackupPartiallyFailed",
                "expr": 'increase(velero_backup_partial_failure_total{schedule!=""}[1d]) > 0',
                "labels": {"severity": "warning"},
                "annotations": {"summary": "A backup {{ $labels.schedule }} lacks something"},
            },
        ],
    }
]


def wanted(cluster: Cluster) -> bool:
    """Whether the stack's backup is Velero's."""
    return cluster.stack.backup == "velero"


def keep(cluster: Cluster) -> str:
    """How long backups are kept, as the API server writes durations."""
    return f"{cluster.backup.keep_days * 24}h0m0s"


def values(cluster: Cluster) -> Values:
    """Values of the chart."""
    metrics = {"enabled": monitors.wanted(cluster)}
    return {
        "initContainers": [
            {
                "name": PLUGIN,
                "image": IMAGES[PLUGIN],
                "imagePullPolicy": "IfNotPresent",
                "volumeMounts": [{"name": "plugins", "mountPath": "/target"}],
            }
        ],
        "configuration": {
            "features": "EnableCSI",
            "backupStorageLocation": [_location(cluster)],
            "defaultBackupTTL": keep(cluster),
        },
        # Snapshots are CSI's; these would be those of a cloud's disks.
        "snapshotsEnabled": False,
        "credentials": {"useSecret": True, "existingSecret": SECRET},
        "deployNodeAgent": True,
        "nodeAgent": {"resources": resources("64Mi", "1Gi")},
        "resources": resources("128Mi", "512Mi"),
        # Its Job needs an image of kubectl; we apply the chart's CRDs ourselves.
        "upgradeCRDs": False,
        "cleanUpCRDs": False,
        "metrics": {"serviceMonitor": metrics, "nodeAgentPodMonitor": metrics},
    }


def _location(cluster: Cluster) -> Values:
    backup = cluster.backup
    ca = {"caCert": base64.b64encode(backup.ca.encode()).decode()} if backup.ca else {}
    return {
        "name": LOCATION,
        "provider": "aws",
        "bucket": backup.buckets.velero,
        "default": True,
        **ca,
        "config": {
            "region": backup.region,
            "s3ForcePathStyle": "true",
            "s3Url": s3.url(cluster),
        },
    }


def secrets(cluster: Cluster) -> Sequence[SecretObject]:
    """The account of the bucket."""
    return [SecretObject(SECRET, NAMESPACE, {"cloud": "s3.velero.credentials"})]


def release_ready(cluster: Cluster) -> Sequence[Check]:
    """It runs, on every node too, and reaches its bucket."""
    return [
        Rollout("Deployment", "velero", NAMESPACE),
        Rollout("DaemonSet", "node-agent", NAMESPACE),
        Field(
            API,
            "BackupStorageLocation",
            LOCATION,
            NAMESPACE,
            "status.phase",
            ("Available",),
        ),
    ]


def objects(cluster: Cluster) -> Sequence[Object]:
    """The daily backup, and how it takes volumes along."""
    return [
        *_snapshot_class(cluster),
        _schedule(cluster),
        *monitors.rules(cluster, "velero", NAMESPACE, RULES),
    ]


def _snapshot_class(cluster: Cluster) -> list[Object]:
    """Snapshots that become backups in S3, and stay there when the VolumeSnapshot goes."""
    if not (longhorn.wanted(cluster) and snapshot_controller.wanted(cluster)):
        return []
    label = {"velero.io/csi-volumesnapshot-class": "true"}
    return [
        snapshot_controller.snapshot_class(SNAPSHOT_CLASS, "Retain", {"type": "bak"}, labels=label)
    ]


def _schedule(cluster: Cluster) -> Object:
    return {
        "apiVersion": API,
        "kind": "Schedule",
        "metadata": {"name": SCHEDULE, "namespace": NAMESPACE},
        "spec": {
            "schedule": cluster.backup.schedule,
            "template": {
                "metadata": {"labels": {"type": "full", "schedule": "daily"}},
                "includedNamespaces": ["*"],
                "includedResources": ["*"],
                "includeClusterResources": True,
                "snapshotVolumes": True,
                "storageLocation": LOCATION,
                "ttl": keep(cluster),
            },
        },
    }


component = Component(
    name="velero",
    namespace=NAMESPACE,
    role="backup",
    wanted=wanted,
    needs=("cni", "storage", "snapshots", "metrics-crds"),
    secrets=secrets,
    release=Release(CHARTS["velero"], values),
    release_ready=release_ready,
    objects=objects,
)
