"""Taking a node out of its cluster, and K3s off a node."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host, state
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.command import PyinfraCommand

from cluster.answer import Present
from cluster.leftovers import Options, remove_script
from facts.kube import read_node
from facts.leftovers import Leftovers
from operations import node as nodes
from operations import reset_actions
from runtime.api import api
from runtime.cache import cached
from runtime.run import cluster

# Keeps systemd from starting a server again that has just been removed: it could join anew.
_STAY_DOWN = """\
for u in k3s k3s-agent; do
  systemctl cat $u.service > /dev/null 2>&1 || continue
  mkdir -p /run/systemd/system/$u.service.d
  printf '[Service]\\nRestart=no\\n' > /run/systemd/system/$u.service.d/90-leaving.conf
done
systemctl daemon-reload
"""


@operation()
def drain(node: str, timeout: float) -> Generator[PyinfraCommand, None, None]:
    """Move the pods of a node elsewhere before it is removed; a node that is down has none to move.

    + node: its name
    + timeout: seconds
    """
    match read_node(api(), node):
        case Present(value=found) if not found.ready:
            host.noop(f"{node} is not Ready: {found.why_not_ready}")
        case Present():
            yield from nodes.drain._inner(node, timeout)
        case answer:
            host.noop(f"{node} is not drained: {answer}")


@operation()
def leave(node: str, timeout: float) -> Generator[PyinfraCommand, None, None]:
    """Remove a node from the cluster: its object, its etcd member and its password.

    Runs on the node that leaves: K3s there is kept from starting again.

    + node: its name
    + timeout: seconds for the cluster to let it go
    """
    if _unknown(node):
        return
    yield StringCommand("sh", "-s", _stdin=_STAY_DOWN)
    yield FunctionCommand(reset_actions.leave, (node, timeout), {})


@operation()
def forget(node: str, timeout: float) -> Generator[PyinfraCommand, None, None]:
    """Clear what the cluster knows of a node that is lost or was flashed anew.

    + node: its name
    + timeout: seconds for the cluster to let it go
    """
    if _unknown(node):
        return
    yield FunctionCommand(reset_actions.leave, (node, timeout), {})


@operation()
def clean(topic: str, options: Options) -> Generator[PyinfraCommand, None, None]:
    """Remove one kind of what K3s left on the node; fails with the names of what stays.

    + topic: a key of `cluster.leftovers.TOPICS`
    + options: what is spared
    """
    things = cached(host, Leftovers, options=options).of(topic)
    if not things:
        host.noop("nothing is there")
        return
    if not state.is_executing:
        for thing in things:
            host.log(f"- {thing}")
    yield StringCommand("sh", "-s", _stdin=remove_script(topic, options))


def _unknown(node: str) -> bool:
    """Whether the cluster has no trace of the node, or there is no cluster to ask."""
    if not cluster().servers:
        return True
    trace = reset_actions.traces(api(), node)
    if not trace:
        host.noop(f"the cluster does not know {node}")
    return not trace
