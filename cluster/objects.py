"""Kubernetes objects as data: what differs, who owns what differs, manifests.

What is compared are the fields a wanted object names and nothing else: defaults, status and the
fields of other managers never count. Where the live object carries `metadata.managedFields`, they
say how a list is merged (atomic, by keys, as a set) and which fields are ours.
Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/ and the FieldsV1 format
of sigs.k8s.io/structured-merge-diff.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from cluster.mask import MASK, secret_like
from cluster.quantity import same_duration, same_quantity
from cluster.readiness import Ref

Object = dict[str, Any]
Fields = Mapping[str, Any]  # FieldsV1: what one manager owns

# What the API writes by itself.
VOLATILE = frozenset(
    {"managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink"}
)
# Keys by which items of lists are found again, in the order in which they are tried.
MERGE_KEYS: tuple[tuple[str, ...], ...] = (
    ("containerPort", "protocol"),
    ("port", "protocol"),
    ("mountPath",),
    ("devicePath",),
    ("name",),
    ("key",),
    ("type",),
    ("ip",),
    ("uid",),
    ("topologyKey", "whenUnsatisfiable"),
)
OPTIONAL_KEYS = {"protocol": "TCP"}  # the API's default where an item leaves it out
# Maps and lists whose texts mean nothing to the API: they are compared letter by letter.
LITERAL = frozenset(
    {"data", "binaryData", "stringData", "labels", "annotations", "matchLabels", "args", "command"}
)
# Maps whose values are quantities, and keys whose value is one.
QUANTITIES = frozenset(
    {
        "requests", "limits", "hard", "capacity", "overhead", "max", "min", "default",
        "defaultRequest", "maxLimitRequestRatio",
    }
)  # fmt: skip
QUANTITY_KEYS = frozenset({"sizeLimit", "divisor", "averageValue", "storage", "cpu", "memory"})


# Fields that a product's own controller changes after the chart set them: kind and key → manager.
OPERATED: Mapping[tuple[str, str], frozenset[str]] = {
    # "The webhook controller will update this to `Fail` and patch in the `caBundle`": Istio's chart
    # base, defaultrevision-validatingwebhookconfiguration.yaml.
    ("ValidatingWebhookConfiguration", "failurePolicy"): frozenset({"pilot-discovery"}),
}
WITH_CA = frozenset(
    {"CustomResourceDefinition", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"}
)
NO_CA = ("", "Cg==")  # placeholders in place of a CA: nothing, and an empty line


class Item(NamedTuple):
    """An item of a list that is found by keys: its keys and their values."""

    keys: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return f"[{', '.join(str(value) for _, value in self.keys)}]"


Step = str | int | Item
Path = tuple[Step, ...]


class Difference(NamedTuple):
    """A field that is not as wanted; None: it is not there, or should not be."""

    path: Path
    wanted: Any
    live: Any

    @property
    def where(self) -> str:
        """The path as people write it: `spec.containers[app].image`."""
        return path_text(self.path)


def path_text(path: Path) -> str:
    """A path as people write it: `spec.containers[app].image`."""
    text = ""
    for step in path:
        if isinstance(step, str):
            text += f".{step}" if "." not in step and "/" not in step else f'["{step}"]'
        else:
            text += f"[{step}]" if isinstance(step, int) else str(step)
    return text.removeprefix(".")


def ref(item: Mapping[str, Any]) -> Ref:
    """Which object it is."""
    metadata = item["metadata"]
    return Ref(
        item["apiVersion"], item["kind"], metadata["name"], metadata.get("namespace") or None
    )


def with_labels(item: Object, labels: Mapping[str, str]) -> Object:
    """A copy with further labels."""
    metadata = item["metadata"]
    return item | {"metadata": metadata | {"labels": (metadata.get("labels") or {}) | dict(labels)}}


def with_annotation(item: Object, key: str, value: str) -> Object:
    """A copy with a further annotation."""
    metadata = item["metadata"]
    annotations = (metadata.get("annotations") or {}) | {key: value}
    return item | {"metadata": metadata | {"annotations": annotations}}


def fingerprint(item: Object) -> str:
    """A short hash of an object's content: the same for the same content in any order."""
    text = json.dumps(item, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def prepared(item: Mapping[str, Any]) -> Object:
    """The object as we send it: without nulls and placeholders, a Secret's texts in base64."""
    cleaned: Object = _without_nulls(item)
    if cleaned.get("kind") in WITH_CA:
        cleaned = _without_placeholders(cleaned)
    return coded(cleaned)


def _without_placeholders(value: Any) -> Any:
    """Without CAs that are none: what a controller put there would be gone for a moment."""
    if isinstance(value, Mapping):
        return {
            key: _without_placeholders(item)
            for key, item in value.items()
            if not (key == "caBundle" and item in NO_CA)
        }
    return [_without_placeholders(item) for item in value] if isinstance(value, list) else value


def coded(item: Mapping[str, Any]) -> Object:
    """The object with the texts of a Secret in base64, as they are read.

    `stringData` is write-only: whose text it was could not be told from the live object.
    """
    texts = item.get("stringData")
    if item.get("kind") != "Secret" or item.get("apiVersion") != "v1" or not texts:
        return dict(item)
    packed = {key: base64.b64encode(str(text).encode()).decode() for key, text in texts.items()}
    rest = {key: value for key, value in item.items() if key != "stringData"}
    return rest | {"data": (item.get("data") or {}) | packed}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    return value


# --- what differs


def differences(
    wanted: Mapping[str, Any], live: Mapping[str, Any], manager: str | None = None
) -> tuple[Difference, ...]:
    """The fields of `wanted` that `live` has otherwise, or not at all.

    Args:
        wanted: an object with the fields that matter; nulls, empty maps and empty lists demand
            nothing.
        live: the object as the API has it.
        manager: also what this manager applied once and no longer wants.
    """
    wanted = coded(wanted)
    owned = [entry["fieldsV1"] for entry in _entries(live) if entry.get("fieldsV1")]
    ours = [
        entry["fieldsV1"]
        for entry in _entries(live, manager)
        if manager and entry.get("operation") == "Apply" and entry.get("fieldsV1")
    ]
    compare = _Comparison(bool(owned), bool(ours))
    found = list(compare.maps((), _content(wanted), live, owned, ours))
    for fields in ours:
        found += _surplus((), fields, _content(wanted), live)
    return tuple(found)


def _content(item: Mapping[str, Any]) -> Object:
    """An object without what the API writes by itself."""
    metadata = {k: v for k, v in (item.get("metadata") or {}).items() if k not in VOLATILE}
    return {k: v for k, v in item.items() if k != "status"} | {"metadata": metadata}


def _entries(live: Mapping[str, Any], manager: str | None = None) -> Iterator[Mapping[str, Any]]:
    for entry in (live.get("metadata") or {}).get("managedFields") or ():
        if entry.get("subresource") == "status":
            continue
        if manager is None or entry.get("manager") == manager:
            yield entry


class _Comparison:
    """Walks a wanted and a live value together with the fields that managers own there."""

    def __init__(self, known: bool, ours_known: bool) -> None:
        self._known = known  # whether managedFields are there at all
        self._ours_known = ours_known

    def maps(
        self,
        path: Path,
        wanted: Mapping[str, Any],
        live: Mapping[str, Any],
        owned: Sequence[Fields],
        ours: Sequence[Fields],
    ) -> Iterator[Difference]:
        for key, value in wanted.items():
            step = f"f:{key}"
            yield from self.values(
                (*path, key), value, live.get(key), _below(owned, step), _below(ours, step)
            )

    def values(
        self, path: Path, wanted: Any, live: Any, owned: Sequence[Fields], ours: Sequence[Fields]
    ) -> Iterator[Difference]:
        wanted = list(wanted) if isinstance(wanted, tuple) else wanted
        if wanted is None or (_demands_nothing(wanted) and not live):
            return
        if live is None:
            # The API drops false, 0 and "" of many fields; while we own the field, it is there.
            if not (_is_zero(wanted) and (bool(ours) or not self._known or not self._ours_known)):
                yield Difference(path, wanted, None)
        elif isinstance(wanted, Mapping) and isinstance(live, Mapping):
            yield from self.maps(path, wanted, live, owned, ours)
        elif isinstance(wanted, list) and isinstance(live, list):
            yield from self.lists(path, wanted, live, owned, ours)
        elif not same(path, wanted, live):
            yield Difference(path, wanted, live)

    def lists(
        self,
        path: Path,
        wanted: list[Any],
        live: list[Any],
        owned: Sequence[Fields],
        ours: Sequence[Fields],
    ) -> Iterator[Difference]:
        kind = _list_kind(path, wanted, live, owned)
        if kind == "set":
            missing = [item for item in wanted if item not in live]
            if missing:
                yield Difference(path, wanted, live)
        elif kind == "atomic":
            if len(wanted) != len(live) or not all(isinstance(one, Mapping) for one in wanted):
                if len(wanted) != len(live) or not all(map(partial(same, path), wanted, live)):
                    yield Difference(path, wanted, live)
                return
            for number, (one, other) in enumerate(zip(wanted, live, strict=True)):
                yield from self.values((*path, number), one, other, (), ())
        else:
            for one in wanted:
                item = _item(one, kind)
                other = next((o for o in live if _is_item(o, item)), None)
                below = _items_below(owned, item)
                yield from self.values((*path, item), one, other, below, _items_below(ours, item))


def changes_of(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Every field in which two states of one object differ, but for what the API writes itself.

    `wanted` of a Difference is the new state's value.
    """
    return tuple(_changed((), _content(new), _content(old)))


def _changed(path: Path, new: Any, old: Any) -> Iterator[Difference]:
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        for key in [*new, *(key for key in old if key not in new)]:
            yield from _changed((*path, key), new.get(key), old.get(key))
    elif isinstance(new, list) and isinstance(old, list) and new and old:
        kind = _list_kind(path, new, old, ())
        if isinstance(kind, str) or not _distinct(old, kind):
            if new != old:
                yield Difference(path, new, old)
            return
        for item in dict.fromkeys(_item(one, kind) for one in (*new, *old)):
            found = [next((o for o in some if _is_item(o, item)), None) for some in (new, old)]
            yield from _changed((*path, item), *found)
    elif new != old and not (_demands_nothing(new) and _demands_nothing(old)):
        yield Difference(path, new, old)


def _demands_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping | list) and not value)


def _is_zero(value: Any) -> bool:
    """Whether a value, or all there is in it, is one the API may leave out."""
    if isinstance(value, Mapping):
        return all(_is_zero(item) for item in value.values())
    if isinstance(value, list):
        return not value
    return value is None or value is False or value == "" or (value == 0)


def same(path: Path, wanted: Any, live: Any) -> bool:
    """Whether two plain values mean the same to the API at this place."""
    if type(wanted) is type(live) and wanted == live:
        return True
    if isinstance(wanted, bool) or isinstance(live, bool):
        return False
    if isinstance(wanted, int | float) and isinstance(live, int | float):
        return wanted == live
    keys = [step for step in path if isinstance(step, str)]
    if keys and (keys[0] in LITERAL or keys[-1] in ("value", *LITERAL)):
        return False
    if any(key in LITERAL for key in keys):
        return False
    if not isinstance(wanted, str | int | float) or not isinstance(live, str | int | float):
        return False
    if (keys[-2:-1] and keys[-2] in QUANTITIES) or (keys and keys[-1] in QUANTITY_KEYS):
        return same_quantity(wanted, live)
    if isinstance(wanted, str) and isinstance(live, str):
        return same_duration(wanted, live)
    return str(wanted) == str(live)


def _list_kind(
    path: Path, wanted: list[Any], live: list[Any], owned: Sequence[Fields]
) -> tuple[str, ...] | str:
    """How the API merges a list: its keys, "set" or "atomic"."""
    steps = [step for fields in owned for step in fields]
    maps = bool(wanted) and all(isinstance(one, Mapping) for one in (*wanted, *live))
    if any(step.startswith("v:") for step in steps) or path[-1:] == ("finalizers",):
        return "set"
    if keyed := next((step for step in steps if step.startswith("k:")), None):
        return tuple(json.loads(keyed[2:]))
    if owned and not steps:
        return "atomic"
    if not maps:
        return "atomic"
    for keys in MERGE_KEYS:
        if all(_has(one, keys) for one in (*wanted, *live)) and _distinct(wanted, keys):
            return keys
    return "atomic"


def _has(item: Mapping[str, Any], keys: Sequence[str]) -> bool:
    return all(key in item or key in OPTIONAL_KEYS for key in keys)


def _distinct(items: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> bool:
    found = [tuple(str(item.get(key, OPTIONAL_KEYS.get(key))) for key in keys) for item in items]
    return len(set(found)) == len(found)


def _item(value: Any, keys: Iterable[str]) -> Item:
    found = value if isinstance(value, Mapping) else {}
    return Item(tuple((key, found.get(key, OPTIONAL_KEYS.get(key))) for key in keys))


def _is_item(value: Any, item: Item) -> bool:
    return isinstance(value, Mapping) and all(
        value.get(key, OPTIONAL_KEYS.get(key)) == wanted for key, wanted in item.keys
    )


# --- fields of managers


def _below(nodes: Sequence[Fields], step: str) -> list[Fields]:
    return [fields[step] for fields in nodes if isinstance(fields.get(step), Mapping)]


def _items_below(nodes: Sequence[Fields], item: Item) -> list[Fields]:
    return [
        below
        for fields in nodes
        for step, below in fields.items()
        if step.startswith("k:") and _is_item(json.loads(step[2:]), item)
    ]


def _surplus(path: Path, fields: Fields, wanted: Any, live: Any) -> Iterator[Difference]:
    """What a manager owns in the live value and the wanted one does not name."""
    for step, below in fields.items():
        if step == "." or live is None:
            continue
        here, found = _at(live, step)
        if found is None:
            continue
        _, asked = _at(wanted, step)
        if asked is None and not (isinstance(here, str) and here in (wanted or {})):
            yield Difference((*path, here), None, found)
        elif below:
            yield from _surplus((*path, here), below, asked, found)


def _at(value: Any, step: str) -> tuple[Step, Any]:
    """The path step and the value that a step of FieldsV1 stands for."""
    kind, _, text = step.partition(":")
    if kind == "f":
        return text, value.get(text) if isinstance(value, Mapping) else None
    items = value if isinstance(value, list) else ()
    parsed = json.loads(text)
    if kind == "k":
        item = Item(tuple(parsed.items()))
        return item, next((one for one in items if _is_item(one, item)), None)
    if kind == "v":
        return str(parsed), parsed if parsed in items else None
    return text, items[parsed] if parsed < len(items) else None


def other_managers(live: Mapping[str, Any], path: Path, manager: str) -> tuple[str, ...]:
    """Who owns a field, or the whole that it is part of, beside `manager`.

    Args:
        live: an object with `metadata.managedFields`.
        path: of a Difference.
        manager: the field manager whose view it is.
    """
    names = (
        str(entry["manager"])
        for entry in _entries(live)
        if entry.get("manager") != manager and _owns(entry.get("fieldsV1") or {}, path)
    )
    return tuple(dict.fromkeys(names))


def managed_by(live: Mapping[str, Any], manager: str) -> bool:
    """Whether a manager applied the object."""
    return any(entry.get("operation") == "Apply" for entry in _entries(live, manager))


def last_writers(live: Mapping[str, Any], manager: str) -> tuple[str, ...]:
    """Who wrote the object after `manager` last did: whoever removed a field is one of them."""
    mine = max((str(entry.get("time") or "") for entry in _entries(live, manager)), default="")
    return tuple(
        dict.fromkeys(
            str(entry["manager"])
            for entry in _entries(live)
            if entry.get("manager") != manager and str(entry.get("time") or "") > mine
        )
    )


def _owns(fields: Fields, path: Path) -> bool:
    for step in path:
        if not fields:
            return True  # a leaf above: an atomic map or list is owned as a whole
        below = _items_below([fields], step) if isinstance(step, Item) else ()
        if isinstance(step, str):
            below = _below([fields], f"f:{step}")
        if not below:
            return False
        fields = below[0]
    return True


def operated(one: Difference, live: Mapping[str, Any], manager: str) -> bool:
    """Whether a field differs because a controller has to set it, as its product means it.

    Charts ship placeholders there. An edit by hand is not meant, whatever the field.
    """
    keys = [step for step in one.path if isinstance(step, str)]
    others = other_managers(live, one.path, manager)
    if not keys or not others:
        return False
    allowed = OPERATED.get((str(live.get("kind")), keys[-1]), frozenset())
    return keys[-1] == "caBundle" or bool(allowed & {*others})


def lost(wanted: Mapping[str, Any], live: Mapping[str, Any], manager: str) -> tuple[Path, ...]:
    """Fields of `wanted` that `manager` no longer owns in the live object.

    Whoever changes or removes a field that server-side apply owns takes it over, so this finds
    hand edits without the fields themselves: `live` may be metadata only.
    """
    ours = [e["fieldsV1"] for e in _entries(live, manager) if e.get("operation") == "Apply"]
    if not ours:
        return ((),)
    return tuple(_lost((), _content(coded(wanted)), ours))


def _lost(path: Path, wanted: Mapping[str, Any], ours: Sequence[Fields]) -> Iterator[Path]:
    for key, value in wanted.items():
        if not path and key in ("apiVersion", "kind"):
            continue
        if path == ("metadata",) and key in ("name", "namespace"):
            continue
        if _demands_nothing(value):
            continue
        below = _below(ours, f"f:{key}")
        if not below:
            yield (*path, key)
        elif isinstance(value, Mapping) and any(below):
            yield from _lost((*path, key), value, below)


# --- words


def lines(found: Iterable[Difference], which: Ref) -> list[str]:
    """The differences for people, one line each, with secrets masked."""
    return [f"{which}: {one.where}: {_change(one, which)}" for one in found]


def _change(one: Difference, which: Ref) -> str:
    keys = [step for step in one.path if isinstance(step, str)]
    hidden = which.kind == "Secret" and keys[:1] and keys[0] in ("data", "stringData")
    if hidden or secret_like(keys):
        return f"{MASK} is changed"
    if one.live is None:
        return f"missing, wanted {_text(one.wanted)}"
    if one.wanted is None:
        return f"{_text(one.live)} is no longer wanted"
    return f"{_text(one.live)} → {_text(one.wanted)}"


def _text(value: Any, limit: int = 120) -> str:
    value = _masked(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    first = text.splitlines()[0] if text.splitlines() else '""'
    return first if first == text and len(first) <= limit else f"{first[:limit]}…"


def _masked(value: Any, path: tuple[str, ...] = ()) -> Any:
    if isinstance(value, Mapping):
        return {key: _masked(item, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, path) for item in value]
    return MASK if value and path and secret_like(path) else value
