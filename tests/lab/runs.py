"""Runs of our deploys against a lab, as a user starts them, and what they changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab

ROOT = Path(__file__).parents[2]
LIMIT = 900  # seconds a run may take


@dataclass(frozen=True)
class Run:
    """An ended run: exit code, all that was printed, hosts by the operation that changed them."""

    code: int
    text: str
    changed: dict[str, list[str]] = field(default_factory=dict)


def environment(lab: Lab, **more: str) -> dict[str, str]:
    """The environment of a command that works on the lab: K3s alone, unless LAB_PRESET is given."""
    return os.environ | lab.environment | {"PYINFRA_PROGRESS": "off", "LAB_PRESET": ""} | more


def command(deploy: str, *options: str, data: dict[str, Any] | None = None) -> list[str]:
    """The command line of a run; `data` values become --data."""
    given = [
        word
        for key, value in (data or {}).items()
        for word in ("--data", f"{key}={value if isinstance(value, str) else json.dumps(value)}")
    ]
    pyinfra = str(Path(sys.executable).with_name("pyinfra"))
    return [pyinfra, "inventories/lab.py", deploy, *given, *options]


def run(
    lab: Lab, deploy: str, *options: str, data: dict[str, Any] | None = None, **env: str
) -> Run:
    """Run a deploy to its end, with -y."""
    done = ended(lab, command(deploy, "-y", "--json", *options, data=data), **env)
    return Run(done.returncode, done.stdout + done.stderr, _changed(done.stdout, "success"))


def plan(
    lab: Lab, deploy: str, *options: str, data: dict[str, Any] | None = None, **env: str
) -> Run:
    """What a run would change, by --dry."""
    done = ended(lab, command(deploy, "--dry", "--json", *options, data=data), **env)
    return Run(done.returncode, done.stdout + done.stderr, _planned(done.stdout))


def begin(lab: Lab, words: list[str], **env: str) -> subprocess.Popen[str]:
    """Start a command whose output is read while it runs, both streams in one."""
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment(lab, **env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(
    lab: Lab, words: list[str], limit: float = LIMIT, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of the project on the lab to its end, within a limit in seconds."""
    return subprocess.run(
        words,
        cwd=ROOT,
        env=environment(lab, **env),
        capture_output=True,
        text=True,
        timeout=limit,
        stdin=subprocess.DEVNULL,
    )


def _read(output: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(output)
    except ValueError:
        return {}
    return found


def _changed(output: str, key: str) -> dict[str, list[str]]:
    results = _read(output).get("results") or {}
    return {one["name"]: one[key] for one in results.get("operations", ()) if one[key]}


def _planned(output: str) -> dict[str, list[str]]:
    return {
        one["name"]: one["hosts_with_change"]
        for one in _read(output).get("plan", ())
        if one["hosts_with_change"]
    }


def k3s(lab: Lab, version: str | None = None, **keys: Any) -> dict[str, Any]:
    """The group_data key `k3s` of the lab with other values."""
    source = {"mirror": lab.names.mirror, "checksums": "beside"}
    return {"k3s": {"source": source, **({"version": version} if version else {}), **keys}}


@contextmanager
def other_record(
    lab: Lab, edit: Callable[[list[dict[str, Any]]], object]
) -> Iterator[dict[str, str]]:
    """The environment in which the lab's inventory has other hosts, as `edit` makes the list."""
    record = json.loads(lab.names.state_file.read_text())
    edit(record["hosts"])
    file = lab.names.state_file.with_name("other.json")  # beside the lab's secrets
    file.write_text(json.dumps(record))
    try:
        yield {"LAB_STATE": str(file)}
    finally:
        file.unlink()


def only(lab: Lab, *names: str) -> AbstractContextManager[dict[str, str]]:
    """The environment in which the lab's inventory has these hosts alone."""

    def edit(hosts: list[dict[str, Any]]) -> None:
        hosts[:] = [host for host in hosts if host["name"] in names]

    return other_record(lab, edit)
