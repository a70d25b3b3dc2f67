"""cluster/manifest.py: YAML as Kubernetes reads it, not as YAML 1.1 does."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.manifest import ManifestError, load, manifest


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:22", "22:22"),
        ("12:30:45", "12:30:45"),
        ("00:11:22:33:44:55", "00:11:22:33:44:55"),
        ("2026-01-01", "2026-01-01"),
        ("=", "="),
        ("0644", 420),
        ("0x1F", 31),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        ("1.2.3", "1.2.3"),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("-7", -7),
        ("1Gi", "1Gi"),
        ("v1", "v1"),
    ],
)
def test_a_plain_scalar_is_what_kubernetes_takes_it_for(text: str, value: Any) -> None:
    (found,) = load(f"key: {text}")
    assert found["key"] == value and type(found["key"]) is type(value)


def test_documents_are_taken_apart_and_empty_ones_dropped() -> None:
    text = """
# a comment only
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
---
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Secret, metadata: {name: b}}
- {apiVersion: v1, kind: SecretList, items: [{apiVersion: v1, kind: Secret, metadata: {name: c}}]}
"""
    assert [(o["kind"], o["metadata"]["name"]) for o in manifest(text)] == [
        ("ConfigMap", "a"), ("Secret", "b"), ("Secret", "c"),
    ]  # fmt: skip
    assert manifest("") == []


def test_anchors_and_merge_keys_work() -> None:
    (found,) = load("a: &x {k: 1}\nb: {<<: *x, l: 2}")
    assert found["b"] == {"k": 1, "l": 2}


@pytest.mark.parametrize("text", ["a: [", "just text", "metadata: {name: x}"])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        manifest(text)


def test_an_error_names_its_line() -> None:
    with pytest.raises(ManifestError, match="line 3"):
        manifest("a: 1\nb: [1\n")
