"""Starts and stops a detached process of the lab, known by its pid file."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.plan import ROOT

START_LIMIT_S = 10
STOP_LIMIT_S = 5


@dataclass(frozen=True)
class Service:
    """A Python module of ours run as a detached process; `state` holds its pid file and output."""

    module: str
    arguments: tuple[str, ...]
    address: tuple[str, int]
    state: Path

    def ensure(self) -> None:
        """Start the process unless it runs with these very arguments; raises LabError."""
        if self._running_pid() is not None and self._answers():
            return
        self.stop()
        with self._output.open("wb") as output:
            process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._pid_file.write_text(json.dumps({"pid": process.pid}))
        end = time.monotonic() + START_LIMIT_S
        while not self._answers():
            if process.poll() is not None or time.monotonic() > end:
                last = self._output.read_text(errors="replace").strip().splitlines()[-1:]
                raise LabError(f"{self.module} did not start: {' '.join(last) or 'no answer'}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the process if it is ours and runs; raises LabError when it does not end."""
        pid = self._pid()
        if pid is not None and self.module in _command_line(pid):
            os.kill(pid, signal.SIGTERM)
            end = time.monotonic() + STOP_LIMIT_S
            while self.module in _command_line(pid):
                if time.monotonic() > end:
                    raise LabError(f"{self.module} (pid {pid}) does not end")
                time.sleep(0.05)
        self._pid_file.unlink(missing_ok=True)

    def running(self) -> bool:
        """Return whether the process runs and answers."""
        return self._running_pid() is not None and self._answers()

    @property
    def _name(self) -> str:
        return self.module.rpartition(".")[2]

    @property
    def _pid_file(self) -> Path:
        return self.state / f"{self._name}.pid"

    @property
    def _output(self) -> Path:
        return self.state / f"{self._name}.out"

    @property
    def _command(self) -> list[str]:
        return [sys.executable, "-m", self.module, *self.arguments]

    def _pid(self) -> int | None:
        try:
            return int(json.loads(self._pid_file.read_text())["pid"])
        except (FileNotFoundError, KeyError, ValueError):
            return None

    def _running_pid(self) -> int | None:
        pid = self._pid()
        return pid if pid is not None and _command_line(pid)[1:] == self._command[1:] else None

    def _answers(self) -> bool:
        try:
            socket.create_connection(self.address, timeout=1).close()
        except OSError:
            return False
        return True


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
