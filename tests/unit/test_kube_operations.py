"""operations/node.py in real pyinfra runs against a simulated API: plans, changes, second runs."""

from __future__ import annotations

import pytest

from cluster.answer import Present
from cluster.model import Taint
from facts.kube import ClusterUid, Nodes
from operations import node as ops
from operations import node_actions
from tests.unit.fake_api import FakeApi
from tests.unit.kube_world import World, put_node, put_pod

LABELS = {"node1": {"disk": "ssd"}, "node2": {}}


@pytest.fixture
def server() -> FakeApi:
    server = FakeApi()
    put_node(server, "node1")
    put_node(server, "node2")
    return server


def labels(server: FakeApi, name: str) -> dict[str, str]:
    found: dict[str, str] = server.object("nodes", name)["metadata"].get("labels", {})
    return found


def test_labels_change_once_and_the_second_run_is_one_request(server: FakeApi) -> None:
    assert World(server).run(ops.labels_of_all, LABELS)
    assert labels(server, "node1") == {"disk": "ssd"}
    server.log.clear()
    world = World(server)
    meta = world.plan(ops.labels_of_all, LABELS)
    assert not meta.will_change
    assert server.lines() == ["GET /api/v1/nodes"]


def test_a_plan_changes_nothing(server: FakeApi) -> None:
    world = World(server)
    assert world.plan(ops.labels_of_all, LABELS).will_change
    assert labels(server, "node1") == {}


def test_one_edited_label_patches_one_node(server: FakeApi) -> None:
    World(server).run(ops.labels_of_all, LABELS)
    server.log.clear()
    assert World(server).run(ops.labels_of_all, {"node1": {"disk": "nvme"}, "node2": {}})
    assert server.lines(method="PATCH") == ["PATCH /api/v1/nodes/node1"]
    assert labels(server, "node1") == {"disk": "nvme"}


def test_a_label_taken_out_of_the_data_is_removed(server: FakeApi) -> None:
    World(server).run(ops.labels, "node1", {"disk": "ssd"})
    assert World(server).run(ops.labels, "node1", {})
    assert labels(server, "node1") == {}


def test_taints_change_once(server: FakeApi) -> None:
    taint = Taint(key="disk", value="slow", effect="NoSchedule")
    assert World(server).run(ops.taints_of_all, {"node1": [taint], "node2": []})
    assert server.object("nodes", "node1")["spec"]["taints"] == [
        {"key": "disk", "value": "slow", "effect": "NoSchedule"}
    ]
    assert not World(server).plan(ops.taints, "node1", [taint]).will_change


def test_before_there_is_a_cluster_labels_are_a_change_to_come(server: FakeApi) -> None:
    server.stop()
    assert World(server).plan(ops.labels_of_all, LABELS).will_change


def test_a_node_that_is_still_missing_in_the_run_fails_it(server: FakeApi) -> None:
    world = World(server)
    assert world.plan(ops.labels_of_all, {"node3": {"disk": "ssd"}}).will_change
    world.execute()
    assert world.host in world.state.failed_hosts
    assert 'node node3: absent: nodes "node3" not found' in world.said


def test_cordon_and_uncordon_and_nothing_to_do_the_second_time(server: FakeApi) -> None:
    assert World(server).run(ops.cordon, "node1", "upgrade")
    assert not World(server).plan(ops.cordon, "node1", "upgrade").will_change
    assert World(server).run(ops.uncordon, "node1")
    assert not World(server).plan(ops.uncordon, "node1").will_change


def test_an_empty_cordoned_node_needs_no_drain(
    server: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_actions, "INTERVAL", 0.05)
    put_pod(server, "web-1", "node1")
    assert World(server).run(ops.drain, "node1", timeout=5)
    assert not World(server).plan(ops.drain, "node1", timeout=5).will_change


def test_nodes_and_uid_are_facts_of_any_host(server: FakeApi) -> None:
    world = World(server)
    nodes = world.host.get_fact(Nodes)
    assert isinstance(nodes, Present)
    assert nodes.value["node1"].version == "v1.36.2+k3s1"
    assert nodes.to_json()["answer"] == "present"
    assert world.host.get_fact(ClusterUid) == Present("uid-of-the-cluster")
