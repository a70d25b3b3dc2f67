"""What the operator asked a reset for, and what it may not do. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster import k3s_config, leftovers
from cluster.answer import Answer, Present
from cluster.k3s_plan import Seen
from cluster.model import Cluster, Host
from cluster.node import Node
from cluster.problem import hint


class BadRequest(ValueError):
    """The options on the command line make no sense; the text says why."""


@dataclass(frozen=True)
class Request:
    """What `--data` says.

    Args:
        confirm: the cluster's name as typed.
        node: the one node to remove from a living cluster; empty: the whole cluster.
        forget: the lost or re-flashed node whose traces in the cluster are cleared.
        keep_snapshots, forget_password: see `cluster.leftovers.Options`.
        wipe: names of the nodes whose data directories are emptied too.
    """

    confirm: str = ""
    node: str = ""
    forget: str = ""
    keep_snapshots: bool = True
    forget_password: bool = False
    wipe: tuple[str, ...] = ()


@dataclass(frozen=True)
class Situation:
    """What is known when the run begins.

    Args:
        survey: every member of the inventory as it was seen.
        nodes: the Node objects, by name.
        taking_part: names of the members in this run.
        found: what is on each of them, by topic.
    """

    survey: Mapping[str, Seen]
    nodes: Answer[dict[str, Node]]
    taking_part: frozenset[str]
    found: Mapping[str, Mapping[str, Sequence[str]]]


def request(data: Mapping[str, object]) -> Request:
    """Read the options; raises BadRequest."""
    if data.get("node") and data.get("forget"):
        raise BadRequest("node and forget exclude each other: removing a node also forgets it")
    return Request(
        confirm=_text(data, "confirm"),
        node=_text(data, "node"),
        forget=_text(data, "forget"),
        keep_snapshots=_switch(data, "keep_snapshots", True),
        forget_password=_switch(data, "forget_password", False),
        wipe=_names(data, "wipe_data"),
    )


def targets(cluster: Cluster, wanted: Request) -> tuple[Host, ...]:
    """The members that are cleaned."""
    if wanted.forget:
        return ()
    return tuple(one for one in cluster.members if wanted.node in ("", one.name))


def options(cluster: Cluster, host: Host, wanted: Request) -> leftovers.Options:
    """What the reset spares on one node."""
    data = user_data(cluster, host)
    return leftovers.Options(
        cluster=cluster.name,
        keep_snapshots=wanted.keep_snapshots,
        forget_password=wanted.forget_password,
        user_data=data,
        wipe=data if host.name in wanted.wipe else (),
    )


def user_data(cluster: Cluster, host: Host) -> tuple[str, ...]:
    """Directories and devices of the host that hold data of users."""
    longhorn = cluster.platform.values.get("longhorn", {}).get("defaultSettings", {})
    local = cluster.k3s.server_config.get("default-local-storage-path")
    found = (
        host.data_disk,
        local or f"{k3s_config.DATA}/storage",
        longhorn.get("defaultDataPath") or cluster.platform.storage.path,
    )
    return tuple(dict.fromkeys(str(path) for path in found if path))


def refusals(cluster: Cluster, wanted: Request, now: Situation) -> list[str]:
    """Why the reset must not begin, one line each."""
    if wanted.forget:
        return _forget(cluster, wanted.forget, now)
    found = _wipe(cluster, wanted)
    found += _one(cluster, wanted.node, now) if wanted.node else _whole(cluster, now)
    if not found and wanted.confirm != cluster.name:
        found += _unconfirmed(cluster, wanted, now)
    return found


def afterwards(cluster: Cluster, node: str) -> str:
    """What the operator should know once the node is gone."""
    rest = [server.name for server in cluster.servers if server.name != node]
    text = (
        f"after this run {node} is a bare host: take it out of the inventory, or let it join "
        "again with deploys/site.py"
    )
    if cluster.datastore == "etcd" and cluster.host(node).is_server and len(rest) % 2 == 0:
        text += f"; {len(rest)} servers bear no more losses than {len(rest) - 1}"
    return text


def _unconfirmed(cluster: Cluster, wanted: Request, now: Situation) -> list[str]:
    typed = f"{wanted.confirm!r} is not its name" if wanted.confirm else "its name is not typed"
    what = f"{wanted.node} of cluster {cluster.name}" if wanted.node else f"cluster {cluster.name}"
    lines = [f"reset of {what}: {typed}; it would remove:"]
    for host in targets(cluster, wanted):
        if host.name in now.taking_part:
            there = leftovers.summary(now.found.get(host.name, {})) or "nothing: it is clean"
            kept = ", ".join(options(cluster, host, wanted).wipe)
            lines.append(f"{host.name}: {there}" + (f"; and empty {kept}" if kept else ""))
    return [*lines, f"to do it, add --data confirm={cluster.name}"]


def _whole(cluster: Cluster, now: Situation) -> list[str]:
    """All members that can be reached must take part, lest half a cluster lives on."""
    return [
        f"{host.name} is reached but not part of this run: the whole cluster is reset at once "
        "(one node: --data node=NAME)"
        for host in cluster.members
        if host.name not in now.taking_part and now.survey[host.name].reached
    ]


def _one(cluster: Cluster, node: str, now: Situation) -> list[str]:
    if problem := _unknown(cluster, node):
        return [problem]
    if node not in now.taking_part:
        reason = now.survey[node].reason
        why = f" ({reason})" if reason else ""
        return [
            f"{node} is not part of this run{why}: a node that is lost for good is cleared from "
            f"the cluster with --data forget={node}"
        ]
    others = [server for server in cluster.servers if server.name != node]
    holders = [server.name for server in others if now.survey[server.name].datastore]
    unseen = [server.name for server in others if not now.survey[server.name].reached]
    if cluster.host(node).is_server and not holders and not unseen:
        if now.survey[node].datastore:
            return [f"{node} is the last server: that is the whole cluster (leave node= out)"]
        return []
    match now.nodes:
        case Present(value=nodes):
            return _quorum(cluster, node, nodes, now.survey)
        case answer if holders or unseen:
            return [
                f"the cluster's API does not answer ({answer}), so {node} cannot be removed from "
                "it; repair the cluster first, or reset all of it"
            ]
    return []


def _quorum(
    cluster: Cluster, node: str, nodes: Mapping[str, Node], survey: Mapping[str, Seen]
) -> list[str]:
    """Whether etcd goes on without the node."""
    if node not in nodes or nodes[node].etcd_voter is None:
        return []
    rest = [one for one in nodes.values() if one.etcd_voter is not None and one.name != node]
    if not rest:
        return [f"{node} is the last server: that is the whole cluster (leave node= out)"]
    down = [one.name for one in rest if not _votes(one, survey.get(one.name))]
    needed = len(rest) // 2 + 1
    if len(rest) - len(down) >= needed:
        return []
    return [
        f"without {node} etcd would lose its quorum: {needed} of {len(rest)} servers are needed, "
        f"and {', '.join(down)} does not vote now"
    ]


def _votes(node: Node, seen: Seen | None) -> bool:
    runs = node.ready if seen is None else seen.reached and seen.running
    return bool(node.etcd_voter) and runs


def _forget(cluster: Cluster, name: str, now: Situation) -> list[str]:
    match now.nodes:
        case Present(value=nodes):
            node = nodes.get(name)
        case answer:
            return [f"the cluster's API does not answer ({answer}): nothing can be cleared in it"]
    seen = now.survey.get(name)
    if node is None and seen is None:
        close = hint(name, {*nodes, *now.survey})
        return [f"{name} is neither a node of the cluster nor a host of the inventory{close}"]
    remove = f"to remove it, use --data node={name}"
    # The API learns of a re-flashed host only after a while: until then it calls it Ready.
    bare = seen and seen.reached and not (seen.running or seen.datastore or seen.registered)
    if node and node.ready and not bare:
        return [f"{name} is Ready: the cluster uses it; {remove}"]
    if seen and seen.reached and seen.running:
        return [f"{name} is not Ready, but K3s runs there; {remove}"]
    if seen and seen.reached and seen.datastore:
        return [f"{name} still holds a datastore ({seen.datastore}); {remove}"]
    return []


def _wipe(cluster: Cluster, wanted: Request) -> list[str]:
    known = [host.name for host in targets(cluster, wanted)]
    if "true" in wanted.wipe:
        lines = [
            f"{host.name}: {', '.join(user_data(cluster, host))}"
            for host in targets(cluster, wanted)
        ]
        return [
            "wipe_data: type the names of the nodes whose data are to be lost, such as "
            f"--data wipe_data={','.join(known)}; they are:",
            *lines,
        ]
    return [
        f"wipe_data: {name}: expected names of nodes that are reset ({', '.join(known)})"
        for name in wanted.wipe
        if name not in known
    ]


def _unknown(cluster: Cluster, name: str) -> str:
    names = [host.name for host in cluster.members]
    if name in names:
        return ""
    return f"node: {name}: expected one of {', '.join(names)}{hint(name, names)}"


def _text(data: Mapping[str, object], key: str) -> str:
    value = data.get(key)
    if value is None:
        return ""
    if isinstance(value, bool | list | dict):
        raise BadRequest(f"{key}: {value!r}: expected a name")
    return str(value)


def _switch(data: Mapping[str, object], key: str, default: bool) -> bool:
    value = data.get(key, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{key}: {value!r}: expected true or false")
    return value


def _names(data: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = data.get(key)
    if value is None or value is False:
        return ()
    items = value if isinstance(value, list) else str(value).split(",")
    return tuple(name for item in items if (name := str(item).strip().lower()))
