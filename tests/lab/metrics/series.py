"""Series of one process, whichever endpoint it was asked at; and what an expression asks for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

Labels = Mapping[str, str]

# Written by Prometheus about each scrape, not by what was scraped.
OF_SCRAPES = ("up", "ALERTS")

# Labels that say where a series was found, not what it is.
_PLACE = ("job", "endpoint", "service", "metrics_path", "node")
_NAMESPACES = ("kube-system", "default", "monitoring")  # of what is scraped, not of what it tells


def about_scrapes(labels: Labels) -> bool:
    """Whether Prometheus itself made the series: by a scrape, an alert or a rule."""
    name = labels["__name__"]
    return name in OF_SCRAPES or name.startswith(("scrape_", "ALERTS")) or ":" in name


def of_hosts(series: Iterable[Labels]) -> list[Labels]:
    """Without those of programs of this machine: they are different ones at one address."""
    return [one for one in series if not one.get("instance", "").startswith("127.0.0.1:")]


def identity(labels: Labels) -> frozenset[tuple[str, str]]:
    """What a series is: its labels without place, and the address without the port."""
    found = {key: value for key, value in labels.items() if key not in _PLACE}
    if found.get("namespace") in _NAMESPACES:
        del found["namespace"]
    for key in [key for key in found if key.startswith("exported_")]:
        found[key.removeprefix("exported_")] = found.pop(key)
    if found.get("namespace") in _NAMESPACES:
        del found["namespace"]
    if "instance" in found:
        found["instance"] = found["instance"].rpartition(":")[0]
    return frozenset(found.items())


def twice(series: Iterable[Labels]) -> Counter[str]:
    """How many series of each family are there more than once."""
    counted = Counter(identity(one) for one in series if not about_scrapes(one))
    found: Counter[str] = Counter()
    for labels, number in counted.items():
        if number > 1:
            found[dict(labels)["__name__"]] += number - 1
    return found


def families(series: Iterable[Labels]) -> set[str]:
    """Names of metrics that were scraped."""
    return {one["__name__"] for one in series if not about_scrapes(one)}


_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)
    |(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    |(?P<number>\d[\w.]*)
    |(?P<sign>[^\s\w])""",
    re.VERBOSE,
)
_WORDS = {
    "and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right",
    "offset", "bool", "inf", "nan", "atan2", "start", "end",
    "sum", "min", "max", "avg", "count", "group", "stddev", "stdvar", "topk", "bottomk",
    "count_values", "quantile", "limitk", "limit_ratio",
}  # fmt: skip
_LABEL_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}


def selectors(expression: str) -> list[str]:
    """The vector selectors of a PromQL expression, as `name{matchers}`."""
    text = re.sub(r"#.*", "", expression)
    return list(dict.fromkeys(_selectors(text, list(_TOKEN.finditer(text)))))


def _selectors(expression: str, tokens: list[re.Match[str]]) -> Iterator[str]:
    at = 0
    while at < len(tokens):
        token = tokens[at]
        following = tokens[at + 1][0] if at + 1 < len(tokens) else ""
        if token["name"] and token[0].lower() in _LABEL_LISTS and following == "(":
            at = _closing(tokens, at + 1, "(", ")")
        elif token["sign"] == "[":
            at = _closing(tokens, at, "[", "]")
        elif token["sign"] == "{" or (token["name"] and following == "{"):
            first = at if token["sign"] == "{" else at + 1
            at = _closing(tokens, first, "{", "}")
            yield expression[token.start() : tokens[at].end()]
        elif token["name"] and following != "(" and token[0].lower() not in _WORDS:
            yield token[0]
        at += 1


def _closing(tokens: list[re.Match[str]], at: int, opens: str, closes: str) -> int:
    depth = 0
    for number in range(at, len(tokens)):
        depth += (tokens[number][0] == opens) - (tokens[number][0] == closes)
        if depth == 0:
            return number
    raise ValueError("an expression that does not end")
