"""What the script of a combined fact prints: lines of a word and its values, apart by tabs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Self


class Tagged:
    """The lines so far; a subclass has a method for each word, `_<word>(*values)`.

    A word without one is left out. The last line's word is `end`: a script that was broken off
    does not have it.
    """

    plain: ClassVar[tuple[str, ...]] = ()  # words whose value is a field of that name

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.lists: dict[str, list[Any]] = {}
        self._complete = False

    def read(self, lines: Iterable[str]) -> Self:
        """Take all lines; raises ValueError when they end early."""
        for line in lines:
            key, *values = line.split("\t")
            if key in self.plain:
                self.fields[key] = values[0]
            elif take := getattr(self, f"_{key}", None):
                take(*values)
        if not self._complete:
            raise ValueError("it ended early")
        return self

    def add(self, field: str, value: Any) -> None:
        """One more item of a list."""
        self.lists.setdefault(field, []).append(value)

    @property
    def tuples(self) -> dict[str, tuple[Any, ...]]:
        """The lists, as a state has them."""
        return {name: tuple(values) for name, values in self.lists.items()}

    def _end(self, *_: str) -> None:
        self._complete = True
