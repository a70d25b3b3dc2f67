"""Values of a chart: ours, the user's on top, and what in them the chart does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cluster.problem import Problem, meant


def merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Values with others on top as Helm merges them: maps key by key, anything else replaced.

    None removes a key of the chart's own defaults, so it is kept.
    """
    result = dict(ours)
    for key, value in theirs.items():
        known = result.get(key)
        both = isinstance(known, Mapping) and isinstance(value, Mapping)
        result[key] = merged(known, value) if both else value  # type: ignore[arg-type]
    return result


def problems(component: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> list[Problem]:
    """Keys of the user's values that the chart has no use for.

    Charts have maps whose keys are free, and nothing tells them from the others. So an unknown key
    is a mistake at the top, where charts have none of these, and below it where it looks like one
    of the chart's.

    Args:
        component: whose `platform.values` they are.
        given: the user's values.
        known: the chart's default values, with those of its subcharts under their names.
    """
    return list(_unknown(f"platform.values.{component}", given, known, top=True))


def _unknown(
    where: str, given: Mapping[str, Any], known: Mapping[str, Any], *, top: bool
) -> Iterator[Problem]:
    for key, value in given.items():
        if key in known or (top and key == "global"):
            below = known.get(key)
            if isinstance(value, Mapping) and isinstance(below, Mapping) and below:
                yield from _unknown(f"{where}.{key}", value, below, top=False)
            continue
        close = meant(key, list(known), cutoff=0.8)
        if close:
            yield Problem(where, f"unknown key {key}", suggestion=close)
        elif top:
            allowed = f"one of {', '.join(sorted(known))}"
            yield Problem(where, f"unknown key {key}", allowed)
