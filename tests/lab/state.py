"""The lab's record, `build/<name>/lab.json`: what inventories/lab.py and the tests read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.lab.errors import LabError
from tests.lab.plan import ROOT, SSH_USER, LabHost, Names


@dataclass(frozen=True)
class State:
    """One lab as it was brought up: hosts, how to reach them, and what is real about it."""

    hosts: tuple[LabHost, ...]
    image: str
    image_kind: str
    k3s_kind: str
    k3s_versions: tuple[str, ...]
    arch: str

    @property
    def counts(self) -> dict[str, int]:
        """Return how many hosts there are of each role."""
        roles = [host.role for host in self.hosts]
        return {role: roles.count(role) for role in ("server", "agent", "spare")}

    def host(self, name: str) -> LabHost:
        """Return the host called `name`; raises LabError naming those that exist."""
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts)
        raise LabError(f"no host {name!r} in this lab: {known}")


def as_json(names: Names, state: State) -> dict[str, Any]:
    """Return the content of lab.json. Paths are relative to the repository's root."""
    return {
        "name": names.name,
        "subnet": str(names.subnet),
        "gateway": names.gateway,
        "mirror": names.mirror,
        "ssh_user": SSH_USER,
        "ssh_key": str(names.ssh_key.relative_to(ROOT)),
        "ssh_known_hosts": str(names.known_hosts.relative_to(ROOT)),
        "hosts": [asdict(host) for host in state.hosts],
        "arch": state.arch,
        "image": state.image,
        "image_kind": state.image_kind,
        "k3s_kind": state.k3s_kind,
        "k3s_versions": list(state.k3s_versions),
    }


def from_json(data: dict[str, Any]) -> State:
    """Return the state that as_json wrote."""
    return State(
        hosts=tuple(LabHost(**host) for host in data["hosts"]),
        image=data["image"],
        image_kind=data["image_kind"],
        k3s_kind=data["k3s_kind"],
        k3s_versions=tuple(data["k3s_versions"]),
        arch=data["arch"],
    )


def save(names: Names, state: State) -> None:
    """Write lab.json in one step, so that a reader never sees half of it."""
    text = json.dumps(as_json(names, state), indent=2) + "\n"
    scratch = names.state_file.with_suffix(".new")
    scratch.write_text(text)
    scratch.replace(names.state_file)


def load(file: Path) -> State | None:
    """Return the recorded state, or None when there is no lab; raises LabError when unreadable."""
    try:
        return from_json(json.loads(file.read_text()))
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise LabError(f"{file}: not a lab record ({error!r}); remove it") from error
