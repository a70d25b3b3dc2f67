"""A look at the whole cluster that no unreachable host ends: what `commands.status` prints."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gevent.pool import Pool
from pyinfra.api import Config, FactBase, Host, Inventory, State
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_state

from catalogue import CATALOGUE
from cluster.answer import Answer, Unreachable
from cluster.component import Component
from cluster.graph import select
from cluster.helm_release import HelmRelease
from cluster.model import Cluster
from cluster.node import Node
from facts.certificates import Certificate, Certificates
from facts.helm import read_releases
from facts.k3s import K3s, K3sState
from facts.kube import read_nodes
from facts.tagged import LIMIT
from runtime import inventory
from runtime.api import CONFIG_MAP, Objects, api_of
from runtime.cache import asked
from runtime.quiet import quiet_ssh

T = TypeVar("T")

CONNECT_LIMIT = 10  # seconds
PARALLEL = 20  # hosts at once
MIGRATION = "picluster.io/migration"  # label of the journals of migrations


@dataclass
class Report:
    """What was found; a host is either in `unreachable` or was asked."""

    cluster: Cluster
    nodes: Answer[dict[str, Node]]
    migrations: Answer[Objects]
    server: str  # the one whose API answered
    k3s: dict[str, K3s | None] = field(default_factory=dict)  # None: could not be read
    certificates: dict[str, tuple[Certificate, ...]] = field(default_factory=dict)
    unreachable: dict[str, str] = field(default_factory=dict)  # why, by host


@dataclass
class Charts:
    """The components of a cluster and Helm's releases; Unreachable when nobody was asked."""

    cluster: Cluster
    components: tuple[Component, ...]
    releases: Answer[dict[tuple[str, str], HelmRelease]]


def charts(path: str, *, ask: bool) -> Charts:
    """Read the components of an inventory file, and what is installed when `ask` is true.

    Raises: Problems, PyinfraError, GraphError.
    """
    hosts = inventory.load(path)
    model = inventory.cluster_of(hosts, secrets_needed=False)
    found = Charts(model, select(CATALOGUE, model), Unreachable("the cluster was not asked"))
    if ask:
        with connected(hosts) as (state, _):
            found.releases = read_releases(api_of(state))
    return found


@contextmanager
def connected(hosts: Inventory) -> Iterator[tuple[State, dict[str, str]]]:
    """A state with the hosts that can be reached, and why the others cannot, by name."""
    logging.getLogger("pyinfra").setLevel(logging.CRITICAL)  # the report says what failed
    quiet_ssh()
    state = State()
    with ctx_state.use(state):
        state.init(hosts, Config(CONNECT_TIMEOUT=CONNECT_LIMIT))
        state.set_stage(StateStage.Connect)
        inventory.prepare_hosts(hosts)
        unreachable = {name: why for name, why in of_all(_connect, ours(hosts)).items() if why}
        state.set_stage(StateStage.Prepare)
        yield state, unreachable


def ours(hosts: Inventory) -> list[Host]:
    """The hosts of the cluster, without the computer that pyinfra runs on."""
    return [host for host in hosts if inventory.CONTROL not in host.groups]


def look(path: str) -> Report:
    """Read the cluster of an inventory file; raises Problems and PyinfraError."""
    hosts = inventory.load(path)
    model = inventory.cluster_of(hosts, secrets_needed=False)
    with connected(hosts) as (state, unreachable):
        api = api_of(state)
        report = Report(model, read_nodes(api), api.list(CONFIG_MAP, labels=MIGRATION), api.current)
        report.unreachable = unreachable
        members = [host for host in ours(hosts) if host.connected and model.member(host.name)]
        report.k3s = of_all(_k3s, members)
        report.certificates = of_all(_certificates, members)
    return report


def of_all(function: Callable[[Host], T], hosts: Sequence[Host]) -> dict[str, T]:
    """What the function says of each host, by name; many hosts at once."""
    names = [inventory.node_name(host) for host in hosts]
    return dict(zip(names, Pool(PARALLEL).map(function, hosts), strict=True))


def _connect(host: Host) -> str:
    """Why a host cannot be reached; empty when it can."""
    try:
        host.connect(show_errors=False, raise_exceptions=True)
    except ConnectError as error:
        return str(error)
    return ""


def fact_of(host: Host, fact: type[FactBase[T]], **arguments: Any) -> T | None:
    """The fact of a host, None where it cannot be read, or not in time."""
    try:
        return asked(host, fact, _ignore_errors=True, _timeout=LIMIT, **arguments)
    except PyinfraError:
        return None


def _k3s(host: Host) -> K3s | None:
    found = fact_of(host, K3sState)
    return None if found is None or found.late else found


def _certificates(host: Host) -> tuple[Certificate, ...]:
    return fact_of(host, Certificates) or ()
