"""How far cloud-init got at this boot, told as `cloud-init status --long` tells it.

Source: canonical/cloud-init, cloudinit/cmd/status.py. Unlike there, a run that ended without a
result is not taken for one that goes on for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

DISABLED, RUNNING, CRASHED, ERROR, DEGRADED, DONE = (
    "disabled", "running", "crashed", "error", "degraded", "done",
)  # fmt: skip
OFF = "/etc/cloud/cloud-init.disabled"  # where this file is, the next boot leaves it out
UNITS = ("cloud-init-main", "cloud-init-local", "cloud-init-network", "cloud-init",
         "cloud-config", "cloud-final")  # fmt: skip
_BUSY = re.compile(r"ActiveState=(activating|reloading)|Job=[1-9]")


def judge(status: str, result: str, units: str, *, off: bool) -> tuple[str, str]:
    """The state, and what went wrong; both empty where nobody can tell.

    Args:
        status, result: status.json and result.json of /run/cloud-init; empty: not there.
        units: ActiveState and Job of its units, as `systemctl show` prints them.
        off: whether it is switched off, now or from the next boot on.
    """
    if not status and not result:
        # Nothing began: at this boot, or since it was installed.
        begins = _BUSY.search(units) or "ActiveState=failed" in units
        if begins and not off:
            return _without_result(units, "before its first stage")
        return (DISABLED if off else ""), ""
    stages, errors = _read(status), _read(result).get("errors") or []
    warnings: list[str] = []
    for stage in stages.values():
        if isinstance(stage, dict):
            errors = [*errors, *stage.get("errors", [])]
            warnings += _recoverable(stage)
    said = "; ".join(dict.fromkeys(map(str, errors)))
    if not result:
        where = stages.get("stage")
        return _without_result(units, said or (f"in stage {where}" if where else "between stages"))
    if not stages and not _read(result):
        return "", ""
    if said:
        return ERROR, said
    return (DEGRADED, "; ".join(dict.fromkeys(warnings))) if warnings else (DONE, "")


def _without_result(units: str, said: str) -> tuple[str, str]:
    """It goes on as long as one of its units does, or is to."""
    if not units:
        return "", ""
    return (RUNNING, said) if _BUSY.search(units) else (CRASHED, said)


def _read(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)["v1"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _recoverable(stage: dict[str, Any]) -> Iterator[str]:
    """What it went on after; a deprecated word of its configuration does no harm."""
    for kind, texts in stage.get("recoverable_errors", {}).items():
        if kind != "DEPRECATED":
            yield from map(str, texts)
