"""facts/live.py, facts/helm.py and the discovery, on a simulated API."""

from __future__ import annotations

import gevent
import pytest

from cluster.answer import Absent, Present, Stopped
from cluster.probe import Done, Pending
from cluster.readiness import Established, Ref
from facts.helm import Releases, read_release, read_releases
from facts.live import Live
from runtime.api import CONFIG_MAP, CRD, NODE, SECRET, Kind
from runtime.discovery import discovered
from runtime.endpoint import ApiError
from tests.unit.fake_api import FakeApi
from tests.unit.helm_records import record
from tests.unit.kube_world import World

TOY = Kind("lab.example/v1", "Toy")
TOYS = [{"kind": "Toy", "name": "toys", "namespaced": True}]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.api.LONGEST_PAUSE", 0.01)


@pytest.fixture
def server() -> FakeApi:
    return FakeApi()


def test_a_kind_is_listed_once_whoever_asks(server: FakeApi) -> None:
    server.put("configmaps", "a", "default")
    live = Live(World(server).api)
    jobs = [gevent.spawn(live.look, Ref("v1", "ConfigMap", "a", "default")) for _ in range(20)]
    gevent.joinall(jobs)
    assert all(job.value for job in jobs)
    assert live.look(Ref("v1", "ConfigMap", "b", "default")) is None
    assert server.lines() == ["GET /api/v1/configmaps"]
    live.forget()
    live.look(Ref("v1", "ConfigMap", "a", "default"))
    assert len(server.lines()) == 2


def test_kinds_are_loaded_side_by_side_and_unknown_ones_are_absent(server: FakeApi) -> None:
    live = Live(World(server).api)
    live.load([CONFIG_MAP, NODE, TOY, Kind("x/v1", "Y")])
    assert isinstance(live.of(TOY), Absent)
    assert live.look(Ref("lab.example/v1", "Toy", "t", "default")) is None
    assert set(live.kinds) == {CONFIG_MAP, NODE}
    assert sorted(server.lines()) == [
        "GET /api", "GET /api/v1/configmaps", "GET /api/v1/nodes", "GET /apis",
    ]  # fmt: skip


def test_what_cannot_be_known_is_no_absence(server: FakeApi) -> None:
    server.fail("GET .*configmaps", 503, times=99, body={"message": "overloaded"})
    live = Live(World(server).api)
    assert isinstance(live.of(CONFIG_MAP), Stopped)
    with pytest.raises(ApiError, match="overloaded"):
        live.look(Ref("v1", "ConfigMap", "a", "default"))


def test_records_of_helm_are_left_out_of_secrets(server: FakeApi) -> None:
    server.put("secrets", "mine", "default", type="Opaque")
    server.store("secrets", record("longhorn", 1))
    answer = Live(World(server).api).of(SECRET)
    assert isinstance(answer, Present) and set(answer.value) == {("mine", "default")}


def test_a_crd_that_is_served_is_established(server: FakeApi) -> None:
    server.put("customresourcedefinitions", "toys.lab.example")
    check = Established(("toys.lab.example",))
    api = World(server).api
    assert isinstance(check.judge(Live(api).look), Pending)
    server.groups["lab.example/v1"] = TOYS
    api.rediscover()
    live = Live(api)
    assert isinstance(check.judge(live.look), Done)
    answer = live.of(CRD)
    assert isinstance(answer, Present)


def test_many_who_miss_a_kind_discover_once(server: FakeApi) -> None:
    api = World(server).api
    jobs = [gevent.spawn(api.list, Kind("x/v1", f"K{number}")) for number in range(20)]
    gevent.joinall(jobs)
    assert all(isinstance(job.value, Absent) for job in jobs)
    assert sorted(server.lines()) == ["GET /api", "GET /apis"]


def test_an_api_service_that_is_down_is_stopped_never_absent() -> None:
    document = {
        "items": [
            {
                "metadata": {"name": "metrics.k8s.io"},
                "versions": [{"version": "v1beta1", "freshness": "Stale"}],
            }
        ]
    }
    server = FakeApi()
    server.fail("GET /apis$", 200, body=document)
    answer = World(server).api.list(Kind("metrics.k8s.io/v1beta1", "NodeMetrics"))
    assert answer == Stopped("the API service of metrics.k8s.io/v1beta1 does not answer")


def test_only_what_can_be_changed_is_listable_in_its_preferred_version() -> None:
    def entry(name: str, *verbs: str) -> dict[str, object]:
        kind = {"kind": name.title()}
        return {"resource": name, "responseKind": kind, "scope": "Cluster", "verbs": verbs}

    full = ("list", "patch", "delete", "get")
    versions = [
        {"version": "v1", "resources": [entry("toys", *full), entry("reviews", "create")]},
        {"version": "v1beta1", "resources": [entry("toys", *full)]},
    ]
    found = discovered(0, [{"items": [{"metadata": {"name": "x"}, "versions": versions}]}])
    assert found.listable == (Kind("x/v1", "Toys"),)
    assert found.names == {"toys.x", "reviews.x"}


# --- releases


def test_the_newest_revision_of_each_release_is_one_request(server: FakeApi) -> None:
    server.store("secrets", record("longhorn", 1, status="superseded"))
    server.store("secrets", record("longhorn", 2))
    server.store("secrets", record("velero", 1, namespace="velero", status="failed"))
    api = World(server).api
    answer = read_releases(api)
    assert isinstance(answer, Present)
    assert {key: one.revision for key, one in answer.value.items()} == {
        ("longhorn-system", "longhorn"): 2,
        ("velero", "velero"): 1,
    }
    assert len(server.log) == 1


def test_later_only_records_that_changed_are_read(server: FakeApi) -> None:
    server.store("secrets", record("longhorn", 1))
    server.store("secrets", record("velero", 1))
    api = World(server).api
    assert isinstance(read_releases(api), Present)
    server.log.clear()
    assert isinstance(read_releases(api), Present)
    assert ["Partial" in request.accept for request in server.log] == [True]
    server.log.clear()
    server.store("secrets", record("velero", 2))
    answer = read_releases(api)
    assert isinstance(answer, Present)
    assert answer.value["longhorn-system", "velero"].revision == 2
    assert server.lines()[1:] == [
        "GET /api/v1/namespaces/longhorn-system/secrets/sh.helm.release.v1.velero.v2"
    ]


def test_a_record_that_cannot_be_read_is_no_absence(server: FakeApi) -> None:
    server.store("secrets", record("longhorn", 1) | {"data": {"release": "!"}})
    api = World(server).api
    assert not isinstance(read_releases(api), Present | Absent)
    answer = read_release(api, "longhorn-system", "longhorn")
    assert not isinstance(answer, Present | Absent)
    assert isinstance(read_release(api, "longhorn-system", "other"), Absent)


def test_releases_are_a_fact_that_prints_no_values(server: FakeApi) -> None:
    server.store("secrets", record("longhorn", 1, config={"password": "hunter2"}))
    world = World(server)
    answer = world.host.get_fact(Releases)
    assert isinstance(answer, Present)
    (shown,) = [one.to_json() for one in answer.value.values()]
    assert shown["version"] == "1.12.1" and "hunter2" not in str(shown)
    assert list(answer.value) == ["longhorn-system/longhorn"]
