"""The engine of the platform: plans from what there is, steps in order, one cause at the end.

Simulated: the API (tests/unit/fake_api.py) and helm, which only notes what it was asked to do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.component import Component, Copy, Release, SecretObject
from cluster.helm_release import HelmRelease, Wanted
from cluster.model import Cluster, Platform, Stack
from cluster.readiness import Completed, Exists
from cluster.versions import CHARTS
from operations import platform
from tests.unit.fake_api import FakeApi
from tests.unit.kube_world import World

CLUSTER = cast(
    Cluster, SimpleNamespace(platform=Platform(), stack=Stack(), network=SimpleNamespace())
)


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": data,
    }


LONGHORN = Component(
    name="longhorn",
    namespace="default",
    wanted=lambda cluster: True,
    release=Release(CHARTS["longhorn"], lambda cluster: {"replicas": 3}),
    objects=lambda cluster: [config_map("classes", a="1")],
)
VELERO = Component(
    name="velero",
    namespace="default",
    wanted=lambda cluster: True,
    needs=("longhorn",),
    objects=lambda cluster: [config_map("schedule")],
)

ALONE = replace(VELERO, needs=())


class Helm:
    """Notes what it is asked to do, and answers as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cause: str | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.cause = cause
        self.releases: dict[tuple[str, str], HelmRelease] = {}
        monkeypatch.setattr(platform, "read_releases", lambda api: platform.Present(self.releases))
        monkeypatch.setattr(platform, "read_release", self._read)
        monkeypatch.setattr(platform.helm_process, "carry_out", self._carry_out)

    def _read(self, api: Any, namespace: str, name: str) -> Any:
        found = self.releases.get((namespace, name))
        return platform.Present(found) if found else platform.Absent(name)

    def _carry_out(self, state: Any, wanted: Wanted, action: Any, say: Any, **_: Any) -> str | None:
        self.asked.append((wanted.name, action.kind))
        return self.cause


@pytest.fixture
def helm(monkeypatch: pytest.MonkeyPatch) -> Helm:
    return Helm(monkeypatch)


def release(**values: Any) -> HelmRelease:
    return HelmRelease(
        name="longhorn",
        namespace="default",
        revision=1,
        status="deployed",
        chart="longhorn",
        version=CHARTS["longhorn"].version,
        values=values,
        labels={"picluster.io/component": "longhorn"},
    )


def planned(world: World, *components: Component) -> platform.Platform:
    return platform.planned(world.state, world.host, CLUSTER, components)


def titles(found: platform.Platform) -> list[str]:
    return [plan.title for plan in found.plans.values() if plan.reasons]


def run(world: World, found: platform.Platform) -> bool:
    for plan in found.plans.values():
        if plan.reasons:
            world.plan(
                platform.step,
                component=plan.step.component,
                half=plan.step.half,
                name=plan.title,
            )
    world.execute()
    return not world.state.failed_hosts


def test_on_an_empty_cluster_everything_is_to_be_made(helm: Helm) -> None:
    assert titles(planned(World(), LONGHORN, VELERO)) == [
        f"longhorn: install longhorn {CHARTS['longhorn'].version}, "
        "create ConfigMap kube-system/picluster-longhorn",
        "longhorn objects: create ConfigMap default/classes",
        "velero: create ConfigMap kube-system/picluster-velero",
        "velero objects: create ConfigMap default/schedule",
    ]


def test_what_was_brought_about_is_not_planned_again(helm: Helm) -> None:
    world = World()
    assert run(world, planned(world, LONGHORN, VELERO))
    assert helm.asked == [("longhorn", "install")]
    helm.releases = {("default", "longhorn"): release(replicas=3)}
    assert titles(planned(World(world.server), LONGHORN, VELERO)) == []


def test_one_value_upgrades_one_release(helm: Helm) -> None:
    world = World()
    run(world, planned(world, LONGHORN, VELERO))
    helm.releases = {("default", "longhorn"): release(replicas=2)}
    assert titles(planned(World(world.server), LONGHORN, VELERO)) == [
        "longhorn: upgrade values.replicas: 2 → 3"
    ]


def test_an_object_that_another_component_takes_over_is_not_removed(helm: Helm) -> None:
    world = World()
    shared = replace(ALONE, objects=lambda cluster: [config_map("schedule"), config_map("key")])
    run(world, planned(world, shared))
    taker = replace(ALONE, name="grafana", objects=lambda cluster: [config_map("key")])
    again = World(world.server)
    found = planned(again, taker, replace(ALONE, needs=("grafana",)))
    assert "velero objects" not in "".join(titles(found))
    assert run(again, found)
    owner = world.server.object("configmaps", "key", "default")["metadata"]["labels"]
    assert owner["picluster.io/component"] == "grafana"


