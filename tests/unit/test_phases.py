"""Phases of a run: their titles, their number, when they are said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from runtime import phases
from runtime.phases import Phases, clock, phase_of


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(phases.logger, "info", lines.append)
    return lines


def state(*names: str) -> Any:
    meta = {str(number): SimpleNamespace(names={name}) for number, name in enumerate(names)}
    return SimpleNamespace(op_meta=meta, get_op_order=lambda: list(meta))


@pytest.mark.parametrize(
    ("names", "title"),
    [
        ({"K3s servers | node1: enter"}, "K3s servers"),
        ({"Nodes | Time | chrony"}, "Nodes"),
        ({"No deploy around it"}, ""),
        (set(), ""),
        ({"B | x", "A | x"}, "A"),
    ],
)
def test_the_outermost_deploy_is_the_phase(names: set[str], title: str) -> None:
    assert phase_of(names) == title


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (42.9, "0:42"), (61, "1:01"), (3599, "59:59"), (3723, "1:02:03")],
)
def test_a_clock_in_minutes_and_seconds(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_phase_is_said_at_its_first_operation(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(phases.time, "monotonic", lambda: now)
    run = state("A | one", "A | two", "bare", "B | one", "A | again")
    found = Phases(run)
    for one in run.get_op_order():
        found.operation_start(run, one)
        now += 30
    assert said == ["--> 1/3 A (0:00)", "--> 2/3 B (1:30)", "--> 3/3 A (2:00)"]


def test_operations_without_a_deploy_have_no_phase(said: list[str]) -> None:
    run = state("one", "two")
    found = Phases(run)
    for one in run.get_op_order():
        found.operation_start(run, one)
    assert said == []
