"""Who creates, who joins, in which steps versions move, and what is refused. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cluster import versions
from cluster.model import Cluster, Host
from cluster.services.api_address import API_PORT
from cluster.versions import Step


@dataclass(frozen=True)
class Seen:
    """One node as the survey saw it; everything but `name` and `reason` is void when unreached."""

    name: str
    reached: bool = True
    reason: str = ""  # why it was not reached
    datastore: str | None = None
    running: bool = False
    version: str | None = None
    ca: str = ""
    registered: bool = False
    password: bool = False  # its node password is there
    restoring: str = ""  # snapshot of a restore in which the server has not done its part


Survey = Mapping[str, Seen]


@dataclass(frozen=True)
class Stay:
    """The node is part of a cluster: nothing to decide."""


@dataclass(frozen=True)
class Create:
    """The node starts the cluster."""


@dataclass(frozen=True)
class Join:
    """The node joins through `url`."""

    url: str


@dataclass(frozen=True)
class Refuse:
    """The node must not start; `reason` says why."""

    reason: str


Entry = Stay | Create | Join | Refuse


def server_url(server: Host) -> str:
    """URL of one server's supervisor."""
    return f"https://{server.ip}:{API_PORT}"


def servers_of(cluster: Cluster, survey: Survey) -> list[Seen]:
    """The servers of the survey, in the order of the inventory."""
    return [survey[server.name] for server in cluster.servers]


def _names(seen: Iterable[Seen]) -> str:
    return ", ".join(one.name for one in seen)


def enter(cluster: Cluster, survey: Survey, host: Host) -> Entry:
    """How a node that has no K3s data yet enters the cluster.

    The cluster is created only when every other server was reached and none holds a datastore:
    otherwise a second cluster could be made beside a first one.
    """
    own = survey[host.name]
    if own.datastore or (not host.is_server and own.registered):
        return Stay()
    others = [seen for seen in servers_of(cluster, survey) if seen.name != host.name]
    holders = [seen for seen in others if seen.reached and seen.datastore]
    running = [seen for seen in holders if seen.running]
    if running:
        if cluster.network.api.vip and not host.is_server:
            return Join(cluster.api_url)
        return Join(server_url(cluster.host(running[0].name)))
    if unreached := [seen for seen in others if not seen.reached]:
        return Refuse(
            f"{_names(unreached)} could not be reached ({unreached[0].reason}), and whether a "
            "cluster exists there is unknown; a second cluster is never made beside a first one"
        )
    if holders:
        return Refuse(
            f"{_names(holders)} holds the cluster's datastore but K3s does not run there; "
            "start it, or restore (deploys/restore.py)"
        )
    first = cluster.servers[0]
    if host.name == first.name:
        return Create()
    return Join(server_url(first))


def path(cluster: Cluster, survey: Survey) -> tuple[Step, ...]:
    """The version steps of the run; one step without a change when all is at the wanted version.

    Raises ValueError for a downgrade or an impossible jump.
    """
    wanted = cluster.k3s.version
    installed = [
        seen.version
        for seen in survey.values()
        if seen.version and (seen.datastore or seen.registered)
    ]
    steps: tuple[Step, ...] = ()
    for version in set(installed):
        mine = versions.upgrade_path(version, wanted)
        steps = max(steps, mine, key=len)
    return steps or (Step(wanted, minor=False),)


def refusals(cluster: Cluster, survey: Survey, taking_part: Collection[str]) -> list[str]:
    """Why this run must not touch K3s, one line each.

    taking_part: names of the hosts of this run; others are left as they are.
    """
    found: list[str] = []
    servers = servers_of(cluster, survey)
    if unfinished := unfinished_restore(servers):
        return unfinished  # what the servers hold until then is not the cluster's state
    holders = [seen for seen in servers if seen.datastore]
    found += _two_clusters(holders)
    found += _datastore(cluster, holders)
    found += _quorum(cluster, holders, [seen for seen in servers if not seen.reached])
    for server in cluster.servers if not _begun(servers, taking_part) else ():
        entry = enter(cluster, survey, server)
        if survey[server.name].reached and isinstance(entry, Refuse):
            found.append(f"{server.name}: {entry.reason}")
    try:
        path(cluster, survey)
    except ValueError as error:
        found.append(str(error))
    found += _left_behind(cluster, survey, taking_part)
    return found


