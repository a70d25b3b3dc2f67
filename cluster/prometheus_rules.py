"""Rule files of Prometheus: what is wrong with one, by line, as far as no promtool is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

_DURATION = re.compile(r"(?:\d+(?:ms|[smhdwy]))+|0")
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")

# Keys by Prometheus' documentation of recording and alerting rules.
_GROUP = {"name", "interval", "limit", "query_offset", "labels", "rules"}
_RULE = {"record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"}


class Flaw(NamedTuple):
    """Something wrong with a rule file; lines count from 1."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


def flaws(text: str) -> list[Flaw]:
    """What is wrong with the structure of a rule file; its expressions are not parsed."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return [Flaw(mark.line + 1 if mark else 1, error.problem or "no YAML")]
    return list(_file(node))


def groups(text: str) -> list[dict[str, Any]]:
    """The groups of a rule file without flaws."""
    found: list[dict[str, Any]] = yaml.safe_load(text)["groups"]
    return found


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _items(node: yaml.Node | None) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {str(key.value): value for key, value in node.value}


def _file(node: yaml.Node | None) -> Iterator[Flaw]:
    listed = _items(node).get("groups")
    if not isinstance(listed, yaml.SequenceNode):
        yield Flaw(_line(node) if node else 1, "expected a list under the key groups")
        return
    yield from _strange(node, {"groups"})
    names: set[str] = set()
    for group in listed.value:
        keys = _items(group)
        yield from _strange(group, _GROUP)
        name = keys.get("name")
        if not isinstance(name, yaml.ScalarNode) or not name.value:
            yield Flaw(_line(group), "a group without a name")
        elif name.value in names:
            yield Flaw(_line(name), f"group {name.value} stands twice")
        else:
            names.add(name.value)
        yield from _durations(keys, ("interval", "query_offset"))
        rules = keys.get("rules")
        if not isinstance(rules, yaml.SequenceNode):
            yield Flaw(_line(group), "a group without a list of rules")
            continue
        for rule in rules.value:
            yield from _rule(rule)


def _rule(node: yaml.Node) -> Iterator[Flaw]:
    keys = _items(node)
    if not keys:
        yield Flaw(_line(node), "expected a rule with record or alert, and expr")
        return
    yield from _strange(node, _RULE)
    if ("record" in keys) == ("alert" in keys):
        yield Flaw(_line(node), "a rule needs either record or alert")
    expr = keys.get("expr")
    if not isinstance(expr, yaml.ScalarNode) or not expr.value.strip():
        yield Flaw(_line(expr or node), "a rule without expr")
    record = keys.get("record")
    if record is not None and not _METRIC.fullmatch(str(record.value)):
        yield Flaw(_line(record), f"{record.value} is no name of a metric")
    if record is not None:
        for key in ("for", "keep_firing_for", "annotations"):
            if key in keys:
                yield Flaw(_line(keys[key]), f"{key} belongs to alerts")
    yield from _durations(keys, ("for", "keep_firing_for"))
    for key in ("labels", "annotations"):
        for label, value in _items(keys.get(key)).items():
            if not isinstance(value, yaml.ScalarNode):
                yield Flaw(_line(value), f"{key}: {label}: expected a text")


def _strange(node: yaml.Node | None, known: set[str]) -> Iterator[Flaw]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, _ in node.value:
        if key.value not in known:
            yield Flaw(_line(key), f"unknown key {key.value}: one of {', '.join(sorted(known))}")


def _durations(keys: Mapping[str, yaml.Node], names: tuple[str, ...]) -> Iterator[Flaw]:
    for name in names:
        node = keys.get(name)
        if node is not None and not _DURATION.fullmatch(str(node.value)):
            yield Flaw(_line(node), f"{name}: {node.value} is no duration such as 5m")
