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
    deadline = time.monotonic() + timeout
    line = _Line(host)
    while True:
        answer = probe()
        left = deadline - time.monotonic()
        match answer:
            case Done():
                return True
            case Failed(cause):
                return _end(host, f"{what}: {cause}")
            case Pending(text) if signals.stopping():
                return _end(host, f"{what}: stopped while waiting: {text}")
            case Pending(text) if left <= 0:
                return _end(host, f"{what}: not within {timeout:.0f} s: {text}")
            case Pending(text):
                line.say(text, f"waiting for {what}: {text} ({left:.0f} s left)")
        time.sleep(min(interval, left))


class _Line:
    """The line of a wait, said when it has something new to tell."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._said = ""
        self._since = 0.0

    def say(self, text: str, line: str) -> None:
        words, now = re.sub(r"\d+", "", text), time.monotonic()
        if words != self._said or now - self._since >= REPEAT_AFTER:
            self._said, self._since = words, now
            self._host.log(line)


def _end(host: Host, text: str) -> bool:
    host.log_styled(text, fg="red")
    return False
