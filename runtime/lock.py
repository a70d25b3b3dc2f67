"""One run at a time on a cluster: a file lock on every server that answers.

`flock` on an SSH channel works before there is an API, and the kernel frees it when the channel
ends, however the run ends. Two runs meet as long as one server answers both: a server that was
away when the first of them began does not let the second one in.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import socket
from collections.abc import Iterable
from datetime import datetime
from typing import Any

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
    """Another run holds the lock, or none can be had; the text says which run, or why."""


class Failed(Exception):
    """A server answers but has no lock to give; the text says why."""


class Lock:
    """The locks of one run, each held as long as its channel is open.

    what: the deploys of the run, for who is kept waiting by it.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._channels: dict[str, Any] = {}  # by name of the server

    @property
    def held(self) -> list[str]:
        """Names of the servers on which it is held."""
        return [name for name, channel in self._channels.items() if not channel.closed]

    def acquire(self, state: State, servers: Iterable[Host]) -> None:
        """Take it on every server that answers, in their order; raises Busy.

        The order is the same for every run, so that of two that begin together one goes on. A
        server on which it cannot be taken at all keeps no other run out either: one is enough.
        """
        asked = [host for host in servers if host.connector_cls is SSHConnector]
        gevent.joinall([gevent.spawn(_connect, host) for host in asked], raise_error=True)
        try:
            refused = [why for host in asked if host.connected and (why := self.take(state, host))]
            if refused and not self.held:
                raise Busy(refused[0])
        except Busy:
            self.release()
            raise
        for why in refused:
            logger.warning(why)
        if asked and not self.held:
            logger.warning("no server answers: another run on this cluster would not be noticed")

    def take(self, state: State, host: Host) -> str:
        """Take it on one connected server; why it cannot be taken there, else nothing.

        Raises Busy.
        """
        try:
            self._channels[host.name] = _take(state, host, script(holder(self.what)))
        except (OSError, EOFError, SSHException) as error:
            logger.warning(f"no word on the lock from {host.name}: {error}")
        except Failed as error:
            return f"no lock on {host.name}: {error}"
        return ""

    def release(self) -> None:
        """Free it everywhere."""
        for channel in self._channels.values():
            with contextlib.suppress(OSError, EOFError):
                channel.close()
        self._channels.clear()


def _connect(host: Host) -> None:
    if not host.connected:
        host.connect(reason="for the lock")


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


def _take(state: State, host: Host, text: str) -> Any:
    """The channel that holds the lock."""
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
            return channel
        if channel.recv_exit_status() == BUSY:
            raise Busy(f"another run works on this cluster (lock on {host.name}): {said}")
        reason = " ".join(channel.makefile_stderr("r").read().decode(errors="replace").split())
    raise Failed(said or reason or "flock failed")
