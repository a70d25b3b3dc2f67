"""Waits that have a limit, say what they wait for, and end with the cause."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """What was waited for is there."""

    text: str = ""


@dataclass(frozen=True)
class Pending:
    """Not yet; the text says what is missing."""

    text: str


@dataclass(frozen=True)
class Failed:
    """It will not come; the cause says why."""

    cause: str


Probe = Done | Pending | Failed


def until(
    probe: Callable[[], Probe],
    *,
    what: str,
    timeout: float,
    interval: float = 2.0,
    say: Callable[[str], None],
    stopping: Callable[[], bool] = lambda: False,
) -> bool:
    """Probe until it is done; False when it fails, is stopped, or takes longer than the limit.

    timeout, interval: seconds. say: gets a line when the pending text changes, and the last word.
    """
    deadline = time.monotonic() + timeout
    said = ""
    while True:
        answer = probe()
        left = deadline - time.monotonic()
        match answer:
            case Done():
                return True
            case Failed(cause):
                say(f"{what}: {cause}")
                return False
            case Pending(text):
                if stopping():
                    say(f"{what}: stopped while waiting: {text}")
                    return False
                if left <= 0:
                    say(f"{what}: not within {timeout:.0f} s: {text}")
                    return False
                if text != said:
                    said = text
                    say(f"waiting for {what}: {text} ({left:.0f} s left)")
        time.sleep(min(interval, max(left, 0.0)))