def test_an_object_that_is_no_longer_wanted_goes(helm: Helm) -> None:
    world = World()
    helm.releases = {("default", "longhorn"): release(replicas=3)}
    run(world, planned(world, LONGHORN))
    again = World(world.server)
    bare = replace(LONGHORN, objects=lambda cluster: [config_map("others")])
    found = planned(again, bare)
    assert titles(found) == [
        "longhorn objects: remove ConfigMap default/classes, create ConfigMap default/others"
    ]
    assert run(again, found)
    assert ("configmaps", "default", "classes") not in world.server.objects


def test_of_what_may_not_overlap_the_old_goes_and_the_changed_makes_room(helm: Helm) -> None:
    """MetalLB refuses a pool of addresses that another one has."""
    world = World()

    def pools(**ranges: str) -> Component:
        sent = [config_map(name, range=given) for name, given in ranges.items()]
        return replace(ALONE, objects=lambda cluster: sent, exclusive=("ConfigMap",))

    run(world, planned(world, pools(own1="1", rest="2-9")))
    again = World(world.server)
    found = planned(again, pools(own2="2", rest="1,3-9"))
    before = len(world.server.log)
    assert run(again, found)
    done = [
        (request.method, request.path.rpartition("/")[2])
        for request in world.server.log[before:]
        if request.method != "GET" and "dryRun" not in request.query and "default" in request.path
    ]
    assert done == [("DELETE", "own1"), ("PATCH", "rest"), ("PATCH", "own2")]


def test_what_is_not_ready_is_waited_for(helm: Helm) -> None:
    world = World()
    waits = replace(ALONE, ready=lambda cluster: [Exists("v1", "Pod", "x", "default")])
    run(world, planned(world, ALONE))
    assert titles(planned(World(world.server), waits)) == [
        "velero objects: wait: Pod default/x does not exist"
    ]


def test_a_copy_may_be_of_what_the_component_itself_brings(helm: Helm) -> None:
    world = World()
    secret = config_map("issuer", ca="Q0E=") | {"kind": "Secret"}
    copy = Copy(("default", "issuer", "ca"), ("default", "anchors", "bundle"))
    copies = replace(ALONE, before=lambda _: [secret], copies=lambda _: [copy], timeout=1)
    assert run(world, planned(world, copies)), world.said
    assert world.server.objects["configmaps", "default", "anchors"]["data"] == {"bundle": "CA"}


def test_a_failure_is_told_once_and_nothing_that_needs_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Helm(monkeypatch, cause="chart longhorn: not found")
    world = World()
    assert not run(world, planned(world, LONGHORN, VELERO))
    assert world.said[-1] == "longhorn: chart longhorn: not found"
    assert ("configmaps", "default", "schedule") not in world.server.objects


def test_without_a_cluster_the_plan_is_what_will_be_made(
    helm: Helm, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    monkeypatch.setattr(type(world.api), "state", lambda self: platform.Absent("no cluster"))
    assert titles(planned(world, ALONE)) == [
        "velero: create 1 object",
        "velero objects: create 1 object",
    ]


def test_a_stopped_cluster_is_not_guessed_about(helm: Helm) -> None:
    world = World()
    world.server.stop()
    found = planned(world, ALONE)
    assert titles(found)[0].startswith("velero: not known: stopped: ")


def test_a_stateless_upgrade_that_never_gets_ready_goes_back(
    helm: Helm, monkeypatch: pytest.MonkeyPatch
) -> None:
    back: list[int] = []
    world = World()
    stateless = replace(LONGHORN, on_failure="rollback", objects=lambda cluster: [])
    key = ("default", "longhorn")
    helm.releases = {key: release(replicas=2)}

    def upgraded(*_: Any, **__: Any) -> None:
        helm.releases = {key: replace(release(replicas=3), revision=2)}

    def never(api: Any, checks: Sequence[Any], *_: Any) -> str | None:
        return "image cannot be pulled" if checks else None

    waits = replace(stateless, release_ready=lambda cluster: [Exists("v1", "Pod", "x", "default")])
    monkeypatch.setattr(platform.helm_process, "carry_out", upgraded)
    monkeypatch.setattr(platform.helm_process, "pick_server", lambda state: world.host)
    monkeypatch.setattr(
        platform.helm_process, "rollback", lambda server, wanted, to: back.append(to)
    )
    monkeypatch.setattr(platform.kube, "await_ready", never)
    assert not run(world, planned(world, waits))
    assert world.said[-1] == "longhorn: image cannot be pulled; rolled back to revision 1"
    assert back == [1]


WEB = replace(
    LONGHORN,
    secrets=lambda cluster: [SecretObject("web-key", "default", {"key": "web.key"})],
    objects=lambda cluster: [],
)
POD = {"containers": [{"name": "web", "envFrom": [{"secretRef": {"name": "web-key"}}]}]}


def workload(kind: str, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {"spec": POD}},
    }


