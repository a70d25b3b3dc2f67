"""What a server has for a restore, read by one command; and the snapshots in the bucket."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from pyinfra.api import FactBase, Host, Inventory
from pyinfra.api.exceptions import ConnectError, FactProcessError

from cluster.answer import Present
from cluster.model import Cluster
from cluster.restore import S3, SNAPSHOTS, Server, Snapshot, find_script, read_mark
from runtime.api import Api, Kind, Object
from runtime.cache import cached
from runtime.inventory import node_name

SNAPSHOT_FILE = Kind("k3s.cattle.io/v1", "ETCDSnapshotFile")


@dataclass(frozen=True)
class OnDisk:
    """What is on the disks of one server; the snapshots do not know its name."""

    server: Server

    def of(self, node: str) -> Server:
        """The same with the name of the node."""
        snapshots = tuple(one._replace(node=node) for one in self.server.snapshots)
        return Server(snapshots, self.server.mark, self.server.tokens, self.server.token)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra --json`."""
        return asdict(self.server)


def parse(lines: Iterable[str]) -> OnDisk:
    """Read the script's lines; raises ValueError when they end early."""
    snapshots: list[Snapshot] = []
    tokens: dict[str, str] = {}
    token, mark, complete = "", None, False
    for line in lines:
        match line.split("\t"):
            case [("etcd" | "sqlite") as datastore, size, time, path]:
                name = PurePosixPath(path).name
                snapshots.append(Snapshot(name, "", int(size), int(time), path, datastore))
            case ["kept", path, digest]:
                tokens[path] = digest
            case ["token", digest]:
                token = digest
            case ["mark", text]:
                mark = read_mark(text)
            case ["end"]:
                complete = True
    if not complete:
        raise ValueError("the snapshots fact ended early")
    return OnDisk(Server(tuple(snapshots), mark, tokens, token))


class Snapshots(FactBase[OnDisk]):
    """Snapshots and copies of the datastore on a server, and how far a restore has come there.

    + folder: where K3s writes snapshots
    """

    def command(self, folder: str = SNAPSHOTS) -> str:
        """One shell script; exits 0 on a bare host too."""
        return find_script(folder)

    def process(self, output: list[str]) -> OnDisk:
        """The script's lines as data."""
        try:
            return parse(output)
        except ValueError as error:
            raise FactProcessError(str(error)) from error


def folder(model: Cluster) -> str:
    """Where K3s writes snapshots."""
    return str(model.k3s.server_config.get("etcd-snapshot-dir") or SNAPSHOTS)


def on_server(host: Host, model: Cluster) -> Server:
    """What one server has; raises ConnectError."""
    return cached(host, Snapshots, folder=folder(model)).of(node_name(host))


def on_servers(model: Cluster, inventory: Inventory) -> dict[str, Server]:
    """What the servers that can be reached have, inside --limit or not, by name."""
    hosts, found = {node_name(host): host for host in inventory}, {}
    for server in model.servers:
        try:
            found[server.name] = on_server(hosts[server.name], model)
        except ConnectError:
            continue
    return found


def in_bucket(api: Api) -> list[Snapshot]:
    """The snapshots in S3 that the cluster knows; none when its API does not answer.

    Source: the objects that K3s keeps for snapshots of all servers.
    """
    match api.list(SNAPSHOT_FILE):
        case Present(value=items):
            return [snapshot(item) for item in items if _location(item).startswith(S3)]
        case _:
            return []


def snapshot(item: Object) -> Snapshot:
    """Read an ETCDSnapshotFile."""
    spec, status = item.get("spec") or {}, item.get("status") or {}
    created = status.get("creationTime")
    return Snapshot(
        name=str(spec.get("snapshotName") or item["metadata"]["name"]),
        node=str(spec.get("nodeName") or ""),
        size=_bytes(str(status.get("size") or "0")),
        time=int(datetime.fromisoformat(created).timestamp()) if created else 0,
        location=_location(item),
    )


def _location(item: Object) -> str:
    return str((item.get("spec") or {}).get("location") or "")


_FACTORS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "k": 10**3, "M": 10**6, "G": 10**9}


def _bytes(quantity: str) -> int:
    """A Kubernetes quantity in bytes; 0 when it is not one."""
    number = quantity.rstrip("KMGki")
    factor = _FACTORS.get(quantity[len(number) :], 1)
    return int(float(number) * factor) if number.replace(".", "", 1).isdigit() else 0
