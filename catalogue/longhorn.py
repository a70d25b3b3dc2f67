"""Longhorn: replicated volumes, backups of them in S3, its CSI driver and its dashboard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from catalogue import mesh, monitors, s3, snapshot_controller, web
from catalogue.pods import replicas
from cluster.component import Component, Endpoint, Object, Release, SecretObject, Values
from cluster.longhorn import NAMESPACE
from cluster.model import Cluster
from cluster.readiness import Check, Exists, Rollout
from cluster.versions import CHARTS

DRIVER = "driver.longhorn.io"
DEFAULT_CLASS = "longhorn"
SINGLE_CLASS = "longhorn-single"  # for what makes copies of its data itself, as databases do
SECRET = "longhorn-s3"
HOST = "longhorn"
PROMETHEUS = "monitoring"  # its namespace
MANAGER_PORT = 9500
UI_PORT = 8000
ISCSI_PORT = 3260

RULES = [
    {
        "name": "longhorn",
        "rules": [
            {
                "alert": "LonghornVolumeDegraded",
                "expr": 'longhorn_volume_robustness{state="degraded"} == 1',
                "for": "30m",
                "labels": {"severity": "warning"},
                "annotations": {
                    "summary": "Volume {{ $labels.volume }} ({{ $labels.pvc_namespace }}/"
                    "{{ $labels.pvc }}) lacks replicas"
                },
            },
            {
                "alert": "LonghornVolumeFaulted",
                "expr": 'longhorn_volume_robustness{state="faulted"} == 1',
                "for": "2m",
                "labels": {"severity": "critical"},
                "annotations": {
                    "summary": "Volume {{ $labels.volume }} ({{ $labels.pvc_namespace }}/"
                    "{{ $labels.pvc }}) has no healthy replica"
                },
            },
            {
                "alert": "LonghornDiskFull",
                "expr": "longhorn_disk_usage_bytes / longhorn_disk_capacity_bytes > 0.85",
                "for": "15m",
                "labels": {"severity": "warning"},
                "annotations": {
                    "summary": "Disk {{ $labels.disk }} of {{ $labels.node }} is"
                    " {{ $value | humanizePercentage }} full"
                },
            },
        ],
    }
]


def wanted(cluster: Cluster) -> bool:
    """Whether the stack's volumes are Longhorn's."""
    return cluster.stack.storage == "longhorn"


def volume_replicas(cluster: Cluster) -> int:
    """Copies of a volume: no more than nodes that store some."""
    return replicas(cluster, cluster.platform.storage.replicas)


def values(cluster: Cluster) -> Values:
    """Values of the chart."""
    storage = cluster.platform.storage
    copies = volume_replicas(cluster)
    few = replicas(cluster, 2)  # of what only makes and moves volumes
    return {
        "persistence": {"defaultClass": True, "defaultClassReplicaCount": copies},
        "csi": {
            f"{part}ReplicaCount": few
            for part in ("attacher", "provisioner", "resizer", "snapshotter")
        },
        "defaultSettings": {
            "defaultDataPath": storage.path,
            "defaultReplicaCount": json.dumps({"v1": str(copies), "v2": str(copies)}),
            "nodeDrainPolicy": storage.node_drain_policy,
            "upgradeChecker": False,
            "allowCollectingLonghornUsageMetrics": False,
        },
        "longhornUI": {"replicas": 1},
        # Policies of its parts for each other; ours let in who comes from outside.
        "networkPolicies": {"restrictInternalTraffic": True},
        "metrics": {"serviceMonitor": {"enabled": monitors.wanted(cluster)}},
        **({"defaultBackupStore": _backup_store(cluster)} if s3.wanted(cluster) else {}),
    }


def _backup_store(cluster: Cluster) -> Values:
    # Without the slash at the end Longhorn does not read it as a target.
    target = f"s3://{cluster.backup.buckets.longhorn}@{cluster.backup.region}/"
    return {"backupTarget": target, "backupTargetCredentialSecret": SECRET}


def secrets(cluster: Cluster) -> Sequence[SecretObject]:
    """The account of the bucket, with the service's address and CA where it has its own."""
    if not s3.wanted(cluster):
        return []
    ca = cluster.backup.ca
    return [
        SecretObject(
            SECRET,
            NAMESPACE,
            {
                "AWS_ACCESS_KEY_ID": "s3.longhorn.access_key",
                "AWS_SECRET_ACCESS_KEY": "s3.longhorn.secret_key",
            },
            plain={"AWS_ENDPOINTS": s3.url(cluster), **({"AWS_CERT": ca} if ca else {})},
        )
    ]


