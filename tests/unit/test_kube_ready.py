"""operations/kube_ready.py: one wait for many objects, on a simulated API."""

from __future__ import annotations

import time
from typing import Any

import gevent
import pytest

from cluster.probe import Done
from cluster.readiness import Completed, Condition, Established, Exists, Rollout, Webhook
from operations import kube_ready
from operations.kube_ready import await_ready
from tests.unit.fake_api import FakeApi
from tests.unit.kube_world import World

WEB = Rollout("Deployment", "web", "default")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.api.LONGEST_PAUSE", 0.01)
    monkeypatch.setattr("runtime.api.REDISCOVER_AFTER", 0.05)
    for name, seconds in {"AGAIN": 0.05, "EXPLAIN_EVERY": 0.3, "SURE_AFTER": 0.5}.items():
        monkeypatch.setattr(kube_ready, name, seconds)


@pytest.fixture
def server() -> FakeApi:
    server = FakeApi()
    server.groups["apps/v1"] = [{"kind": "Deployment", "name": "deployments", "namespaced": True}]
    server.groups["batch/v1"] = [{"kind": "Job", "name": "jobs", "namespaced": True}]
    return server


class Wait:
    """One wait, and what it said."""

    def __init__(self, server: FakeApi) -> None:
        self.api = World(server).api
        self.said: list[str] = []

    def run(self, *checks: Any, timeout: float = 10, **more: Any) -> str | None:
        return await_ready(self.api, checks, timeout, self.said.append, **more)


@pytest.fixture
def wait(server: FakeApi) -> Wait:
    return Wait(server)


def put_web(server: FakeApi, ready: int, *, wanted: int = 1, conditions: Any = ()) -> None:
    status = {
        "observedGeneration": 1, "updatedReplicas": ready, "readyReplicas": ready,
        "conditions": list(conditions),
    }  # fmt: skip
    spec = {"replicas": wanted, "selector": {"matchLabels": {"app": "web"}}}
    server.put("deployments", "web", "default", spec=spec, status=status, generation=1)


def put_pod(server: FakeApi, reason: str, message: str) -> None:
    state = {"waiting": {"reason": reason, "message": message}}
    status = {"containerStatuses": [{"name": "app", "image": "app:1", "state": state}]}
    server.put("pods", "web-1", "default", labels={"app": "web"}, spec={}, status=status)


def test_what_is_ready_needs_one_look(wait: Wait, server: FakeApi) -> None:
    put_web(server, 1)
    assert wait.run(WEB) is None
    assert wait.run() is None
    assert wait.said == [] or wait.said == ["the first look (10 s left)"]


@pytest.mark.parametrize(
    ("replicas", "updated", "ready", "done"),
    [
        (1, 1, 1, True),
        (2, 1, 1, False),  # which of them is ready is not said: it is the one that was before
        (4, 3, 3, False),
        (4, 3, 4, True),  # an older one that has yet to go
    ],
)
def test_a_pod_of_an_older_template_is_not_taken_for_a_new_one(
    replicas: int, updated: int, ready: int, done: bool
) -> None:
    counts = {"replicas": replicas, "updatedReplicas": updated, "readyReplicas": ready}
    live = {"metadata": {}, "spec": {"replicas": min(replicas, updated)}, "status": counts}
    assert isinstance(WEB.judge(lambda ref: live), Done) == done


def test_a_change_is_seen_at_once_and_told_before(wait: Wait, server: FakeApi) -> None:
    put_web(server, 0, wanted=2)

    def happen() -> None:
        server.wait_for_watch()
        gevent.sleep(0.2)
        put_web(server, 2, wanted=2)

    gevent.spawn(happen)
    began = time.monotonic()
    assert wait.run(WEB, timeout=60) is None
    assert time.monotonic() - began < kube_ready.INTERVAL + 10
    assert any("0 of 2 pods ready" in line for line in wait.said)


def test_objects_of_one_kind_share_a_watch(wait: Wait, server: FakeApi) -> None:
    for name in ("a", "b", "c"):
        server.put("configmaps", name, "default")
    checks = [Exists("v1", "ConfigMap", name, "default") for name in ("a", "b", "c", "d")]
    gevent.spawn_later(0.3, server.put, "configmaps", "d", "default")
    assert wait.run(*checks) is None
    assert len([r for r in server.log if "watch" in r.query]) == 1
    server.log.clear()
    assert wait.run(checks[0]) is None
    (listed,) = (r for r in server.log if "watch" not in r.query)
    assert listed.query["fieldSelector"] == "metadata.name=a"


def test_a_kind_that_is_not_there_yet_is_waited_for(wait: Wait, server: FakeApi) -> None:
    toys = [{"kind": "Toy", "name": "toys", "namespaced": False}]
    ready = [{"type": "Ready", "status": "True"}]

    def happen() -> None:
        server.groups["lab.example/v1"] = toys
        server.put("toys", "t", status={"conditions": ready})

    def say(line: str) -> None:
        wait.said.append(line)
        if "does not exist" in line:
            happen()

    checks = (Established(("toys.lab.example",)), Condition("lab.example/v1", "Toy", "t"))
    assert await_ready(wait.api, checks, 60, say) is None
    missing = "CustomResourceDefinition toys.lab.example does not exist"
    assert any(missing in line for line in wait.said)


