"""What a run needs around pyinfra: the model before the first connection, refusals, the hook."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, NoReturn

from pyinfra import logger
from pyinfra.api import Host, Inventory, State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.state import BaseStateCallback, StateStage
from pyinfra.context import ctx_state

from cluster.model import Cluster
from cluster.problem import Problems
from runtime import secrets
from runtime.cache import ForgetChanged
from runtime.inventory import cluster_of, is_project, prepare_hosts


class ProjectState(State):
    """pyinfra's State with the cluster's model and this project's manners."""

    cluster: Cluster

    def set_stage(self, stage: StateStage) -> None:
        """Before the first connection: read and check everything that needs none."""
        if stage == StateStage.Connect and is_project(self.inventory):
            self.cluster = _validated(self.inventory)
            secrets.use(self.cluster)
            prepare_hosts(self.inventory)
            for handler in (FastConnection(), ForgetChanged()):
                self.add_callback_handler(handler)  # type: ignore[no-untyped-call]
        if stage == StateStage.Execute:
            secrets.require()
        super().set_stage(stage)


def _validated(inventory: Inventory) -> Cluster:
    """The model of the inventory, or every problem with it, one line each, and exit code 1."""
    try:
        model = cluster_of(inventory)
    except Problems as error:
        for problem in error.problems:
            logger.error(problem)
        raise SystemExit(1) from None
    for warning in model.warnings:
        logger.warning(warning)
    return model


class FastConnection(BaseStateCallback):
    """Every small command over SSH would otherwise wait some 40 ms for a delayed ACK."""

    @staticmethod
    def host_connect(state: State, host: Host) -> None:
        """Set TCP_NODELAY on the connection's socket."""
        client: Any = getattr(host.connector, "client", None)
        transport = client.get_transport() if client else None
        if transport and isinstance(transport.sock, socket.socket):
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def install() -> None:
    """Give the run's State our class; called by config.py."""
    ctx_state.get().__class__ = ProjectState


def cluster() -> Cluster:
    """The model of the run's cluster."""
    model: Cluster = ctx_state.get().cluster
    return model


def fail(problems: Iterable[str]) -> NoReturn:
    """Refuse the run from deploy code, before anything changed: one line a problem, exit 1."""
    said: set[str] = ctx_state.get().__dict__.setdefault("refusals", set())
    for line in dict.fromkeys(problems):
        if line not in said:  # deploy code runs for every host
            said.add(line)
            logger.error(f"--> {line}")
    raise PyinfraError("refused; nothing was changed")


def started_directly(name: str) -> bool:
    """Whether pyinfra runs the deploy file itself, rather than another deploy importing it.

    pyinfra executes a deploy file without a module name, so that its `__name__` is the one of
    the builtins.
    """
    return name == "builtins"
