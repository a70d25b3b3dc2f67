"""Steps side by side: what may begin, what a failure lets happen."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import gevent
from gevent.event import Event

from runtime.conductor import Conductor

NEEDS: Mapping[str, frozenset[str]] = {
    "a": frozenset(),
    "b": frozenset("a"),
    "c": frozenset("a"),
    "d": frozenset("bc"),
}


def recorded(said: list[str], name: str, cause: str | None = None) -> Callable[[], str | None]:
    def work() -> str | None:
        said.append(name)
        return cause

    return work


def test_a_step_begins_after_all_it_needs() -> None:
    said: list[str] = []
    steps = Conductor(NEEDS, {name: recorded(said, name) for name in NEEDS})
    assert steps.wait("d") is None
    assert said[0] == "a" and said[-1] == "d" and set(said) == set("abcd")


def test_steps_that_do_not_need_each_other_run_side_by_side() -> None:
    met = {"b": Event(), "c": Event()}

    def meet(mine: str, other: str) -> Callable[[], str | None]:
        def work() -> str | None:
            met[mine].set()
            return None if met[other].wait(timeout=5) else "never met"

        return work

    steps = Conductor(NEEDS, {"b": meet("b", "c"), "c": meet("c", "b")})
    assert steps.wait("d") is None


def test_a_step_without_work_is_done_when_its_needs_are() -> None:
    said: list[str] = []
    steps = Conductor(NEEDS, {"d": recorded(said, "d")})
    assert steps.wait("d") is None and said == ["d"]


def test_after_a_failure_nothing_begins_and_what_runs_comes_to_its_end() -> None:
    said: list[str] = []
    begun = Event()

    def slow() -> str | None:
        begun.set()
        while not steps.stopping:
            gevent.sleep(0.001)
        said.append("slow ended")
        return None

    def fails() -> str | None:
        begun.wait()
        return "broken"

    steps = Conductor(NEEDS, {"b": slow, "c": fails, "d": recorded(said, "d")})
    assert steps.wait("c") == ("c", "broken")
    assert said == ["slow ended"]
    assert steps.wait("d") == ("c", "broken")


def test_an_exception_is_the_cause_of_its_step() -> None:
    def broken() -> str | None:
        raise ValueError("no such thing")

    steps = Conductor(NEEDS, {"a": broken})
    assert steps.wait("a") == ("a", "ValueError: no such thing")
    assert steps.failed == {"a": "ValueError: no such thing"}


def test_time_is_taken_of_each_step_with_work() -> None:
    steps = Conductor(NEEDS, {"a": lambda: None})
    steps.wait("d")
    assert set(steps.seconds) == {"a"}
