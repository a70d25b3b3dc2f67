"""cluster/cause.py: one line that says why something does not become ready."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.cause import Cause, of_crd, of_object, of_pods, of_workload

DEPLOYMENT = {"metadata": {"name": "web"}, "status": {}}


def pod(name: str = "web-1", **status: Any) -> dict[str, Any]:
    spec = {"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}
    return {"metadata": {"name": name}, "spec": spec, "status": {"phase": "Pending"} | status}


def container(**state: Any) -> dict[str, Any]:
    more = {key: state.pop(key) for key in ("lastState", "restartCount") if key in state}
    status = {"name": "app", "image": "app:1", "ready": False, "state": state} | more
    return {"containerStatuses": [status]}


def event(name: str, reason: str, message: str, kind: str = "Pod", time: str = "1") -> Any:
    about = {"kind": kind, "name": name}
    return {
        "involvedObject": about, "reason": reason, "message": message, "lastTimestamp": time,
    }  # fmt: skip


def text(*pods: Any, claims: Any = (), events: Any = ()) -> str:
    found = of_pods(pods, claims, events)
    return found.text if found else ""


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return container(waiting={"reason": reason, "message": message})


@pytest.mark.parametrize(
    ("status", "expected", "hopeless"),
    [
        (
            waiting("ImagePullBackOff", 'Back-off pulling "app:1": not found'),
            'pod web-1: image app:1 of app: ImagePullBackOff: Back-off pulling "app:1": not found',
            True,
        ),
        (
            waiting("ErrImagePull", "no match for platform in manifest"),
            "pod web-1: image app:1 of app: ErrImagePull: no match for platform in manifest",
            False,
        ),
        (
            waiting("ImagePullBackOff", "429 Too Many Requests"),
            "pod web-1: image app:1 of app: ImagePullBackOff: 429 Too Many Requests",
            False,
        ),
        (waiting("InvalidImageName"), "pod web-1: image app:1 of app: InvalidImageName", True),
        (
            waiting("CreateContainerConfigError", 'secret "x" not found'),
            'pod web-1: container app: CreateContainerConfigError: secret "x" not found',
            False,
        ),
        (
            container(
                waiting={"reason": "CrashLoopBackOff", "message": "back-off 5m"},
                lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                restartCount=4,
            ),
            "pod web-1: container app ended with 137 (OOMKilled), 4 restarts",
            False,
        ),
        (
            container(
                waiting={"reason": "CrashLoopBackOff"},
                lastState={
                    "terminated": {"exitCode": 1, "reason": "Error", "message": "a\nno database\n"}
                },
                restartCount=1,
            ),
            "pod web-1: container app ended with 1, 1 restarts, no database",
            False,
        ),
        (
            container(
                terminated={"exitCode": 1, "message": "exec /app: exec format error"},
            ),
            "pod web-1: container app ended with 1, exec /app: exec format error",
            True,
        ),
    ],
)
def test_a_container_tells_its_state(status: Any, expected: str, hopeless: bool) -> None:
    assert of_pods([pod(**status)], [], []) == Cause(expected, hopeless)


def test_a_pod_that_no_node_takes_has_the_scheduler_s_words() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    assert text(pod(conditions=[condition])) == (
        "pod web-1: no node takes it: 0/3 nodes are available"
    )


def test_a_claim_without_a_volume_comes_before_the_scheduler() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "unbound claims"}
    claim = {
        "metadata": {"name": "data"},
        "spec": {"storageClassName": "longhorn"},
        "status": {"phase": "Pending"},
    }
    why = event("data", "ProvisioningFailed", "no disk", "PersistentVolumeClaim")
    assert text(pod(conditions=[condition]), claims=[claim], events=[why]) == (
        "pod web-1: claim data has no volume of longhorn: ProvisioningFailed: no disk"
    )


def test_a_pod_that_only_waits_has_its_newest_warning() -> None:
    old = event("web-1", "FailedMount", "old", time="2026-01-01T00:00:00Z")
    new = event("web-1", "FailedMount", "secret x\nnot found", time="2026-01-01T00:01:00Z")
    assert text(pod(**waiting("ContainerCreating")), events=[new, old]) == (
        "pod web-1: FailedMount: secret x not found"
    )


def test_the_hopeless_pod_is_told_first_and_ready_ones_never() -> None:
    ready = pod("web-0", conditions=[{"type": "Ready", "status": "True"}], phase="Running")
    slow = pod("web-1", **waiting("CreateContainerConfigError", "x"))
    bad = pod("web-2", **waiting("InvalidImageName"))
    found = of_pods([ready, slow, bad], [], [])
    assert found and found.hopeless and "web-2" in found.text
    assert of_pods([ready], [], []) is None


def test_without_pods_the_workload_tells_why() -> None:
    quota = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: small"}
    failing = DEPLOYMENT | {"status": {"conditions": [quota]}}
    assert of_workload(failing, [], [], []) == Cause("exceeded quota: small")
    refused = event("web-5d8", "FailedCreate", "violates PodSecurity", "ReplicaSet")
    other = event("database-1", "FailedCreate", "other", "ReplicaSet", time="9")
    found = of_workload(DEPLOYMENT, [], [], [refused, other])
    assert found == Cause("FailedCreate: violates PodSecurity")
    assert of_workload(DEPLOYMENT, [], [], [other]) is None


def test_any_object_has_its_own_warnings() -> None:
    warning = event("tls", "Failed", "no issuer", "Certificate")
    assert of_object("tls", "Certificate", [warning]) == Cause("Failed: no issuer")
    assert of_object("tls", "Issuer", [warning]) is None


def test_a_crd_that_is_not_served_says_why() -> None:
    condition = {"type": "NamesAccepted", "status": "False", "message": "toys is taken"}
    crd = {"metadata": {"name": "toys.x"}, "status": {"conditions": [condition]}}
    assert of_crd(crd) == Cause("toys.x: toys is taken")
