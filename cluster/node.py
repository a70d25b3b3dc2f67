"""A Kubernetes node as immutable data, read from its object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

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
    added: str = ""  # when, RFC 3339; only with NoExecute


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
    def etcd_member(self) -> bool:
        """Whether etcd counts the node, be it down or still a learner."""
        condition = self.conditions.get("EtcdIsVoter")
        return condition is not None and condition.reason != "NotAMember"

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


def parse_node(item: Mapping[str, Any]) -> Node:
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
            NodeTaint(t["key"], t["effect"], t.get("value") or "", t.get("timeAdded") or "")
            for t in spec.get("taints") or ()
        ),
        conditions=conditions,
        resource_version=metadata.get("resourceVersion") or "",
    )
