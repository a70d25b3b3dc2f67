"""Secrets that pods read at their start: which workloads use them, and what they remember."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from cluster import pod_secrets
from cluster.readiness import Ref


def ref(name: str) -> Ref:
    return Ref("v1", "Secret", name, "web")


def secret(name: str, text: str, *, uid: str = "1", ours: bool = True) -> dict[str, Any]:
    labels = {"picluster.io/component": "web"} if ours else {}
    metadata = {"name": name, "namespace": "web", "uid": uid, "labels": labels}
    data = {"key": base64.b64encode(text.encode()).decode()}
    return {"kind": "Secret", "metadata": metadata, "data": data}


def workload(pod: dict[str, Any], **annotations: str) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "web", "annotations": annotations},
        "spec": {"template": {"spec": pod}},
    }


def using(*names: str) -> dict[str, Any]:
    return workload(
        {"containers": [{"envFrom": [{"secretRef": {"name": name}} for name in names]}]}
    )


def patched(live: dict[str, Any], patch: Mapping[str, Any] | None) -> dict[str, Any]:
    """The live object after a patch of annotations."""
    assert patch is not None
    after = deepcopy(live)
    after["metadata"]["annotations"] |= patch["metadata"]["annotations"]
    return after


def test_every_way_in_which_a_pod_reads_a_secret_is_known() -> None:
    of_key = {"valueFrom": {"secretKeyRef": {"name": "b", "key": "key"}}}
    pod = {
        "initContainers": [{"env": [of_key]}],
        "containers": [
            {"envFrom": [{"secretRef": {"name": "a"}}, {"configMapRef": {"name": "x"}}]}
        ],
        "volumes": [
            {"secret": {"secretName": "c"}},
            {"projected": {"sources": [{"secret": {"name": "d"}}, {"configMap": {"name": "x"}}]}},
            {"configMap": {"name": "x"}},
        ],
    }
    assert pod_secrets.used(workload(pod)) == tuple(map(ref, "bacd"))


def test_only_a_content_that_is_about_to_change_concerns_pods_that_remember_none() -> None:
    look = {ref("a"): secret("a", "old")}.get
    assert pod_secrets.outdated(using("a"), look) == ()
    assert pod_secrets.outdated(using("a"), look, {ref("a")}) == (ref("a"),)
    assert pod_secrets.outdated(using("a"), look, {ref("b")}) == ()


def test_what_was_remembered_tells_until_the_pods_start_anew() -> None:
    look = {ref("a"): secret("a", "old")}.get
    live = patched(using("a"), pod_secrets.remembered(using("a"), look, [ref("a")]))
    assert pod_secrets.outdated(live, look) == ()
    new = {ref("a"): secret("a", "new")}.get
    assert pod_secrets.outdated(live, new) == (ref("a"),)
    assert pod_secrets.remembered(live, new, [ref("a")]) is None  # the pods still know the old one
    restart = pod_secrets.restarted(live, new)
    assert restart["spec"]["template"]["metadata"] == restart["metadata"]
    assert pod_secrets.outdated(patched(live, restart), new) == ()


def test_a_content_that_goes_back_to_what_the_pods_have_read_restarts_nothing() -> None:
    look = {ref("a"): secret("a", "old")}.get
    live = patched(using("a"), pod_secrets.remembered(using("a"), look, [ref("a")]))
    assert pod_secrets.outdated(live, look, {ref("a")}) == ()


def test_secrets_of_others_are_theirs_to_care_for() -> None:
    look = {ref("tls"): secret("tls", "x", ours=False)}.get
    assert pod_secrets.outdated(using("tls", "gone"), look, {ref("tls"), ref("gone")}) == ()


def test_a_stamp_is_of_no_use_to_whoever_guesses() -> None:
    same = [pod_secrets.stamp(secret("a", "password", uid=uid)) for uid in ("1", "2")]
    assert same[0] != same[1]
    assert len(same[0]) == 16 and "password" not in same[0]
