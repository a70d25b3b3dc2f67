"""What a component of the platform is: data and plain functions of the validated cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cluster.model import Cluster
from cluster.readiness import Check
from cluster.versions import Chart

Object = dict[str, Any]  # a Kubernetes object as its manifest has it
Values = dict[str, Any]  # values of a chart

COMPONENT = "picluster.io/component"  # label of all objects of ours and of Helm's records
INVENTORY = "picluster.io/inventory"  # label of the ConfigMaps that say which kinds those are

# What components play for each other. Roles of `Stack` carry the same name with underscores.
ROLES = (
    "cni",
    "load-balancer",
    "ingress",
    "gateway-api",
    "certificates",
    "mesh",
    "storage",
    "snapshots",
    "backup",
    "database",
    "identity",
    "logs",
    "log-aggregation",
    "metrics",
    "metrics-crds",
)

# Of these, one product alone can play each.
EXCLUSIVE = ("cni", "load-balancer", "ingress", "mesh", "storage", "identity", "logs")
# Of those, the ones whose product is exchanged by a migration. Logs begin anew with another one.
MIGRATED = tuple(role for role in EXCLUSIVE if role != "logs")


def nothing(cluster: Cluster) -> Any:
    """Neither values nor objects nor checks."""
    return ()


@dataclass(frozen=True)
class Release:
    """A Helm release.

    name: name of the release, None for the component's own.
    values: chart values of ours; the user's (`platform.values.<component>`) are merged last. Never
        a secret: charts read those from Secrets of ours.
    """

    chart: Chart
    values: Callable[[Cluster], Values] = lambda cluster: {}
    name: str | None = None


@dataclass(frozen=True)
class SecretObject:
    """A Kubernetes Secret whose values come from the secrets file.

    data: name in the secrets file (`cluster/secret_table.py`: TABLE or DERIVED) by key.
    plain: text by key of what is no secret but belongs beside it, such as a user's name.
    """

    name: str
    namespace: str
    data: Mapping[str, str]
    plain: Mapping[str, str] = field(default_factory=dict)
    type: str = "Opaque"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Copy:
    """A key of a live Secret that is written into a ConfigMap, as soon as it exists.

    source, target: namespace, name and key.
    """

    source: tuple[str, str, str]
    target: tuple[str, str, str]


@dataclass(frozen=True)
class Endpoint:
    """Something a person opens; login: names in the secrets file, or a sentence."""

    url: str
    login: str


@dataclass(frozen=True)
class Component:
    """One component; its release and its objects are two steps, in this order.

    name: unique; also the name of its file in `catalogue/`.
    role: the role it plays, one of ROLES; others wait for all components of a role.
    needs: names of roles (all selected components that play it; none is fine) and of components
        (selected with this one) that are finished before this one starts.
    wanted: whether the cluster's stack asks for it.
    secrets, before, copies: applied before the release, its namespace too.
    release_ready: what is waited for after the release, before the objects.
    objects: applied after that, `ready`: what is waited for after them.
    on_failure: what becomes of a failed upgrade; only what is stateless may be rolled back.
    holds_data: API groups, or kinds as `group/Kind`, whose objects forbid removal, as do volumes
        of `driver`; what we or a chart made comes back as it was and does not count, unless its
        kind is one of `data_kinds`.
    exclusive: kinds whose objects may not overlap, as pools of addresses: those that are no longer
        wanted go before others come.
    removal: what is applied right before the release is removed, as its product demands it.
    retired: why upstream has given it up, and the alternative; empty for what lives.
    """

    name: str
    namespace: str
    wanted: Callable[[Cluster], bool]
    role: str | None = None
    needs: tuple[str, ...] = ()
    secrets: Callable[[Cluster], Sequence[SecretObject]] = nothing
    before: Callable[[Cluster], Sequence[Object]] = nothing
    copies: Callable[[Cluster], Sequence[Copy]] = nothing
    release: Release | None = None
    release_ready: Callable[[Cluster], Sequence[Check]] = nothing
    objects: Callable[[Cluster], Sequence[Object]] = nothing
    ready: Callable[[Cluster], Sequence[Check]] = nothing
    timeout: int = 600  # seconds each of the two waits may take
    on_failure: Literal["keep", "rollback"] = "keep"
    holds_data: tuple[str, ...] = ()
    data_kinds: tuple[str, ...] = ()
    driver: str | None = None
    exclusive: tuple[str, ...] = ()
    removal: tuple[Object, ...] = ()
    endpoints: Callable[[Cluster], Sequence[Endpoint]] = nothing
    retired: str = ""

    @property
    def release_name(self) -> str:
        """Name of its Helm release."""
        return (self.release and self.release.name) or self.name
