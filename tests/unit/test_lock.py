"""The lock of a run: its shell script, tried with real flock, and who is named."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import lock

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
