"""When a run asks for the lock of its cluster, and what a refused one does not do.

Simulated: the servers, which only answer about the lock. SSH, pyinfra's command and the run are
real.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plans.command import Case
from tests.unit.fake_ssh import FakeSsh

HOLDER = "anna@desk (pid 7) since now: deploys/site.py"

DEPLOY = """
from pyinfra import host
from pyinfra.facts.server import Command
from pyinfra.operations import server
from runtime.run import fail
host.get_fact(Command, command="look")
server.shell(name="Change", commands=["change"])
"""


class Servers(Case):
    """Three servers and a deploy for them."""

    def __init__(self, folder: Path) -> None:
        self.ssh = [FakeSsh() for _ in range(3)]
        servers = [
            (f"node{n}", {"ip": f"10.0.0.1{n}", "arch": "arm64", **ssh.data(folder / "known")})
            for n, ssh in enumerate(self.ssh, 1)
        ]
        super().__init__(folder, f"servers = {servers!r}\n", DEPLOY)

    def asked(self) -> list[str]:
        """What the first server was asked, in order: `lock` for the lock."""
        return ["lock" if "flock" in one else one for one in self.ssh[0].commands]


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Servers]:
    case = Servers(tmp_path)
    yield case
    for ssh in case.ssh:
        ssh.stop()


def test_a_run_takes_the_lock_before_it_reads_or_changes_anything(case: Servers) -> None:
    done = case.run("", "-y")
    assert done.returncode == 0, done.stderr
    assert case.asked()[0] == "lock"
    assert case.asked().count("lock") == 1
    assert any("change" in one for one in case.asked())


def test_a_second_run_names_the_holder_and_touches_nothing(case: Servers) -> None:
    case.ssh[0].lock_holder = HOLDER
    done = case.run("", "-y")
    assert done.returncode == 1
    line = f"--> another run works on this cluster (lock on node1): {HOLDER}; nothing was changed"
    assert line in done.stderr.splitlines()
    assert case.asked() == ["lock"]
    assert case.ssh[1].commands == []
    assert "Traceback" not in done.stderr


def test_runs_on_different_hosts_ask_for_the_same_lock(case: Servers) -> None:
    case.ssh[0].lock_holder = HOLDER
    done = case.run("", "-y", "--limit", "node2")
    assert done.returncode == 1
    assert HOLDER in done.stderr
    assert case.ssh[1].commands == []


@pytest.mark.parametrize("options", [["--dry"], ["-y", "--dry"], ["--json"]])
def test_a_plan_takes_no_lock(case: Servers, options: list[str]) -> None:
    case.ssh[0].lock_holder = HOLDER
    done = case.run("", *options)
    assert done.returncode == 0, done.stderr
    assert "lock" not in case.asked()


def test_a_refusal_comes_under_the_lock(case: Servers) -> None:
    """What another run is about to change is no reason to refuse."""
    done = case.run("fail(['no'])\n", "-y")
    assert done.returncode == 1
    assert case.asked()[0] == "lock"
    assert "--> refused; nothing was changed" in done.stderr.splitlines()
