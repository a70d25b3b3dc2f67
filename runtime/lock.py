"""One run at a time on a cluster: a file lock on the first server that answers.

`flock` on an SSH channel works before there is an API, and the kernel frees it when the channel
ends, however the run ends.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import socket
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import gevent
from paramiko import SSHException
from pyinfra import logger
from pyinfra.api import Host, State, StringCommand
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import make_unix_command_for_host

FILE = "/run/picluster.lock"
BUSY = 75  # EX_TEMPFAIL, which no failure of sudo, sh or flock gives
ANSWER_LIMIT = 10.0  # seconds in which a server takes the lock or says who has it


class Busy(Exception):
    """Another run holds the lock; the text says which, or why it cannot be known."""


class Lock(NamedTuple):
    """A lock that is held as long as its channel is open."""

    host: str
    channel: Any

    def release(self) -> None:
        """Free it."""
        with contextlib.suppress(OSError, EOFError):
            self.channel.close()


def holder(what: str) -> str:
    """How this run is named to a run that it keeps waiting."""
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    when = datetime.now().astimezone().isoformat(timespec="seconds")
    return f"{who} (pid {os.getpid()}) since {when}: {what}"


def script(text: str) -> str:
    """Take the lock, write who holds it, keep it until the input ends; exit BUSY when taken."""
    held = f"printf '%s\\n' {shlex.quote(text)} > {FILE}; echo held; exec cat > /dev/null"
    return (
        f"flock -n -E {BUSY} {FILE} sh -c {shlex.quote(held)}; code=$?; "
        f"[ $code -ne {BUSY} ] || cat {FILE}; exit $code"
    )


def acquire(state: State, hosts: Iterable[Host], what: str) -> Lock | None:
    """Take the lock on the first host that answers; None when none of them does.

    Raises Busy.
    """
    asked = [host for host in hosts if host.connector_cls is SSHConnector]
    for host in asked:
        if not host.connected:
            host.connect(reason="for the lock")
        if not host.connected:
            continue
        try:
            return _take(state, host, script(holder(what)))
        except (OSError, EOFError, SSHException) as error:
            logger.warning(f"no word on the lock from {host.name}: {error}")
    if asked:
        logger.warning("no server answers: another run on this cluster would not be noticed")
    return None


def _take(state: State, host: Host, text: str) -> Lock:
    command = make_unix_command_for_host(
        state,
        host,
        StringCommand("sh", "-c", shlex.quote(text)),
        _sudo=bool(host.data.get("_sudo")),
        _sudo_password=host.data.get("_sudo_password"),
    )
    client: Any = host.connector.client  # type: ignore[attr-defined]
    silence = TimeoutError(f"no answer within {ANSWER_LIMIT:.0f} s")
    with contextlib.ExitStack() as given_up, gevent.Timeout(ANSWER_LIMIT, silence):
        channel = client.get_transport().open_session(timeout=ANSWER_LIMIT)
        given_up.callback(channel.close)  # a server that wakes up later must not keep the lock
        channel.exec_command(command.get_raw_value())
        said = channel.makefile("r").readline().strip()
        if said == "held":
            given_up.pop_all()
            return Lock(host.name, channel)
        if channel.recv_exit_status() == BUSY:
            raise Busy(f"another run works on this cluster (lock on {host.name}): {said}")
        reason = " ".join(channel.makefile_stderr("r").read().decode(errors="replace").split())
    raise Busy(f"no lock on {host.name}: {said or reason or 'flock failed'}")
