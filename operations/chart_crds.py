"""CRDs of charts: which ones a chart brought, and whether they are still as it brought them.

Helm's record of a release lacks the CRDs of the chart's own charts, so a ConfigMap beside the
release says what was applied: for each CRD its fingerprint and the fields that were ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from cluster.helm_release import HelmRelease, Wanted
from cluster.objects import Object, fingerprint, last_writers, lost, prepared
from cluster.readiness import CRD_API, Ref
from facts.live import Live
from operations.kube import APPLIED
from runtime.api import CONFIG_MAP, FIELD_MANAGER, Api

OF_RELEASE = "picluster.io/crds-of"  # label of such a ConfigMap: the release
DEPTH = 3  # as far down as fields are remembered: metadata.labels.x, spec.names.kind


def name_of(release: str) -> str:
    """Name of the ConfigMap of a release."""
    return f"picluster-crds-{release}"


def remember(api: Api, wanted: Wanted, crds: Sequence[Object]) -> None:
    """Note what was applied for a release. Raises: ApiError."""
    data = {
        crd["metadata"]["name"]: json.dumps(
            {"sha256": fingerprint(crd), "fields": list(_fields(crd))}, separators=(",", ":")
        )
        for crd in map(prepared, crds)
    }
    metadata = {
        "name": name_of(wanted.name),
        "namespace": wanted.namespace,
        "labels": {OF_RELEASE: wanted.name},
    }
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    api.apply(body, force=True)


def forget(api: Api, namespace: str, release: str) -> None:
    """The release is gone; its CRDs stay. Raises: ApiError."""
    api.delete(CONFIG_MAP, name_of(release), namespace)


def drift(live: Live, found: HelmRelease) -> list[str]:
    """What is not as the chart brought it, one CRD a line. Raises: ApiError.

    Reads ConfigMaps and the metadata of CRDs, whatever their number.
    """
    kept = live.look(Ref("v1", "ConfigMap", name_of(found.name), found.namespace))
    if kept is None:
        may_have = found.files or found.dependencies
        return ["the CRDs of the chart were not compared yet"] if may_have else []
    return list(_differing(live, kept.get("data") or {}))


def _differing(live: Live, notes: Mapping[str, str]) -> Iterator[str]:
    for name, text in notes.items():
        note = json.loads(text)
        which = Ref(CRD_API, "CustomResourceDefinition", name)
        crd = live.look(which)
        if crd is None:
            yield f"{which} is missing"
            continue
        annotations = crd["metadata"].get("annotations") or {}
        gone = lost(_skeleton(note["fields"]), crd, FIELD_MANAGER)
        if annotations.get(APPLIED) != note["sha256"] or gone:
            others = ", ".join(last_writers(crd, FIELD_MANAGER)) or "somebody"
            yield f"{which} was changed by {others}"


def _fields(item: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of the fields of an object, some steps deep."""
    for key, value in item.items():
        here = (*path, key)
        if isinstance(value, Mapping) and value and len(here) < DEPTH:
            yield from _fields(dict(value), here)
        elif value not in (None, {}, []):
            yield here


def _skeleton(fields: Sequence[Sequence[str]]) -> Object:
    """An object with those fields and no values."""
    found: Object = {"metadata": {}}
    for *above, last in fields:
        place = found
        for key in above:
            place = place.setdefault(key, {})
        place[last] = "set"
    return found
