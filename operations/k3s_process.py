"""What happens around a start of K3s: refusals, the start itself, its failure and the way back.

Functions for FunctionCommands: called with the state and the host first, they answer False when
the operation has failed.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import NamedTuple

from pyinfra.api import Host, State, StringCommand

from cluster import k3s_config, versions
from cluster.k3s_errors import Cause, explain
from runtime import cache
from runtime.wait import Done, Failed, Pending, Probe, until

SURE_AFTER = 10.0  # seconds a final cause must last: a first refusal may pass while servers start
LOG_LINES = 60
_ENTERED = "ActiveEnterTimestampMonotonic"


class Fallback(NamedTuple):
    """The binary to go back to when a new one does not come up; empty link: there is none."""

    link: str
    version: str
    why_not: str


NO_WAY_BACK = Fallback("", "", "")


def fallback(is_server: bool, link: str, change: tuple[str, str] | None) -> Fallback:
    """Whether the previous binary may be put back.

    An agent can always go back. A server only within its minor: a new minor may have written
    objects and an etcd format that the old one cannot read.
    """
    if change is None or not link:
        return NO_WAY_BACK
    installed, wanted = change
    if is_server and not versions.same_minor(installed, wanted):
        return Fallback(
            "",
            installed,
            f"a server cannot go back from {wanted} to {installed} with its datastore; restore "
            "the snapshot that was taken before (deploys/restore.py)",
        )
    return Fallback(link, installed, "")


def shell(host: Host, script: str) -> tuple[bool, list[str]]:
    """Run a script on the node as root without showing it; its success and output lines."""
    status, output = host.run_shell_command(
        StringCommand("sh", "-c", shlex.quote(script)),
        print_output=False,
        print_input=False,
        _sudo=bool(host.data.get("_sudo")),
    )
    return status, list(output.stdout_lines)


def say_error(host: Host, text: str) -> None:
    """One line for the person at the terminal."""
    host.log_styled(text, fg="red")


def refuse(state: State, host: Host, reason: str) -> bool:
    """Fail the operation with its reason; nothing is touched."""
    say_error(host, reason)
    return False


def _logs(unit: str, since: str) -> str:
    return f"journalctl -u {unit} --since @{since} -o cat --no-pager -n {LOG_LINES} 2>/dev/null"


class _Watch:
    """Judges the polls of a starting unit."""

    def __init__(self, host: Host, unit: str, since: str, entered: str) -> None:
        self._host, self._unit, self._since, self._entered = host, unit, since, entered
        self._final: tuple[str, float] | None = None

    def probe(self) -> Probe:
        """One look at the unit and at its newest log lines."""
        show = f"systemctl show {self._unit} -p ActiveState -p SubState -p {_ENTERED}"
        ok, lines = shell(self._host, f"{show}; echo ---; {_logs(self._unit, self._since)}")
        if not ok or "---" not in lines:
            return Pending("the node does not answer")
        mark = lines.index("---")
        values = dict(line.split("=", 1) for line in lines[:mark] if "=" in line)
        active, sub = values.get("ActiveState", ""), values.get("SubState", "")
        if active == "active":
            # The old process stays active for a moment after the request.
            new = values.get(_ENTERED) != self._entered
            return Done("is up") if new else Pending("stopping")
        cause = explain(lines[mark + 1 :], self._host.name)
        if active == "failed":
            return Failed(cause.text if cause else f"{self._unit} failed ({sub})")
        return self._judge(cause, f"{active} ({sub})")

    def _judge(self, cause: Cause | None, state: str) -> Probe:
        if cause is None or not cause.final:
            self._final = None
            return Pending(cause.text if cause else state)
        rule = cause.text.partition(" — ")[0]
        if self._final is None or self._final[0] != rule:
            self._final = (rule, time.monotonic())
        if time.monotonic() - self._final[1] >= SURE_AFTER:
            return Failed(cause.text)
        return Pending(cause.text)


def restart(host: Host, unit: str, timeout: float) -> bool:
    """(Re)start a unit without blocking and watch it until it is up or its cause is known.

    timeout: seconds.
    """
    ok, lines = shell(
        host,
        f"date +%s; systemctl reset-failed {unit} 2>/dev/null; systemctl restart --no-block {unit}",
    )
    if not ok or not lines:
        say_error(host, f"{unit} cannot be started: systemctl failed")
        return False
    watch = _Watch(host, unit, lines[0])
    # The old process stays "active" for a moment after the request.
    time.sleep(1.0)
    return until(watch.probe, what=f"{unit} on {host.name}", timeout=timeout, say=host.log)


def run(
    state: State, host: Host, unit: str, version: str, timeout: float, back: Sequence[str]
) -> bool:
    """Start K3s at its new release or configuration; when it does not come up, step back.

    back: a `Fallback`.
    """
    cache.forget(host)
    if restart(host, unit, timeout):
        return True
    link, previous, why_not = back
    if why_not:
        say_error(host, why_not)
    if not link:
        return False
    host.log(f"K3s {version} did not come up; putting {previous} back")
    swap = (
        f"ln -sfn {shlex.quote(link)} {k3s_config.LINK}.new && "
        f"mv -Tf {k3s_config.LINK}.new {k3s_config.LINK}"
    )
    if shell(host, swap)[0] and restart(host, unit, timeout):
        say_error(host, f"the node runs {previous} again; nothing else was touched")
    else:
        say_error(host, f"{previous} does not come up either; see journalctl -u {unit}")
    return False
