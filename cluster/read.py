"""From plain values to the validated Cluster, or to every problem with them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.model import Cluster


@dataclass(frozen=True)
class HostEntry:
    """A host as the inventory has it: its name, the groups of roles it is in, its own keys."""

    name: str
    roles: tuple[str, ...]
    values: Mapping[str, Any]
    origin: str = "inventory"  # file that names it


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the inputs, as one line."""

    where: str
    found: str
    allowed: str
    suggestion: str = ""

    def __str__(self) -> str:
        line = f"{self.where}: {self.found}: expected {self.allowed}"
        return f"{line}; did you mean {self.suggestion}" if self.suggestion else line


class Problems(ValueError):
    """Everything wrong with the inputs."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


# Keys of group_data for the whole cluster, by the field of Cluster they set.
CLUSTER_KEYS = {
    "cluster_name": "name",
    **{
        key: key
        for key in (
            "domain timezone locale network stack k3s nodes platform backup acme "
            "secrets_file age_key_file"
        ).split()
    },
}
HOST_KEYS = ("ip", "mac", "arch", "model", "boot_disk", "data_disk", "labels", "taints")


@dataclass(frozen=True)
class Given:
    """What is known about the inputs besides their values."""

    inventory: str = "cluster"  # name of the inventory, which names the secrets file
    origins: Mapping[str, str] = field(default_factory=dict)  # file that sets each key


def read(values: Mapping[str, Any], hosts: Sequence[HostEntry], given: Given) -> Cluster:
    """The cluster described by the keys of group_data and the hosts of the inventory.

    Raises Problems with every problem found.
    """
    data: dict[str, Any] = {
        CLUSTER_KEYS[key]: value for key, value in values.items() if key in CLUSTER_KEYS
    }
    data.setdefault("secrets_file", f"secrets/{given.inventory}.sops.yaml")
    data["hosts"] = [{"name": host.name, "role": host.roles[0], **host.values} for host in hosts]
    return Cluster.model_validate(data)
