"""The lab's record, `build/<name>/lab.json`: what inventories/lab.py and the tests read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.lab.errors import LabError
from tests.lab.plan import CHARTS_PATH, ROLES, ROOT, SSH_USER, LabHost, Names


@dataclass(frozen=True)
class Record:
    """One lab as it was brought up: hosts, how to reach them, and what is real about it."""

    hosts: tuple[LabHost, ...]
    image: str
    image_kind: str
    k3s_kind: str
    k3s_versions: tuple[str, ...]
    arch: str
    charts_kind: str

    @property
    def counts(self) -> dict[str, int]:
        """Return how many hosts there are of each role."""
        roles = [host.role for host in self.hosts]
        return {role: roles.count(role) for role in ROLES}

    def host(self, name: str) -> LabHost:
        """Return the host called `name`; raises LabError naming those that exist."""
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts)
        raise LabError(f"no host {name!r} in this lab: {known}")


def as_json(names: Names, record: Record) -> dict[str, Any]:
    """Return the content of lab.json. Paths are relative to the repository's root."""
    return {
        "name": names.name,
        "subnet": str(names.subnet),
        "gateway": names.gateway,
        "mirror": names.mirror,
        "ssh_user": SSH_USER,
        "ssh_key": str(names.ssh_key.relative_to(ROOT)),
        "ssh_known_hosts": str(names.known_hosts.relative_to(ROOT)),
        "hosts": [asdict(host) for host in record.hosts],
        "arch": record.arch,
        "image": record.image,
        "image_kind": record.image_kind,
        "k3s_kind": record.k3s_kind,
        "k3s_versions": list(record.k3s_versions),
        "charts_kind": record.charts_kind,
        # Null: each chart from its own repository.
        "charts": f"{names.mirror}/{CHARTS_PATH}" if record.charts_kind == "surrogate" else None,
    }


def from_json(data: dict[str, Any]) -> Record:
    """Return the record that as_json wrote."""
    return Record(
        hosts=tuple(LabHost(**host) for host in data["hosts"]),
        image=data["image"],
        image_kind=data["image_kind"],
        k3s_kind=data["k3s_kind"],
        k3s_versions=tuple(data["k3s_versions"]),
        arch=data["arch"],
        charts_kind=data["charts_kind"],
    )


def save_record(names: Names, record: Record) -> None:
    """Write lab.json in one step, so that a reader never sees half of it."""
    text = json.dumps(as_json(names, record), indent=2) + "\n"
    scratch = names.state_file.with_suffix(".new")
    scratch.write_text(text)
    scratch.replace(names.state_file)


def load_record(file: Path) -> Record | None:
    """Return the record, or None when there is no lab; raises LabError when unreadable."""
    try:
        return from_json(json.loads(file.read_text()))
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise LabError(f"{file}: not a lab record ({error!r}); remove it") from error
