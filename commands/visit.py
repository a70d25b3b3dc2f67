"""Reads all that the doctor wants to know of the hosts of an inventory, as far as they answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import gevent
from pyinfra.api import Host

from cluster.boot import bridges
from cluster.boot.disk import Disk
from cluster.doctor import fleet as checks
from cluster.doctor import network
from cluster.doctor.node import Fleet, Node
from cluster.doctor.seen import Probes
from cluster.model import Cluster
from commands.look import connected, fact_of, of_all, ours
from facts.doctor import NetworkState, WriteTimes
from facts.doctor_script import NetworkQuestion
from facts.node import unread
from facts.survey import Survey, arguments
from facts.tagged import LIMIT
from runtime import inventory

UNREAD = (
    f"it was reached, and its state cannot be read within {LIMIT} s (does sudo work without a "
    "password? does a disk hang?)"
)


def visit(path: str, *, write_test: bool = False) -> Fleet:
    """Read the hosts of an inventory file, all at once.

    write_test: measure how long small writes take on the Kubernetes nodes, after all the rest.
    Raises Problems and PyinfraError.
    """
    hosts = inventory.load(path)
    model = inventory.cluster_of(hosts, secrets_needed=False)
    with connected(hosts) as (_, unreachable):
        reached = [host for host in ours(hosts) if host.connected]
        # It takes a second, whatever else is read.
        free = gevent.spawn(_free_addresses, reached[0], model) if reached else None
        found = of_all(lambda host: _read(host, model), reached)
        nodes = {name: one for name, one in found.items() if isinstance(one, Node)}
        unreachable |= {name: one for name, one in found.items() if isinstance(one, str)}
        fleet = Fleet(model, nodes, unreachable, path)
        read = [host for host in reached if inventory.node_name(host) in nodes]
        probes = of_all(lambda host: _probe(host, fleet), read)
        nodes = {name: replace(node, probes=probes[name]) for name, node in nodes.items()}
        if free:
            nodes |= _with(nodes, inventory.node_name(reached[0]), free.get())
        if write_test:
            members = [host for host in read if model.member(host.name)]
            times = of_all(lambda host: fact_of(host, WriteTimes) or (), members)
            nodes |= {name: replace(nodes[name], fsync=one) for name, one in times.items()}
        return replace(fleet, nodes=nodes)


def _read(host: Host, model: Cluster) -> Node | str:
    """The host; or why it cannot be read."""
    found = fact_of(host, Survey, **arguments(model))
    if found is None:
        return UNREAD
    return unread(found.state) or found.node(model, host.name)


def _free_addresses(host: Host, model: Cluster) -> Probes | None:
    """Who answers at the addresses that only the cluster may have."""
    wanted = checks.free_addresses(model)
    ask = NetworkQuestion(neighbours=wanted)
    return fact_of(host, NetworkState, ask=ask) if wanted else None


def _with(nodes: Mapping[str, Node], name: str, more: Probes | None) -> dict[str, Node]:
    """The node with further neighbours, where it and they could be read."""
    node = nodes.get(name)
    if node is None or node.probes is None or more is None:
        return {}
    neighbours = {**more.neighbours, **node.probes.neighbours}
    return {name: replace(node, probes=replace(node.probes, neighbours=neighbours))}


def _probe(host: Host, fleet: Fleet) -> Probes | None:
    node = fleet.nodes[inventory.node_name(host)]
    return fact_of(host, NetworkState, ask=network_question(fleet, node))


def network_question(fleet: Fleet, node: Node) -> NetworkQuestion:
    """What a host is to ask the network about the others."""
    model = fleet.model
    names = [member.name for member in model.members] if node.me.in_cluster else []
    if node.me.in_cluster and network.pulls_from_outside(node):
        names.append(network.REGISTRY)
    return NetworkQuestion(
        neighbours=tuple(str(one.me.ip) for one in fleet.nodes.values() if one is not node),
        connects=tuple(f"{ip}:{port}" for ip, port in checks.connects(fleet, node)),
        names=tuple(names),
        servers=tuple(map(str, model.network.dns)),
        domain=model.domain,
        gateway=str(model.network.gateway) if node.me.in_cluster else "",
        smart=() if node.is_container else tuple(_smart(node.boot.disks)),
    )


def _smart(disks: Mapping[str, Disk]) -> Iterator[str]:
    """Disks to diagnose, and how; a bridge that is known to be bad is left in peace."""
    for name, disk in disks.items():
        if disk.usb and bridges.bridge(disk.usb.vid_pid).verdict != "bad":
            yield f"{name}:-d sat"
        elif disk.transport in ("nvme", "sata"):
            yield f"{name}:"
