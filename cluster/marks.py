"""Labels, taints and cordons of nodes: what is ours, and the patch that makes it so.

K3s adds the labels of its configuration at every start and never removes one, and sets taints at
the first registration only. So both are kept through the API, and what is ours is remembered in
annotations of the node: nothing else is ever touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.model import Taint
from cluster.node import Node, NodeTaint

LABELS = "picluster.io/labels"  # annotation: JSON list of our label keys
TAINTS = "picluster.io/taints"  # annotation: JSON list of `key:effect`
CORDONED = "picluster.io/cordoned"  # annotation: JSON object of Cordon
DRAIN = "drain"  # reason of a cordon under which nothing was changed yet


@dataclass(frozen=True, slots=True)
class Change:
    """A JSON merge patch of a node, and what it does in words."""

    patch: dict[str, Any]
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cordon:
    """Who made a node unschedulable, when (RFC 3339, UTC) and why."""

    by: str
    when: str
    why: str

    def __str__(self) -> str:
        return f"by {self.by} at {self.when}: {self.why}"


def labels_change(node: Node, wanted: Mapping[str, str]) -> Change | None:
    """What gives a node exactly the wanted labels among ours; None when it has them.

    A label that is there already with the wanted value becomes ours.
    """
    owned = _owned(node, LABELS)
    labels: dict[str, str | None] = {k: v for k, v in wanted.items() if node.labels.get(k) != v}
    labels |= {key: None for key in owned if key not in wanted and key in node.labels}
    lines = [_label_line(node, key, value) for key, value in sorted(labels.items())]
    return _change(node, LABELS, owned, wanted, {}, labels, lines)


def taints_change(node: Node, wanted: Sequence[Taint]) -> Change | None:
    """What gives a node exactly the wanted taints among ours; None when it has them.

    Taints have no merge keys in a patch, so the whole list is sent, on condition that the node
    has not changed since: Kubernetes itself sets and removes taints.
    """
    owned = _owned(node, TAINTS)
    mine = {f"{taint.key}:{taint.effect}": _entry(taint) for taint in wanted}
    live = {f"{taint.key}:{taint.effect}": _live_entry(taint) for taint in node.taints}
    result = {key: entry for key, entry in live.items() if key not in owned or key in mine}
    lines = [f"{node.name}: taint {key} removed" for key in live if key not in result]
    for key, entry in mine.items():
        if _value(live.get(key)) != entry.get("value", ""):
            result[key] = entry
            lines.append(f"{node.name}: taint {_taint_text(entry)}")
    spec = {"taints": list(result.values())} if lines else {}
    return _change(node, TAINTS, owned, mine, spec, {}, lines)


def cordon_of(node: Node) -> Cordon | None:
    """Our cordon of a node, whether the node is still unschedulable or not."""
    text = node.annotations.get(CORDONED)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = {}
    if not isinstance(found, dict):
        found = {}
    return Cordon(*(str(found.get(key, "?")) for key in ("by", "when", "why")))


def cordon_change(node: Node, cordon: Cordon) -> Change | None:
    """What cordons a node as ours; None when it is cordoned already, by us or by others."""
    if not node.schedulable:
        return None
    text = json.dumps({"by": cordon.by, "when": cordon.when, "why": cordon.why})
    return Change(
        _conditional(node, {"unschedulable": True}, {CORDONED: text}),
        (f"{node.name}: cordoned ({cordon.why})",),
    )


def reason_change(node: Node, why: str) -> Change | None:
    """What gives our cordon of a node another reason; None when there is none, or it has it."""
    cordon = cordon_of(node)
    if cordon is None or cordon.why == why:
        return None
    text = json.dumps({"by": cordon.by, "when": cordon.when, "why": why})
    return Change(
        _conditional(node, {}, {CORDONED: text}), (f"{node.name}: stays cordoned ({why})",)
    )


def uncordon_change(node: Node) -> Change | None:
    """What undoes our cordon; None when there is none of ours."""
    if cordon_of(node) is None:
        return None
    spec = {} if node.schedulable else {"unschedulable": None}
    return Change(_conditional(node, spec, {CORDONED: None}), (f"{node.name}: uncordoned",))


def _owned(node: Node, annotation: str) -> tuple[str, ...]:
    try:
        found = json.loads(node.annotations.get(annotation, "[]"))
    except ValueError:
        return ()
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _change(
    node: Node,
    annotation: str,
    owned: Iterable[str],
    wanted: Iterable[str],
    spec: dict[str, Any],
    labels: Mapping[str, str | None],
    lines: Sequence[str],
) -> Change | None:
    keys = sorted(wanted)
    remember: dict[str, str | None] = {}
    if keys != sorted(owned):
        remember[annotation] = json.dumps(keys) if keys else None
        lines = lines or [f"{node.name}: {annotation} remembers {', '.join(keys) or 'nothing'}"]
    if not (remember or spec or labels):
        return None
    patch = _conditional(node, spec, remember)
    if labels:
        patch["metadata"]["labels"] = dict(labels)
    return Change(patch, tuple(lines))


def _conditional(
    node: Node, spec: dict[str, Any], annotations: Mapping[str, str | None]
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"resourceVersion": node.resource_version}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"metadata": metadata} | ({"spec": spec} if spec else {})


def _label_line(node: Node, key: str, value: str | None) -> str:
    if value is None:
        return f"{node.name}: label {key} removed"
    before = f" (was {node.labels[key]})" if key in node.labels else ""
    return f"{node.name}: label {key}={value}{before}"


def _entry(taint: Taint) -> dict[str, str]:
    entry = {"key": taint.key, "effect": taint.effect}
    return entry | ({"value": taint.value} if taint.value else {})


def _live_entry(taint: NodeTaint) -> dict[str, str]:
    entry = {"key": taint.key, "effect": taint.effect}
    if taint.value:
        entry["value"] = taint.value
    if taint.added:
        entry["timeAdded"] = taint.added
    return entry


def _value(entry: Mapping[str, str] | None) -> str | None:
    return None if entry is None else entry.get("value", "")


def _taint_text(entry: Mapping[str, str]) -> str:
    value = f"={entry['value']}" if entry.get("value") else ""
    return f"{entry['key']}{value}:{entry['effect']}"
