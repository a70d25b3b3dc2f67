"""cluster/helm_release.py: Helm's records, and what follows from them."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from cluster.component import COMPONENT
from cluster.helm_release import (
    HelmRelease,
    RecordError,
    Wanted,
    decide,
    decode,
    failed,
    latest,
    value_changes,
)
from cluster.versions import Chart
from tests.unit.helm_records import record

CHART = Chart("longhorn", "https://charts.longhorn.io", "1.12.1")


def wanted(**more: Any) -> Wanted:
    given: dict[str, Any] = {"values": {"replicas": 3}} | more
    return Wanted("longhorn", "longhorn-system", CHART, component="longhorn", **given)


def found(**more: Any) -> HelmRelease:
    given: dict[str, Any] = {
        "status": "deployed",
        "version": "1.12.1",
        "values": {"replicas": 3},
        "labels": {COMPONENT: "longhorn"},
    }
    return HelmRelease("longhorn", "longhorn-system", 2, chart="longhorn", **given | more)


def test_a_record_is_read_whole() -> None:
    manifest = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
    secret = record(
        "longhorn", 3, labels={COMPONENT: "longhorn"}, config={"a": {"b": None}},
        manifest=manifest, files={"crds/x.yaml": "apiVersion: v1\nkind: X\n", "README.md": "x"},
    )  # fmt: skip
    release = decode(secret)
    assert (release.name, release.revision, release.status) == ("longhorn", 3, "deployed")
    assert (release.chart, release.version, release.kubernetes) == ("longhorn", "1.12.1", ">=1.25")
    assert release.values == {"a": {"b": None}}
    assert release.labels == {COMPONENT: "longhorn"}
    assert [item["kind"] for item in release.crds] == ["X"]
    (item,) = release.objects
    assert item["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "Helm"}
    assert item["metadata"]["annotations"]["meta.helm.sh/release-name"] == "longhorn"


def test_what_a_fact_prints_has_no_values() -> None:
    secret = record("longhorn", 1, config={"adminPassword": "hunter2"})
    assert "hunter2" not in json.dumps(decode(secret).to_json())


@pytest.mark.parametrize("text", ["", "!", base64.b64encode(b"no").decode()])
def test_what_is_no_record_is_said(text: str) -> None:
    secret = record("x", 1) | {"data": {"release": text}}
    with pytest.raises(RecordError, match="holds no release"):
        decode(secret)


def test_the_newest_revision_counts_as_a_number() -> None:
    secrets = [record("a", 9), record("a", 10), record("b", 1), {"metadata": {"name": "x"}}]
    newest = latest(secrets)
    assert {key: one["metadata"]["labels"]["version"] for key, one in newest.items()} == {
        ("longhorn-system", "a"): "10",
        ("longhorn-system", "b"): "1",
    }


def test_a_pending_record_is_marked_failed_and_keeps_everything_else() -> None:
    secret = record("a", 2, status="pending-upgrade", config={"x": 1})
    marked = failed(secret, "was broken off")
    assert marked["metadata"]["labels"]["status"] == "failed"
    release = decode(marked)
    assert (release.status, release.description) == ("failed", "was broken off")
    assert (release.values, release.revision) == ({"x": 1}, 2)
    raw = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(marked["data"]["release"]))))
    before = json.loads(
        gzip.decompress(base64.b64decode(base64.b64decode(secret["data"]["release"])))
    )
    assert raw | {"info": before["info"]} == before


# --- decisions


def test_nothing_is_done_when_all_is_as_wanted() -> None:
    assert decide(wanted(), found()).kind == "nothing"
    same = found(values={"b": [1, {"c": 2.0, "d": None}], "a": 1})
    again = wanted(values={"a": 1, "b": [1, {"d": None, "c": 2}]})
    assert decide(again, same).kind == "nothing"


def test_versions_and_values_are_reasons() -> None:
    action = decide(wanted(values={"replicas": 2, "ui": {"on": True}}), found(version="1.11.0"))
    assert action.kind == "upgrade"
    assert action.reasons == (
        "version 1.11.0 → 1.12.1",
        "values.replicas: 3 → 2",
        'values.ui: none → {"on": true}',
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (1, "1"),
        (True, 1),
        (True, "true"),
        (None, "absent"),
        ([1, 2], [2, 1]),
        ({}, None),
        ("", None),
    ],
)
def test_values_that_differ_in_kind_differ(old: Any, new: Any) -> None:
    assert len(list(value_changes({"k": old}, {"k": new}))) == 1
    assert list(value_changes({"k": old}, {"k": old})) == []


def test_null_is_a_value_that_takes_a_default_away() -> None:
    (change,) = value_changes({}, {"k": None})
    assert str(change) == "values.k: none → null"


@pytest.mark.parametrize(
    "path",
    [
        "adminPassword",
        "auth.token",
        "s3.secretKey",
        "oauth.clientSecret",
        "env.AWS_SECRET_ACCESS_KEY",
    ],
)
def test_values_that_look_secret_are_masked(path: str) -> None:
    *above, key = path.split(".")
    old: Any = {key: "hunter2"}
    new: Any = {key: "hunter3"}
    for part in reversed(above):
        old, new = {part: old}, {part: new}
    (change,) = value_changes(old, new)
    assert "hunter" not in str(change) and path in str(change)
    (whole,) = value_changes({}, new) if above else value_changes({}, {"x": new})
    assert "hunter" not in str(whole)


@pytest.mark.parametrize("path", ["existingSecret.name", "secretName", "replicas", "tokenTTL"])
def test_names_of_secrets_are_shown(path: str) -> None:
    *above, key = path.split(".")
    old: Any = {key: "one"}
    new: Any = {key: "two"}
    for part in reversed(above):
        old, new = {part: old}, {part: new}
    (change,) = value_changes(old, new)
    assert "two" in str(change)


def test_a_missing_release_is_installed() -> None:
    assert decide(wanted(), None).kind == "install"
    assert decide(wanted(), found(status="uninstalled")).kind == "install"


@pytest.mark.parametrize("status", ["pending-install", "pending-upgrade", "pending-rollback"])
def test_what_was_broken_off_is_repaired(status: str) -> None:
    action = decide(wanted(), found(status=status))
    assert (action.kind, action.reasons) == ("repair", (f"was broken off: {status}",))


def test_what_failed_is_tried_again_with_its_reason() -> None:
    action = decide(wanted(), found(status="failed", description="hook timed out"))
    assert (action.kind, action.reasons) == ("repair", ("has failed: hook timed out",))


def test_drift_is_a_reason_and_crds_alone_need_no_upgrade() -> None:
    assert decide(wanted(), found(), drift=["x: 1 → 2"]).kind == "upgrade"
    assert decide(wanted(), found(), crds=["CRD x is missing"]).kind == "crds"
    both = decide(wanted(), found(), drift=["x"], crds=["y"])
    assert (both.kind, both.reasons) == ("upgrade", ("x", "y"))


def test_a_release_of_somebody_else_becomes_ours() -> None:
    action = decide(wanted(), found(labels={}))
    assert action.reasons == (f"label {COMPONENT}: none → longhorn",)


def test_what_is_not_wanted_goes_and_only_once() -> None:
    assert decide(None, found()).kind == "uninstall"
    assert decide(None, None).kind == "nothing"
