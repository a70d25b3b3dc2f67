"""What is undone when a run is broken off."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from runtime import signals


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    lines: list[str] = []
    monkeypatch.setattr(signals, "_ending", signals._Ending())
    monkeypatch.setattr(signals.logger, "warning", lines.append)
    monkeypatch.setattr(signals.logger, "error", lines.append)
    yield lines


def test_the_newest_is_undone_first_and_only_once(said: list[str]) -> None:
    done: list[str] = []
    signals.push("a", "undoing a", lambda: done.append("a"))
    signals.push("b", "undoing b", lambda: done.append("b"))
    signals.undo()
    signals.undo()
    assert done == ["b", "a"]
    assert said == ["undoing b", "undoing a"]


def test_what_is_dropped_is_not_undone(said: list[str]) -> None:
    signals.push("a", "undoing a", lambda: pytest.fail("undone"))
    signals.drop("a")
    signals.drop("never pushed")
    signals.undo()
    assert said == []


def test_what_must_stay_is_said(said: list[str]) -> None:
    signals.push("a", "undoing a", lambda: pytest.fail("undone"))
    signals.keep("a", "a stays")
    assert signals.pushed("a")
    signals.undo()
    assert said == ["a stays"]
    assert not signals.pushed("a")


def test_a_failure_does_not_keep_the_rest(said: list[str]) -> None:
    done: list[str] = []
    signals.push("a", "undoing a", lambda: done.append("a"))
    signals.push("b", "undoing b", lambda: 1 / 0)
    signals.undo()
    assert done == ["a"]
    assert said == ["undoing b", "undoing b: division by zero", "undoing a"]


def test_nothing_is_waited_for_longer_than_the_limit(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "UNDO_LIMIT", 0.01)
    signals.push("a", "undoing a", lambda: gevent.sleep(60))
    signals.undo()
    assert said == ["undoing a", "undoing a: not within 0 s"]


def test_an_exit_from_the_main_greenlet_is_an_exit() -> None:
    with pytest.raises(SystemExit) as end:
        signals.leave(7)
    assert end.value.code == 7


def test_an_exit_from_another_greenlet_reaches_the_main_one() -> None:
    worker = gevent.spawn(signals.leave, 7)
    with pytest.raises(SystemExit) as end:
        gevent.sleep(5)
    assert end.value.code == 7
    worker.kill()
