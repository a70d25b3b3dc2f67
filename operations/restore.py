"""A cluster back from a snapshot, step by step; each step knows whether it was done before."""

from __future__ import annotations

import time
from collections.abc import Generator
from functools import cache

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.command import PyinfraCommand

from cluster import k3s_config, k3s_plan, restore
from cluster.restore import Plan
from facts.k3s import k3s_state
from facts.snapshots import on_server
from operations import restore_actions, text
from runtime.run import cluster


@cache
def identity() -> str:
    """What tells a restore that begins in this run from an earlier one; the same for all hosts."""
    return str(int(time.time()))


def _reached(plan: Plan, step: str) -> bool:
    """Whether this server has done the step in this restore already."""
    if not restore.reached(plan, on_server(host, cluster()).mark, step):
        return False
    host.noop("was done by the run before")
    return True


def _token(plan: Plan) -> Generator[PyinfraCommand, None, None]:
    """Put the token that opens the snapshot in force, where another one is."""
    server = on_server(host, cluster())
    if plan.token and server.token != plan.token:
        path = restore.token_file(plan, server)
        yield FunctionCommand(restore_actions.use_token, (path,), {})


@operation()
def stop(plan: Plan) -> Generator[PyinfraCommand, None, None]:
    """Stop K3s on a server for a restore, and keep it down over a reboot; its pods go on.

    + plan: the restore
    """
    model, state = cluster(), k3s_state(host)
    me = model.host(host.name)
    if k3s_config.unit_path(me) not in state.files:
        host.noop("has no K3s")
        return
    down = state.unit(k3s_config.unit_name(me)).down
    if restore.is_stopped(plan, on_server(host, model).mark, down):
        host.noop("was done by the run before")
        return
    yield StringCommand("sh", "-s", _stdin=restore.stop_script(plan))


@operation()
def rebuild(plan: Plan, timeout: float) -> Generator[PyinfraCommand, None, None]:
    """Put the snapshot in place of the datastore of the server that restores.

    + plan: the restore
    + timeout: seconds
    """
    if _reached(plan, "restored"):
        return
    others = [server for server in cluster().servers if server.name != plan.server]
    if others and "server" not in k3s_state(host).join:
        # A restore that fails may leave no datastore: the next start must join then, never create.
        url = k3s_plan.server_url(others[0])
        yield text.write(k3s_config.JOIN, k3s_config.join(url), "600")
    yield FunctionCommand(restore_actions.rebuild, (plan, timeout), {})


@operation()
def start(plan: Plan, timeout: float) -> Generator[PyinfraCommand, None, None]:
    """Start the server that restored, and wait for its API.

    + plan: the restore
    + timeout: seconds
    """
    if _reached(plan, "started"):
        return
    yield from _token(plan)
    yield FunctionCommand(restore_actions.start, (plan, timeout), {})


@operation()
def rejoin(plan: Plan, timeout: float) -> Generator[PyinfraCommand, None, None]:
    """Let another server join the restored one with an empty datastore.

    + plan: the restore
    + timeout: seconds
    """
    if _reached(plan, "joined"):
        return
    model, state = cluster(), k3s_state(host)
    me = model.host(host.name)
    if k3s_config.unit_path(me) not in state.files:
        host.noop("has no K3s; deploys/k3s.py lets it join")
        return
    if not restore.reached(plan, on_server(host, model).mark, "cleared"):
        yield StringCommand("sh", "-s", _stdin=restore.clear_script(plan))
    yield from _token(plan)
    url = k3s_plan.server_url(model.host(plan.server))
    yield text.write(k3s_config.JOIN, k3s_config.join(url), "600")
    yield FunctionCommand(restore_actions.rejoin, (plan, timeout), {})


@operation()
def wake(timeout: float) -> Generator[PyinfraCommand, None, None]:
    """Restart an agent after a restore; its pods go on.

    + timeout: seconds
    """
    if k3s_config.unit_path(cluster().host(host.name)) not in k3s_state(host).files:
        host.noop("has no K3s")
        return
    yield FunctionCommand(restore_actions.wake, (timeout,), {})


@operation()
def finish() -> Generator[PyinfraCommand, None, None]:
    """Take the mark of the restore away."""
    yield StringCommand("rm", "-f", restore.MARK)


@operation()
def name_strangers() -> Generator[PyinfraCommand, None, None]:
    """Name the nodes that came back with the snapshot but are not in the inventory."""
    yield FunctionCommand(restore_actions.name_strangers, (), {})