def release_ready(cluster: Cluster) -> Sequence[Check]:
    """Its programs run, and so does what they make by themselves after Helm has ended."""
    made = ("csi-attacher", "csi-provisioner", "csi-resizer", "csi-snapshotter")
    return [
        Rollout("DaemonSet", "longhorn-manager", NAMESPACE),
        Rollout("Deployment", "longhorn-driver-deployer", NAMESPACE),
        Rollout("Deployment", "longhorn-ui", NAMESPACE),
        *(Rollout("Deployment", name, NAMESPACE) for name in made),
        Rollout("DaemonSet", "longhorn-csi-plugin", NAMESPACE),
        Exists("storage.k8s.io/v1", "CSIDriver", DRIVER),
        Exists("storage.k8s.io/v1", "StorageClass", DEFAULT_CLASS),
    ]


def objects(cluster: Cluster) -> Sequence[Object]:
    """Classes, the dashboard's route, and who may talk to its parts."""
    return [
        _single_class(),
        *_snapshot_classes(cluster),
        *_policies(cluster),
        *monitors.rules(cluster, "longhorn", NAMESPACE, RULES),
        *web.web(
            cluster,
            name="longhorn",
            namespace=NAMESPACE,
            service="longhorn-frontend",
            port=80,
            host=HOST,
            login="proxy",
        ),
    ]


def _single_class() -> Object:
    """Volumes of one replica, beside the pod where there is room."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": SINGLE_CLASS},
        "provisioner": DRIVER,
        "allowVolumeExpansion": True,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
        "parameters": {
            "numberOfReplicas": "1",
            "dataLocality": "best-effort",
            "staleReplicaTimeout": "30",
            "fsType": "ext4",
        },
    }


def _snapshot_classes(cluster: Cluster) -> list[Object]:
    """Snapshots beside the volume, and such that become backups in S3."""
    if not snapshot_controller.wanted(cluster):
        return []
    found = [
        snapshot_controller.snapshot_class("longhorn", "Delete", {}),
        snapshot_controller.snapshot_class("longhorn-snapshot-vsc", "Delete", {"type": "snap"}),
    ]
    if s3.wanted(cluster):
        backup = snapshot_controller.snapshot_class(
            "longhorn-backup-vsc", "Delete", {"type": "bak"}
        )
        found.append(backup)
    return found


def _policies(cluster: Cluster) -> list[Object]:
    """Who reaches Longhorn's pods from outside its namespace.

    The dashboard has no login, so that only the ingress, which asks for one, may open it.
    """
    sources = [{"ipBlock": {"cidr": f"{host.ip}/32"}} for host in cluster.members]
    if cluster.stack.mesh == "istio":
        # Longhorn's article of 2026-08-21 has seen iSCSI come from it.
        sources.append({"ipBlock": {"cidr": mesh.ISTIO_HOST}})
    instances = {"longhorn.io/component": "instance-manager"}
    found = [_policy("initiators", instances, sources, ISCSI_PORT)]
    if monitors.wanted(cluster):
        source = [_namespace(PROMETHEUS)]
        found.append(_policy("metrics", {"app": "longhorn-manager"}, source, MANAGER_PORT))
    if cluster.stack.ingress != "none":
        source = [_namespace(web.NAMESPACES[cluster.stack.ingress])]
        found.append(_policy("dashboard", {"app": "longhorn-ui"}, source, UI_PORT))
    return found


def _namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _policy(
    name: str, pods: dict[str, str], sources: Sequence[dict[str, Any]], port: int
) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"allow-{name}", "namespace": NAMESPACE},
        "spec": {
            "podSelector": {"matchLabels": pods},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": list(sources), "ports": [{"protocol": "TCP", "port": port}]}],
        },
    }


def endpoints(cluster: Cluster) -> Sequence[Endpoint]:
    """Its dashboard."""
    return web.opened(cluster, HOST)


component = Component(
    name="longhorn",
    namespace=NAMESPACE,
    role="storage",
    wanted=wanted,
    needs=("cni", "snapshots", "ingress", "certificates", "metrics-crds"),
    secrets=secrets,
    release=Release(CHARTS["longhorn"], values),
    release_ready=release_ready,
    objects=objects,
    timeout=1200,
    holds_data=("longhorn.io",),
    driver=DRIVER,
    # Its chart removes nothing without.
    removal=(
        {
            "apiVersion": "longhorn.io/v1beta2",
            "kind": "Setting",
            "metadata": {"name": "deleting-confirmation-flag", "namespace": NAMESPACE},
            "value": "true",
        },
    ),
    endpoints=endpoints,
)
