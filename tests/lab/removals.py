"""Every helm that a lab's tests start, read from the trace of their runs, and what none may do.

A test that means to remove a release names it: `@pytest.mark.removes("velero")`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path

from catalogue import CATALOGUE


def helms(trace: Path) -> list[list[str]]:
    """The arguments of every helm, in the order in which they were started."""
    lines = trace.read_text().splitlines() if trace.exists() else []
    noted = (json.loads(line) for line in lines)
    return [line["helm"] for line in noted if "helm" in line]


def unmeant(started: Iterable[list[str]], meant: Collection[str]) -> list[str]:
    """What was taken away or back and must not be: releases nobody named, and what may hold data.

    Args:
        meant: names of releases that a test removes on purpose.
    """
    stateless = {one.release_name for one in CATALOGUE.values() if one.on_failure == "rollback"}
    allowed = {"uninstall": meant, "rollback": stateless}
    return [
        " ".join(argv[:2])
        for argv in started
        if argv[0] in allowed and argv[1] not in allowed[argv[0]]
    ]
