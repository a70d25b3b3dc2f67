"""Active swap areas (`swapon --json` does not exist everywhere, /proc/swaps does)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Swap:
    """A swap area; sizes in KiB."""

    name: str
    kind: str  # file, partition
    size: int
    used: int
    priority: int


def parse(text: str) -> tuple[Swap, ...]:
    """Read /proc/swaps."""
    rows = (line.split() for line in text.splitlines()[1:])
    return tuple(
        Swap(row[0].replace("\\040", " "), row[1], int(row[2]), int(row[3]), int(row[4]))
        for row in rows
        if len(row) == 5
    )
