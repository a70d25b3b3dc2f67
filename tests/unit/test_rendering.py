"""What a component sends: namespaces, Secrets, copies, labels, and the record of its kinds."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any, cast

from cluster import rendering
from cluster.component import Component, Copy, Release, SecretObject
from cluster.model import Cluster, Platform, Stack
from cluster.readiness import Exists, Ref
from cluster.versions import CHARTS

MONITOR = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "ServiceMonitor",
    "metadata": {"name": "velero", "namespace": "velero"},
}
SOURCE = ("cert-manager", "root-secret", "ca.crt")

component = Component(
    name="velero",
    namespace="velero",
    wanted=lambda cluster: True,
    release=Release(CHARTS["velero"], lambda cluster: {"a": {"b": 1}, "c": 1}),
    secrets=lambda cluster: [
        SecretObject("s3", "velero", {"cloud": "velero.cloud"}, plain={"user": "velero"})
    ],
    copies=lambda cluster: [Copy(SOURCE, ("velero", "ca", "bundle"))],
    objects=lambda cluster: [MONITOR],
)


def cluster(**values: Any) -> Cluster:
    return cast(
        Cluster, SimpleNamespace(platform=Platform(values=values), stack=Stack(mesh="none"))
    )


def named(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [item for item in objects if item["kind"] == kind and item["metadata"]["name"]]
    return found


def test_the_users_values_are_merged_last() -> None:
    wanted = rendering.release(cluster(velero={"a": {"b": 2}}), component)
    assert wanted and wanted.values == {"a": {"b": 2}, "c": 1}
    assert wanted.component == "velero"


def test_what_has_no_chart_has_no_release() -> None:
    bare = Component(name="x", namespace="x", wanted=lambda cluster: True)
    assert rendering.release(cluster(), bare) is None


def test_secrets_are_filled_from_the_secrets_file_and_from_plain_text() -> None:
    found = rendering.first(cluster(), component, lambda name: f"<{name}>", {})
    data = named(found, "Secret")["data"]
    assert {key: base64.b64decode(text).decode() for key, text in data.items()} == {
        "cloud": "<velero.cloud>",
        "user": "velero",
    }


def test_a_copy_waits_for_its_source() -> None:
    def copies(known: dict[tuple[str, str, str], str]) -> list[dict[str, Any]]:
        found = rendering.first(cluster(), component, lambda name: "", known)
        return [item for item in found if item["metadata"]["name"] == "ca"]

    assert copies({}) == []
    (copy,) = copies({SOURCE: "PEM"})
    assert copy["data"] == {"bundle": "PEM"} and copy["metadata"]["namespace"] == "velero"
    assert rendering.sources(cluster(), component) == (
        Exists("v1", "Secret", "root-secret", "cert-manager"),
    )


def test_all_objects_but_namespaces_carry_the_component() -> None:
    found = [
        *rendering.first(cluster(), component, lambda name: "", {SOURCE: "PEM"}),
        *rendering.last(cluster(), component),
    ]
    labels = {
        (item["kind"], item["metadata"].get("labels", {}).get("picluster.io/component"))
        for item in found
    }
    assert labels == {
        ("Namespace", None),
        ("Secret", "velero"),
        ("ConfigMap", "velero"),
        ("ServiceMonitor", "velero"),
    }


def test_the_inventory_names_all_kinds_and_never_forgets_one() -> None:
    kinds = rendering.inventory(cluster(), component, ["batch/v1 Job"])["data"]["kinds"]
    assert kinds.splitlines() == [
        "batch/v1 Job",
        "monitoring.coreos.com/v1 ServiceMonitor",
        "v1 ConfigMap",
        "v1 Secret",
    ]


def test_what_a_component_keeps_includes_copies_that_cannot_be_made_yet() -> None:
    assert set(rendering.refs(cluster(), component)) == {
        Ref("v1", "Secret", "s3", "velero"),
        Ref("v1", "ConfigMap", "ca", "velero"),
        Ref("v1", "ConfigMap", "picluster-velero", "kube-system"),
        Ref("monitoring.coreos.com/v1", "ServiceMonitor", "velero", "velero"),
    }
