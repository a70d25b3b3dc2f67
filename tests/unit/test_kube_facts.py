"""facts/kube.py beyond nodes: what we applied for a component."""

from __future__ import annotations

import pytest

from cluster.answer import Present, Stopped
from cluster.component import COMPONENT
from facts.kube import Objects
from tests.unit.fake_api import FakeApi
from tests.unit.kube_world import World


@pytest.fixture
def server() -> FakeApi:
    return FakeApi()


def test_objects_of_a_component_are_those_that_we_applied(server: FakeApi) -> None:
    world = World(server)
    for kind, name in (("ConfigMap", "a"), ("Secret", "b")):
        metadata = {"name": name, "namespace": "default", "labels": {COMPONENT: "web"}}
        world.api.apply({"apiVersion": "v1", "kind": kind, "metadata": metadata})
    server.put("configmaps", "copied", "default", labels={COMPONENT: "web"})
    answer = world.host.get_fact(Objects, component="web")
    assert answer == Present(["Secret default/b", "ConfigMap default/a"])
    assert world.host.get_fact(Objects, component="other") == Present([])


def test_a_list_that_fails_is_no_empty_answer(
    server: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.api.LONGEST_PAUSE", 0.01)
    server.fail("GET .*configmaps", 503, times=99, body={"message": "overloaded"})
    world = World(server)
    assert isinstance(world.host.get_fact(Objects, component="web"), Stopped)
