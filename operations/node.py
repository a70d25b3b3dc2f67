"""Nodes through the API: labels, taints, cordon and drain."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

from pyinfra import host, state
from pyinfra.api import FunctionCommand, operation

from cluster import drain as rules
from cluster import marks
from cluster.answer import Present
from cluster.model import Taint
from cluster.node import Node
from facts.kube import pods_on, read_node, read_nodes
from operations import node_actions
from runtime.api import api

W = TypeVar("W")
Commands = Generator[FunctionCommand, None, None]
Decide = Callable[[Node, W], marks.Change | None]


@operation()
def labels_of_all(wanted: Mapping[str, Mapping[str, str]]) -> Commands:
    """Keep exactly these labels among ours on nodes; labels of others are not touched.

    One request when nothing differs. A node that is not registered counts as a change before the
    run, and fails in it.

    Args:
        wanted: labels by node name; an empty mapping removes ours.
    """
    yield from _kept(wanted, marks.labels_change, node_actions.set_labels, "labels")


@operation()
def taints_of_all(wanted: Mapping[str, Sequence[Taint]]) -> Commands:
    """Keep exactly these taints among ours on nodes; taints of others are not touched.

    One request when nothing differs. A node that is not registered counts as a change before the
    run, and fails in it.

    Args:
        wanted: taints by node name; an empty sequence removes ours.
    """
    yield from _kept(wanted, marks.taints_change, node_actions.set_taints, "taints")


@operation()
def labels(node: str, wanted: Mapping[str, str]) -> Commands:
    """Keep exactly these labels among ours on one node.

    Args:
        node: its name.
        wanted: the labels.
    """
    yield from labels_of_all._inner({node: wanted})


@operation()
def taints(node: str, wanted: Sequence[Taint]) -> Commands:
    """Keep exactly these taints among ours on one node.

    Args:
        node: its name.
        wanted: the taints.
    """
    yield from taints_of_all._inner({node: wanted})


@operation()
def cordon(node: str, reason: str) -> Commands:
    """Make a node unschedulable in our name; a cordon of others stays theirs.

    Args:
        node: its name.
        reason: what it is for; kept at the node.
    """
    match read_node(api(), node):
        case Present(value=found) if not found.schedulable:
            ours = marks.cordon_of(found)
            host.noop(f"{node} is cordoned {ours or 'by somebody else'}")
            return
    yield FunctionCommand(node_actions.cordon, (node, reason), {})


@operation()
def uncordon(node: str) -> Commands:
    """Undo our cordon of a node; a cordon of others stays.

    Args:
        node: its name.
    """
    match read_node(api(), node):
        case Present(value=found) if marks.uncordon_change(found) is None:
            host.noop(f"{node} is {'schedulable' if found.schedulable else 'cordoned by others'}")
            return
    yield FunctionCommand(node_actions.uncordon, (node,), {})


@operation()
def drain(node: str, timeout: float, unmanaged: bool = False) -> Commands:
    """Cordon a node and evict its pods, respecting their disruption budgets.

    Args:
        node: its name.
        timeout: seconds.
        unmanaged: evict also pods that no controller makes again.
    """
    match read_node(api(), node):
        case Present(value=found) if not found.schedulable:
            pods = pods_on(api(), node)
            if isinstance(pods, Present) and not rules.plan(pods.value, unmanaged=True).evict:
                host.noop(f"{node} is cordoned and empty")
                return
    yield FunctionCommand(node_actions.drain, (node, timeout, unmanaged), {})


def _kept(
    wanted: Mapping[str, W], decide: Decide[W], act: Callable[..., bool], what: str
) -> Commands:
    match read_nodes(api()):
        case Present(value=nodes):
            differing = _differing(wanted, nodes, decide)
        case answer:
            host.noop(f"{what} cannot be compared yet: {answer}")
            differing = {name: value for name, value in wanted.items() if value}
    if not differing:
        host.noop(f"{what} are as wanted on {len(wanted)} nodes")
        return
    yield FunctionCommand(act, (differing,), {})


def _differing(
    wanted: Mapping[str, W], nodes: Mapping[str, Node], decide: Decide[W]
) -> dict[str, Any]:
    """The entries whose nodes need a change, or are not there yet."""
    differing = {}
    for name, value in wanted.items():
        change = decide(nodes[name], value) if name in nodes else None
        if change is None and name in nodes:
            continue
        differing[name] = value
        if change and state.config.DIFF:
            for line in change.lines:
                host.log(line)
    return differing
