"""The gates of the rolling engine: what holds, and the cause when it does not."""

from __future__ import annotations

import pytest

from cluster.probe import Done, Pending
from operations import gates
from tests.unit.kube_world import World, put_node

VERSION = "v1.36.2+k3s1"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("runtime.api.LONGEST_PAUSE", 0.01)
    world = World()
    for name in ("server1", "server2", "server3"):
        put_node(world.server, name, voter=True)
    return world


def test_a_node_is_ready_with_its_version(world: World) -> None:
    assert gates.node_ready(world.api, "server1", VERSION)() == Done(
        "server1 is Ready with v1.36.2+k3s1"
    )


def test_an_old_kubelet_is_not_enough(world: World) -> None:
    assert gates.node_ready(world.api, "server1", "v1.36.3+k3s1")() == Pending(
        "server1 still reports v1.36.2+k3s1, not v1.36.3+k3s1"
    )


def test_a_node_that_is_not_ready_tells_its_condition_and_last_warning(world: World) -> None:
    put_node(world.server, "server1", ready=False)
    about = {"kind": "Node", "name": "server1"}
    for name, time, reason in (
        ("a", "2026-03-01T12:00:00Z", "Old"),
        ("b", "2026-03-01T12:05:00Z", "InvalidDiskCapacity"),
    ):
        world.server.put(
            "events",
            name,
            "default",
            involvedObject=about,
            type="Warning",
            reason=reason,
            message="0 on image filesystem",
            lastTimestamp=time,
        )
    world.server.put(
        "events",
        "c",
        "default",
        involvedObject=about,
        type="Normal",
        reason="Starting",
        message="",
        lastTimestamp="2026-03-01T12:09:00Z",
    )
    assert gates.node_ready(world.api, "server1")() == Pending(
        "server1 is not Ready: kubelet is silent; last event: InvalidDiskCapacity: "
        "0 on image filesystem"
    )


def test_a_missing_node_is_not_registered(world: World) -> None:
    assert gates.node_ready(world.api, "agent1")() == Pending("agent1 is not registered")
    assert gates.nodes_registered(world.api, ["server1", "agent1"])() == Pending(
        "not registered: agent1"
    )
    assert isinstance(gates.nodes_registered(world.api, ["server1", "server2"])(), Done)


def test_other_nodes_must_be_ready(world: World) -> None:
    put_node(world.server, "server1", ready=False)
    assert isinstance(gates.others_ready(world.api, "server1")(), Done)
    assert gates.others_ready(world.api, "server2")() == Pending(
        "server1 is not Ready: kubelet is silent"
    )


def test_a_learner_does_not_vote(world: World) -> None:
    servers = ["server1", "server2", "server3"]
    assert isinstance(gates.etcd_voters(world.api, servers)(), Done)
    put_node(world.server, "server3", voter=False)
    put_node(world.server, "server2")
    assert gates.etcd_voters(world.api, servers)() == Pending(
        "1 of 3 vote in etcd; server2: no member, server3: Node has not been promoted from learner"
    )


def test_a_member_that_the_inventory_no_longer_has_must_vote_too(world: World) -> None:
    gate = gates.others_vote(world.api, "server1", ["server2"])
    assert gate() == Done("2 servers vote in etcd")
    put_node(world.server, "server3", voter=False)
    put_node(world.server, "server1", voter=False)
    assert gate() == Pending(
        "1 of 2 vote in etcd; server3: Node has not been promoted from learner"
    )
    condition = {"type": "EtcdIsVoter", "status": "False", "reason": "NotAMember"}
    world.server.put("nodes", "server3", status={"conditions": [condition]})
    assert gate() == Done("1 servers vote in etcd")


def test_readiness_is_asked_of_that_server(world: World) -> None:
    assert isinstance(gates.api_ready(world.api, "@fake/server1")(), Done)
    world.server.unready = ["etcd", "poststarthook/start"]
    assert gates.api_ready(world.api, "@fake/server1")() == Pending(
        "@fake/server1 is not ready: etcd failed, poststarthook/start failed"
    )


def test_without_longhorn_there_are_no_volumes_to_wait_for(world: World) -> None:
    assert gates.volumes_healthy(world.api)() == Done("no Longhorn")


def test_unhealthy_volumes_are_named_by_their_claim(world: World) -> None:
    world.server.groups["longhorn.io/v1beta2"] = [
        {"kind": "Volume", "name": "volumes", "namespaced": True}
    ]
    put = world.server.put
    put("volumes", "pvc-1", "longhorn-system", status={"robustness": "healthy"})
    put("volumes", "pvc-2", "longhorn-system", status={"robustness": "unknown"})
    assert gates.volumes_healthy(world.api)() == Done("2 volumes are healthy")
    put(
        "volumes",
        "pvc-3",
        "longhorn-system",
        status={
            "robustness": "degraded",
            "kubernetesStatus": {"namespace": "db", "pvcName": "data"},
            "conditions": [
                {"type": "Scheduled", "status": "False", "reason": "ReplicaSchedulingFailure"}
            ],
        },
    )
    assert gates.volumes_healthy(world.api)() == Pending(
        "1 volume: db/data is degraded (ReplicaSchedulingFailure)"
    )


@pytest.mark.parametrize(
    "gate",
    [
        lambda api: gates.node_ready(api, "server1"),
        lambda api: gates.others_ready(api, "server1"),
        lambda api: gates.etcd_voters(api, ["server1"]),
        lambda api: gates.nodes_registered(api, ["server1"]),
        lambda api: gates.volumes_healthy(api),
        lambda api: gates.api_ready(api, "@fake/server1"),
    ],
)
def test_without_an_api_no_gate_opens(world: World, gate: object) -> None:
    world.server.stop()
    probe = gate(world.api)()  # type: ignore[operator]
    assert isinstance(probe, Pending)
    assert "nothing listens at the API port of @fake/server1" in probe.text
