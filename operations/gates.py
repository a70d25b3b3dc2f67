"""Gates of the rolling engine: what must hold before and after a node is taken down.

Each function makes a probe for `runtime.wait.until`; what does not hold yet comes with its cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from cluster import longhorn
from cluster.answer import Absent, Present
from cluster.few import some
from cluster.node import Node
from cluster.probe import Done, Pending, Probe
from facts.kube import read_node, read_nodes
from runtime.api import EVENT, Api, Kind, Object

Gate = Callable[[], Probe]

LONGHORN_VOLUME = Kind("longhorn.io/v1beta2", "Volume")
LONGHORN_SETTING = Kind("longhorn.io/v1beta2", "Setting")


def nodes_registered(api: Api, names: Sequence[str]) -> Gate:
    """All these nodes have a Node object; Ready or not."""

    def probe() -> Probe:
        match read_nodes(api):
            case Present(value=nodes):
                missing = [name for name in names if name not in nodes]
                if missing:
                    return Pending(f"not registered: {some(missing)}")
                return Done(f"{len(names)} nodes are registered")
            case answer:
                return Pending(str(answer))

    return probe


def node_ready(api: Api, name: str, version: str = "") -> Gate:
    """A node is Ready and its kubelet has the version (empty: any)."""

    def probe() -> Probe:
        match read_node(api, name):
            case Present(value=node):
                pass
            case Absent():
                return Pending(f"{name} is not registered")
            case answer:
                return Pending(str(answer))
        if not node.ready:
            return Pending(f"{name} is not Ready: {node.why_not_ready}{_last_event(api, name)}")
        if version and node.version != version:
            return Pending(f"{name} still reports {node.version}, not {version}")
        return Done(f"{name} is Ready with {node.version}")

    return probe


def others_ready(api: Api, name: str) -> Gate:
    """All nodes but this one are Ready."""

    def probe() -> Probe:
        match read_nodes(api):
            case Present(value=nodes):
                waiting = [n for n in nodes.values() if n.name != name and not n.ready]
            case answer:
                return Pending(str(answer))
        if waiting:
            return Pending(_not_ready(waiting) + _last_event(api, waiting[0].name))
        return Done("all other nodes are Ready")

    return probe


def etcd_voters(api: Api, servers: Sequence[str]) -> Gate:
    """All these servers are voting members of etcd (condition EtcdIsVoter, set by K3s)."""

    def probe() -> Probe:
        match read_nodes(api):
            case Present(value=nodes):
                return _votes(nodes, servers)
            case answer:
                return Pending(str(answer))

    return probe


def others_vote(api: Api, name: str, servers: Sequence[str]) -> Gate:
    """These servers vote in etcd, and every other member but this one, in the inventory or not."""

    def probe() -> Probe:
        match read_nodes(api):
            case Present(value=nodes):
                known = [node.name for node in nodes.values() if node.etcd_member]
                members = dict.fromkeys([*servers, *known])
                return _votes(nodes, [member for member in members if member != name])
            case answer:
                return Pending(str(answer))

    return probe


def api_ready(api: Api, server: str) -> Gate:
    """`/readyz` of that very server, so that one server's good health does not hide another's."""

    def probe() -> Probe:
        match api.ready(server):
            case Present():
                return Done(f"the API of {server} is ready")
            case answer:
                return Pending(answer.reason)

    return probe


def volumes_healthy(api: Api) -> Gate:
    """No Longhorn volume lacks replicas; holds where there is no Longhorn."""

    def probe() -> Probe:
        match api.list(LONGHORN_VOLUME):
            case Present(value=volumes):
                pass
            case Absent():
                return Done("no Longhorn")
            case answer:
                return Pending(str(answer))
        if bad := longhorn.unhealthy(volumes):
            return Pending(f"{len(bad)} volume{'s' if len(bad) > 1 else ''}: {some(bad)}")
        return Done(f"{len(volumes)} volumes are healthy")

    return probe


def _not_ready(nodes: Iterable[Node]) -> str:
    return some(f"{node.name} is not Ready: {node.why_not_ready}" for node in nodes)


def _votes(nodes: Mapping[str, Node], servers: Sequence[str]) -> Probe:
    causes = [cause for one in servers if (cause := _not_voting(one, nodes.get(one)))]
    if causes:
        voting = len(servers) - len(causes)
        return Pending(f"{voting} of {len(servers)} vote in etcd; {some(causes)}")
    return Done(f"{len(servers)} servers vote in etcd")


def _not_voting(name: str, node: Node | None) -> str:
    """Why a server does not vote; empty when it does."""
    if node is None:
        return f"{name} is not registered"
    if node.etcd_voter:
        return ""
    condition = node.conditions.get("EtcdIsVoter")
    return f"{name}: {condition.message or condition.reason}" if condition else f"{name}: no member"


def _last_event(api: Api, node: str) -> str:
    """The newest warning about a node, as an addition to a cause."""
    match api.list(EVENT, fields=f"involvedObject.kind=Node,involvedObject.name={node}"):
        case Present(value=events):
            warnings = [event for event in events if event.get("type") == "Warning"]
        case _:
            return ""
    if not warnings:
        return ""
    newest = max(warnings, key=_seen)
    return f"; last event: {newest.get('reason')}: {newest.get('message')}"


def _seen(event: Object) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((time for time in times if time), "")
