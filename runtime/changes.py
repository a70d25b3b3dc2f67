"""What a run would change, as a person reads it: by phase, without what stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from runtime import table

SEPARATOR = " | "  # pyinfra puts the titles of deploys before the name of an operation


@dataclass(frozen=True)
class Change:
    """An operation that would change hosts; `maybe` are those where it depends on a condition."""

    name: str  # with the titles of the deploys it is in
    hosts: tuple[str, ...]
    maybe: tuple[str, ...] = ()

    @property
    def phase(self) -> str:
        """The titles of the deploys."""
        return self.name.rpartition(SEPARATOR)[0]

    @property
    def operation(self) -> str:
        """Its own name."""
        return self.name.rpartition(SEPARATOR)[2]


def lines(changes: Sequence[Change], verb: str, indent: int = 0) -> Iterator[str]:
    """The table of the changes, and how many there are.

    verb: what they do to hosts, such as "would change".
    indent: columns that the caller puts before each line.
    """
    rows: list[tuple[str, str]] = []
    for phase, group in groupby(changes, key=lambda change: change.phase):
        rows += [(phase, "")] if phase else []
        rows += [(f"  {one.operation}", _hosts(one)) for one in group]
    if not rows:
        yield "nothing would change"
        return
    yield from table.render(("Operation", "Hosts"), rows, indent)
    hosts = {name for one in changes for name in (*one.hosts, *one.maybe)}
    yield f"{_count(len(changes), 'operation')} {verb} {_count(len(hosts), 'host')}"


def _hosts(change: Change) -> str:
    maybe = [f"perhaps {', '.join(change.maybe)}"] if change.maybe else []
    return "; ".join([*([", ".join(change.hosts)] if change.hosts else []), *maybe])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
