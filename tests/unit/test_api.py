"""runtime/api.py against simulated API servers: four answers, retries, fail-over, watch."""

from __future__ import annotations

import pytest
from pyinfra.api import Config, Inventory, State

from cluster.answer import Absent, Present, Stopped
from runtime.api import NODE, POD, Api, api_of
from tests.unit.fake_api import FakeApi


def state_with(*servers: FakeApi | str) -> State:
    """A pyinfra state whose servers are simulated ones, or just addresses."""
    hosts = [
        (
            f"server{i}",
            {
                "api_address": s if isinstance(s, str) else s.url,
                "fake_delay": 0,
                "fake_delay_jitter": 0,
                "fake_responses": {"echo kube": "kube"},
            },
        )
        for i, s in enumerate(servers, 1)
    ]
    names = [(f"@fake/{name}", data) for name, data in hosts]
    inventory = Inventory((names, {}), servers=(names, {}))
    return State(inventory, Config())


def api_with(*servers: FakeApi | str) -> Api:
    return api_of(state_with(*servers))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.api.LONGEST_PAUSE", 0.01)


def test_one_object_present_and_absent() -> None:
    server = FakeApi()
    server.put("nodes", "node1")
    api = api_with(server)
    match api.get(NODE, "node1"):
        case Present(value=node):
            assert node["metadata"]["name"] == "node1"
        case other:
            pytest.fail(str(other))
    assert api.get(NODE, "node2") == Absent('nodes "node2" not found')
    assert api.requests == 2


def test_lists_know_their_kind_and_select() -> None:
    server = FakeApi()
    server.put("pods", "a", "default", spec={"nodeName": "node1"})
    server.put("pods", "b", "default", spec={"nodeName": "node2"})
    answer = api_with(server).list(POD, fields="spec.nodeName=node2")
    assert isinstance(answer, Present)
    assert [(p["kind"], p["metadata"]["name"]) for p in answer.value] == [("Pod", "b")]


def test_the_state_of_the_api_is_the_uid_of_the_cluster() -> None:
    assert api_with(FakeApi()).state() == Present("uid-of-the-cluster")


def test_nobody_reached_is_unreachable_never_absent() -> None:
    answer = api_with("http://127.0.0.1:1").state()
    assert answer == Stopped("nothing listens at the API port of @fake/server1")


def test_an_inventory_without_servers_has_no_cluster() -> None:
    state = State(Inventory((["@fake/a"], {})), Config())
    assert api_of(state).state() == Absent("the inventory has no servers")
