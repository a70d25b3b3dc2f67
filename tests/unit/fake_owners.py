"""Who owns which field of an object: server-side apply, as far as the simulated API has it.

Lists of containers, variables and volumes are merged by name, all others are atomic.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise
from typing import Any

Object = dict[str, Any]
Path = tuple[str, ...]  # steps of FieldsV1: f:key, k:{"name":"x"}

IDENTITY = {("f:apiVersion",), ("f:kind",), ("f:metadata", "f:name"), ("f:metadata", "f:namespace")}
KEYED = {"f:containers", "f:env", "f:volumes"}
OWN = {"managedFields", "resourceVersion", "uid", "generation", "creationTimestamp"}


def applied(
    live: Object, body: Object, manager: str, force: bool
) -> tuple[Object, list[tuple[str, str]]]:
    """The object after an apply, or the fields in conflict with their owners."""
    owners = _owners(live)
    result = deepcopy(live)
    wanted = {path: value for path, value in _leaves(body) if path not in IDENTITY}
    conflicts = []
    for path, value in wanted.items():
        for (other, _), paths in owners.items():
            if other != manager and path in paths and _get(live, path) != value:
                conflicts.append((_dotted(path), other))
    if conflicts and not force:
        return live, conflicts
    mine = owners.setdefault((manager, "Apply"), set())
    for path in mine - wanted.keys():
        if not any(path in paths for key, paths in owners.items() if key[0] != manager):
            _remove(result, path)
    for path, value in wanted.items():
        if _get(live, path) != value:
            for paths in owners.values():
                paths.discard(path)
        _set(result, path, value)
    owners[manager, "Apply"] = set(wanted)
    _write(result, owners)
    return result, []


def updated(live: Object, changed: Object, manager: str) -> Object:
    """The changed object, with what was changed in the hands of the manager."""
    if not (live.get("metadata") or {}).get("managedFields"):
        return changed
    owners = _owners(live)
    before, after = dict(_leaves(live)), dict(_leaves(changed))
    for path in before.keys() - after.keys():
        for paths in owners.values():
            paths.discard(path)
    for path, value in after.items():
        if before.get(path) != value:
            for paths in owners.values():
                paths.discard(path)
            owners.setdefault((manager, "Update"), set()).add(path)
    result = deepcopy(changed)
    _write(result, owners)
    return result


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            if path == ("f:metadata",) and key in OWN:
                continue
            if not path and key == "status":
                continue
            yield from _leaves(item, (*path, f"f:{key}"))
    elif path and path[-1] in KEYED and value:
        for item in value:
            yield from _leaves(item, (*path, f'k:{{"name":{json.dumps(item["name"])}}}'))
    else:
        yield path, value


def _step(value: Any, step: str, make: bool = False) -> Any:
    if step.startswith("f:"):
        if not isinstance(value, dict):
            return None
        return value.setdefault(step[2:], None) if make else value.get(step[2:])
    name = json.loads(step[2:])["name"]
    return next((item for item in value or () if item["name"] == name), None)


def _get(value: Any, path: Path) -> Any:
    for step in path:
        value = _step(value, step)
    return value


def _set(item: Object, path: Path, wanted: Any) -> None:
    for step, after in pairwise(path):
        below = _step(item, step)
        if below is None:
            below = {} if after.startswith("f:") else []
            if step.startswith("f:"):
                item[step[2:]] = below
            else:
                below = json.loads(step[2:])
                item.append(below)  # type: ignore[attr-defined]
        item = below
    item[path[-1][2:]] = deepcopy(wanted)


def _remove(item: Object, path: Path) -> None:
    above = _get(item, path[:-1])
    if isinstance(above, dict):
        above.pop(path[-1][2:], None)


def _owners(live: Object) -> dict[tuple[str, str], set[Path]]:
    entries = (live.get("metadata") or {}).get("managedFields") or ()
    return {
        (entry["manager"], entry["operation"]): set(_paths(entry["fieldsV1"])) for entry in entries
    }


def _paths(fields: Object, path: Path = ()) -> Iterator[Path]:
    for step, below in fields.items():
        if below:
            yield from _paths(below, (*path, step))
        else:
            yield (*path, step)


def _write(item: Object, owners: dict[tuple[str, str], set[Path]]) -> None:
    entries = []
    for number, ((manager, operation), paths) in enumerate(owners.items()):
        fields: Object = {}
        for path in sorted(paths):
            place = fields
            for step in path:
                place = place.setdefault(step, {})
        if fields:
            entry = {"manager": manager, "operation": operation, "fieldsV1": fields}
            entries.append(entry | {"time": f"2026-01-01T00:00:{number:02d}Z"})
    item["metadata"] = item["metadata"] | {"managedFields": entries}


def _dotted(path: Path) -> str:
    return "".join(f".{step[2:]}" if step.startswith("f:") else f"[{step[2:]}]" for step in path)
