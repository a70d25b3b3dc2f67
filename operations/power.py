"""What happens when a node is shut down or rebooted by somebody."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from cluster import base
from cluster.text import drop_ins
from facts.node import host_state
from operations import config_files, text
from runtime.run import cluster

UNIT = "systemd-logind.service"


@operation()
def logind() -> Generator[StringCommand, None, None]:
    """logind waits for the kubelet's graceful shutdown.

    unattended-upgrades brings a file that would set 30 seconds and sorts behind the kubelet's; it
    is masked (kubernetes/kubernetes#102818). logind reads its files again on SIGHUP.
    """
    now = host_state(host, cluster())
    period = cluster().k3s.kubelet.shutdown_grace_period
    changed = yield from config_files.write(now, {base.LOGIND: drop_ins.logind(period)})
    if now.links.get(base.LOGIND_OF_UPGRADES) != "/dev/null":
        changed = True
        yield text.link("/dev/null", base.LOGIND_OF_UPGRADES)
    # The kubelet's own file may name an earlier period; it writes a new one when it starts.
    short = (
        now.inhibit_delay is not None
        and now.inhibit_delay < period
        and base.LOGIND_OF_KUBELET not in now.files
    )
    if (changed or short) and now.unit(UNIT).running:
        yield StringCommand("systemctl", "kill", "--signal=HUP", UNIT)
    elif not changed:
        host.noop("logind waits for the kubelet")
