"""From pyinfra's inventory and group_data to the Cluster."""

from __future__ import annotations

from typing import Any

from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import State
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.context import ctx_state

from cluster.model import Cluster, Role
from cluster.read import CLUSTER_KEYS, HOST_KEYS, Given, HostEntry, read

ROLES = tuple(role.value for role in Role)


def load(path: str) -> Inventory:
    """The inventory file with its group_data, as the pyinfra command reads it; no connection."""
    # Only pyinfra's command line knows how; the import also patches the process for gevent.
    from pyinfra_cli.inventory import make_inventory

    with ctx_state.use(State()):
        inventory: Inventory = make_inventory(path, cwd=".")
    return inventory


def cluster_of(inventory: Inventory, secrets_needed: bool = True) -> Cluster:
    """The cluster that inventory, group_data and --data describe.

    Raises Problems, also for a missing file of secrets when it is needed.
    """
    hosts = _members(inventory)
    values: dict[str, Any] = {}
    for host in hosts:
        values |= {key: value for key, value in host.data.dict().items() if key in CLUSTER_KEYS}
    return read(values, [_entry(host) for host in hosts], Given(inventory=_name(inventory)))


def prepare_hosts(inventory: Inventory) -> None:
    """Let SSH reach each host by its `ip` where the data do not say otherwise."""
    for host in _members(inventory):
        if host.connector_cls is SSHConnector and not host.data.get("ssh_hostname"):
            host.host_data["ssh_hostname"] = str(host.data.get("ip", host.name))


def _members(inventory: Inventory) -> list[Host]:
    return [host for host in inventory if set(host.groups) & set(ROLES)]


def _entry(host: Host) -> HostEntry:
    data = host.data.dict()
    return HostEntry(
        name=node_name(host),
        roles=tuple(group for group in host.groups if group in ROLES),
        values={key: data[key] for key in HOST_KEYS if key in data},
    )


def node_name(host: Host) -> str:
    """The host's own name without pyinfra's connector (`@fake/node2` is node2)."""
    return host.name.rpartition("/")[2]


def _name(inventory: Inventory) -> str:
    """Name of the inventory: its file's, which pyinfra adds as the last group of all hosts."""
    everybody = [
        name
        for name, hosts in inventory.groups.items()
        if name not in ROLES and len(hosts) == len(inventory)
    ]
    return everybody[-1] if everybody else "cluster"
