"""Which pods a drain evicts, in which order, and when it must not begin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cluster import drain
from cluster.few import some
from cluster.node import Node, parse_node

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def pod(name: str, owner: str = "ReplicaSet", **more: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"namespace": "default", "name": name, "uid": f"uid-{name}"}
    if owner:
        metadata["ownerReferences"] = [{"kind": owner, "name": "x", "controller": True}]
    metadata |= more.pop("metadata", {})
    return {"metadata": metadata, "spec": {}, "status": {"phase": "Running"}} | more


def node(name: str, *, ready: bool = True, cordoned: bool = False, taint: str = "") -> Node:
    taints = [{"key": taint, "effect": "NoSchedule"}] if taint else []
    return parse_node(
        {
            "metadata": {"name": name, "uid": name},
            "spec": {"unschedulable": cordoned, "taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
        }
    )


def nodes(*given: Node) -> dict[str, Node]:
    return {n.name: n for n in given}


def names(plan: drain.Plan) -> list[str]:
    return [ref.name for ref in plan.evict]


def test_pods_of_controllers_go() -> None:
    plan = drain.plan([pod("b", "StatefulSet"), pod("a"), pod("c", "Job")])
    assert names(plan) == ["a", "b", "c"]
    assert plan.refusals == ()


def test_pods_of_the_system_and_the_storage_go_last() -> None:
    critical = pod("coredns", spec={"priority": 2_000_000_000})
    storage = pod("instance-manager", "InstanceManager", spec={"priority": 1_000_000_000})
    plan = drain.plan([critical, storage, pod("web"), pod("batch", spec={"priority": -5})])
    assert [[ref.name for ref in wave] for wave in plan.waves] == [
        ["batch", "web"],
        ["coredns", "instance-manager"],
    ]


def test_daemon_and_static_pods_stay() -> None:
    static = pod("etcd", "Node", metadata={"annotations": {drain.MIRROR: "hash"}})
    plan = drain.plan([pod("agent", "DaemonSet"), static])
    assert plan.waves == ()
    assert plan.refusals == ()


def test_a_pod_that_nobody_makes_again_is_refused_unless_told() -> None:
    bare = pod("debug", owner="")
    assert drain.plan([bare]).refusals == (
        "pod default/debug has no controller that would make it again",
    )
    assert names(drain.plan([bare], unmanaged=True)) == ["debug"]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_finished_pods_go_whoever_made_them(phase: str) -> None:
    plan = drain.plan([pod("done", owner="", status={"phase": phase})])
    assert names(plan) == ["done"] and not plan.refusals


def test_a_finished_pod_of_a_daemonset_goes() -> None:
    assert names(drain.plan([pod("done", "DaemonSet", status={"phase": "Failed"})])) == ["done"]


def test_an_owner_that_does_not_control_does_not_count() -> None:
    owned = pod("x", metadata={"ownerReferences": [{"kind": "Thing", "name": "t"}]})
    assert drain.plan([owned]).refusals


def test_a_node_is_drained_when_another_can_take_its_pods() -> None:
    assert drain.no_drain("a", nodes(node("a"), node("b"))) is None


def test_the_only_node_is_not_drained_and_that_is_no_failure() -> None:
    assert drain.no_drain("a", nodes(node("a"))) == drain.NoDrain(
        "no node but a takes ordinary pods", fatal=False
    )


def test_nodes_kept_for_the_control_plane_take_no_ordinary_pods() -> None:
    server = node("server", taint="node-role.kubernetes.io/control-plane")
    assert drain.no_drain("agent", nodes(node("agent"), server)) == drain.NoDrain(
        "no node but agent takes ordinary pods", fatal=False
    )
    assert drain.no_drain("server", nodes(node("agent"), server)) is None


def test_others_that_are_down_or_cordoned_forbid_the_drain() -> None:
    verdict = drain.no_drain(
        "a", nodes(node("a"), node("b", ready=False), node("c", cordoned=True))
    )
    assert verdict == drain.NoDrain(
        "no other node can take the pods of a: b is not Ready, c is cordoned", fatal=True
    )


def test_the_taint_of_a_node_that_is_down_is_not_a_choice() -> None:
    down = node("b", ready=False, taint="node.kubernetes.io/unreachable")
    verdict = drain.no_drain("a", nodes(node("a"), down))
    assert verdict is not None and verdict.fatal


def budget(selector: Any, namespace: str = "default") -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "name": "web"},
        "spec": {"selector": selector},
        "status": {"currentHealthy": 1, "desiredHealthy": 1},
    }


WEB = pod("web-1", metadata={"labels": {"app": "web", "tier": "front"}})


@pytest.mark.parametrize(
    "selector",
    [
        {"matchLabels": {"app": "web"}},
        {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]},
        {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]},
        {"matchExpressions": [{"key": "tier", "operator": "Exists"}]},
        {"matchExpressions": [{"key": "debug", "operator": "DoesNotExist"}]},
        {},
    ],
)
def test_a_budget_covers_what_its_selector_matches(selector: Any) -> None:
    assert drain.budgets_of(WEB, [budget(selector)])


@pytest.mark.parametrize(
    "selector",
    [
        {"matchLabels": {"app": "db"}},
        {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]},
        {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]},
        {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]},
        None,
    ],
)
def test_a_budget_covers_nothing_else(selector: Any) -> None:
    assert not drain.budgets_of(WEB, [budget(selector)])


def test_a_budget_covers_its_namespace_only() -> None:
    assert not drain.budgets_of(WEB, [budget({}, namespace="other")])


def test_a_budget_is_named_with_its_count() -> None:
    assert drain.budget_text(budget({})) == "default/web (1 of at least 1 healthy)"


def ending(seconds_ago: float, **metadata: Any) -> dict[str, Any]:
    end = (NOW - timedelta(seconds=seconds_ago)).isoformat().replace("+00:00", "Z")
    return pod("web", metadata={"deletionTimestamp": end} | metadata)


def test_a_pod_may_use_its_grace_period() -> None:
    assert drain.overdue(ending(-20), NOW) == ""
    assert drain.overdue(ending(2), NOW) == ""


def test_a_finalizer_that_holds_a_pod_is_named() -> None:
    assert drain.overdue(ending(60, finalizers=["example.com/hold"]), NOW) == (
        "its finalizer example.com/hold is not removed"
    )


def test_a_pod_whose_containers_do_not_end_is_named() -> None:
    assert drain.overdue(ending(60), NOW) == (
        "its containers have not ended 60 s after their grace period"
    )


def test_long_lists_are_shortened() -> None:
    assert some("abc") == "a, b, c"
    assert some("abcde") == "a, b, c and 2 more"
