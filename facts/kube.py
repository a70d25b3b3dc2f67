"""What the Kubernetes API says about nodes, as facts of any host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pyinfra.api import FactBase

from cluster.answer import Answer, Present, Unreachable
from runtime.api import NODE, Api, Object, api_of

if TYPE_CHECKING:
    from pyinfra.api import Host, State

ROLE_LABEL = "node-role.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a node: status is `True`, `False` or `Unknown`."""

    status: str
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class NodeTaint:
    """A taint as the API has it."""

    key: str
    effect: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A node object, reduced to what the deploys read."""

    name: str
    uid: str
    created: str  # RFC 3339, UTC
    version: str  # of the kubelet, e.g. v1.36.2+k3s1
    ready: bool
    schedulable: bool  # False: cordoned
    roles: tuple[str, ...]
    internal_ip: str
    etcd_voter: bool | None  # None: no etcd member
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    taints: tuple[NodeTaint, ...]
    conditions: Mapping[str, Condition]
    resource_version: str

    @property
    def why_not_ready(self) -> str:
        """The message of the condition Ready; empty when the node is ready."""
        if self.ready:
            return ""
        condition = self.conditions.get("Ready")
        return (condition.message or condition.reason) if condition else "no status yet"

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra fact`."""
        return asdict(self)


def parse_node(item: Object) -> Node:
    """Read a Node object. Roles and voters as K3s marks them: docs `k3s etcd`, EtcdIsVoter."""
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    labels = metadata.get("labels") or {}
    conditions = {
        entry["type"]: Condition(
            entry["status"], entry.get("reason") or "", entry.get("message") or ""
        )
        for entry in status.get("conditions") or ()
    }
    voter = conditions.get("EtcdIsVoter")
    return Node(
        name=metadata["name"],
        uid=metadata.get("uid") or "",
        created=metadata.get("creationTimestamp") or "",
        version=(status.get("nodeInfo") or {}).get("kubeletVersion") or "",
        ready="Ready" in conditions and conditions["Ready"].status == "True",
        schedulable=not spec.get("unschedulable"),
        roles=tuple(sorted(k.removeprefix(ROLE_LABEL) for k in labels if k.startswith(ROLE_LABEL))),
        internal_ip=next(
            (a["address"] for a in status.get("addresses") or () if a["type"] == "InternalIP"), ""
        ),
        etcd_voter=voter.status == "True" if voter else None,
        labels=labels,
        annotations=metadata.get("annotations") or {},
        taints=tuple(
            NodeTaint(t["key"], t["effect"], t.get("value") or "") for t in spec.get("taints") or ()
        ),
        conditions=conditions,
        resource_version=metadata.get("resourceVersion") or "",
    )


def read_nodes(api: Api) -> Answer[dict[str, Node]]:
    """All nodes by name: one request."""
    match api.list(NODE):
        case Present(value=items):
            return Present({item["metadata"]["name"]: parse_node(item) for item in items})
        case other:
            return other


class _KubeFact(FactBase[Answer[Any]]):
    """A fact whose value comes from the API; its command does nothing on the host."""

    state: State

    @staticmethod
    def default() -> Answer[Any]:
        """What is known when the command of the fact did not run."""
        return Unreachable("the host of the fact was not reached")

    def check_preconditions(self, state: State, host: Host) -> str | None:
        """Keep the state: `process` is not given it (pyinfra calls both on one instance)."""
        self.state = state
        return None

    def process(self, output: list[str]) -> Answer[Any]:
        """Ask the API."""
        return self.read(api_of(self.state))

    def read(self, api: Api) -> Answer[Any]:
        """What the fact says."""
        raise NotImplementedError


class Nodes(_KubeFact):
    """The nodes of the cluster by name: `Answer[dict[str, Node]]`, one request."""

    def command(self) -> str:
        """Something with output, without effect."""
        return "echo kube"

    def read(self, api: Api) -> Answer[dict[str, Node]]:
        """All nodes."""
        return read_nodes(api)


class ClusterUid(_KubeFact):
    """The UID of the cluster (of the namespace kube-system): `Answer[str]`, one request."""

    def command(self) -> str:
        """Something with output, without effect."""
        return "echo kube"

    def read(self, api: Api) -> Answer[str]:
        """The UID."""
        return api.state()
