"""Fixtures of the tests that need real hosts: one lab a session, as large as its tests ask for.

`@pytest.mark.lab(servers=3, agents=2)` says what a test needs, also spare, gateways, externals; the
lab gets the largest of each. Where every mark says k3s=False it has no K3s to offer, and begins
before that is built. LAB_NAME chooses another lab than `test`; LAB_KEEP=1 takes it as it is and
leaves it up.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from runtime import trace
from tests.lab import removals
from tests.lab.cache import cache_dir
from tests.lab.errors import LabError
from tests.lab.lab import DEFAULT_SIZE, Lab
from tests.lab.plan import SIZES

DEFAULTS = dict(zip(SIZES, DEFAULT_SIZE.values(), strict=True))


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The session's lab, with bare hosts at its start."""
    found = Lab(os.environ.get("LAB_NAME", "test"))
    file = found.names.state / "trace"
    keep = os.environ.get("LAB_KEEP") == "1"
    with (cache_dir() / f"session-{found.names.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.fail(f"lab {found.names.name!r} is in use by other tests: set LAB_NAME", False)
        try:
            if not keep:
                found.down()
            items = request.session.items
            found.up(**_size(items), k3s=keep or _k3s(items))
            file.unlink(missing_ok=True)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(trace.VARIABLE, str(file))
                yield found
            if wrong := removals.unmeant(removals.helms(file), _meant(request.session.items)):
                pytest.fail(f"helm took away what no test names: {', '.join(wrong)}", False)
        except LabError as error:
            pytest.fail(f"lab: {error}", pytrace=False)
        finally:
            if not keep:
                found.down()


@pytest.fixture(scope="session")
def simulated(lab: Lab) -> None:
    """For tests that rest on the stand-in's simulated platform."""
    if lab.record.k3s_kind != "stand-in":
        pytest.skip("rests on what the k3s stand-in simulates (LAB_K3S=stand-in)")


@pytest.fixture
def bare_lab(lab: Lab) -> Lab:
    """The session's lab with every host as after a first boot, switched on and without faults."""
    lab.clear_faults()
    lab.recreate(*(host.name for host in lab.hosts))
    return lab


def _meant(items: list[pytest.Item]) -> set[str]:
    """Names of releases that tests remove on purpose."""
    marks = [mark for item in items for mark in item.iter_markers("removes")]
    return {name for mark in marks for name in mark.args}


def _size(items: list[pytest.Item]) -> dict[str, int]:
    """Return the largest number of each role that any selected test asks for."""
    return {
        role: max((asked.get(role, default) for asked in _asked(items)), default=default)
        for role, default in DEFAULTS.items()
    }


def _k3s(items: list[pytest.Item]) -> bool:
    """Return whether any selected test needs K3s, helm or a chart."""
    return any(asked.get("k3s", True) for asked in _asked(items))


def _asked(items: list[pytest.Item]) -> list[Mapping[str, Any]]:
    return [mark.kwargs for item in items for mark in item.iter_markers("lab")]
