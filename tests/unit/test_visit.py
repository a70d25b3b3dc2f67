"""How the doctor reads hosts: none of them is waited for without end."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from pyinfra.api import Config, FactBase, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_state

from commands import visit


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
    monkeypatch.setattr(visit, "LIMIT", 1)
    hosts = Inventory((["@local"], {}))
    state = State(hosts, Config())
    with ctx_state.use(state):
        state.set_stage(StateStage.Connect)
        connect_all(state)
        state.set_stage(StateStage.Prepare)
        (host,) = hosts
        assert visit._fact(host, Slow, seconds=seconds) == said
