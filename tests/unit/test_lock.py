"""The lock of a run: its shell script, tried with real flock, and which server is asked for it.

Simulated where servers are asked: what they answer. The SSH protocol is real.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from pyinfra.api import Config, Inventory, State

from runtime import lock
from tests.unit.fake_ssh import FakeSsh

pytestmark = pytest.mark.skipif(not shutil.which("flock"), reason="flock is not installed")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(lock, "FILE", str(tmp_path / "lock"))
    return lock.script("anna@desk (pid 7) since now: it's a 'test'")


@pytest.fixture
def first(script: str) -> Iterator[subprocess.Popen[str]]:
    """A run that holds the lock."""
    process = _start(script)
    assert process.stdout and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_refused_and_reads_who_holds_it(
    script: str, first: subprocess.Popen[str]
) -> None:
    second = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert second.returncode == lock.BUSY
    assert second.stdout == "anna@desk (pid 7) since now: it's a 'test'\n"


def test_the_end_of_the_channel_frees_it(script: str, first: subprocess.Popen[str]) -> None:
    assert first.stdin
    first.stdin.close()
    assert first.wait(timeout=10) == 0
    assert _taken(script)


def test_the_death_of_the_holder_frees_it(script: str, first: subprocess.Popen[str]) -> None:
    """Of all its processes: on a real host they end with sshd's end of the channel."""
    first.kill()
    assert first.stdin
    first.stdin.close()
    deadline = time.monotonic() + 10
    while not _taken(script):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_holder_is_named_with_who_when_and_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock.getpass, "getuser", lambda: "anna")
    monkeypatch.setattr(lock.socket, "gethostname", lambda: "desk")
    monkeypatch.setattr(lock.os, "getpid", lambda: 7)
    text = lock.holder("deploys/site.py")
    assert text.startswith("anna@desk (pid 7) since 2")
    assert text.endswith(": deploys/site.py")


class Servers:
    """Three simulated servers, and the pyinfra state that knows them."""

    def __init__(self, folder: Path) -> None:
        self.ssh = [FakeSsh() for _ in range(3)]
        names = [
            (f"server{number}", ssh.data(folder / "known_hosts"))
            for number, ssh in enumerate(self.ssh, 1)
        ]
        self.state = State(Inventory((names, {})), Config(CONNECT_TIMEOUT=2))
        self.locks: list[lock.Lock] = []

    def acquire(self) -> list[str]:
        """Names of the servers on which it was taken."""
        taken = lock.Lock("deploys/site.py")
        self.locks.append(taken)
        taken.acquire(self.state, list(self.state.inventory))
        return taken.held

    def asked(self) -> list[int]:
        return [len(ssh.commands) for ssh in self.ssh]


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    monkeypatch.setattr(lock, "ANSWER_LIMIT", 1.5)  # enough for a busy machine
    servers = Servers(tmp_path)
    yield servers
    for ssh in servers.ssh:
        ssh.stop()


def test_every_server_is_asked_also_one_outside_the_limit(servers: Servers) -> None:
    """None of them is connected: it does not matter which hosts take part in the run."""
    assert servers.acquire() == ["server1", "server2", "server3"]
    assert servers.asked() == [1, 1, 1]


def test_a_server_that_is_away_or_stuck_keeps_nobody_waiting(
    servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    servers.ssh[0].stop()
    servers.ssh[1].silent = True
    assert servers.acquire() == ["server3"]
    assert "no word on the lock from server2: no answer within" in caplog.text


def test_a_run_that_finds_no_server_is_told_that_it_is_not_alone_for_sure(
    servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    for ssh in servers.ssh:
        ssh.stop()
    assert servers.acquire() == []
    assert "another run on this cluster would not be noticed" in caplog.text


def test_a_run_that_began_while_the_first_server_was_away_keeps_others_out(
    servers: Servers,
) -> None:
    """The second run finds the first server free, the next one taken, and lets go again."""
    servers.ssh[1].lock_holder = "anna@desk (pid 7) since now: deploys/site.py"
    with pytest.raises(lock.Busy, match=r"lock on server2\): anna@desk \(pid 7\) since now"):
        servers.acquire()
    assert servers.asked() == [1, 1, 0]
    assert servers.locks[0].held == []


def test_a_server_that_refuses_sudo_is_named_with_the_reason(
    servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    servers.ssh[0].sudo_works = False
    servers.state.inventory.get_host("server1").host_data["_sudo"] = True
    assert servers.acquire() == ["server2", "server3"]
    assert "no lock on server1: ubuntu is not in the sudoers file" in caplog.text


def test_without_any_lock_that_can_be_had_the_run_is_refused(servers: Servers) -> None:
    for ssh, host in zip(servers.ssh, servers.state.inventory, strict=True):
        ssh.sudo_works, host.host_data["_sudo"] = False, True
    with pytest.raises(lock.Busy, match="no lock on server1: ubuntu is not in the sudoers file"):
        servers.acquire()


def test_the_lock_is_taken_anew_on_a_server_that_was_away(servers: Servers) -> None:
    servers.acquire()
    servers.ssh[0].cut()
    (taken,) = servers.locks
    gevent.sleep(0.1)
    assert taken.held == ["server2", "server3"]
    host = servers.state.inventory.get_host("server1")
    host.connector.connect()
    assert taken.take(servers.state, host) == ""
    assert taken.held == ["server1", "server2", "server3"]


def _start(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _taken(script: str) -> bool:
    process = _start(script)
    assert process.stdin and process.stdout
    said = process.stdout.readline()
    process.stdin.close()
    process.wait(timeout=10)
    return said == "held\n"
