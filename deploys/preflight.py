"""Refuses what cannot work, before anything is changed; changes nothing itself.

pyinfra inventories/home.py deploys/preflight.py
"""

from pyinfra import host, inventory
from pyinfra.api import Host as PyinfraHost

from cluster.model import Host
from cluster.preflight import Finding, findings
from facts.node import host_state
from runtime.inventory import node_name
from runtime.run import cluster, fail, started_directly


def entry(one: PyinfraHost) -> Host | None:
    """The model's entry for a host; None for the computer that pyinfra runs on."""
    try:
        return cluster().host(one.name)
    except KeyError:
        return None


def refuse_unfit_hosts() -> list[Finding]:
    """Stop when a host of this run is not fit, all reasons of all hosts at once.

    Returns what is only doubtful. Each host's state is read once; see cluster/preflight.py for
    what is checked.
    """
    model = cluster()
    active = [one for one in inventory if one in inventory.state.activated_hosts and entry(one)]
    found = findings(model, {node_name(one): host_state(one, model) for one in active})
    if fatal := [str(finding) for finding in found if finding.fatal]:
        fail(fatal)
    return found


def preflight() -> None:
    """Every check, called for every host of the run; doubts are said by the host they are about."""
    if entry(host) is None:
        return
    for finding in refuse_unfit_hosts():
        if finding.host == node_name(host):
            host.log_styled(finding.text, fg="yellow")


if started_directly(__name__):
    preflight()
