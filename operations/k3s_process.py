"""What happens around a start of K3s: refusals, the start itself, its failure and the way back.

Functions for FunctionCommands: called with the state and the host first, they answer False when
the operation has failed.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import gevent
from paramiko import SSHException
from pyinfra.api import Host, State, StringCommand

from cluster import k3s_config, k3s_plan, versions
from cluster.answer import Present
from cluster.k3s_errors import Cause, explain
from cluster.model import Cluster
from cluster.node import Node
from cluster.probe import Done, Failed, Pending, Probe
from facts.k3s import survey
from facts.kube import read_nodes
from operations import gates, node_actions, text
from runtime import cache
from runtime.api import Api, api_of
from runtime.endpoint import quietly
from runtime.inventory import node_name
from runtime.run import cluster
from runtime.wait import until

SURE_AFTER = 10.0  # seconds a final cause must last: a first refusal may pass while servers start
LOG_LINES = 60
LOOK_LIMIT = 30.0  # seconds one look at a unit may take: a wait ends only between two of them
BEFORE_TIMEOUT = 120.0  # seconds for what should hold at once
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
    command = StringCommand("sh", "-c", shlex.quote(script))
    status, output = quietly(host, command, _timeout=None)
    return status, list(output.stdout_lines)


def unit_and_logs(host: Host, script: str) -> tuple[dict[str, str], list[str]] | None:
    """What a script says of a unit (`systemctl show`), and below `---` its log; None: no answer."""
    ok, lines = False, list[str]()
    # Its disk may hang, and journalctl with it; sshd then gives no more sessions after some looks.
    with suppress(SSHException, OSError, EOFError), gevent.Timeout(LOOK_LIMIT, False):
        ok, lines = shell(host, script)
    if not ok or "---" not in lines:
        return None
    mark = lines.index("---")
    return dict(line.split("=", 1) for line in lines[:mark] if "=" in line), lines[mark + 1 :]


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
        script = f"{show}; echo ---; {_logs(self._unit, self._since)}"
        if (seen := unit_and_logs(self._host, script)) is None:
            return Pending("the node does not answer")
        values, logs = seen
        active, sub = values.get("ActiveState", ""), values.get("SubState", "")
        if active == "active":
            # The old process stays active for a moment after the request.
            new = values.get(_ENTERED) != self._entered
            return Done("is up") if new else Pending("stopping")
        cause = explain(logs, node_name(self._host))
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
        f"date +%s; systemctl show {unit} -p {_ENTERED}; systemctl reset-failed {unit} "
        f"2>/dev/null; systemctl restart --no-block {unit}",
    )
    if not ok or len(lines) < 2:
        say_error(host, f"{unit} cannot be started: systemctl failed")
        return False
    watch = _Watch(host, unit, since=lines[0], entered=lines[1].partition("=")[2])
    return until(watch.probe, what=f"{unit} on {node_name(host)}", timeout=timeout, host=host)


def keep_copy(state: State, host: Host, node: str, script: str, timeout: float) -> bool:
    """Copy a datastore for which K3s must be down, and wait until its API is there again.

    script: stops K3s, copies, and starts it without blocking. timeout: seconds for the start.
    """
    cache.forget(host)
    ok, lines = shell(host, f"date +%s; {{ {script}; }} 2>&1")
    if not ok:
        said = lines[1:] or ["no message"]
        say_error(host, f"the datastore of {node} is not kept: {said[-1]}")
        return False
    watch = _Watch(host, "k3s", since=lines[0], entered="")
    ready = gates.api_ready(api_of(state), node)
    waits = [(f"k3s on {node}", watch.probe), (f"the API of {node}", ready)]
    return _all(host, waits, timeout)


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
    swap = text.link(link, k3s_config.LINK).get_raw_value()
    if shell(host, swap)[0] and restart(host, unit, timeout):
        say_error(host, f"the node runs {previous} again; nothing else was touched")
    else:
        say_error(host, f"{previous} does not come up either; see journalctl -u {unit}")
    return False


def before(
    state: State,
    host: Host,
    node: str,
    drain: bool,
    timeout: float,
    why: str = "its K3s is being changed",
) -> bool:
    """What must hold before a member is taken down; drains it when asked to.

    Refuses when another server of the cluster does not vote, since etcd would lose its quorum, and
    when another node is down. timeout: seconds for the drain; why: what its cordon is kept for.
    """
    for title, gate in _around(state, node, drain):
        if not until(gate, what=title, timeout=BEFORE_TIMEOUT, host=host):
            return False
    if not drain:
        return True
    return node_actions.drain(state, host, node, timeout) and node_actions.keep_cordon(
        state, host, node, why
    )


def _around(state: State, node: str, drain: bool) -> Iterator[tuple[str, gates.Gate]]:
    api, others = api_of(state), other_voters(state, node)
    if others:
        yield "the other servers' votes", gates.others_vote(api, node, others)
    if drain and _network_is_there(api, node):
        yield "the other nodes", gates.others_ready(api, node)
    if others or not cluster().host(node).is_server:
        yield "the volumes", gates.volumes_healthy(api)


def other_voters(state: State, node: str) -> list[str]:
    """The servers whose votes etcd needs while this node is down; none for an agent."""
    model = cluster()
    if model.datastore != "etcd" or not model.host(node).is_server:
        return []
    return k3s_plan.other_voters(model, survey(model, state.inventory), node)


def entered(state: State, host: Host, node: str) -> bool:
    """Wait until a new node counts: a server votes in etcd, an agent is registered."""
    api, model = api_of(state), cluster()
    waits: list[tuple[str, gates.Gate]] = []
    if model.host(node).is_server:
        waits.append((f"the API of {node}", gates.api_ready(api, node)))
    waits.append((f"the registration of {node}", gates.nodes_registered(api, [node])))
    if model.host(node).is_server and model.datastore == "etcd":
        waits.append((f"the vote of {node}", gates.etcd_voters(api, [node])))
    return _all(host, waits, model.k3s.start_timeout)


def after(state: State, host: Host, node: str, version: str) -> bool:
    """What must hold before the next member is touched; then our cordon of this one is undone."""
    api, model = api_of(state), cluster()
    waits: list[tuple[str, gates.Gate]] = []
    if model.host(node).is_server:
        waits.append((f"the API of {node}", gates.api_ready(api, node)))
        if model.datastore == "etcd":
            waits.append((f"the vote of {node}", gates.etcd_voters(api, [node])))
    if model.stack.cni == "flannel" or _network_is_there(api, node):
        waits.append((f"{node} with {version}", gates.node_ready(api, node, version)))
    # Longhorn rebuilds the node's replicas only when it takes pods again.
    volumes = [("the volumes", gates.volumes_healthy(api))]
    return (
        _all(host, waits, model.k3s.start_timeout)
        and node_actions.uncordon(state, host, node)
        and _all(host, volumes, model.k3s.drain_timeout)
    )


def _all(host: Host, waits: Iterable[tuple[str, gates.Gate]], timeout: float) -> bool:
    return all(until(gate, what=title, timeout=timeout, host=host) for title, gate in waits)


def _network_is_there(api: Api, node: str) -> bool:
    """Whether other nodes are Ready, so that this one can be: a CNI may come only later."""
    match read_nodes(api):
        case Present(value=nodes):
            return any(other.ready for name, other in nodes.items() if name != node)
        case _:
            return False


def settled(model: Cluster, nodes: Mapping[str, Node], ready: bool) -> bool:
    """Whether every member is registered (and Ready when asked), and every server votes."""
    voting = model.datastore == "etcd"
    for member in model.members:
        node = nodes.get(member.name)
        if node is None or (ready and not node.ready):
            return False
        if voting and member.is_server and not node.etcd_voter:
            return False
    return True


def wait_for_members(state: State, host: Host, names: Sequence[str], ready: bool) -> bool:
    """Wait for what `settled` asks, and say what is missing."""
    api, model = api_of(state), cluster()
    waits = [("the registration of all members", gates.nodes_registered(api, names))]
    if model.datastore == "etcd":
        servers = [server.name for server in model.servers]
        waits.append(("the votes of all servers", gates.etcd_voters(api, servers)))
    if ready:
        waits += [(f"{name} to be Ready", gates.node_ready(api, name)) for name in names]
    return _all(host, waits, model.k3s.start_timeout)
