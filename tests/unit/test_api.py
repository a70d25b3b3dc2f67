"""runtime/api.py against simulated API servers: four answers, retries, fail-over, watch."""

from __future__ import annotations

from pathlib import Path

import gevent
import pytest
from pyinfra.api import Config, Inventory, State

from cluster.answer import Absent, Forbidden, Present, Stopped, Unreachable
from runtime.api import NODE, POD, Api, Kind, api_of
from runtime.endpoint import ApiError
from tests.unit.fake_api import FakeApi, hang


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


def test_a_refused_connection_is_stopped_never_absent() -> None:
    answer = api_with("http://127.0.0.1:1").state()
    assert answer == Stopped("nothing listens at the API port of @fake/server1")


def test_an_inventory_without_servers_has_no_cluster() -> None:
    state = State(Inventory((["@fake/a"], {})), Config())
    assert api_of(state).state() == Absent("the inventory has no servers")


def test_an_unknown_kind_is_absent_and_a_known_one_is_asked_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runtime.api.REDISCOVER_AFTER", 0)
    server = FakeApi()
    volumes = Kind("longhorn.io/v1beta2", "Volume")
    api = api_with(server)
    assert isinstance(api.list(volumes), Absent)
    server.groups["longhorn.io/v1beta2"] = [
        {"kind": "Volume", "name": "volumes", "namespaced": True},
        {"kind": "Volume", "name": "volumes/status", "namespaced": True},
    ]
    server.put("volumes", "pvc-1", "longhorn-system")
    before = api.requests
    for _ in range(2):
        answer = api.list(volumes)
        assert isinstance(answer, Present) and len(answer.value) == 1
    assert api.requests == before + 4


def test_a_refusal_of_the_api_is_forbidden_with_its_words() -> None:
    server = FakeApi()
    server.fail("GET .*nodes", 403, body={"message": "nodes is forbidden: User may not"})
    assert api_with(server).list(NODE) == Forbidden("nodes is forbidden: User may not")


def test_overload_and_server_errors_pass() -> None:
    server = FakeApi()
    server.put("nodes", "node1")
    server.fail("GET .*nodes", 429, headers={"Retry-After": "1"})
    server.fail("GET .*nodes", 503, times=2)
    assert isinstance(api_with(server).get(NODE, "node1"), Present)
    assert len(server.log) == 4


def test_an_error_that_stays_is_stopped_after_a_bounded_number_of_attempts() -> None:
    server = FakeApi()
    server.fail("GET .*nodes", 503, times=99, body={"message": "apiserver not ready"})
    assert api_with(server).list(NODE) == Stopped("@fake/server1: apiserver not ready")
    assert len(server.log) == 5


def test_a_server_with_a_broken_datastore_is_left_for_the_next() -> None:
    broken, sound = FakeApi(), FakeApi()
    sound.put("nodes", "node1")
    broken.fail("GET", 500, times=99, body={"message": "etcdserver: no leader"})
    api = api_with(broken, sound)
    assert isinstance(api.get(NODE, "node1"), Present)
    assert len(broken.log) == 1
    assert api.current == "@fake/server2"


def test_a_server_that_says_nothing_is_left_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.api.TIMEOUT", (0.2, 0.2))
    silent, sound = FakeApi(), FakeApi()
    silent.fail("GET", act=hang)
    sound.put("nodes", "node1")
    assert isinstance(api_with(silent, sound).get(NODE, "node1"), Present)


def test_no_answer_within_the_limit_is_not_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.api.TIMEOUT", (0.2, 0.2))
    server = FakeApi()
    server.fail("GET", act=hang, times=9)
    assert isinstance(api_with(server).get(NODE, "node1"), Unreachable)


def test_a_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    state = state_with("https://127.0.0.1:1")
    state.inventory.get_host("@fake/server1").data.api_kubeconfig = str(tmp_path / "none")
    answer = api_of(state).list(NODE)
    assert isinstance(answer, Forbidden)
    assert answer.reason.endswith("none: No such file or directory")


def test_the_readiness_of_a_server_is_its_own() -> None:
    sick, sound = FakeApi(), FakeApi()
    sick.unready = ["etcd"]
    api = api_with(sick, sound)
    assert api.ready("@fake/server2") == Present(None)
    assert api.ready("@fake/server1") == Stopped("@fake/server1 is not ready: etcd failed")


def test_a_patch_meets_a_conflict_and_passes() -> None:
    server = FakeApi()
    server.put("nodes", "node1")
    server.fail("PATCH", 409, times=2)
    changed = api_with(server).patch(NODE, "node1", {"metadata": {"labels": {"a": "b"}}})
    assert changed["metadata"]["labels"] == {"a": "b"}
    assert server.object("nodes", "node1")["metadata"]["labels"] == {"a": "b"}


def test_a_conditional_patch_is_not_repeated() -> None:
    server = FakeApi()
    server.put("nodes", "node1")
    body = {"metadata": {"resourceVersion": "1", "labels": {"a": "b"}}}
    with pytest.raises(ApiError) as caught:
        api_with(server).patch(NODE, "node1", body)
    assert caught.value.status == 409
    assert server.lines() == ["PATCH /api/v1/nodes/node1"]


