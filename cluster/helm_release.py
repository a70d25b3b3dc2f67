"""Helm's own records of releases, and what has to be done with one.

A record is a Secret of type `helm.sh/release.v1` for each revision: `data.release` is the base64 of
base64 of gzip of JSON. Source: pkg/storage/driver of helm.sh/helm/v4; Helm 3 writes the same.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from cluster.component import COMPONENT
from cluster.manifest import manifest
from cluster.mask import MASK, secret_like
from cluster.versions import Chart

Object = dict[str, Any]

RECORD_TYPE = "helm.sh/release.v1"
RECORDS = "owner=helm,status!=superseded"  # label selector: the newest revisions, and few others
OWN_LABELS = frozenset({"name", "owner", "status", "version", "createdAt", "modifiedAt"})
PENDING = frozenset({"pending-install", "pending-upgrade", "pending-rollback"})
# Set by Helm on every object of a release.
MANAGED_BY = "app.kubernetes.io/managed-by"
RELEASE_NAME = "meta.helm.sh/release-name"
RELEASE_NAMESPACE = "meta.helm.sh/release-namespace"


class RecordError(ValueError):
    """A record of Helm cannot be read."""


@dataclass(frozen=True)
class HelmRelease:
    """One revision of a release as Helm recorded it.

    modified: seconds since the epoch of the last change of the record, 0 when unknown.
    values: what the user configured, without the chart's defaults.
    labels: of the record, without Helm's own.
    """

    name: str
    namespace: str
    revision: int
    status: str
    chart: str
    version: str
    app_version: str = ""
    kubernetes: str = ""
    description: str = ""
    modified: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    manifest_text: str = ""
    hook_texts: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()  # CRD files of the chart: name, text
    dependencies: tuple[str, ...] = ()  # names of the chart's own charts

    @cached_property
    def objects(self) -> tuple[Object, ...]:
        """What the release applied, with the marks Helm gives it; raises ManifestError."""
        return tuple(self._marked(item) for item in manifest(self.manifest_text))

    def _marked(self, item: Object) -> Object:
        metadata = item.get("metadata") or {}
        labels = {MANAGED_BY: "Helm"}
        marks = {RELEASE_NAME: self.name, RELEASE_NAMESPACE: self.namespace}
        return item | {
            "metadata": metadata
            | {
                "labels": (metadata.get("labels") or {}) | labels,
                "annotations": (metadata.get("annotations") or {}) | marks,
            }
        }

    @cached_property
    def hooks(self) -> tuple[Object, ...]:
        """Objects that Helm makes at certain moments; raises ManifestError."""
        return tuple(item for text in self.hook_texts for item in manifest(text))

    @cached_property
    def crds(self) -> tuple[Object, ...]:
        """CustomResourceDefinitions of the chart's `crds/`; raises ManifestError."""
        return tuple(item for _, text in self.files for item in manifest(text))

    @property
    def pending(self) -> bool:
        """Whether Helm was, or still is, at work."""
        return self.status in PENDING

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra fact`: no values, they may hold secrets."""
        return {
            "chart": self.chart,
            "version": self.version,
            "app_version": self.app_version,
            "status": self.status,
            "revision": self.revision,
            "component": self.labels.get(COMPONENT, ""),
        }


class Record(NamedTuple):
    """Which revision a record Secret holds, from its metadata alone."""

    namespace: str
    name: str
    revision: int


def record(secret: Mapping[str, Any]) -> Record:
    """What a record's labels say; raises RecordError."""
    metadata = secret["metadata"]
    labels = metadata.get("labels") or {}
    try:
        return Record(metadata["namespace"], labels["name"], int(labels["version"]))
    except (KeyError, ValueError):
        raise RecordError(f"Secret {metadata.get('name')} is no record of Helm") from None


def latest(secrets: Iterable[Object]) -> dict[tuple[str, str], Object]:
    """The record of the newest revision of each release, by namespace and name.

    Args:
        secrets: records, whole or as metadata only; what is none is left out.
    """
    newest: dict[tuple[str, str], tuple[int, Object]] = {}
    for secret in secrets:
        try:
            namespace, name, revision = record(secret)
        except RecordError:
            continue
        known = newest.get((namespace, name))
        if known is None or revision > known[0]:
            newest[namespace, name] = (revision, secret)
    return {key: secret for key, (_, secret) in newest.items()}


def decode(secret: Mapping[str, Any]) -> HelmRelease:
    """The release of a record; raises RecordError."""
    body = _body(secret)
    labels = secret["metadata"].get("labels") or {}
    chart = body.get("chart") or {}
    about = chart.get("metadata") or {}
    info = body.get("info") or {}
    return HelmRelease(
        name=str(body["name"]),
        namespace=str(body.get("namespace") or secret["metadata"]["namespace"]),
        revision=int(body.get("version") or 0),
        status=str(info.get("status") or labels.get("status") or "unknown"),
        chart=str(about.get("name") or ""),
        version=str(about.get("version") or ""),
        app_version=str(about.get("appVersion") or ""),
        kubernetes=str(about.get("kubeVersion") or ""),
        description=str(info.get("description") or ""),
        modified=_seconds(labels.get("modifiedAt") or labels.get("createdAt")),
        values=body.get("config") or {},
        labels={key: value for key, value in labels.items() if key not in OWN_LABELS},
        manifest_text=str(body.get("manifest") or ""),
        hook_texts=tuple(str(hook.get("manifest") or "") for hook in body.get("hooks") or ()),
        files=tuple(_crd_files(chart.get("files") or ())),
        dependencies=tuple(str(one.get("name")) for one in about.get("dependencies") or ()),
    )


def failed(secret: Mapping[str, Any], why: str) -> Object:
    """A record that Helm left pending, as it would be had Helm noted its own failure.

    Helm refuses to touch a pending release and goes on from a failed one.
    Raises: RecordError.
    """
    body = _body(secret)
    body["info"] = (body.get("info") or {}) | {"status": "failed", "description": why}
    packed = gzip.compress(json.dumps(body).encode(), mtime=0)
    data = base64.b64encode(base64.b64encode(packed)).decode()
    metadata = secret["metadata"]
    labels = (metadata.get("labels") or {}) | {"status": "failed"}
    return dict(secret) | {
        "metadata": metadata | {"labels": labels},
        "data": {"release": data},
    }


def _body(secret: Mapping[str, Any]) -> dict[str, Any]:
    name = secret["metadata"].get("name")
    try:
        packed = base64.b64decode(base64.b64decode((secret.get("data") or {})["release"]))
        if packed[:2] == b"\x1f\x8b":  # very old records are not compressed
            packed = gzip.decompress(packed)
        body = json.loads(packed)
    except (KeyError, ValueError, OSError, EOFError, zlib.error, binascii.Error):
        raise RecordError(f"Secret {name} holds no release that can be read") from None
    if not isinstance(body, dict) or "name" not in body:
        raise RecordError(f"Secret {name} holds no release")
    return body


def _seconds(value: object) -> int:
    text = str(value or "")
    return int(text) if text.isdigit() else 0


def _crd_files(files: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for file in files:
        name = str(file.get("name") or "")
        if name.startswith("crds/") and name.endswith((".yaml", ".yml", ".json")):
            yield name, base64.b64decode(str(file.get("data") or "")).decode()


# --- what has to be done


@dataclass(frozen=True)
class Wanted:
    """A release as it should be.

    component: value of the label `picluster.io/component` on the record.
    on_failure: what becomes of a failed upgrade.
    """

    name: str
    namespace: str
    chart: Chart
    values: Mapping[str, Any]
    component: str
    on_failure: Literal["keep", "rollback"] = "keep"
    timeout: int = 300  # seconds each of Helm's hooks may take


Kind = Literal["nothing", "install", "upgrade", "crds", "repair", "uninstall"]


@dataclass(frozen=True)
class Action:
    """What has to be done with a release, and why, one reason a line without secrets.

    crds: only the chart's CRDs have to be applied again.
    """

    kind: Kind
    reasons: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether Helm has to run."""
        return self.kind != "nothing"


class ValueChange(NamedTuple):
    """A value that is not as recorded; ABSENT where there is none."""

    path: tuple[str, ...]
    old: Any
    new: Any

    def __str__(self) -> str:
        if secret_like(self.path):
            return f"values.{'.'.join(self.path)}: {MASK} is changed"
        return f"values.{'.'.join(self.path)}: {_shown(self.old)} → {_shown(self.new)}"


class _Absent:
    """No value at all; null is one, it takes a chart's default away."""

    def __repr__(self) -> str:
        return "none"


ABSENT = _Absent()


def decide(
    wanted: Wanted | None,
    found: HelmRelease | None,
    *,
    drift: Sequence[str] = (),
    crds: Sequence[str] = (),
) -> Action:
    """What has to be done, from what is wanted and what Helm has recorded.

    Args:
        wanted: None to have it removed.
        found: the newest revision; None when there is no release.
        drift: differences of live objects from the release's manifest, one line each.
        crds: what is not as the chart brought its CRDs, one line each.
    """
    gone = found is None or found.status == "uninstalled"
    if wanted is None:
        return Action("nothing") if gone else Action("uninstall", ("is no longer wanted",))
    if found is None or gone:
        return Action("install", (f"{wanted.chart.name} {wanted.chart.version}",))
    reasons = (*_reasons(wanted, found), *drift)
    if crds and not reasons and found.status == "deployed":
        return Action("crds", tuple(crds))
    reasons = (*reasons, *crds)
    if found.pending or found.status == "uninstalling":
        return Action("repair", (f"was broken off: {found.status}", *reasons))
    if found.status == "failed":
        return Action("repair", (f"has failed: {found.description or 'no reason'}", *reasons))
    return Action("upgrade", reasons) if reasons else Action("nothing")


def _reasons(wanted: Wanted, found: HelmRelease) -> Iterator[str]:
    if found.chart != wanted.chart.name:
        yield f"chart {found.chart} → {wanted.chart.name}"
    if found.version.removeprefix("v") != wanted.chart.version.removeprefix("v"):
        yield f"version {found.version} → {wanted.chart.version}"
    yield from (str(change) for change in value_changes(found.values, wanted.values))
    if (label := found.labels.get(COMPONENT)) != wanted.component:
        yield f"label {COMPONENT}: {label or 'none'} → {wanted.component}"


def value_changes(
    old: Mapping[str, Any], new: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[ValueChange]:
    """What differs between two sets of values, in meaning: not by order, and 1 is not "1"."""
    for key in [*old, *(key for key in new if key not in old)]:
        here = (*path, str(key))
        one, other = old.get(key, ABSENT), new.get(key, ABSENT)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from value_changes(one, other, here)
        elif not _alike(one, other):
            yield ValueChange(here, one, other)


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    return type(one) is type(other) and bool(one == other)


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "none"
    text = json.dumps(_masked(value), ensure_ascii=False, default=str)
    return text if len(text) <= 120 else f"{text[:120]}…"


def _masked(value: Any, path: tuple[str, ...] = ()) -> Any:
    if isinstance(value, Mapping):
        return {key: _masked(item, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item, path) for item in value]
    return MASK if value and path and secret_like(path) else value
