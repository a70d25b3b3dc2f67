"""From pyinfra's inventory and group_data to the Cluster."""

from __future__ import annotations

import re
import runpy
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pyinfra.api.arguments import all_argument_meta
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import State
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.context import ctx_state

from cluster.component import Component
from cluster.model import Cluster, Role
from cluster.read import CLUSTER_KEYS, HOST_KEYS, Given, HostEntry, Source, read
from cluster.services import s3
from runtime import sops, user_files

ROLES = tuple(role.value for role in Role)
CONTROL = "control"  # the group of the computer that pyinfra runs on
# Our own keys that say how to connect, beside pyinfra's.
CONNECTION_KEYS = ("api_address", "api_kubeconfig")


def load(path: str) -> Inventory:
    """The inventory file with its group_data, as the pyinfra command reads it; no connection.

    Raises PyinfraError when there is no such file, Problems when one cannot be read.
    """
    if why := missing(path):
        raise PyinfraError(why)
    # Only pyinfra's command line knows how; the import also patches the process for gevent.
    from pyinfra_cli.inventory import make_inventory

    from runtime import input_files

    input_files.install()

    with ctx_state.use(State()):
        inventory: Inventory = make_inventory(path, cwd=".")
    return inventory


def missing(path: str) -> str:
    """What is said where no inventory file is; pyinfra would take it for the name of a host."""
    if Path(path).is_file():
        return ""
    known = ", ".join(map(str, sorted(Path("inventories").glob("*.py"))))
    return f"{path}: no such file: expected an inventory such as {known}"


def is_project(inventory: Inventory) -> bool:
    """Whether the inventory describes a cluster, unlike one of `pyinfra HOST exec -- uptime`."""
    return any(set(host.groups) & {*ROLES, CONTROL} for host in inventory)


def cluster_of(inventory: Inventory, secrets_needed: bool = True) -> Cluster:
    """The cluster that inventory, group_data and --data describe.

    Raises Problems, also for a missing file of secrets when it is needed and for the user's rules
    and dashboards.
    """
    name = _name(inventory)
    file = _inventory_file(name)
    sources = list(_sources(inventory, name, file))
    cluster = read(
        sources,
        list(_entries(inventory, file)),
        Given(
            inventory=name,
            options=inventory.get_override_data(),
            repair=bool(inventory.get_override_data().get("repair")) or not secrets_needed,
            secrets=_secrets(sources, name) if secrets_needed else "unneeded",
            ca=_ca(sources, name),
            foreign=_foreign(inventory),
            components=_components(sources),
            preflight=_preflight(sources),
        ),
    )
    return user_files.with_files(cluster)


def prepare_hosts(inventory: Inventory) -> None:
    """Let SSH reach each host by its `ip` where the data do not say otherwise."""
    for host in inventory:
        if host.connector_cls is SSHConnector and not host.data.get("ssh_hostname"):
            address = str(host.data.get("ip", host.name))
            host.host_data["ssh_hostname"] = address
            # The connector has copied its data before the hook of the run sees the inventory.
            if connector := getattr(host, "connector", None):
                connector.data["ssh_hostname"] = address


def hosts_of_run(inventory: Inventory) -> list[Host]:
    """The hosts that were reached and are inside --limit, in the order of the inventory."""
    return [host for host in inventory if host in inventory.state.activated_hosts]


def spokesman(inventory: Inventory) -> str:
    """Name of the host that carries what is done once a run: of `control`, else the first."""
    active = hosts_of_run(inventory)
    control = [host for host in active if CONTROL in host.groups]
    return str((control or active)[0].name)


def inventory_file(inventory: Inventory) -> str:
    """The file of the inventory, as a command to start next has to name it."""
    return str(_inventory_file(_name(inventory)))


def node_name(host: Host) -> str:
    """The host's own name without pyinfra's connector (`@fake/node2` is node2)."""
    return host.name.rpartition("/")[2]


def _name(inventory: Inventory) -> str:
    """Name of the inventory: its file's, which pyinfra adds as the last group of all hosts."""
    whole = [group for group in _groups(inventory) if _is_whole(inventory, group)]
    return whole[-1] if whole else "cluster"


def _groups(inventory: Inventory) -> list[str]:
    """The groups that have hosts, in the order in which their data override each other."""
    return list(dict.fromkeys(group for host in inventory for group in host.groups))


def _is_whole(inventory: Inventory, group: str) -> bool:
    members = len(inventory.get_group(group, default=[]))
    return group not in (*ROLES, CONTROL) and members == len(inventory)


