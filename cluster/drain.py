"""Draining a node: which pods go, in which order, and what forbids it.

The rules of `kubectl drain --ignore-daemonsets --delete-emptydir-data`, with two waves: pods of
the system and of the storage (priority of 1,000,000,000 and more) go when the others are gone,
because the others need them to end well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cluster.node import Node

Object = Mapping[str, Any]

MIRROR = "kubernetes.io/config.mirror"  # annotation of a static pod's image in the API
CRITICAL = 1_000_000_000  # the highest priority an ordinary PriorityClass may have
SLACK = 5.0  # seconds a pod may stay beyond its grace period
LIFECYCLE_TAINTS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")


class PodRef(NamedTuple):
    """One pod; a pod of the same name that comes later has another UID."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Pods to evict wave by wave, and what forbids the drain."""

    waves: tuple[tuple[PodRef, ...], ...]
    refusals: tuple[str, ...]

    @property
    def evict(self) -> tuple[PodRef, ...]:
        """All pods to evict, in order."""
        return tuple(pod for wave in self.waves for pod in wave)


@dataclass(frozen=True, slots=True)
class NoDrain:
    """Why a node is not drained; `fatal` when it must not be taken down undrained either."""

    reason: str
    fatal: bool


def plan(pods: Iterable[Object], *, unmanaged: bool = False) -> Plan:
    """Decide what becomes of the pods of a node.

    Args:
        pods: Pod objects bound to the node.
        unmanaged: evict also pods that no controller makes again.
    """
    evict: list[tuple[bool, PodRef]] = []
    refusals: list[str] = []
    for pod in pods:
        ref = ref_of(pod)
        if _stays(pod):
            continue
        if not (unmanaged or _controller(pod) or _finished(pod)):
            refusals.append(f"pod {ref} has no controller that would make it again")
        else:
            evict.append((_priority(pod) >= CRITICAL, ref))
    waves = [tuple(sorted(ref for late, ref in evict if late is wave)) for wave in (False, True)]
    return Plan(tuple(wave for wave in waves if wave), tuple(sorted(refusals)))


def ref_of(pod: Object) -> PodRef:
    """Name and UID of a Pod object."""
    metadata = pod["metadata"]
    return PodRef(metadata["namespace"], metadata["name"], metadata["uid"])


def no_drain(name: str, nodes: Mapping[str, Node]) -> NoDrain | None:
    """Why a node is not drained: no other node can take its pods.

    Args:
        name: the node to drain.
        nodes: all nodes by name.
    """
    others = [node for node in nodes.values() if node.name != name and takes_ordinary_pods(node)]
    if not others:
        return NoDrain(f"no node but {name} takes ordinary pods", fatal=False)
    if any(node.ready and node.schedulable for node in others):
        return None
    states = (f"{node.name} is {'cordoned' if node.ready else 'not Ready'}" for node in others)
    return NoDrain(f"no other node can take the pods of {name}: {', '.join(states)}", fatal=True)


def takes_ordinary_pods(node: Node) -> bool:
    """Whether pods without tolerations may run there when it is healthy and not cordoned."""
    return not any(
        taint.effect in ("NoSchedule", "NoExecute") and not taint.key.startswith(LIFECYCLE_TAINTS)
        for taint in node.taints
    )


def budgets_of(pod: Object, budgets: Iterable[Object]) -> list[Object]:
    """The PodDisruptionBudgets that cover a pod."""
    return [
        budget
        for budget in budgets
        if budget["metadata"]["namespace"] == pod["metadata"]["namespace"]
        and selects(budget["spec"].get("selector"), pod["metadata"].get("labels") or {})
    ]


def selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; one without rules matches all, a missing one nothing."""
    if selector is None:
        return False
    exact: Mapping[str, str] = selector.get("matchLabels") or {}
    return exact.items() <= labels.items() and all(
        _holds(rule, labels) for rule in selector.get("matchExpressions") or ()
    )


def budget_text(budget: Object) -> str:
    """A budget as `default/web (1 of at least 1 healthy)`."""
    metadata, status = budget["metadata"], budget.get("status") or {}
    healthy, wanted = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
    return f"{metadata['namespace']}/{metadata['name']} ({healthy} of at least {wanted} healthy)"


def overdue(pod: Object, now: datetime) -> str:
    """Why a terminating pod is still there after its grace period; empty when that is not over.

    Args:
        pod: a Pod object with a deletionTimestamp, which is the end of its grace period.
        now: with time zone.
    """
    end = datetime.fromisoformat(pod["metadata"]["deletionTimestamp"].replace("Z", "+00:00"))
    seconds = (now.astimezone(UTC) - end).total_seconds()
    if seconds < SLACK:
        return ""
    finalizers = pod["metadata"].get("finalizers") or ()
    if finalizers:
        return f"its finalizer {', '.join(finalizers)} is not removed"
    return f"its containers have not ended {seconds:.0f} s after their grace period"


def _holds(rule: Object, labels: Mapping[str, str]) -> bool:
    key, values = rule["key"], rule.get("values") or ()
    match rule["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def _stays(pod: Object) -> bool:
    """Whether the node itself keeps the pod: a static one, or one of a DaemonSet."""
    if MIRROR in (pod["metadata"].get("annotations") or {}):
        return True
    return _controller(pod) == "DaemonSet" and not _finished(pod)


def _controller(pod: Object) -> str:
    owners: Sequence[Object] = pod["metadata"].get("ownerReferences") or ()
    return next((str(owner["kind"]) for owner in owners if owner.get("controller")), "")


def _finished(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _priority(pod: Object) -> int:
    return int((pod.get("spec") or {}).get("priority") or 0)
