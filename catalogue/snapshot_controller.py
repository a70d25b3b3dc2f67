"""The controller that turns VolumeSnapshots into snapshots of the storage's driver."""

from __future__ import annotations

from collections.abc import Sequence

from catalogue import monitors
from catalogue.pods import resources
from cluster.component import Component, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Established, Rollout
from cluster.versions import CHARTS

NAME = "snapshot-controller"
NAMESPACE = "kube-system"
GROUP = "snapshot.storage.k8s.io"
API = f"{GROUP}/v1"


def wanted(cluster: Cluster) -> bool:
    """Whether the stack takes snapshots of volumes."""
    return cluster.stack.snapshots == "external-snapshotter"


def values(cluster: Cluster) -> Values:
    """Values of the chart, which also has the CRDs as objects of its own."""
    return {
        "installCRDs": True,
        "controller": {
            "resources": resources("32Mi", "128Mi"),
            "serviceMonitor": {"create": monitors.wanted(cluster)},
        },
    }


def release_ready(cluster: Cluster) -> Sequence[Check]:
    """It runs, and its kinds are served."""
    kinds = ("volumesnapshotclasses", "volumesnapshotcontents", "volumesnapshots")
    return [
        Rollout("Deployment", NAME, NAMESPACE),
        Established(tuple(f"{kind}.{GROUP}" for kind in kinds)),
    ]


def snapshot_class(
    name: str, policy: str, parameters: dict[str, str], labels: dict[str, str] | None = None
) -> dict[str, object]:
    """A VolumeSnapshotClass of Longhorn; policy: `Delete` or `Retain`."""
    return {
        "apiVersion": API,
        "kind": "VolumeSnapshotClass",
        "metadata": {"name": name, **({"labels": labels} if labels else {})},
        "driver": "driver.longhorn.io",
        "deletionPolicy": policy,
        **({"parameters": parameters} if parameters else {}),
    }


component = Component(
    name=NAME,
    namespace=NAMESPACE,
    role="snapshots",
    wanted=wanted,
    needs=("cni", "metrics-crds"),
    release=Release(CHARTS[NAME], values),
    release_ready=release_ready,
    # Its CRDs go with the release, and with them all VolumeSnapshots.
    holds_data=(GROUP, "groupsnapshot.storage.k8s.io"),
)
