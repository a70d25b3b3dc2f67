"""Fixtures of inputs: YAML files with a base and what differs from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.component import Component
from cluster.model import Cluster
from cluster.read import Given, HostEntry, Source, read

FOLDER = Path(__file__).parents[1] / "fixtures" / "inputs"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Enough of a catalogue for the rules that look into it.
CATALOGUE = {
    "cilium": Component("cilium", "kube-system", lambda it: it.stack.cni == "cilium", "cni"),
    "longhorn": Component(
        "longhorn", "longhorn-system", lambda it: it.stack.storage == "longhorn", "storage"
    ),
    "metallb": Component(
        "metallb", "metallb-system", lambda it: it.stack.load_balancer == "metallb", "load-balancer"
    ),
}
FOREIGN = ("_sudo", "_sudo_user", "ssh_user", "ssh_key", "ssh_hostname")


def fixture(path: Path) -> dict[str, Any]:
    """The content of a fixture on top of its base."""
    data: dict[str, Any] = yaml.load(path.read_text(), Loader=LOADER)
    base = data.pop("base", None)
    if base is None:
        return data
    whole = fixture(FOLDER / "good" / f"{base}.yaml")
    whole.pop("expected", None)
    return _merged(whole, data)


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """A deep merge; null takes a key away."""
    result = dict(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _merged(result[key], value)
        else:
            result[key] = value
    return result


def cluster_of(data: Mapping[str, Any]) -> Cluster:
    """Read a fixture as the inventory and group_data of a project; raises Problems."""
    name = data["inventory"]
    hosts = [
        HostEntry(
            name=host,
            roles=tuple(values["groups"]),
            values={key: value for key, value in values.items() if key != "groups"},
            origin=f"inventories/{name}.py",
        )
        for host, values in data["hosts"].items()
    ]
    hosts += [host for host in hosts if host.name in data.get("again", ())]  # written twice
    roles = data.get("role_data", {}).items()
    sources = [
        *(Source(f"group_data/{role}.py", values, whole=False) for role, values in roles),
        Source(f"group_data/{name}.py", data["group_data"]),
    ]
    about = {"components": CATALOGUE, "foreign": FOREIGN, **data.get("given", {})}
    return read(sources, hosts, Given(inventory=name, **about))