def test_the_end_of_the_time_has_the_cause(wait: Wait, server: FakeApi) -> None:
    put_web(server, 0)
    put_pod(server, "CreateContainerConfigError", 'secret "x" not found')
    cause = wait.run(WEB, timeout=1)
    assert cause == (
        "not within 1 s: Deployment default/web: 0 of 1 pods ready; "
        'pod web-1: container app: CreateContainerConfigError: secret "x" not found'
    )


def test_what_is_hopeless_ends_at_once(wait: Wait, server: FakeApi) -> None:
    put_web(server, 0)
    put_pod(server, "InvalidImageName", "no such form")
    cause = wait.run(WEB, timeout=60)
    assert cause is not None and "InvalidImageName" in cause and "not within" not in cause


def test_a_job_that_fails_is_the_end(wait: Wait, server: FakeApi) -> None:
    failed = {"type": "Failed", "status": "True", "message": "BackoffLimitExceeded"}

    def happen() -> None:
        gevent.sleep(kube_ready.INTERVAL + 0.3)
        server.put("jobs", "j", "default", spec={}, status={"conditions": [failed]})

    gevent.spawn(happen)
    cause = wait.run(Completed("j", "default"), timeout=60)
    assert cause == "Job default/j: BackoffLimitExceeded"


def test_an_old_failure_may_pass_and_one_that_lasts_is_final(wait: Wait, server: FakeApi) -> None:
    def put_job(kind: str) -> None:
        condition = {"type": kind, "status": "True", "message": "too slow"}
        server.put("jobs", "j", "default", spec={}, status={"conditions": [condition]})

    put_job("Failed")
    gevent.spawn_later(0.2, put_job, "Complete")
    assert wait.run(Completed("j", "default"), timeout=60) is None
    put_job("Failed")
    assert wait.run(Completed("j", "default"), timeout=60) == "Job default/j: too slow"


def test_a_rollout_may_be_slower_than_kubernetes_expects(wait: Wait, server: FakeApi) -> None:
    late = {"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "too slow"}
    put_web(server, 0, conditions=[late])
    gevent.spawn_later(kube_ready.SURE_AFTER + 0.5, put_web, server, 1)
    assert wait.run(WEB, timeout=60) is None
    put_web(server, 0, conditions=[late])
    cause = wait.run(WEB, timeout=1)
    assert cause is not None and cause.startswith("not within 1 s: Deployment default/web: 0 of 1")
    assert "no progress for its progressDeadlineSeconds" in cause


def test_a_change_that_nobody_has_seen_yet_is_not_ready(wait: Wait, server: FakeApi) -> None:
    put_web(server, 1)
    server.object("deployments", "web", "default")["metadata"]["generation"] = 2
    cause = wait.run(WEB, timeout=1)
    assert cause == "not within 1 s: Deployment default/web is not looked at yet"


def test_the_pods_behind_a_webhook_are_its_cause(wait: Wait, server: FakeApi) -> None:
    server.groups["admissionregistration.k8s.io/v1"] = [
        {"kind": "ValidatingWebhookConfiguration", "name": "hooks", "namespaced": False}
    ]
    server.groups["v1"] = [
        {"kind": "Service", "name": "services", "namespaced": True},
        {"kind": "Endpoints", "name": "endpoints", "namespaced": True},
    ]
    hook = server.put("hooks", "h")
    hook["webhooks"] = [{"clientConfig": {"caBundle": "x"}}]
    server.put("services", "web", "default", spec={"selector": {"app": "web"}})
    put_pod(server, "CreateContainerConfigError", "no CA")
    check = Webhook("ValidatingWebhookConfiguration", "h", "web", "default")
    cause = wait.run(check, timeout=1)
    assert cause is not None
    assert "Service default/web has no ready pod; pod web-1: container app" in cause


def test_a_run_that_stops_ends_the_wait(wait: Wait, server: FakeApi) -> None:
    cause = wait.run(WEB, timeout=60, stop=lambda: True)
    assert cause is not None and cause.startswith("stopped while waiting")


def test_an_api_that_goes_away_is_said_and_comes_back(wait: Wait, server: FakeApi) -> None:
    put_web(server, 0)

    def happen() -> None:
        server.wait_for_watch()
        server.stop()
        server.cut_watches()
        gevent.sleep(3)
        server.start()
        put_web(server, 1)

    gevent.spawn(happen)
    assert wait.run(WEB, timeout=60) is None, wait.said
    assert any("nothing listens" in line or "cut the connection" in line for line in wait.said)


def test_many_waits_do_not_disturb_each_other(server: FakeApi) -> None:
    put_web(server, 1)
    waits = [Wait(server) for _ in range(10)]
    jobs = [gevent.spawn(one.run, WEB) for one in waits]
    gevent.joinall(jobs)
    assert [job.value for job in jobs] == [None] * 10