def _begun(servers: Sequence[Seen], taking_part: Collection[str]) -> bool:
    """Whether the first server alone holds a datastore, and this run starts it before the others.

    A first start that failed has left it like that, and this run may bring what it lacked.
    """
    first, *others = servers
    alone = all(seen.reached and not seen.datastore for seen in others)
    return bool(first.datastore) and first.name in taking_part and alone


def _left_behind(cluster: Cluster, survey: Survey, taking_part: Collection[str]) -> list[str]:
    """Agents must not run ahead of servers that --limit leaves out."""
    if all(agent.name not in taking_part for agent in cluster.agents):
        return []
    return [
        f"{seen.name} is not part of this run and stays at {seen.version}: {problem}; "
        "upgrade the servers first"
        for seen in servers_of(cluster, survey)
        if seen.name not in taking_part and seen.version
        if (problem := versions.skew_problem(seen.version, cluster.k3s.version))
    ]


def unfinished_restore(servers: Iterable[Seen]) -> list[str]:
    """Why nothing may start K3s now: servers that wait for their part in a restore.

    Their former datastores could find a quorum of their own beside the restored server.
    """
    waiting = [seen for seen in servers if seen.restoring]
    if not waiting:
        return []
    snapshots = " and ".join(dict.fromkeys(seen.restoring for seen in waiting))
    return [
        f"a restore of {snapshots} is not finished on {_names(waiting)}: run deploys/restore.py "
        "again, or give it up (docs/recovery.md); do not start K3s there"
    ]


def _two_clusters(holders: list[Seen]) -> list[str]:
    by_ca: dict[str, list[Seen]] = {}
    for seen in holders:
        if seen.ca:
            by_ca.setdefault(seen.ca, []).append(seen)
    if len(by_ca) < 2:
        return []
    sides = " and ".join(_names(side) for side in by_ca.values())
    return [f"{sides} belong to different clusters (their CAs differ); reset one side first"]


def _datastore(cluster: Cluster, holders: list[Seen]) -> list[str]:
    wanted = cluster.datastore
    return [
        f"{seen.name} has its data in {seen.datastore}, group_data asks for {wanted}; "
        + (
            "moving from sqlite to etcd is a migration of its own"
            if seen.datastore == "sqlite"
            else "set k3s.datastore to etcd"
        )
        for seen in holders
        if seen.datastore != wanted
    ]


def _quorum(cluster: Cluster, holders: list[Seen], unreached: list[Seen]) -> list[str]:
    if cluster.datastore != "etcd" or len(holders) + len(unreached) < 2 or not holders:
        return []
    members = len(holders) + len(unreached)
    running = [seen for seen in holders if seen.running]
    needed = members // 2 + 1
    if len(running) >= needed:
        return []
    down = [seen for seen in (*holders, *unreached) if not (seen.reached and seen.running)]
    return [
        f"etcd has no quorum: K3s runs on {_names(running) or 'no server'}, {needed} of {members} "
        f"are needed; down: {_names(down)}. Start K3s there (systemctl start k3s), or restore a "
        "snapshot (deploys/restore.py)"
    ]


def other_voters(cluster: Cluster, survey: Survey, name: str) -> list[str]:
    """The other servers that may have a vote in etcd: with a datastore, or not reached.

    One that is still to enter has none: who waits for its vote before it may enter waits in vain.
    """
    others = [seen for seen in servers_of(cluster, survey) if seen.name != name]
    return [seen.name for seen in others if seen.datastore or not seen.reached]


def strangers(survey: Survey) -> list[str]:
    """Nodes that know nothing of a cluster; the cluster may know their names all the same."""
    return [
        seen.name
        for seen in survey.values()
        if seen.reached and not (seen.datastore or seen.registered or seen.password)
    ]


def reflashed(names: Iterable[str], known: Collection[str], inventory: str) -> list[str]:
    """Strangers whose name the living cluster already has, each with the command that clears it.

    K3s refuses such a node: its node password differs, and etcd still has its former member.
    known: names of the Node objects.
    """
    return [
        f"{name} has lost its K3s data (re-flashed?), but the cluster still knows a node of that "
        f"name; clear it first: pyinfra {inventory} deploys/reset.py --data forget={name}"
        for name in names
        if name in known
    ]


def keeper(cluster: Cluster, survey: Survey, taking_part: Collection[str]) -> str | None:
    """The server that keeps the datastore before a move: the first that runs in this run."""
    for seen in servers_of(cluster, survey):
        if seen.name in taking_part and seen.running and seen.datastore:
            return seen.name
    return None
