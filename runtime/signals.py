"""The end of a run that is broken off: what must be undone is undone, then it ends at once.

Ctrl-C and SIGTERM set a flag that every wait looks at, let running operations end for a moment,
undo what is on the stack, and end the run with exit code 130 or 143. A second one ends it at once.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple, NoReturn

import gevent
from pyinfra import logger
from pyinfra.api import State
from pyinfra.api.exceptions import PyinfraError

GRACE = 1.0  # seconds running operations get to end by themselves
UNDO_LIMIT = 10.0  # seconds for each thing to undo


class Entry(NamedTuple):
    """What is said, and what is done to undo it; None: it stays, and the text says why."""

    title: str
    act: Callable[[], object] | None


class _Ending:
    """How far the end of the run is."""

    def __init__(self) -> None:
        self.stack: dict[str, Entry] = {}
        self.code: int | None = None  # exit code of a run that was told to stop
        self.state: State | None = None
        self.last_words: Callable[[], None] = lambda: None


_ending = _Ending()


def stopping() -> bool:
    """Whether the run was told to stop."""
    return _ending.code is not None


def push(key: str, title: str, act: Callable[[], object]) -> None:
    """Call `act` when the run is broken off or fails before `drop`; title: what is said then."""
    _ending.stack[key] = Entry(title, act)


def keep(key: str, note: str) -> None:
    """What was pushed must stay from now on; note: what is said about it at a broken end."""
    _ending.stack[key] = Entry(note, None)


def pushed(key: str) -> bool:
    """Whether something is on the stack under this key."""
    return key in _ending.stack


def drop(key: str) -> None:
    """It is done properly: nothing to undo or to say."""
    _ending.stack.pop(key, None)


def undo() -> None:
    """Undo what is on the stack, newest first, each within a limit."""
    while _ending.stack:
        _, (title, act) = _ending.stack.popitem()
        logger.warning(title)
        if act is None:
            continue
        done = False
        try:
            with gevent.Timeout(UNDO_LIMIT, False):
                act()
                done = True
        except Exception as error:  # whatever it is, the rest must be undone as well
            logger.error(f"{title}: {error}")
        else:
            if not done:
                logger.error(f"{title}: not within {UNDO_LIMIT:.0f} s")


def install(state: State, last_words: Callable[[], None]) -> None:
    """Take over SIGINT and SIGTERM; last_words: printed once the stack is undone."""
    _ending.state, _ending.last_words = state, last_words
    atexit.register(undo)  # of what an unexpected error left behind
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _handle)


def hold() -> None:
    """Do not begin anything new in a run that is being stopped."""
    while stopping():
        gevent.sleep(1)  # the end of the run breaks in here


def leave(code: int) -> NoReturn:
    """End the run with an exit code, from any greenlet, without a traceback.

    Raises SystemExit in the main greenlet; elsewhere has it raised there, and PyinfraError here.
    """
    if _in_main():
        raise SystemExit(code)
    gevent.spawn(_exit, code)
    raise PyinfraError("the run ends")


def _handle(number: int, frame: FrameType | None) -> None:
    code = 128 + number
    if stopping():
        os._exit(code)
    _ending.code = code
    executing = _ending.state is not None and _ending.state.is_executing
    if _in_main() and not executing:  # e.g. at the prompt, where no greenlet gets a turn
        raise SystemExit(code)
    gevent.spawn(_stop, code)


def _stop(code: int) -> None:
    try:
        logger.warning("--> Stopping; once more to stop at once")
        state = _ending.state
        if state is not None and state.initialised:
            state.pool.join(timeout=GRACE)
            for pool in (state.pool, state.fact_pool):
                pool.kill(block=False)  # what goes on would keep a slot of the disconnect
        undo()
        _ending.last_words()
    finally:  # a run that was told to stop ends, whatever fails here
        _exit(code)


def _exit(code: int) -> None:
    if _ending.state is not None and _ending.state.initialised:
        _ending.state.pool.kill(block=False)
    raise SystemExit(code)  # gevent raises it in the main greenlet


def _in_main() -> bool:
    current = gevent.getcurrent()
    return current is not gevent.get_hub() and current.parent is None
