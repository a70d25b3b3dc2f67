"""Runs the body of a node operation against a host that is given, and shows its commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api import FunctionCommand, StringCommand
from pyinfra.context import ctx_host, ctx_state

from cluster.host_state import HostState
from cluster.model import Cluster


@dataclass(frozen=True)
class Command:
    """A command as the node would get it."""

    text: str
    stdin: str | None = None

    def __contains__(self, part: str) -> bool:
        return part in self.text


class Inventory:
    """pyinfra's inventory, of which all hosts are in the run."""

    @property
    def state(self) -> Any:
        return ctx_state.get()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.state.activated_hosts)


@dataclass
class Host:
    """The part of pyinfra's host that operations use."""

    name: str
    states: Mapping[str, HostState]
    state: Any = None
    said: list[str] = field(default_factory=list)
    noops: list[str] = field(default_factory=list)
    print_prefix: str = ""

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def inventory(self) -> Inventory:
        return Inventory()

    def noop(self, text: str) -> None:
        self.noops.append(text)

    def log(self, text: str) -> None:
        self.said.append(text)

    def get_fact(self, *_: Any, **__: Any) -> list[str]:
        return ["old line"]


class Runner:
    """`run(operation, model, states, **arguments)` → the commands on a host.

    `states`: a host's state, or one by name of each host of the run; `on`: the host's name, else
    the last one. `run.host` is the host.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("facts.node.cached", lambda one, *_, **__: one.states[one.name])
        self.host = Host("", {})

    def __call__(
        self,
        operation: Any,
        model: Cluster,
        states: HostState | Mapping[str, HostState],
        *,
        diff: bool = False,
        on: str = "",
        **arguments: Any,
    ) -> list[Command]:
        known = {model.hosts[0].name: states} if isinstance(states, HostState) else states
        hosts = [Host(name, known) for name in known]
        config = SimpleNamespace(DIFF=diff)
        state = SimpleNamespace(cluster=model, activated_hosts=hosts, config=config)
        for one in hosts:
            one.state = state
        self.host = next((one for one in hosts if one.name == on), hosts[-1])
        with ctx_state.use(state), ctx_host.use(self.host):
            return [_shown(command) for command in operation._inner(**arguments)]


def _shown(command: Any) -> Command:
    if isinstance(command, FunctionCommand):
        return Command(f"{command.function.__name__}{tuple(command.args)!r}")
    if isinstance(command, StringCommand):
        given: Any = command.connector_arguments.get("_stdin")
        return Command(command.get_raw_value(), given)
    return Command(str(command))
