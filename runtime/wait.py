"""Waits that have a limit, say what they wait for, and end with the cause."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.probe import Done, Failed, Pending, Probe
from runtime import signals

if TYPE_CHECKING:
    from pyinfra.api import Host

REPEAT_AFTER = 30.0  # seconds after which a line is said again that differs in numbers only


def until(
    probe: Callable[[], Probe],
    *,
    what: str,
    timeout: float,
    interval: float = 2.0,
    host: Host,
) -> bool:
    """Probe until it is done; False when it fails, is stopped, or takes longer than the limit.

    timeout, interval: seconds. host: lends its name to the lines: one when the pending text
    changes in more than its numbers, and the last word in red.
    """
    cause = wait(
        probe,
        timeout=timeout,
        interval=interval,
        say=lambda text: host.log(f"waiting for {what}: {text}"),
    )
    if cause is None:
        return True
    host.log_styled(f"{what}: {cause}", fg="red")
    return False


def wait(
    probe: Callable[[], Probe],
    *,
    timeout: float,
    interval: float = 2.0,
    say: Callable[[str], None],
    stop: Callable[[], bool] | None = None,
    pause: Callable[[float], object] | None = None,
) -> str | None:
    """Probe until it is done.

    Args:
        timeout, interval: seconds.
        say: gets a line when the pending text changes in more than its numbers.
        stop: whether to give up; None: when the run is being stopped.
        pause: waits so many seconds, or until there is something new to see; None: sleeps.

    Returns: None when it is done, else why it is not.
    """
    deadline = time.monotonic() + timeout
    line = _Line(say)
    while True:
        answer = probe()
        left = deadline - time.monotonic()
        match answer:
            case Done():
                return None
            case Failed(cause):
                return cause
            case Pending(text) if (stop or signals.stopping)():
                return f"stopped while waiting: {text}"
            case Pending(text) if left <= 0:
                return f"not within {timeout:.0f} s: {text}"
            case Pending(text):
                line.say(text, f"{text} ({left:.0f} s left)")
        (pause or time.sleep)(min(interval, left))


class _Line:
    """The line of a wait, said when it has something new to tell."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = ""
        self._since = 0.0

    def say(self, text: str, line: str) -> None:
        words, now = re.sub(r"\d+", "", text), time.monotonic()
        if text and (words != self._said or now - self._since >= REPEAT_AFTER):
            self._said, self._since = words, now
            self._say(line)