class Web:
    """A cluster with the release of WEB, whose Deployment reads a Secret of ours."""

    def __init__(self, helm: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
        self.key = "old"
        monkeypatch.setattr(platform, "_reveal", lambda name: self.key)
        self.server = FakeApi()
        for version, kind in (("apps/v1", "Deployment"), ("batch/v1", "Job")):
            plural = f"{kind.lower()}s"
            self.server.groups[version] = [{"kind": kind, "name": plural, "namespaced": True}]
        assert self.run(WEB)
        deployment = workload("Deployment", "web")
        found = replace(release(replicas=3), manifest_text=json.dumps(deployment))
        helm.releases = {("default", "longhorn"): found}
        self.server.store("deployments", found.objects[0])
        assert self.titles(WEB) == []

    def titles(self, *components: Component) -> list[str]:
        return titles(planned(World(self.server), *components))

    def run(self, *components: Component) -> bool:
        world = World(self.server)
        return run(world, planned(world, *components))

    def template(self) -> dict[str, Any]:
        """Annotations of the pods: another one starts them anew."""
        spec = self.server.object("deployments", "web", "default")["spec"]
        found: dict[str, Any] = spec["template"].get("metadata", {}).get("annotations", {})
        return found


@pytest.fixture
def web(helm: Helm, monkeypatch: pytest.MonkeyPatch) -> Web:
    return Web(helm, monkeypatch)


def test_pods_start_anew_when_a_secret_that_they_have_read_changes(web: Web) -> None:
    web.key = "new"
    assert web.titles(WEB) == [
        "longhorn: change Secret default/web-key, restart Deployment default/web"
    ]
    assert web.template() == {}  # a plan changes nothing
    assert web.run(WEB)
    first = web.template()
    assert list(first) == ["picluster.io/secrets"]
    assert web.titles(WEB) == []
    web.key = "newer"
    assert web.run(WEB)
    assert web.template() != first
    assert web.titles(WEB) == []


def test_pods_that_a_failed_run_left_with_an_old_secret_start_anew_in_the_next(
    web: Web, helm: Helm
) -> None:
    web.key, helm.cause = "new", "no server can run helm"
    assert not web.run(WEB)
    assert web.template() == {}
    helm.cause = None
    assert web.titles(WEB) == ["longhorn: restart Deployment default/web"]
    assert web.run(WEB)
    assert web.template() != {}
    assert web.titles(WEB) == []


def test_a_secret_that_was_deleted_starts_anew_what_remembers_it_in_the_run_that_makes_it(
    web: Web,
) -> None:
    web.key = "new"
    assert web.run(WEB)
    first = web.template()
    del web.server.objects["secrets", "default", "web-key"]
    assert web.titles(WEB) == [
        "longhorn: create Secret default/web-key, restart Deployment default/web"
    ]
    assert web.run(WEB)
    assert web.template() != first
    assert web.titles(WEB) == []


def test_a_secret_may_be_another_components(web: Web) -> None:
    owner = replace(ALONE, secrets=WEB.secrets)
    reader = replace(LONGHORN, objects=lambda cluster: [], needs=("velero",))
    web.run(owner, reader)
    web.key = "new"
    assert web.titles(owner, reader) == [
        "velero: change Secret default/web-key",
        "longhorn: restart Deployment default/web",
    ]
    assert web.run(owner, reader)
    assert web.template() != {}
    assert web.titles(owner, reader) == []


def test_a_label_of_a_secret_that_is_put_back_restarts_nothing(web: Web) -> None:
    gone = {"metadata": {"labels": {"picluster.io/component": "mine"}}}
    web.server.edit("secrets", "web-key", gone, "default")
    (title,) = web.titles(WEB)
    assert "web-key" in title and "restart" not in title
    assert web.run(WEB)
    assert web.template() == {}


def test_a_job_is_made_again_when_a_secret_that_it_has_read_changes(web: Web) -> None:
    once = replace(WEB, objects=lambda cluster: [workload("Job", "setup")])
    assert web.run(once)
    first = web.server.object("jobs", "setup", "default")["metadata"]["uid"]
    web.key = "new"
    assert "longhorn objects: restart Job default/setup" in web.titles(once)
    assert web.run(once)
    assert web.server.object("jobs", "setup", "default")["metadata"]["uid"] != first
    assert web.titles(once) == []


def test_a_job_that_has_failed_is_tried_again_by_the_next_run(web: Web) -> None:
    once = replace(
        WEB,
        objects=lambda cluster: [workload("Job", "setup")],
        ready=lambda cluster: [Completed("setup", "default")],
        timeout=0,
    )
    assert not web.run(once)
    status = {"conditions": [{"type": "Failed", "status": "True", "message": "backoff limit"}]}
    web.server.edit("jobs", "setup", {"status": status}, "default", by="kcm")
    failed = web.server.object("jobs", "setup", "default")["metadata"]["uid"]
    assert web.titles(once) == ["longhorn objects: wait: Job default/setup: backoff limit"]
    web.run(once)
    assert web.server.object("jobs", "setup", "default")["metadata"]["uid"] != failed