def _inventory_file(name: str) -> Path:
    """The file pyinfra was started with; the inventory itself does not keep it."""
    given = (Path(argument) for argument in sys.argv[1:] if argument.endswith(f"{name}.py"))
    return next((path for path in given if path.stem == name), Path(f"inventories/{name}.py"))


def _sources(inventory: Inventory, name: str, file: Path) -> Iterator[Source]:
    folders = _data_folders(file)
    yield from _by_file("all", inventory.get_data(), True, folders, file)
    for group in _groups(inventory):
        data = inventory.get_group_data(group)
        yield from _by_file(group, data, _is_whole(inventory, group), folders, file)
    data = inventory.get_override_data()
    yield Source("--data", {key: data[key] for key in data if key in CLUSTER_KEYS})


def _data_folders(file: Path) -> list[Path]:
    """Where pyinfra reads group_data from; the last one wins."""
    folders = [Path("group_data"), file.parent / "group_data"]
    for option, value in zip(sys.argv, sys.argv[1:], strict=False):
        if option == "--group-data":
            folders.append(Path(value))
    return folders


def _by_file(
    group: str, data: Mapping[str, Any], whole: bool, folders: list[Path], file: Path
) -> Iterator[Source]:
    """The group's keys, parted by the file that sets them."""
    rest = dict(data)
    for folder in reversed(folders):
        place = folder / f"{group}.py"
        if not rest or not place.exists():
            continue
        ours = rest.keys() & set(re.findall(r"^(\w+)\s*[:=]", place.read_text(), re.MULTILINE))
        yield Source(str(place), {key: rest.pop(key) for key in ours}, whole)
    if rest:
        yield Source(str(file), rest, whole)


def _entries(inventory: Inventory, file: Path) -> Iterator[HostEntry]:
    counts = _written(file)
    for host in inventory:
        if CONTROL in host.groups:
            continue
        merged = host.data.dict()
        values = {key: merged[key] for key in HOST_KEYS if key in merged}
        entry = HostEntry(
            name=node_name(host),
            # A connector that renames hosts puts them twice in each group.
            roles=tuple(dict.fromkeys(group for group in host.groups if group in ROLES)),
            values={**inventory.get_host_data(host.name), **values},
            origin=str(file),
        )
        for _ in range(max(1, counts[host.name])):
            yield entry


def _written(file: Path) -> Counter[str]:
    """How often each name stands in one group of the file: pyinfra itself merges them silently."""
    most: Counter[str] = Counter()
    if not file.exists():
        return most
    for group, hosts in runpy.run_path(str(file)).items():
        if group in ROLES and isinstance(hosts, list):
            most |= Counter(one[0] if isinstance(one, tuple) else one for one in hosts)
    return most


def _components(sources: list[Source]) -> Mapping[str, Component]:
    """The catalogue, when the inputs name components: it is fifty modules."""
    if not any("platform" in source.values for source in sources):
        return {}
    from catalogue import CATALOGUE

    return CATALOGUE


def _preflight(sources: list[Source]) -> Collection[str]:
    """The ids of the doctor's checks, when the inputs name some: not every command asks them."""
    if not any("nodes" in source.values for source in sources):
        return ()
    from cluster.doctor.catalogue import CHECKS

    return CHECKS.keys()


def _secrets_file(sources: list[Source], name: str) -> str:
    chosen = [one.values["secrets_file"] for one in sources if "secrets_file" in one.values]
    return str(chosen[-1] if chosen else f"secrets/{name}.sops.yaml")


def _ca(sources: list[Source], name: str) -> str | None:
    try:
        return Path(s3.ca_file(_secrets_file(sources, name))).read_text()
    except OSError:
        return None


def _secrets(
    sources: list[Source], name: str
) -> Literal["present", "missing", "plaintext", "damaged"]:
    try:
        text = Path(_secrets_file(sources, name)).read_text()
    except OSError:
        return "missing"
    if sops.damaged(text):
        return "damaged"
    return "present" if sops.readers(text) else "plaintext"


def _foreign(inventory: Inventory) -> set[str]:
    """Keys that mean something to pyinfra or to our own connections."""
    connectors: set[Any] = {SSHConnector, *(host.connector_cls for host in inventory)}
    return {
        *all_argument_meta,
        *CONNECTION_KEYS,
        *(key for connector in connectors for key in connector.data_meta),
    }
