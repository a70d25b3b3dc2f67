"""The cache of facts: one reading a phase and host, anew after a change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from pyinfra.api import FactBase

from runtime.cache import ForgetChanged, cached, forget, made


class Fact(FactBase[int]):
    def command(self) -> str:
        return "true"


class World:
    """As much of a pyinfra state as the cache looks at."""

    def __init__(self, *names: str) -> None:
        self.is_executing = False
        self.hosts = {name: Fake(name, self) for name in names}
        self.activated_hosts = list(self.hosts.values())
        self.ops: dict[Any, dict[str, Any]] = {host: {} for host in self.activated_hosts}

    def get_host(self, name: str) -> Fake:
        return self.hosts[name]


class Fake:
    """A host that counts how often it is asked."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.state = self.inventory = world
        self.asked = 0

    def get_fact(self, fact: type, **kwargs: Any) -> int:
        self.asked += 1
        return self.asked


@dataclass
class Done:
    """An operation that has ended, or not."""

    complete: bool = True
    changed: bool = True
    operation_meta: Any = field(init=False)

    def __post_init__(self) -> None:
        self.operation_meta = self

    def is_complete(self) -> bool:
        return self.complete

    def did_change(self) -> bool:
        assert self.complete, "pyinfra raises here"
        return self.changed


@pytest.fixture
def world() -> World:
    return World("a", "b")


def test_a_host_is_asked_once(world: World) -> None:
    a, b = world.hosts["a"], world.hosts["b"]
    assert [cached(a, Fact), cached(a, Fact)] == [1, 1]  # type: ignore[arg-type]
    cached(b, Fact)  # type: ignore[arg-type]
    assert (a.asked, b.asked) == (1, 1)


def test_arguments_make_another_fact(world: World) -> None:
    a = world.hosts["a"]
    cached(a, Fact, path="/a")  # type: ignore[arg-type]
    cached(a, Fact, path="/b")  # type: ignore[arg-type]
    assert a.asked == 2


def test_nothing_is_kept_from_preparing_to_executing(world: World) -> None:
    a = world.hosts["a"]
    cached(a, Fact)  # type: ignore[arg-type]
    world.is_executing = True
    assert cached(a, Fact) == 2  # type: ignore[arg-type]


def test_what_is_forgotten_is_read_anew(world: World) -> None:
    a, b = world.hosts["a"], world.hosts["b"]
    for host in (a, b):
        cached(host, Fact)  # type: ignore[arg-type]
    forget(a)  # type: ignore[arg-type]
    for host in (a, b):
        cached(host, Fact)  # type: ignore[arg-type]
    assert (a.asked, b.asked) == (2, 1)


@pytest.mark.parametrize(
    ("done", "asked"),
    [(Done(), 2), (Done(changed=False), 1), (Done(complete=False, changed=False), 1)],
)
def test_the_end_of_an_operation_forgets_what_it_changed(
    world: World, done: Done, asked: int
) -> None:
    a, b = world.hosts["a"], world.hosts["b"]
    for host in (a, b):
        cached(host, Fact)  # type: ignore[arg-type]
    world.ops[a]["op"] = done
    ForgetChanged.operation_end(world, "op")  # type: ignore[arg-type]
    for host in (a, b):
        cached(host, Fact)  # type: ignore[arg-type]
    assert (a.asked, b.asked) == (asked, 1)


def test_what_is_made_of_many_hosts_is_made_once_until_one_of_them_changes(world: World) -> None:
    times = iter(range(9))

    def make() -> int:
        return next(times)

    state: Any = world
    assert [made(state, "sum", make), made(state, "sum", make)] == [0, 0]
    assert made(state, "other", make) == 1
    forget(world.hosts["b"])  # type: ignore[arg-type]
    assert made(state, "sum", make) == 2
    world.is_executing = True
    assert made(state, "sum", make) == 3
