"""A host's state, its boot layer and what the doctor looks at beyond them, by one command."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from pyinfra.api import FactBase, Host
from pyinfra.api.exceptions import FactProcessError, PyinfraError

from cluster.base import question
from cluster.boot.state import BootState
from cluster.doctor import modules as kernel_modules
from cluster.doctor.node import Node
from cluster.doctor.seen import Seen
from cluster.host_state import HostState
from cluster.model import Cluster
from cluster.question import EVERYWHERE, Question
from facts.boot import Boot, keep_boot
from facts.doctor import DoctorState
from facts.node import NodeState, keep_host, refuse_unread
from facts.tagged import LIMIT, apart, together
from runtime.cache import cached


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What is known of a host."""

    state: HostState
    seen: Seen
    boot: BootState

    def node(self, model: Cluster, name: str) -> Node:
        """The host as the doctor's checks take it."""
        return Node(model, model.host(name), self.state, self.seen, self.boot)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra --json`."""
        return {one.name: getattr(self, one.name).to_json() for one in fields(self)}


class Survey(FactBase[Surveyed | None]):
    """All that the doctor wants to know of a host, without the network.

    ```
    pyinfra inventories/home.py fact facts.survey.Survey
    ```

    + ask: what to read beyond what every host is asked
    + modules: kernel modules to look for
    """

    def command(self, ask: Question = EVERYWHERE, modules: tuple[str, ...] = ()) -> str:
        """One shell script: those of the three facts, run at the same time."""
        self._facts = (NodeState(), DoctorState(), Boot())
        node, doctor, boot = self._facts
        return together(node=node.command(ask), doctor=doctor.command(modules), boot=boot.command())

    def process(self, output: Iterable[str]) -> Surveyed:
        """The script's lines, as each fact reads its own."""
        parts, ended = apart(output)
        try:
            node, doctor, boot = (parts[name] for name in ("node", "doctor", "boot"))
        except KeyError as error:
            raise FactProcessError(f"the state of the host: {error} is missing") from error
        facts = self._facts
        state = facts[0].process(node)
        if ended is not None:
            # The clock was read at the beginning: how long the rest took says nothing about it.
            clock = replace(state.clock, after=state.clock.after - (ended - state.clock.at))
            state = replace(state, clock=clock)
        return Surveyed(state, facts[1].process(doctor), facts[2].process(boot))


def arguments(model: Cluster) -> dict[str, Any]:
    """What the fact is asked in this cluster."""
    names = kernel_modules.names(kernel_modules.needs(model))
    return {"ask": question(model), "modules": names}


def survey(host: Host, model: Cluster) -> Node:
    """What is known of a host, read once a phase; then its parts are known too.

    Raises PyinfraError when it cannot be read, which is not "nothing is there".
    """
    found = cached(host, Survey, _timeout=LIMIT, **arguments(model))
    if found is None:
        raise PyinfraError(f"{host.name}: its state cannot be read")
    refuse_unread(host, found.state)
    keep_host(host, model, found.state)
    keep_boot(host, found.boot)
    return found.node(model, host.name)
