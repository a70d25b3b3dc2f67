"""operations/kube.py on a simulated API: plans, applies, prunes, and the operations themselves."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.component import COMPONENT
from cluster.manifest import manifest
from cluster.readiness import Exists, Ref
from facts.live import Live
from operations import kube
from tests.unit.fake_api import FakeApi
from tests.unit.kube_world import World

APPS = [{"kind": "Deployment", "name": "deployments", "namespaced": True}]
TOYS = [{"kind": "Toy", "name": "toys", "namespaced": True}]
CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: toys.lab.example}
spec:
  group: lab.example
  names: {kind: Toy, plural: toys}
  versions: [{name: v1, schema: {type: object}}]
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.api.LONGEST_PAUSE", 0.01)
    monkeypatch.setattr("runtime.api.REDISCOVER_AFTER", 0.05)
    monkeypatch.setattr(kube, "PAUSE", 0.05)


@pytest.fixture
def server() -> FakeApi:
    server = FakeApi()
    server.groups["apps/v1"] = APPS
    return server


class Cluster:
    """What an engine does with objects, in one run."""

    def __init__(self, server: FakeApi) -> None:
        self.world = World(server)
        self.api = self.world.api
        self.said: list[str] = []

    def plan(self, *items: dict[str, Any]) -> list[kube.Change]:
        return kube.plan_objects(self.api, Live(self.api), items)

    def apply(self, *items: dict[str, Any], timeout: float = 1) -> str | None:
        return kube.apply_changes(self.api, self.plan(*items), self.said.append, timeout=timeout)


@pytest.fixture
def cluster(server: FakeApi) -> Cluster:
    return Cluster(server)


def config_map(name: str, namespace: str = "default", **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": {COMPONENT: "lab"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def web(replicas: int = 1) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "template": {"containers": [{"name": "a", "image": "a:1"}]}},
    }


def test_what_is_there_is_one_list_a_kind_and_no_dry_run(cluster: Cluster, server: FakeApi) -> None:
    items = [config_map("a", x="1"), config_map("b"), web()]
    assert cluster.apply(*items) is None
    server.log.clear()
    assert [change.kind for change in cluster.plan(*items)] == ["same"] * 3
    assert sorted(server.lines()) == ["GET /api/v1/configmaps", "GET /apis/apps/v1/deployments"]


def test_only_what_differs_is_dry_run_and_a_plan_changes_nothing(
    cluster: Cluster, server: FakeApi
) -> None:
    assert cluster.apply(config_map("a", x="1"), web()) is None
    server.log.clear()
    changes = cluster.plan(config_map("a", x="1"), web(replicas=2))
    assert [change.kind for change in changes] == ["same", "change"]
    (patch,) = (request for request in server.log if request.method == "PATCH")
    assert patch.query["dryRun"] == "All"
    assert server.object("deployments", "web", "default")["spec"]["replicas"] == 1
    assert changes[1].lines == ["Deployment default/web: spec.replicas: 1 → 2"]


def test_what_the_api_would_not_change_is_the_same(cluster: Cluster, server: FakeApi) -> None:
    """A mutation that looks like a difference and that a dry run shows to be none."""
    assert cluster.apply(config_map("a", x="1")) is None
    stored = server.object("configmaps", "a", "default")
    stored["data"]["x"] = "normalised"
    server.fail("PATCH", 200, body=stored)
    (change,) = cluster.plan(config_map("a", x="1"))
    assert change.kind == "same"


def test_whoever_changed_a_field_is_named_and_the_field_put_back(
    cluster: Cluster, server: FakeApi
) -> None:
    assert cluster.apply(web()) is None
    server.edit("deployments", "web", {"spec": {"replicas": 5}}, "default", by="kubectl-edit")
    (change,) = cluster.plan(web())
    assert change.others == ("kubectl-edit",)
    cluster.said.clear()
    assert cluster.apply(web()) is None
    assert cluster.said == [
        "Deployment default/web: spec.replicas: 5 → 1",
        "Deployment default/web: was changed by kubectl-edit",
    ]
    assert server.object("deployments", "web", "default")["spec"]["replicas"] == 1


def test_fields_of_others_stay(cluster: Cluster, server: FakeApi) -> None:
    assert cluster.apply(config_map("a", x="1")) is None
    server.edit("configmaps", "a", {"data": {"theirs": "2"}}, "default")
    assert [change.kind for change in cluster.plan(config_map("a", x="1"))] == ["same"]
    assert cluster.apply(config_map("a", x="2")) is None
    assert server.object("configmaps", "a", "default")["data"] == {"x": "2", "theirs": "2"}


def test_what_we_no_longer_want_in_an_object_goes(cluster: Cluster, server: FakeApi) -> None:
    assert cluster.apply(config_map("a", x="1", old="1")) is None
    assert cluster.apply(config_map("a", x="1")) is None
    assert server.object("configmaps", "a", "default")["data"] == {"x": "1"}
    assert [change.kind for change in cluster.plan(config_map("a", x="1"))] == ["same"]


def test_a_plan_that_the_api_refuses_says_so(cluster: Cluster, server: FakeApi) -> None:
    assert cluster.apply(web()) is None
    server.fail("PATCH", 422, body={"message": "spec.selector: field is immutable"})
    (change,) = cluster.plan(web(replicas=2))
    assert change.kind == "change" and "immutable" in change.lines[-1]
    server.fail("PATCH", 422, body={"message": "spec.selector: field is immutable"}, times=9)
    cause = cluster.apply(web(replicas=2))
    assert cause == "Deployment default/web: spec.selector: field is immutable"


def test_namespaces_come_first_and_webhooks_last(cluster: Cluster, server: FakeApi) -> None:
    server.groups["admissionregistration.k8s.io/v1"] = [
        {"kind": "ValidatingWebhookConfiguration", "name": "hooks", "namespaced": False}
    ]
    hook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "h"},
        "webhooks": [],
    }
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}}
    assert cluster.apply(hook, web(), config_map("a", "new"), space) is None
    sent = [line.rpartition("/")[2] for line in server.lines(method="PATCH")]
    assert sent == ["new", "a", "web", "h"]


def test_an_object_waits_for_its_kind(cluster: Cluster, server: FakeApi) -> None:
    toy = {
        "apiVersion": "lab.example/v1",
        "kind": "Toy",
        "metadata": {"name": "t", "namespace": "default"},
    }
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        server.groups["lab.example/v1"] = TOYS

    changes = cluster.plan(toy)
    assert kube.apply_changes(cluster.api, changes, say, timeout=30) is None
    assert said[0].startswith("waiting: Toy default/t: the cluster has no kind Toy")
    assert server.object("toys", "t", "default")


def test_a_webhook_is_waited_for_and_one_that_never_answers_is_the_cause(
    cluster: Cluster, server: FakeApi
) -> None:
    message = 'failed calling webhook "x.y": no endpoints available for service "y"'
    server.fail("PATCH", 500, body={"message": message}, times=7)
    assert cluster.apply(config_map("a"), timeout=10) is None
    server.fail("PATCH", 500, body={"message": message}, times=999)
    cause = cluster.apply(config_map("b"), timeout=0.2)
    assert cause is not None and message in cause


def test_a_refusal_of_the_content_is_final(cluster: Cluster, server: FakeApi) -> None:
    server.fail("PATCH", 422, body={"message": "size must be a number"}, times=2)
    assert cluster.apply(config_map("a"), timeout=60) == (
        "ConfigMap default/a: size must be a number"
    )
    assert len(server.lines(method="PATCH")) == 1


def test_a_run_that_is_broken_off_stops_waiting(cluster: Cluster, server: FakeApi) -> None:
    server.fail("PATCH", 404, body={"message": 'namespaces "x" not found'}, times=99)
    changes = cluster.plan(config_map("a"))
    stopped = kube.apply_changes(
        cluster.api, changes, cluster.said.append, timeout=60, stop=lambda: True
    )
    assert stopped is not None and "not found" in stopped


def test_values_of_secrets_never_stand_in_a_line(cluster: Cluster, server: FakeApi) -> None:
    def secret(text: str) -> dict[str, Any]:
        metadata = {"name": "s", "namespace": "default"}
        return {
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"k": text},
        }  # fmt: skip

    assert cluster.apply(secret("hunter2")) is None
    assert [change.kind for change in cluster.plan(secret("hunter2"))] == ["same"]
    assert cluster.apply(secret("hunter3")) is None
    assert server.object("secrets", "s", "default")["data"] == {"k": "aHVudGVyMw=="}
    assert not any("hunter" in line or "aHVu" in line for line in cluster.said)


def test_a_crd_is_compared_by_metadata_alone(cluster: Cluster, server: FakeApi) -> None:
    (crd,) = manifest(CRD)
    assert cluster.apply(crd) is None
    server.log.clear()
    assert [change.kind for change in cluster.plan(crd)] == ["same"]
    listed = [request for request in server.log if "customresource" in request.path]
    assert [request.accept for request in listed] == [
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    ]
    versions = [{"name": "v1", "schema": {"type": "string"}}]
    server.edit("customresourcedefinitions", "toys.lab.example", {"spec": {"versions": versions}})
    (change,) = cluster.plan(crd)
    assert change.kind == "change" and change.others == ("kubectl-edit",)
    assert cluster.apply(crd) is None
    assert [change.kind for change in cluster.plan(crd)] == ["same"]


def test_only_what_we_applied_for_that_component_is_surplus(
    cluster: Cluster, server: FakeApi
) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "default", "labels": {COMPONENT: "lab"}},
    }
    server.groups["v1"] = [
        {"kind": "PersistentVolumeClaim", "name": "persistentvolumeclaims", "namespaced": True}
    ]
    other = config_map("other")
    other["metadata"]["labels"] = {COMPONENT: "another"}
    assert cluster.apply(config_map("a"), config_map("b"), other, claim) is None
    server.put("configmaps", "theirs", "default", labels={COMPONENT: "lab"})
    live = Live(cluster.api)
    changes = kube.plan_objects(cluster.api, live, [config_map("a"), claim])
    keep = [change.ref for change in changes if change.ref.kind == "ConfigMap"]
    old = kube.surplus(live, "lab", keep)
    assert old == [Ref("v1", "ConfigMap", "b", "default")]
    assert kube.prune(cluster.api, old, cluster.said.append) is None
    assert ("configmaps", "default", "b") not in server.objects
    assert ("persistentvolumeclaims", "default", "data") in server.objects


# --- as operations of a deploy


def test_the_operation_plans_brings_about_and_is_empty_the_second_time(server: FakeApi) -> None:
    items = [config_map("a", x="1"), web()]
    assert World(server).plan(kube.objects, items).will_change
    assert ("configmaps", "default", "a") not in server.objects
    assert World(server).run(kube.objects, items)
    assert not World(server).plan(kube.objects, items).will_change


def test_the_operation_prunes_when_asked(server: FakeApi) -> None:
    both = [config_map("a"), config_map("b")]
    World(server).run(kube.objects, both, component="mine", prune_others=True)
    assert not World(server).plan(kube.objects, both[:1], component="mine").will_change
    assert World(server).run(kube.objects, both[:1], component="mine", prune_others=True)
    assert ("configmaps", "default", "b") not in server.objects


def test_before_there_is_a_cluster_objects_are_to_be_created(server: FakeApi) -> None:
    server.stop()
    assert World(server).plan(kube.objects, [config_map("a")]).will_change


def test_an_operation_that_fails_says_its_cause(server: FakeApi) -> None:
    server.fail("PATCH", 422, body={"message": "no"}, times=9)
    world = World(server)
    world.plan(kube.objects, [config_map("a")])
    world.execute()
    assert world.host in world.state.failed_hosts
    assert "ConfigMap default/a: no" in world.said


def test_ready_is_nothing_to_do_when_it_is(server: FakeApi) -> None:
    check = [Exists("v1", "ConfigMap", "a", "default")]
    assert World(server).plan(kube.ready, check, timeout=1).will_change
    server.put("configmaps", "a", "default")
    assert not World(server).plan(kube.ready, check, timeout=1).will_change
