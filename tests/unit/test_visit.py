"""How the doctor reads hosts: none of them is waited for without end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gevent
import pytest
from pyinfra.api import Config, FactBase, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_state

from commands import look
from runtime import cache
from tests.unit.test_cache import World


class Slow(FactBase[str | None]):
    """Says something at once, and the rest never."""

    def command(self, seconds: int) -> str:
        return f"echo begun; sleep {seconds}"

    def process(self, output: Iterable[str]) -> str:
        return "".join(output)


@pytest.mark.parametrize(("seconds", "said"), [(0, "begun"), (5, None)])
def test_a_fact_that_hangs_is_given_up(
    seconds: int, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "LIMIT", 1)
    hosts = Inventory((["@local"], {}))
    state = State(hosts, Config())
    with ctx_state.use(state):
        state.set_stage(StateStage.Connect)
        connect_all(state)
        state.set_stage(StateStage.Prepare)
        (host,) = hosts
        assert look.fact_of(host, Slow, seconds=seconds) == said


def test_a_host_whose_logins_hang_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command never begins, and with it pyinfra's own limit."""
    monkeypatch.setattr(look, "LIMIT", 1)
    host: Any = World("node1").hosts["node1"]
    host.get_fact = lambda *_, **__: gevent.sleep(3600)
    assert look.fact_of(host, Slow, seconds=0) is None
    with pytest.raises(PyinfraError, match="node1: no answer to Slow within 1 seconds"):
        cache.cached(host, Slow, seconds=0, _timeout=1)
