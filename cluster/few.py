"""Lists that people read: a few items, and how many more there are."""

from __future__ import annotations

from collections.abc import Iterable

NAMED_AT_ONCE = 3


def some(items: Iterable[object], most: int = NAMED_AT_ONCE, separator: str = ", ") -> str:
    """The first items, and how many more there are."""
    listed = [str(item) for item in items]
    more = len(listed) - most
    return separator.join(listed[:most]) + (f" and {more} more" if more > 0 else "")
