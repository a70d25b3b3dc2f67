"""Tables for people: 80 columns when piped, colour only on a terminal."""

from __future__ import annotations

import io
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence

WIDTH = 80  # columns where there is no terminal


def is_terminal() -> bool:
    """Whether a person sees all that is printed: what a pipe gets has no colour."""
    return sys.stderr.isatty() and sys.stdout.isatty()


def width() -> int:
    """Columns of the terminal."""
    return shutil.get_terminal_size((WIDTH, 24)).columns if is_terminal() else WIDTH


def wrapped(text: str, indent: int = 0) -> list[str]:
    """The lines of a sentence that may be longer than the terminal is wide.

    indent: columns that the caller puts before each line.
    """
    return textwrap.wrap(text, width() - indent, subsequent_indent="  ", break_on_hyphens=False)


def render(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    indent: int = 0,
    whole: Collection[str] = (),
) -> list[str]:
    """The lines of a table; where it is too wide, its widest columns are wrapped.

    indent: columns that the caller puts before each line.
    whole: headings of columns that are never wrapped: what people copy.
    """
    from rich.console import Console  # a tenth of a second, needed once at the end of a run
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading in whole)
    for row in rows:
        table.add_row(*row)
    terminal = is_terminal()
    console = Console(
        file=io.StringIO(),
        width=width() - indent,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        markup=False,
        highlight=False,
    )
    with console.capture() as text:
        console.print(table)
    return [line.rstrip() for line in text.get().splitlines()]
