"""Operations of the node base on a host whose state is given: which commands they would run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from pyinfra.api import FunctionCommand, StringCommand
from pyinfra.context import ctx_host, ctx_inventory, ctx_state

from cluster.host_state import Account, Clock, File, HostState, Package, Unit
from cluster.model import Cluster
from tests.unit.cluster_example import example

MODEL = example()
UP = Unit(load="loaded", active="active", enabled="enabled", since=10.0)
DOWN = Unit(load="loaded", enabled="disabled")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJzPgkVTcJxpXaxsNNZxVnE7d1cWoy9bW0bNn9a0nZ0F ada@desk"


@dataclass(frozen=True)
class Command:
    """One command: its text, and what goes to its standard input."""

    text: str
    stdin: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass
class Ran:
    """What an operation would do: commands, or the words with which it says that nothing is."""

    commands: list[Command] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not self.commands

    @property
    def texts(self) -> list[str]:
        return [command.text for command in self.commands]

    @property
    def written(self) -> dict[str, str]:
        """Content by path, of files that are written whole."""
        return {
            command.text.split()[-2]: command.stdin
            for command in self.commands
            if command.text.startswith("sh -c") and " write " in command.text
        }

    def has(self, *words: str) -> bool:
        """Whether one command has all the words."""
        return any(all(word in text for word in words) for text in self.texts)


def bare(**changes: Any) -> HostState:
    """A fresh Ubuntu 24.04 on a Pi; `changes` replace parts."""
    state = HostState(
        clock=Clock(100_000.0, 99_999.9, 100_000.1),
        uptime=50_000.0,
        os="ubuntu",
        release="24.04",
        os_name="Ubuntu 24.04.3 LTS",
        arch="arm64",
        kernel="6.8.0-1031-raspi",
        board="Raspberry Pi 5 Model B Rev 1.0",
        hostname="ubuntu",
        hostname_file="ubuntu",
        timezone="Etc/UTC",
        locale="C.UTF-8",
        locales=("C", "C.utf8", "POSIX"),
        machine_id="a1",
        boot_id="b1",
        memory_kib=8_000_000,
        page_size=4096,
        stack="ffff8a2c0000",
        cgroup="v2",
        controllers=frozenset({"cpu", "cpuset", "io", "memory", "pids"}),
        texts={"/etc/hosts": "127.0.0.1 localhost\n127.0.1.1 ubuntu\n", "/etc/fstab": ""},
        files={"/etc/hosts": File("644"), "/etc/fstab": File("644")},
        units={"ssh.service": UP, "systemd-logind.service": UP, "systemd-timesyncd.service": UP},
        accounts={"ubuntu": Account("ubuntu", 1000, "/home/ubuntu", "/bin/bash", (), KEY)},
        login="ubuntu",
        routes=("default via 10.0.0.1 dev eth0",),
        addresses=("127.0.0.1", "10.0.0.11"),
        has=frozenset({"sshd-include", "cloud-init"}),
    )
    return replace(state, **changes)


def installed(*names: str, held: bool = False) -> dict[str, Package]:
    return {name: Package("1", "hi" if held else "ii") for name in names}


def files(contents: Mapping[str, str], mode: str = "644", changed: int = 0) -> dict[str, File]:
    """What the fact says of files with these contents."""
    return {
        path: File(mode, changed=changed, sha256=hashlib.sha256(text.encode()).hexdigest())
        for path, text in contents.items()
    }


def with_files(state: HostState, contents: Mapping[str, str], mode: str = "644") -> HostState:
    """The state after these files were written, also those whose text is read."""
    texts = {path: text for path, text in contents.items() if path in state.texts}
    return replace(
        state,
        files={**state.files, **files(contents, mode)},
        texts={**state.texts, **texts},
    )


def run(
    operation: Any,
    state: HostState,
    *arguments: Any,
    model: Cluster = MODEL,
    name: str = "node1",
    others: Mapping[str, HostState] | None = None,
    **named: Any,
) -> Ran:
    """Run an operation as pyinfra does while preparing."""
    ran = Ran()
    states = {**(others or {}), name: state}
    with _host(name, states, model, ran.said) as host, _facts(states):
        for command in operation._inner(*arguments, **named):
            ran.commands.append(_command(command))
        assert host.name == name
    return ran


def _command(command: StringCommand | FunctionCommand) -> Command:
    if isinstance(command, FunctionCommand):
        return Command(f"{command.function.__name__} {command.args}")
    stdin = str(command.connector_arguments.get("_stdin") or "")
    return Command(command.get_raw_value(), stdin)


@contextmanager
def _host(
    name: str, states: Mapping[str, HostState], model: Cluster, said: list[str]
) -> Iterator[SimpleNamespace]:
    active: list[SimpleNamespace] = []
    run_state = SimpleNamespace(
        cluster=model, config=SimpleNamespace(DIFF=False), activated_hosts=active
    )
    for one in sorted(states):
        active.append(
            SimpleNamespace(
                name=one,
                noop=said.append,
                log=said.append,
                state=run_state,
                inventory=active,
                print_prefix="",
            )
        )
    host = next(one for one in active if one.name == name)
    with ctx_state.use(run_state), ctx_inventory.use(active), ctx_host.use(host):
        yield host


@contextmanager
def _facts(states: Mapping[str, HostState]) -> Iterator[None]:
    def answer(host: Any, _: Any) -> HostState:
        return states[host.name]

    with patch("facts.node.cached", lambda host, fact, **_: answer(host, fact)):
        yield
