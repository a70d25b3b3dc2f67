"""Refuses what cannot work, before anything is changed; changes nothing itself.

pyinfra inventories/home.py deploys/preflight.py
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pyinfra import host, inventory, logger
from pyinfra.api import Host as PyinfraHost

from cluster.doctor.catalogue import Finding, examine
from cluster.doctor.check import Verdict
from cluster.doctor.fleet import free_addresses
from cluster.doctor.node import Fleet
from cluster.model import Host
from facts.doctor import NetworkState
from facts.doctor_script import NetworkQuestion
from facts.survey import survey
from facts.tagged import LIMIT
from runtime.cache import cached, made
from runtime.inventory import hosts_of_run, inventory_file, node_name
from runtime.run import cluster, fail, started_directly


def entry(one: PyinfraHost) -> Host | None:
    """The model's entry for a host; None for the computer that pyinfra runs on."""
    try:
        return cluster().host(one.name)
    except KeyError:
        return None


def refuse_unfit_hosts() -> list[Finding]:
    """Stop when a host of this run is not fit, all reasons of all hosts at once.

    Returns all that was found. Each host is read once; see cluster/doctor for what is checked.
    What takes time or asks the network is left to commands/doctor.py.
    """
    survey(host, cluster())  # deploy code runs for all hosts at once, and so they are read at once
    active = [one for one in hosts_of_run(inventory) if entry(one)]
    key = ("findings", tuple(one.name for one in active))
    found = made(inventory.state, key, lambda: examine(_fleet(active)))
    if fatal := [str(one) for one in found if one.fatal]:
        fail(fatal)
    return found


def _fleet(active: Sequence[PyinfraHost]) -> Fleet:
    """The hosts of this run, in the order of the model."""
    read = {node_name(one): survey(one, cluster()) for one in active}
    nodes = {one.name: read[one.name] for one in cluster().hosts if one.name in read}
    fleet = Fleet(cluster(), nodes, inventory=inventory_file(inventory))
    # Before the first install, addresses are free or they are somebody's: later, they are ours.
    wanted = free_addresses(fleet.model)
    if fleet.has_k3s or not fleet.whole or not wanted:
        return fleet
    first = next(one for one in active if node_name(one) == fleet.model.servers[0].name)
    probes = cached(first, NetworkState, _timeout=LIMIT, ask=NetworkQuestion(neighbours=wanted))
    name = node_name(first)
    return replace(fleet, nodes={**fleet.nodes, name: replace(fleet.nodes[name], probes=probes)})


def notes(found: list[Finding], *, every: bool) -> Iterator[str]:
    """What is said of a run that goes on: what was ignored, and warnings.

    every: each warning in a line, not all in one.
    """
    ignored: dict[str, list[str]] = defaultdict(list)
    for one in found:
        if one.forgiven:
            ignored[one.check.id] += one.hosts or ("cluster",)
    if ignored:
        shown = ", ".join(f"{name} ({', '.join(hosts)})" for name, hosts in ignored.items())
        yield f"preflight: fails, and ignore_preflight says that it may: {shown}"
    doubts = [one for one in found if one.verdict is Verdict.WARN]
    if every:
        yield from map(str, doubts)
    elif doubts:
        ids = ", ".join(dict.fromkeys(one.check.id for one in doubts))
        doctor = f"`make doctor INVENTORY={doubts[0].inventory}`"
        yield f"preflight: {len(doubts)} warnings ({ids}): {doctor} explains them"


def preflight(*, every: bool = False) -> None:
    """Every check, called for every host of the run; one host says what is doubtful."""
    if entry(host) is None:
        return
    found = refuse_unfit_hosts()
    first = next(filter(entry, hosts_of_run(inventory)))
    if first.name == host.name:
        for line in notes(found, every=every):
            logger.warning(line)


if started_directly(__name__):
    preflight(every=True)
