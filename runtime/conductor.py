"""Work that depends on other work, done side by side: as long as its longest chain takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

import gevent

S = TypeVar("S", bound=Hashable)
Cause = str  # why a step failed
Work = Callable[[], Cause | None]  # None when all went well


class Conductor(Generic[S]):
    """Runs each step in a greenlet of its own as soon as those it needs are done.

    The first failure lets nothing further begin; steps ask `stopping` where they can end early.

    Args:
        needs: the direct needs of every step.
        work: what is to be done for a step; a step without an entry is done when its needs are.
    """

    def __init__(self, needs: Mapping[S, frozenset[S]], work: Mapping[S, Work]) -> None:
        self._needs, self._work = needs, work
        self._greenlets: dict[S, gevent.Greenlet] = {}
        self.seconds: dict[S, float] = {}  # what each step's work took
        self.wall = 0.0  # seconds from the beginning to the end of the last step so far
        self._began = 0.0
        self.failed: dict[S, Cause] = {}

    @property
    def stopping(self) -> bool:
        """Whether a step has failed."""
        return bool(self.failed)

    def start(self) -> None:
        """Begin; a second call does nothing."""
        if not self._greenlets:
            self._began = time.monotonic()
            self._greenlets = {step: gevent.spawn(self._run, step) for step in self._needs}

    def wait(self, step: S) -> tuple[S, Cause] | None:
        """Wait until a step is done, or until a failure has let all that was begun come to an end.

        Returns: None, or the first failure: later ones may only be its consequences.
        """
        self.start()
        self._greenlets[step].join()
        if self.failed:
            gevent.joinall(list(self._greenlets.values()))
            return next(iter(self.failed.items()))
        return None

    def _run(self, step: S) -> None:
        for need in self._needs[step]:
            self._greenlets[need].join()
        if self.stopping:
            return
        if step in self._work:
            begun = time.monotonic()
            self.seconds[step] = 0.0
            try:
                cause = self._work[step]()
            except Exception as error:
                cause = f"{type(error).__name__}: {error}"
            ended = time.monotonic()
            self.seconds[step], self.wall = ended - begun, ended - self._began
            if cause:
                self.failed[step] = cause
