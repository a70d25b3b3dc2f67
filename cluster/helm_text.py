"""What helm is told and what it says: arguments, values, rendered charts, failures."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.manifest import manifest
from cluster.versions import Chart

Object = dict[str, Any]

_SOURCE = re.compile(r"^# Source: (.+)$", re.MULTILINE)
_CRDS = re.compile(r"(^|/)crds/")
_LIMIT = 600  # characters of a cause


@dataclass(frozen=True)
class Rendered:
    """What a chart makes of its values: its CRDs (`crds/`), and its other objects."""

    crds: tuple[Object, ...]
    objects: tuple[Object, ...]


def source(chart: Chart, repository: str | None) -> tuple[str, list[str]]:
    """The chart as helm is told, and the options that say where it is.

    Args:
        repository: a repository that has all charts, in place of the chart's own.
    """
    place = repository or chart.repo
    if place.startswith("oci://"):
        return (f"{place.rstrip('/')}/{chart.name}" if repository else place), []
    return chart.name, ["--repo", place]


def place(reference: str, options: Sequence[str]) -> str:
    """Name of the folder for charts from there."""
    return hashlib.sha256(" ".join((reference, *options)).encode()).hexdigest()[:12]


def values(given: Mapping[str, Any]) -> str:
    """Values as helm reads them: JSON is YAML, and says what is a text and what a number."""
    return json.dumps(given, default=str)


def rendered(text: str) -> Rendered:
    """Take the output of `helm template --include-crds` apart; raises ManifestError.

    Helm writes `# Source: <chart>/crds/<file>` or `.../templates/<file>` before each part.
    """
    crds: list[Object] = []
    objects: list[Object] = []
    marks = list(_SOURCE.finditer(text))
    for mark, after in zip(marks, [*marks[1:], None], strict=True):
        part = manifest(text[mark.end() : after.start() if after else len(text)])
        (crds if _CRDS.search(mark[1].split("/templates/")[0]) else objects).extend(part)
    return Rendered(tuple(crds), tuple(objects))


def failure(text: str) -> str:
    """The cause in what a failed helm printed, one line."""
    lines = [line for line in text.splitlines() if line.strip()]
    start = next((n for n, line in enumerate(lines) if line.startswith("Error: ")), None)
    if start is None:
        start = max(len(lines) - 1, 0)
    words = " ".join(" ".join(lines[start:]).split()).removeprefix("Error: ")
    return (words if len(words) <= _LIMIT else f"{words[:_LIMIT]}…") or "no message"
