"""Labels, taints and cordons: exactly ours are changed, and a second look changes nothing."""

from __future__ import annotations

import json
from typing import Any

from cluster import marks
from cluster.model import Taint
from cluster.node import Node, parse_node

DISK = Taint(key="disk", value="slow", effect="NoSchedule")
CORDON = marks.Cordon("me@home", "2026-03-01T12:00:00+00:00", "upgrade")


def item(**parts: Any) -> dict[str, Any]:
    metadata = {"name": "node1", "uid": "u", "resourceVersion": "7"}
    metadata |= {k: parts[k] for k in ("labels", "annotations") if k in parts}
    return {"metadata": metadata, "spec": parts.get("spec", {}), "status": {}}


def node(**parts: Any) -> Node:
    return parse_node(item(**parts))


def merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target or {})
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def after(before: dict[str, Any], change: marks.Change | None) -> Node:
    assert change is not None
    return parse_node(merged(before, change.patch))


def test_labels_are_set_once() -> None:
    before = item(labels={"kubernetes.io/hostname": "node1"})
    change = marks.labels_change(parse_node(before), {"disk": "ssd"})
    then = after(before, change)
    assert then.labels == {"kubernetes.io/hostname": "node1", "disk": "ssd"}
    assert change is not None and change.lines == ("node1: label disk=ssd",)
    assert marks.labels_change(then, {"disk": "ssd"}) is None


def test_only_our_labels_are_removed() -> None:
    before = item(
        labels={"disk": "ssd", "theirs": "x"}, annotations={marks.LABELS: '["disk", "gone"]'}
    )
    change = marks.labels_change(parse_node(before), {})
    then = after(before, change)
    assert then.labels == {"theirs": "x"}
    assert marks.LABELS not in then.annotations
    assert change is not None and change.lines == ("node1: label disk removed",)
    assert marks.labels_change(then, {}) is None


def test_an_edited_label_says_what_it_was() -> None:
    before = node(labels={"disk": "hdd"}, annotations={marks.LABELS: '["disk"]'})
    change = marks.labels_change(before, {"disk": "ssd"})
    assert change is not None and change.lines == ("node1: label disk=ssd (was hdd)",)
    assert "annotations" not in change.patch["metadata"]


def test_a_label_that_is_there_becomes_ours_and_can_then_be_removed() -> None:
    before = item(labels={"disk": "ssd"})
    change = marks.labels_change(parse_node(before), {"disk": "ssd"})
    then = after(before, change)
    assert json.loads(then.annotations[marks.LABELS]) == ["disk"]
    assert marks.labels_change(then, {}) is not None


def test_no_labels_wanted_and_none_ours_is_no_change() -> None:
    assert marks.labels_change(node(labels={"theirs": "x"}), {}) is None


def test_a_broken_annotation_owns_nothing() -> None:
    before = node(labels={"theirs": "x"}, annotations={marks.LABELS: "{"})
    assert marks.labels_change(before, {}) is None


def test_taints_are_set_once_and_those_of_kubernetes_keep_their_time() -> None:
    unreachable = {
        "key": "node.kubernetes.io/unreachable",
        "effect": "NoExecute",
        "timeAdded": "2026-03-01T12:00:00Z",
    }
    before = item(spec={"taints": [unreachable]})
    change = marks.taints_change(parse_node(before), [DISK])
    assert change is not None
    assert change.patch["spec"]["taints"] == [
        unreachable,
        {"key": "disk", "effect": "NoSchedule", "value": "slow"},
    ]
    assert change.patch["metadata"]["resourceVersion"] == "7"
    assert change.lines == ("node1: taint disk=slow:NoSchedule",)
    assert marks.taints_change(after(before, change), [DISK]) is None


def test_only_our_taints_are_removed() -> None:
    theirs = {"key": "theirs", "effect": "NoSchedule"}
    ours = {"key": "disk", "effect": "NoSchedule", "value": "slow"}
    before = item(
        spec={"taints": [theirs, ours]}, annotations={marks.TAINTS: '["disk:NoSchedule"]'}
    )
    change = marks.taints_change(parse_node(before), [])
    assert change is not None and change.patch["spec"]["taints"] == [theirs]
    assert change.lines == ("node1: taint disk:NoSchedule removed",)
    assert marks.taints_change(after(before, change), []) is None


def test_a_changed_value_replaces_the_taint() -> None:
    ours = {"key": "disk", "effect": "NoSchedule", "value": "fast"}
    before = item(spec={"taints": [ours]}, annotations={marks.TAINTS: '["disk:NoSchedule"]'})
    change = marks.taints_change(parse_node(before), [DISK])
    assert change is not None and len(change.patch["spec"]["taints"]) == 1
    assert marks.taints_change(after(before, change), [DISK]) is None


def test_a_cordon_of_ours_can_be_undone() -> None:
    before = item()
    then = after(before, marks.cordon_change(parse_node(before), CORDON))
    assert not then.schedulable
    assert marks.cordon_of(then) == CORDON
    assert marks.cordon_change(then, CORDON) is None
    change = marks.uncordon_change(then)
    assert change is not None
    assert change.patch["spec"] == {"unschedulable": None}
    assert change.patch["metadata"]["annotations"] == {marks.CORDONED: None}


def test_a_cordon_of_others_is_neither_taken_over_nor_undone() -> None:
    theirs = node(spec={"unschedulable": True})
    assert marks.cordon_change(theirs, CORDON) is None
    assert marks.uncordon_change(theirs) is None
    assert marks.cordon_of(theirs) is None


def test_a_node_uncordoned_by_hand_loses_our_annotation_only() -> None:
    change = marks.uncordon_change(node(annotations={marks.CORDONED: "{}"}))
    assert change is not None and "spec" not in change.patch


def test_a_broken_cordon_annotation_is_still_ours() -> None:
    assert marks.cordon_of(node(annotations={marks.CORDONED: "x"})) == marks.Cordon("?", "?", "?")
