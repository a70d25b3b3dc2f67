"""Workloads and CRDs as typed data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cluster.component import COMPONENT
from cluster.readiness import pods

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Workload:
    """A Deployment, DaemonSet or StatefulSet: pods that are wanted and those that are ready.

    component: whose it is, when it is one of ours.
    """

    kind: str
    wanted: int
    updated: int
    ready: int
    images: tuple[str, ...]
    component: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra --json`."""
        return asdict(self)


def workload(live: Object) -> Workload:
    """Read a live object."""
    spec = live.get("spec") or {}
    wanted, updated, ready = pods(live["kind"], spec, live.get("status") or {})
    template = (spec.get("template") or {}).get("spec") or {}
    images = tuple(str(container.get("image")) for container in template.get("containers") or ())
    labels = live["metadata"].get("labels") or {}
    return Workload(live["kind"], wanted, updated, ready, images, labels.get(COMPONENT, ""))


@dataclass(frozen=True)
class Crd:
    """A CustomResourceDefinition.

    stored: versions in which objects may lie in the datastore; each must stay in `versions`.
    """

    kind: str
    scope: str
    versions: tuple[str, ...]
    stored: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra --json`."""
        return asdict(self)


def crd(live: Object) -> Crd:
    """Read a live object."""
    spec = live["spec"]
    return Crd(
        kind=spec["names"]["kind"],
        scope=spec["scope"],
        versions=tuple(version["name"] for version in spec["versions"] if version.get("served")),
        stored=tuple((live.get("status") or {}).get("storedVersions") or ()),
    )
