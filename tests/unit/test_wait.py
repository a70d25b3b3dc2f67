"""Waits: their limit, what they say and how they end, with a clock that only sleep moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from cluster.probe import Done, Failed, Pending, Probe
from runtime import signals, wait
from runtime.wait import until


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


class Teller:
    """Keeps what a host would print."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.red: list[str] = []

    def log(self, message: str) -> None:
        self.lines.append(message)

    def log_styled(self, message: str, fg: str) -> None:
        assert fg == "red"
        self.red.append(message)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(wait, "time", found)
    return found


@pytest.fixture
def host() -> Teller:
    return Teller()


def answers(*given: Probe) -> Callable[[], Probe]:
    """A probe that gives these answers, the last one for ever."""
    rest = list(given)
    return lambda: rest.pop(0) if len(rest) > 1 else rest[0]


def counting(texts: Iterable[str]) -> Callable[[], Probe]:
    found = iter(texts)
    return lambda: Pending(next(found))


def test_says_what_is_missing_until_it_is_done(clock: Clock, host: Teller) -> None:
    probe = answers(Pending("a"), Pending("a"), Pending("b"), Done())
    assert until(probe, what="it", timeout=60, host=host)
    assert host.lines == ["waiting for it: a (60 s left)", "waiting for it: b (56 s left)"]
    assert host.red == []


def test_a_text_that_differs_in_numbers_only_is_said_every_30_seconds(
    clock: Clock, host: Teller
) -> None:
    probe = counting(f"{number} pods left" for number in range(1000, 0, -1))
    assert not until(probe, what="drain", timeout=65, interval=1, host=host)
    assert host.lines == [
        "waiting for drain: 1000 pods left (65 s left)",
        "waiting for drain: 970 pods left (35 s left)",
        "waiting for drain: 940 pods left (5 s left)",
    ]


def test_the_limit_ends_it_with_the_last_cause(clock: Clock, host: Teller) -> None:
    assert not until(answers(Pending("no vote")), what="votes", timeout=5, host=host)
    assert host.red == ["votes: not within 5 s: no vote"]
    assert clock.now == 1005  # the last look is at the limit, not before and not after


def test_a_final_cause_ends_it_at_once(clock: Clock, host: Teller) -> None:
    assert not until(answers(Failed("wrong token")), what="k3s", timeout=60, host=host)
    assert (host.lines, host.red, clock.now) == ([], ["k3s: wrong token"], 1000)


def test_a_run_that_stops_ends_it(
    clock: Clock, host: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "stopping", lambda: clock.now >= 1004)
    assert not until(answers(Pending("no vote")), what="votes", timeout=600, host=host)
    assert host.red == ["votes: stopped while waiting: no vote"]
    assert clock.now == 1004


def test_what_is_done_counts_also_at_the_limit(clock: Clock, host: Teller) -> None:
    probe = answers(Pending("a"), Done())
    assert until(probe, what="it", timeout=2, interval=2, host=host)
