"""A block of lines of ours inside a file that belongs to somebody else."""

from __future__ import annotations

from collections.abc import Iterable

BEGIN = "# picluster begin: written from inventory and group_data"
END = "# picluster end"


def put(text: str, lines: Iterable[str], *, first: bool = False) -> str:
    """The text with our block holding exactly the lines; all other lines stay as they are.

    The block stays where it is; a new one goes to the end, or to the start when `first`. A block
    that lost one of its marks is not trusted: its marks go, its lines stay as the user's, and a
    new block is made.
    """
    block = [BEGIN, *lines, END]
    old = text.removesuffix("\n").split("\n") if text else []
    begins, ends = _places(old, BEGIN), _places(old, END)
    if len(begins) == len(ends) == 1 and begins[0] < ends[0]:
        new = [*old[: begins[0]], *block, *old[ends[0] + 1 :]]
    else:
        rest = [line for line in old if line.strip() not in (BEGIN, END)]
        new = [*block, *rest] if first else [*rest, *block]
    return "\n".join(new) + "\n"


def drop(text: str) -> str:
    """The text without our block; unchanged where there is none that can be trusted."""
    old = text.removesuffix("\n").split("\n") if text else []
    begins, ends = _places(old, BEGIN), _places(old, END)
    if not (len(begins) == len(ends) == 1 and begins[0] < ends[0]):
        return text
    rest = [*old[: begins[0]], *old[ends[0] + 1 :]]
    return "\n".join(rest) + "\n" if rest else ""


def _places(lines: list[str], mark: str) -> list[int]:
    return [number for number, line in enumerate(lines) if line.strip() == mark]
