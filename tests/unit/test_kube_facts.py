"""facts/kube.py beyond nodes: workloads, CRDs, and what we applied for a component."""

from __future__ import annotations

import json

import pytest

from cluster.answer import Absent, Present, Stopped
from cluster.component import COMPONENT
from facts.kube import Crds, Objects, Workloads
from tests.unit.fake_api import FakeApi
from tests.unit.kube_world import World

APPS = [
    {"kind": kind, "name": f"{kind.lower()}s", "namespaced": True}
    for kind in ("Deployment", "DaemonSet", "StatefulSet")
]


@pytest.fixture
def server() -> FakeApi:
    server = FakeApi()
    server.groups["apps/v1"] = APPS
    return server


def test_workloads_say_what_they_want_and_have(server: FakeApi) -> None:
    containers = [{"name": "app", "image": "app:1"}]
    server.put(
        "deployments",
        "web",
        "default",
        labels={COMPONENT: "web"},
        spec={"replicas": 3, "template": {"spec": {"containers": containers}}},
        status={"updatedReplicas": 2, "readyReplicas": 1},
    )
    server.put("daemonsets", "agent", "default", spec={}, status={"desiredNumberScheduled": 4})
    answer = World(server).host.get_fact(Workloads)
    assert isinstance(answer, Present)
    web = answer.value["Deployment default/web"]
    assert (web.wanted, web.updated, web.ready, web.component) == (3, 2, 1, "web")
    assert web.images == ("app:1",)
    assert len(answer.value) == 2
    assert '"images": ["app:1"]' in json.dumps(web.to_json())


def test_crds_name_the_versions_they_store(server: FakeApi) -> None:
    versions = [{"name": "v1", "served": True}, {"name": "v1alpha1", "served": False}]
    server.put(
        "customresourcedefinitions",
        "toys.lab.example",
        spec={"names": {"kind": "Toy"}, "scope": "Namespaced", "versions": versions},
        status={"storedVersions": ["v1alpha1", "v1"]},
    )
    answer = World(server).host.get_fact(Crds)
    assert isinstance(answer, Present)
    crd = answer.value["toys.lab.example"]
    assert (crd.kind, crd.versions, crd.stored) == ("Toy", ("v1",), ("v1alpha1", "v1"))


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
    server.groups.clear()
    assert isinstance(World(server).host.get_fact(Workloads), Absent)
