"""Where a run is: which of its phases, and since when."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import groupby

from pyinfra import logger
from pyinfra.api import State
from pyinfra.api.state import BaseStateCallback

from runtime.changes import SEPARATOR


def phase_of(names: Iterable[str]) -> str:
    """The title of the outermost deploy of an operation; empty when it is in none."""
    title, separator, _ = min(names, default="").partition(SEPARATOR)
    return title if separator else ""


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, or hours too: `0:42`, `1:02:03`."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class Phases(BaseStateCallback):
    """Says `3/7 K3s servers (0:42)` when the run comes to another deploy.

    pyinfra asks its callbacks for static functions of the state; these are bound methods.
    """

    def __init__(self, state: State) -> None:
        self._start = time.monotonic()
        titles = (phase_of(state.op_meta[one].names) for one in state.get_op_order())
        self._count = len([title for title, _ in groupby(filter(None, titles))])
        self._number = 0
        self._current = ""

    def operation_start(self, state: State, op_hash: str) -> None:  # type: ignore[override]
        """Announce a phase at its first operation."""
        title = phase_of(state.op_meta[op_hash].names)
        if title and title != self._current:
            self._number += 1
            self._current = title
            since = clock(time.monotonic() - self._start)
            logger.info(f"--> {self._number}/{self._count} {title} ({since})")
