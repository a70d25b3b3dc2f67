"""A drain against a simulated API: evictions, budgets, what is said when it does not end."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from cluster import marks
from cluster.probe import Done, Pending
from operations import node_actions
from runtime import signals
from runtime.api import NODE
from tests.unit.kube_world import World, put_budget, put_node, put_pod

SHORT = 1.0  # seconds to wait; a busy machine has looked at least once by then


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_actions, "INTERVAL", 0.05)
    monkeypatch.setattr("runtime.api.LONGEST_PAUSE", 0.01)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    put_node(world.server, "node1")
    put_node(world.server, "node2")
    yield world
    signals.undo()


def drain(world: World, timeout: float = 1.0, **more: bool) -> bool:
    return node_actions.drain(world.state, world.host, "node1", timeout, **more)


def schedulable(world: World) -> bool:
    return "unschedulable" not in world.server.object("nodes", "node1")["spec"]


def pods(world: World) -> set[str]:
    return {name for (plural, _, name) in world.server.objects if plural == "pods"}


def test_the_pods_of_the_node_are_evicted_after_its_cordon(world: World) -> None:
    put_pod(world.server, "web-1", "node1")
    put_pod(world.server, "web-2", "node2")
    assert drain(world)
    assert pods(world) == {"web-2"}
    changes = [line for line in world.server.lines() if not line.startswith("GET")]
    assert changes == [
        "PATCH /api/v1/nodes/node1",
        "POST /api/v1/namespaces/default/pods/web-1/eviction",
    ]


def test_a_budget_is_waited_for(world: World) -> None:
    put_pod(world.server, "web-1", "node1", labels={"app": "web"})
    put_budget(world.server, "web", allowed=0)

    def recover() -> None:
        world.server.object("poddisruptionbudgets", "web", "default")["status"][
            "disruptionsAllowed"
        ] = 1

    gevent.spawn_later(0.3, recover)
    assert drain(world, timeout=5)
    assert pods(world) == set()


def test_at_the_limit_the_budget_and_its_pods_are_named(world: World) -> None:
    for number in range(1, 6):
        put_pod(world.server, f"web-{number}", "node1", labels={"app": "web"})
    put_budget(world.server, "web", allowed=0)
    assert not drain(world, timeout=SHORT)
    assert (
        "5 pods left; budget default/web (1 of at least 1 healthy) keeps "
        "default/web-1, default/web-2, default/web-3 and 2 more"
    ) in world.said[-1]
    assert pods(world) == {f"web-{n}" for n in range(1, 6)}


def test_at_the_limit_the_finalizer_is_named(world: World) -> None:
    put_pod(world.server, "web-1", "node1", finalizers=["example.com/hold"])
    assert not drain(world, timeout=SHORT)
    assert "default/web-1: its finalizer example.com/hold is not removed" in world.said[-1]


def test_a_pod_that_is_ending_is_not_evicted_again(world: World) -> None:
    put_pod(world.server, "web-1", "node1", finalizers=["example.com/hold"])
    drain(world, timeout=SHORT)
    assert len(world.server.lines(method="POST")) == 1


def test_a_pod_that_comes_during_the_drain_is_not_chased(world: World) -> None:
    put_pod(world.server, "web-1", "node1", finalizers=["example.com/hold"])
    evacuation = node_actions.Evacuation(world.api, "node1", unmanaged=False)
    assert isinstance(evacuation.probe(), Pending)
    put_pod(world.server, "tolerates-cordons", "node1")
    world.server.remove("pods", "web-1", "default")
    assert evacuation.probe() == Done("pods gone: 1")
    assert pods(world) == {"tolerates-cordons"}


def test_a_pod_under_two_budgets_can_never_be_evicted(world: World) -> None:
    put_pod(world.server, "web-1", "node1", labels={"app": "web"})
    put_budget(world.server, "web", allowed=1)
    world.server.put(
        "poddisruptionbudgets",
        "more",
        "default",
        spec={"selector": {"matchLabels": {"app": "web"}}},
        status={"disruptionsAllowed": 1},
    )
    assert not drain(world, timeout=5)
    assert "more than one PodDisruptionBudget" in world.said[-1]


def test_a_pod_that_nobody_makes_again_forbids_the_drain_unless_told(world: World) -> None:
    put_pod(world.server, "debug", "node1")
    del world.server.object("pods", "debug", "default")["metadata"]["ownerReferences"]
    assert not drain(world, timeout=5)
    assert "pod default/debug has no controller" in world.said[-1]
    assert pods(world) == {"debug"}
    assert drain(world, unmanaged=True)
    assert pods(world) == set()


def test_critical_pods_wait_for_the_others(world: World) -> None:
    put_pod(world.server, "dns", "node1", spec={"priority": 2_000_000_000})
    put_pod(world.server, "web-1", "node1", labels={"app": "web"})
    put_budget(world.server, "web", allowed=0)
    assert not drain(world, timeout=SHORT)
    assert pods(world) == {"dns", "web-1"}


def test_a_lost_api_is_waited_for(world: World) -> None:
    put_pod(world.server, "web-1", "node1")
    world.server.fail("GET .*/pods$", 503, times=7)
    assert drain(world, timeout=5)
    assert pods(world) == set()


def test_the_only_node_is_left_alone_and_work_goes_on(world: World) -> None:
    world.server.remove("nodes", "node2")
    put_pod(world.server, "web-1", "node1")
    assert drain(world)
    assert world.said == ["node1 is not drained: no node but node1 takes ordinary pods"]
    assert pods(world) == {"web-1"}
    assert schedulable(world)


def test_with_all_others_down_nothing_is_touched(world: World) -> None:
    put_node(world.server, "node2", ready=False)
    put_pod(world.server, "web-1", "node1")
    assert not drain(world)
    assert world.said == ["no other node can take the pods of node1: node2 is not Ready"]
    assert not world.server.lines(method="P")


def test_degraded_volumes_are_waited_for_before_the_cordon(world: World) -> None:
    world.server.groups["longhorn.io/v1beta2"] = [
        {"kind": "Volume", "name": "volumes", "namespaced": True}
    ]
    world.server.put("volumes", "pvc-1", "longhorn-system", status={"robustness": "degraded"})
    assert not drain(world, timeout=SHORT)
    assert "1 volume: pvc-1 is degraded" in world.said[-1]
    assert schedulable(world)


def test_longhorn_s_own_budget_is_explained(world: World) -> None:
    world.server.groups["longhorn.io/v1beta2"] = [
        {"kind": "Volume", "name": "volumes", "namespaced": True},
        {"kind": "Setting", "name": "settings", "namespaced": True},
    ]
    world.server.put(
        "settings", "node-drain-policy", "longhorn-system", value="block-if-contains-last-replica"
    )
    world.server.put(
        "pods",
        "instance-manager-1",
        "longhorn-system",
        labels={"app": "instance-manager-1"},
        spec={"nodeName": "node1", "priority": 1_000_000_000},
        ownerReferences=[{"kind": "InstanceManager", "name": "x", "controller": True}],
    )
    put_budget(world.server, "instance-manager-1", allowed=0, namespace="longhorn-system")
    assert not drain(world, timeout=SHORT)
    assert (
        "Longhorn's node-drain-policy is block-if-contains-last-replica: "
        "the node holds the last healthy replica" in world.said[-1]
    )


def test_a_broken_run_undoes_the_cordon_of_a_node_it_did_not_change(world: World) -> None:
    put_pod(world.server, "web-1", "node1", labels={"app": "web"})
    put_budget(world.server, "web", allowed=0)
    assert not drain(world, timeout=SHORT)
    assert not schedulable(world)
    signals.undo()
    assert schedulable(world)
    assert marks.CORDONED not in world.server.object("nodes", "node1")["metadata"]["annotations"]


def test_a_broken_run_leaves_the_cordon_of_a_node_it_has_begun_to_change(world: World) -> None:
    assert drain(world)
    assert node_actions.keep_cordon(world.state, world.host, "node1", "K3s is being restarted")
    signals.undo()
    assert not schedulable(world)


def test_the_cordon_of_a_killed_run_is_undone_by_a_broken_one_when_nothing_was_changed(
    world: World,
) -> None:
    assert drain(world)
    signals.drop("cordon of node1")  # a killed run undoes nothing
    assert drain(world)
    signals.undo()
    assert schedulable(world)


def test_the_cordon_of_a_node_that_a_killed_run_had_begun_to_change_stays(world: World) -> None:
    assert drain(world)
    assert node_actions.keep_cordon(world.state, world.host, "node1", "its K3s is being changed")
    signals.drop("cordon of node1")  # a killed run undoes nothing
    assert drain(world)
    signals.undo()
    assert not schedulable(world)


def test_a_cordon_of_somebody_else_is_not_undone_by_a_broken_run(world: World) -> None:
    world.api.patch(NODE, "node1", {"spec": {"unschedulable": True}})
    assert drain(world)
    assert node_actions.keep_cordon(world.state, world.host, "node1", "its K3s is being changed")
    signals.undo()
    assert not schedulable(world)
    assert not world.server.object("nodes", "node1")["metadata"].get("annotations")


def test_after_an_uncordon_there_is_nothing_to_undo_or_to_keep(world: World) -> None:
    assert drain(world)
    assert node_actions.uncordon(world.state, world.host, "node1")
    world.server.log.clear()
    assert node_actions.keep_cordon(world.state, world.host, "node1", "too late")
    signals.undo()
    assert schedulable(world) and not world.server.lines(method="PATCH")


def test_a_cordon_says_who_when_and_why(world: World) -> None:
    assert node_actions.cordon(world.state, world.host, "node1", "upgrade to v1.36.2")
    found = world.server.object("nodes", "node1")
    assert found["spec"]["unschedulable"] is True
    assert '"why": "upgrade to v1.36.2"' in found["metadata"]["annotations"][marks.CORDONED]
    assert '"by": ' in found["metadata"]["annotations"][marks.CORDONED]


def test_the_cordon_of_somebody_else_survives_cordon_and_uncordon(world: World) -> None:
    put_node(world.server, "node1", spec={"unschedulable": True})
    assert node_actions.cordon(world.state, world.host, "node1", "upgrade")
    assert node_actions.uncordon(world.state, world.host, "node1")
    assert world.server.object("nodes", "node1")["spec"]["unschedulable"] is True
    assert not world.server.lines(method="P")


def test_a_node_that_changes_in_between_is_read_again(world: World) -> None:
    world.server.fail("PATCH", 409, times=2)
    assert node_actions.cordon(world.state, world.host, "node1", "upgrade")
    assert world.server.object("nodes", "node1")["spec"]["unschedulable"] is True
    assert world.server.lines().count("GET /api/v1/nodes/node1") == 3


def test_an_unreachable_api_fails_a_cordon_with_its_cause(world: World) -> None:
    world.server.stop()
    assert not node_actions.cordon(world.state, world.host, "node1", "upgrade")
    assert world.said[-1] == (
        "node node1: stopped: nothing listens at the API port of @fake/server1"
    )
