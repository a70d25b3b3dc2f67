"""What the script of a combined fact prints: lines of a word and its values, apart by tabs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Self

# What such a script begins with: `say <word> <value>...` prints a line.
HEAD = r"""
LC_ALL=C; export LC_ALL; PATH=$PATH:/usr/sbin:/sbin; t=$(printf '\t')
say() { k=$1; shift; printf '%s' "$k"; printf '\t%s' "$@"; printf '\n'; }
have() { command -v "$1" > /dev/null 2>&1; }
"""


def words(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each line's word and values; raises ValueError when they end early.

    The last line's word is `end`: a script that was broken off does not have it.
    """
    complete = False
    for line in lines:
        key, *values = line.split("\t")
        complete = complete or key == "end"
        yield key, values
    if not complete:
        raise ValueError("it ended early")


class Tagged:
    """The lines so far; a subclass has a method for each word, `_<word>(*values)`.

    A word without one is left out.
    """

    plain: ClassVar[tuple[str, ...]] = ()  # words whose value is a field of that name

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.lists: dict[str, list[Any]] = {}

    def read(self, lines: Iterable[str]) -> Self:
        """Take all lines; raises ValueError when they end early."""
        for key, values in words(lines):
            if key in self.plain:
                self.fields[key] = values[0]
            elif take := getattr(self, f"_{key}", None):
                take(*values)
        return self

    def add(self, field: str, value: Any) -> None:
        """One more item of a list."""
        self.lists.setdefault(field, []).append(value)

    @property
    def tuples(self) -> dict[str, tuple[Any, ...]]:
        """The lists, as a state has them."""
        return {name: tuple(values) for name, values in self.lists.items()}
