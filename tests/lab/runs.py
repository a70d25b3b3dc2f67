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
from threading import Timer
from typing import Any

import pytest

from runtime import sops
from tests.lab.lab import Lab

ROOT = Path(__file__).parents[2]
LIMIT = 900  # seconds a run may take
REACHED_WITHIN = 300  # seconds until a run says what is waited for
ENDS_WITHIN = 30  # seconds after a signal; a run that hangs is killed then


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


class Live:
    """A command on the lab that is going on, read line by line."""

    def __init__(self, lab: Lab, words: list[str], **env: str) -> None:
        self.lines: list[str] = []
        self._process = begin(lab, words, **env)

    @property
    def text(self) -> str:
        """All that it said so far."""
        return "".join(self.lines)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def until(self, part: str) -> None:
        """Read to the first line that holds this."""
        with self._limit(REACHED_WITHIN):
            assert self._process.stdout
            for line in self._process.stdout:
                self.lines.append(line)
                if part in line:
                    return
        pytest.fail(f"no line with {part!r} in:\n{self.text}", pytrace=False)

    def end(self, number: int = 0, within: float = ENDS_WITHIN) -> int:
        """How it ends, after a signal unless that is 0; killed when it takes longer in seconds."""
        if number:
            self._process.send_signal(number)
        with self._limit(within):
            assert self._process.stdout
            self.lines += list(self._process.stdout)
            return self._process.wait()

    @contextmanager
    def _limit(self, seconds: float) -> Iterator[None]:
        timer = Timer(seconds, self._process.kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


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


def secrets(lab: Lab) -> dict[str, str]:
    """The lab's secrets by name."""
    state = lab.names.state_file.parent
    return sops.flat(sops.load(state / "secrets.sops.yaml", state / "age.txt"))


def new_tokens(lab: Lab) -> None:
    """Give the lab's secrets other join tokens, which no node has yet."""
    words = [sys.executable, "-m", "commands.secrets", "inventories/lab.py", "--new-tokens"]
    done = ended(lab, words)
    assert done.returncode == 0, done.stdout + done.stderr
