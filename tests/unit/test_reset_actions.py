"""A node leaves the cluster, against a simulated API."""

from __future__ import annotations

import pytest

from operations import node_actions, reset_actions
from runtime import signals
from tests.unit.cluster_example import example
from tests.unit.kube_world import World, put_node


def test_a_node_that_has_left_has_no_cordon_to_undo(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(signals.logger, "warning", said.append)
    monkeypatch.setattr(reset_actions, "cluster", lambda: example(servers=1, agents=2))
    world = World()
    for name in ("node1", "node2", "node3"):
        put_node(world.server, name)
    assert node_actions.drain(world.state, world.host, "node3", timeout=5)
    assert reset_actions.leave(world.state, world.host, "node3", timeout=5)
    signals.undo()
    assert not [line for line in said if "node3" in line]


def test_a_node_that_is_not_let_go_is_uncordoned_at_a_broken_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reset_actions, "cluster", lambda: example(servers=1, agents=2))
    world = World()
    for name in ("node1", "node3"):
        put_node(world.server, name)
    assert node_actions.drain(world.state, world.host, "node3", timeout=5)
    world.server.fail("DELETE", 403, times=9)
    assert not reset_actions.leave(world.state, world.host, "node3", timeout=5)
    signals.undo()
    assert "unschedulable" not in world.server.object("nodes", "node3")["spec"]
