"""Dashboards as Grafana exports them, made ready to be provisioned: text in, text out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

LIMIT = 1_000_000  # bytes; a ConfigMap holds at most 1 MiB

# The data source that answers for each plugin, by its uid in our Grafana.
SOURCES = {
    "prometheus": "prometheus",
    "alertmanager": "alertmanager",
    "loki": "loki",
    "elasticsearch": "elasticsearch",
}

_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")  # what Grafana takes


class DashboardError(ValueError):
    """A text is no dashboard; `line` says where, when that is known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def read(text: str) -> dict[str, Any]:
    """A dashboard from its JSON; raises DashboardError."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise DashboardError(error.msg, error.lineno) from None
    if isinstance(found, Mapping) and isinstance(found.get("dashboard"), Mapping):
        found = found["dashboard"]  # as Grafana's API wraps it
    if not isinstance(found, dict) or not found.get("title"):
        raise DashboardError("no dashboard: it has no title")
    return found


def provisioned(dashboards: Mapping[str, str]) -> dict[str, str]:
    """Dashboards as the side car can load them, by name.

    Each keeps its uid unless another one before has it or it has none: then it gets one from its
    name, the same each time. Inputs of an export (`${DS_PROMETHEUS}`), which provisioning does
    not ask for, become the data source of their plugin.

    Args:
        dashboards: JSON by name; names are unique.

    Raises: DashboardError for a text that is no dashboard, needs a data source that we do not
        have, or is too large.
    """
    taken: set[str] = set()
    result = {}
    for name, text in sorted(dashboards.items()):
        dashboard = resolved(read(text))
        uid = str(dashboard.get("uid") or "")
        if uid in taken or not _UID.fullmatch(uid):
            uid = _from_name(name, taken)
        taken.add(uid)
        whole = json.dumps({**dashboard, "id": None, "uid": uid}, indent=1, ensure_ascii=False)
        if len(whole.encode()) > LIMIT:
            raise DashboardError(f"larger than {LIMIT} bytes, more than a ConfigMap holds")
        result[name] = whole + "\n"
    return result


def resolved(dashboard: Mapping[str, Any]) -> dict[str, Any]:
    """The dashboard without inputs: each reference to one is the uid or the value itself."""
    values: dict[str, str] = {}
    for given in dashboard.get("__inputs") or ():
        kind = given.get("pluginId")
        if given.get("type") == "datasource":
            if kind not in SOURCES:
                raise DashboardError(f"needs a data source of type {kind}, which there is not")
            values[given["name"]] = SOURCES[kind]
        else:
            values[given["name"]] = str(given.get("value", ""))
    kept = {
        key: value
        for key, value in dashboard.items()
        if key not in ("__inputs", "__requires", "__elements")
    }
    replaced = _replaced(kept, values)
    assert isinstance(replaced, dict)
    return replaced


def _replaced(value: Any, inputs: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replaced(item, inputs) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, inputs) for item in value]
    if isinstance(value, str):
        for name, text in inputs.items():
            value = value.replace(f"${{{name}}}", text)
    return value


def _from_name(name: str, taken: Iterable[str]) -> str:
    base = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "dashboard"
    number = 1
    while True:
        ending = "" if number == 1 else f"-{number}"
        uid = base[: 40 - len(ending)] + ending
        if uid not in taken:
            return uid
        number += 1
