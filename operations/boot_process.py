"""A reboot from the drain to the last gate.

Functions for FunctionCommands: called with the state and the host first, they answer False when
the operation has failed.
"""

from __future__ import annotations

import gevent
from paramiko import SSHException
from pyinfra.api import Host, State
from pyinfra.api.exceptions import ConnectError, PyinfraError

from cluster.answer import Present
from cluster.boot import reboots
from cluster.model import Cluster
from cluster.probe import Done, Pending, Probe
from facts.boot import Boot
from facts.kube import read_nodes
from operations import gates, k3s_process
from runtime import cache
from runtime.api import api_of
from runtime.run import cluster
from runtime.wait import until

WHY = "it is being rebooted"
INTERVAL = 3.0  # seconds between two attempts to reach a host that reboots
ONE_LOOK = 30.0  # seconds one attempt may take
# Apart from the connection, which ends with the system. piboot-try has a staged slot tried at once
# instead of after one more boot of the old one.
_REBOOT = r"""setsid sh -c '
  sleep 1
  if command -v piboot-try > /dev/null 2>&1 && piboot-try --test > /dev/null 2>&1
  then piboot-try --reboot; else systemctl reboot; fi
' < /dev/null > /dev/null 2>&1 &
cat /proc/sys/kernel/random/boot_id"""


def reboot(
    state: State, host: Host, node: str, why: str, version: str, drain: bool | None, tried: bool
) -> bool:
    """Reboot a host and wait until what asked for it is in force.

    Args:
        node: its name.
        why: what asked for it, for the log.
        version: K3s' release of a member of a cluster; empty: it is none, and simply reboots.
        drain: whether its K3s runs, so that its pods are to be moved away before; None: it was
            starting, and the API knows.
        tried: whether a new boot slot is staged, which this reboot tries.
    """
    model = cluster()
    if version and not _before(state, host, node, drain):
        return False
    host.log(f"{node} reboots: {why}")
    ok, lines = k3s_process.shell(host, _REBOOT)
    if not ok or not lines:
        k3s_process.say_error(host, f"{node} does not reboot: the command failed")
        return False
    back = Return(model, host, node, lines[-1].strip(), tried=tried)
    if not until(
        back.probe,
        what=f"{node} after its reboot",
        timeout=model.nodes.boot.reboot_timeout,
        interval=INTERVAL,
        host=host,
    ):
        return False
    host.log(f"{node}: {back.said}")
    return not version or k3s_process.after(state, host, node, version)


def _before(state: State, host: Host, node: str, drain: bool | None) -> bool:
    """What must hold before a member goes down; one whose K3s is down already has less to lose."""
    if drain or (drain is None and _ready(state, node)):
        return k3s_process.before(state, host, node, True, cluster().k3s.drain_timeout, why=WHY)
    others = k3s_process.other_voters(state, node)
    return not others or until(
        gates.others_vote(api_of(state), node, others),
        what="the other servers' votes",
        timeout=k3s_process.BEFORE_TIMEOUT,
        host=host,
    )


def _ready(state: State, node: str) -> bool:
    match read_nodes(api_of(state)):
        case Present(value=nodes):
            return node in nodes and nodes[node].ready
        case _:
            return False


class Return:
    """Looks whether a host is back from its reboot, over a connection of its own each time."""

    def __init__(
        self, model: Cluster, host: Host, node: str, boot_id: str, *, tried: bool = False
    ) -> None:
        self._host, self._boot_id, self._tried = host, boot_id, tried
        self.said = ""  # of a host that is back
        self._me = model.host(node)

    def probe(self) -> Probe:
        """One attempt; an answer of the boot before is none."""
        answer: Probe = Pending("it does not answer")
        with gevent.Timeout(ONE_LOOK, False):
            answer = self._look()
        if isinstance(answer, Pending):
            self._disconnect()  # what is known of it belongs to a boot that ends
        return answer

    def _look(self) -> Probe:
        host = self._host
        cache.forget(host)
        try:
            if not host.connected:
                host.connect(show_errors=False)
            if not host.connected:
                return Pending("it does not answer")
            found = host.get_fact(Boot, _ignore_errors=True)
        except (ConnectError, PyinfraError, SSHException, OSError, EOFError) as error:
            return Pending(f"it does not answer: {error}")
        if found is None:
            return Pending("it is not up yet")
        if found.boot_id == self._boot_id:
            return Pending("it is going down")
        answer = reboots.after(self._me, found, tried=self._tried)
        if isinstance(answer, Done):
            self.said = answer.text
        return answer

    def _disconnect(self) -> None:
        with gevent.Timeout(ONE_LOOK, False):
            try:
                self._host.disconnect()
            except (SSHException, OSError, EOFError):
                self._host.connected = False