def test_apply_sends_our_field_manager_and_a_dry_run_stores_nothing() -> None:
    server = FakeApi()
    api = api_with(server)
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}}
    api.apply(body, dry_run=True)
    assert isinstance(api.get(Kind("v1", "Namespace"), "new"), Absent)
    api.apply(body, force=True)
    assert isinstance(api.get(Kind("v1", "Namespace"), "new"), Present)
    applied = [r.query for r in server.log if r.method == "PATCH"]
    assert applied == [
        {"fieldManager": "picluster", "dryRun": "All"},
        {"fieldManager": "picluster", "force": "true"},
    ]


def test_fields_of_another_manager_are_named_and_not_fought_over() -> None:
    server = FakeApi()
    cause = {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl"', "field": ".x"}
    server.fail(
        "PATCH", 409, times=9, body={"message": "Apply failed", "details": {"causes": [cause]}}
    )
    with pytest.raises(ApiError) as caught:
        api_with(server).apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}}
        )
    assert caught.value.other_manager
    assert caught.value.causes[0]["message"] == 'conflict with "kubectl"'
    assert len(server.log) == 1


def test_deleting_what_is_gone_says_so() -> None:
    server = FakeApi()
    server.put("pods", "a", "default")
    api = api_with(server)
    assert api.delete(POD, "a", "default") is True
    assert api.delete(POD, "a", "default") is False


def test_deleting_that_very_object_spares_its_successor() -> None:
    server = FakeApi()
    server.put("pods", "a", "default", uid="second")
    with pytest.raises(ApiError) as caught:
        api_with(server).delete(POD, "a", "default", uid="first")
    assert caught.value.status == 409
    assert server.object("pods", "a", "default")


def test_a_budget_refuses_an_eviction_at_once() -> None:
    server = FakeApi()
    server.put("pods", "a", "default", labels={"app": "web"})
    server.put(
        "poddisruptionbudgets",
        "web",
        "default",
        spec={"selector": {"matchLabels": {"app": "web"}}},
        status={"disruptionsAllowed": 0},
    )
    api = api_with(server)
    with pytest.raises(ApiError) as caught:
        api.evict("a", "default")
    assert caught.value.status == 429
    assert caught.value.causes[0]["reason"] == "DisruptionBudget"
    assert len(server.log) == 1
    server.object("poddisruptionbudgets", "web", "default")["status"]["disruptionsAllowed"] = 1
    assert api.evict("a", "default") is True
    assert api.evict("a", "default") is False


def test_a_watch_goes_on_after_it_was_closed() -> None:
    server = FakeApi()
    server.put("nodes", "node1")
    events = api_with(server).watch(NODE, timeout=30)
    assert next(events).type == "ADDED"

    def happen() -> None:
        server.wait_for_watch()
        server.cut_watches()
        server.put("nodes", "node2")

    gevent.spawn(happen)
    event = next(events)
    assert event.object["metadata"]["name"] == "node2"
    events.close()
    assert len([r for r in server.log if "watch" in r.query]) == 2


def test_a_watch_whose_version_expired_tells_what_vanished() -> None:
    server = FakeApi()
    server.put("nodes", "node1")
    server.put("nodes", "node2")
    events = api_with(server).watch(NODE, timeout=30)
    assert [next(events).object["metadata"]["name"] for _ in range(2)] == ["node1", "node2"]

    def happen() -> None:
        server.wait_for_watch()
        del server.objects["nodes", "", "node1"]
        server.expire_watches()

    gevent.spawn(happen)
    seen = [next(events) for _ in range(2)]
    assert [(e.type, e.object["metadata"]["name"]) for e in seen] == [
        ("DELETED", "node1"),
        ("ADDED", "node2"),
    ]
    events.close()


def test_a_watch_ends_with_its_time() -> None:
    assert list(api_with(FakeApi()).watch(NODE, timeout=0.5)) == []


def test_many_greenlets_share_the_api() -> None:
    server = FakeApi()
    server.put("nodes", "node1")
    api = api_with(server)
    jobs = [gevent.spawn(api.get, NODE, "node1") for _ in range(40)]
    gevent.joinall(jobs)
    assert all(isinstance(job.value, Present) for job in jobs)
    assert api.requests == 40


def test_requests_are_counted_over_dropped_connections() -> None:
    server = FakeApi()
    api = api_with(server)
    api.state()
    api.close()
    api.state()
    assert api.requests == 2 == len(server.log)


def test_the_connection_ends_with_the_host_s() -> None:
    server = FakeApi()
    state = state_with(server)
    api = api_of(state)
    api.state()
    host = state.inventory.get_host("@fake/server1")
    host.connect()
    host.disconnect()
    assert api._endpoints == {}


def test_bytes_are_counted_as_they_come_over_the_wire() -> None:
    server = FakeApi()
    api = api_with(server)
    assert isinstance(api.get(NODE, "none"), Absent)
    before = api.received
    server.put("nodes", "node1", annotations={"long": "x" * 300_000})
    assert isinstance(api.list(NODE), Present)
    assert 0 < api.received - before < 30_000  # compressed


def test_metadata_is_all_that_is_sent_when_no_more_is_asked_for() -> None:
    server = FakeApi()
    server.put("nodes", "node1", spec={"long": "x"})
    answer = api_with(server).list(NODE, metadata_only=True)
    assert isinstance(answer, Present)
    (node,) = answer.value
    assert set(node) == {"apiVersion", "kind", "metadata"}
    assert (node["apiVersion"], node["kind"]) == ("v1", "Node")
