"""What Longhorn and other network storage need of a node."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import Host, StringCommand, operation
from pyinfra.api.command import QuoteString

from cluster import base
from facts.node import host_state
from runtime.inventory import hosts_of_run
from runtime.run import cluster

UNIT = "iscsid.service"

_NEW_NAME = f"""set -e
[ -z "$(ls /sys/class/iscsi_session 2>/dev/null)" ] ||
  {{ echo "has another host's iSCSI name, and open sessions: log them out first" >&2; exit 1; }}
umask 077; echo "InitiatorName=$(iscsi-iname)" > {base.INITIATOR}.new
mv -f {base.INITIATOR}.new {base.INITIATOR}
systemctl try-restart {UNIT}
"""


@operation()
def iscsi() -> Generator[StringCommand, None, None]:
    """iscsid runs, and no two hosts have the same initiator name, as cloned disks do.

    The first host of the inventory with a name keeps it. A name in use is not changed.
    """
    now, changed = host_state(host, cluster()), False
    if now.initiator and now.initiator in _names_before(host):
        changed = True
        yield StringCommand("sh", "-c", QuoteString(_NEW_NAME))
    if now.unit(UNIT).enabled != "enabled" or not now.unit(UNIT).running:
        changed = True
        yield StringCommand("systemctl", "enable", "--now", UNIT)
    if not changed:
        host.noop("iscsid runs under a name of its own")


def _names_before(me: Host) -> set[str]:
    """Initiator names of the hosts of this run that come before in the inventory."""
    model, names = cluster(), set[str]()
    for one in hosts_of_run(me.inventory):
        if one.name == me.name:
            break
        if model.member(one.name):
            names.add(host_state(one, model).initiator)
    return names
