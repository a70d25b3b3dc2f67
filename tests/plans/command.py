"""pyinfra's command as a process of its own, with what it reads, for tests of plans and runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

import gevent
from gevent.fileobject import FileObject

ROOT = Path(__file__).parents[2]
LIMIT = 60  # seconds for a run that should take one or two
Ended = subprocess.CompletedProcess[str]

_GROUP_DATA = """
cluster_name = "home"
domain = "home.arpa"
network = {{"lan": "10.0.0.0/24", "gateway": "10.0.0.1", "dns": ["10.0.0.1"]}}
secrets_file = "{folder}/secrets.sops.yaml"
_sudo = False
"""


def project(folder: Path, inventory: str, more_data: str = "") -> str:
    """Write an inventory with the group_data and the file of secrets that a run wants; its path.

    The secrets look encrypted, which is all that is checked before they are needed.
    """
    (folder / "group_data").mkdir(exist_ok=True)
    data = folder / "group_data" / "simulated.py"
    data.write_text(_GROUP_DATA.format(folder=folder) + more_data)
    secrets = 'k3s: ENC[x]\nsops: {"age": [{"recipient": "age1"}]}\n'
    (folder / "secrets.sops.yaml").write_text(secrets)
    file = folder / "simulated.py"
    file.write_text(inventory)
    return str(file)


def pyinfra(*words: str, simulated: bool = False) -> Ended:
    """Run `pyinfra WORDS` in the project's root, without a terminal.

    The process is forked from one that has imported everything already: to start Python and to
    import pyinfra, kubernetes and pydantic takes longer than most plans.

    simulated: pyinfra's fake connector stands where SSH does.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with _begun([*words], simulated, out.fileno(), err.fileno()):
            code = _answer()
        return Ended(words, code, _all(out), _all(err))


def cold(*words: str, simulated: bool = False) -> Ended:
    """The same from the start of Python on, as a person's command does it."""
    module = "tests.plans.start" if simulated else "pyinfra"
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def signalled(words: list[str], at: str, *numbers: int) -> tuple[int, str]:
    """Exit code and stderr of a run that gets signals at its first line with this text."""
    ours, its = os.pipe()
    lines, rest = [], list(numbers)
    with (
        open(os.devnull, "w") as nothing,
        FileObject(ours) as said,
        _begun(words, False, nothing.fileno(), its) as pid,
    ):
        os.close(its)
        for line in said:
            lines.append(line)
            if rest and (at in line or len(rest) < len(numbers)):
                os.kill(pid, rest.pop(0))
        code = _answer()
    return code, "".join(lines)


class Case:
    """An inventory and a deploy in a folder of their own.

    deploy: its text; each run adds what it calls.
    """

    def __init__(self, folder: Path, inventory: str, deploy: str) -> None:
        self.folder, self._deploy = folder, deploy
        self.inventory = project(folder, inventory)

    def words(self, calls: str, *options: str) -> list[str]:
        """The command line, with the deploy written."""
        deploy = self.folder / "deploy.py"
        deploy.write_text(self._deploy + calls)
        return [self.inventory, str(deploy), *options]

    def run(self, calls: str, *options: str) -> Ended:
        """Run it to its end."""
        return pyinfra(*self.words(calls, *options))

    def signalled(self, calls: str, at: str, *numbers: int) -> tuple[int, str]:
        """Run it with signals at its first line with this text."""
        return signalled(self.words(calls, "-y"), at, *numbers)


@cache
def _template() -> socket.socket:
    """The way to the process that runs are forked from; it ends with this one."""
    ours, its = socket.socketpair()
    words = [sys.executable, "-m", "tests.plans.template", str(its.fileno())]
    subprocess.Popen(words, cwd=ROOT, pass_fds=[its.fileno()])
    its.close()
    return ours


@contextmanager
def _begun(words: list[str], simulated: bool, out: int, err: int) -> Iterator[int]:
    """The pid of a run whose output goes to these file descriptors; killed when it hangs."""
    request = json.dumps({"words": words, "simulated": simulated})
    with open(os.devnull) as nothing:
        socket.send_fds(_template(), [request.encode()], [nothing.fileno(), out, err])
    pid = _answer()
    late = gevent.spawn_later(LIMIT, os.kill, pid, signal.SIGKILL)
    try:
        yield pid
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        _answer()
        raise
    finally:
        late.kill()


def _answer() -> int:
    """The pid of a run that was asked for, then its exit code as subprocess says it."""
    text = b""
    while not text.endswith(b"\n"):
        more = _template().recv(1)  # no more: what follows is the next answer
        assert more, "the process that runs are forked from has ended"
        text += more
    return int(text)


def _all(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
