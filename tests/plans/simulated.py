"""pyinfra's command against simulated hosts, whose facts are given, in a process of its own.

Simulated: every SSH host. Commands succeed without effect; facts answer with the lines they are
given. So a plan (`--dry`) is real, and a run would be believed whatever it did: only plans here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.plans.command import Ended, project, pyinfra

Lines = dict[str, list[str]]  # text that tells a fact's script → what it prints

# A word of each fact's script that no other script has.
K3S, LEFTOVERS, SNAPSHOTS = "say registered", "empty_dir()", "say kept"
NODE, BOOT, DOCTOR, NETWORK = "say cgroup", "say installed", "say container", "say tool"
SURVEY = "part node"  # the three facts of a host by one script
# Of hosts whose boot layer and network do not matter: read, and nothing known of them.
NOTHING_KNOWN: Lines = {BOOT: ["end"], DOCTOR: ["end"], NETWORK: ["end"]}


@dataclass
class Node:
    """One simulated host: its role, what its facts say, and where its API is."""

    name: str
    role: str = "servers"
    facts: Lines = field(default_factory=dict)
    api: str = ""


@dataclass(frozen=True)
class Planned:
    """An ended `--dry`: exit code, operations in order, those with a change, all that was said."""

    code: int
    order: list[str]
    changed: dict[str, list[str]]
    text: str


def plan(
    folder: Path,
    nodes: list[Node],
    deploy: str,
    /,
    *options: str,
    run: Callable[..., Ended] = pyinfra,
    **data: Any,
) -> Planned:
    """What a deploy would change on these hosts; `data` values become --data.

    run: `command.cold` where the time that a person waits is measured.
    """
    file = project(folder, inventory(nodes))
    given = [
        word
        for key, value in data.items()
        for word in ("--data", f"{key}={value if isinstance(value, str) else json.dumps(value)}")
    ]
    words = (file, deploy, "--dry", "--json", *given, *options)
    done = run(*words, simulated=True)
    try:
        found = json.loads(done.stdout)["plan"]
    except ValueError:
        found = []
    return Planned(
        done.returncode,
        [one["name"] for one in found],
        {one["name"]: one["hosts_with_change"] for one in found if one["hosts_with_change"]},
        done.stderr,
    )


def k3s(
    server: bool = True,
    running: bool = True,
    datastore: str = "etcd",
    version: str = "v1.36.2+k3s1",
) -> list[str]:
    """What the K3s fact prints on a member; an empty version is a bare host."""
    unit = "k3s" if server else "k3s-agent"
    lines = ["revision\tr\tr"]
    if version:
        lines += [
            f"link\t/usr/local/lib/k3s/{version}/k3s",
            f"version\t{version}",
            f"unit\t{unit}\tActiveState={'active' if running else 'inactive'}",
            f"file\t/etc/systemd/system/{unit}.service\t644\t{'0' * 64}",
            "registered\tyes",
            *([f"datastore\t{datastore}", "ca\tsame"] if server else []),
        ]
    return [*lines, "end"]


def surveyed(facts: Lines) -> Lines:
    """The facts, and the script that reads three of them at once."""
    parts = {"node": NODE, "doctor": DOCTOR, "boot": BOOT}
    lines = [line for name, key in parts.items() for line in (f"part\t{name}", *facts.get(key, ()))]
    return {SURVEY: lines, **facts} if NODE in facts else facts


def inventory(nodes: list[Node]) -> str:
    """The text of an inventory file with these hosts."""
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {"servers": [], "agents": []}
    for number, node in enumerate(nodes, 1):
        values: dict[str, Any] = {
            "ip": f"10.0.0.{10 + number}",
            "arch": "arm64",
            "fake_delay": 0,
            "fake_delay_jitter": 0,
            "fake_responses": surveyed(NOTHING_KNOWN | node.facts),
        }
        if node.api:
            values["api_address"] = node.api
        groups[node.role].append((node.name, values))
    lines = [f"{role} = {hosts!r}" for role, hosts in groups.items() if hosts]
    return "\n".join([*lines, 'control = ["@local"]', ""])
