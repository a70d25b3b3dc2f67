"""Refuses what cannot work, before anything is changed; changes nothing itself.

pyinfra inventories/home.py deploys/preflight.py
"""

from pyinfra import host
from pyinfra.api.deploy import deploy

from operations.preflight import me, refuse_unfit_hosts
from runtime.inventory import node_name
from runtime.run import started_directly


@deploy("Preflight")
def preflight() -> None:
    """Every check of cluster/preflight.py; what is only doubtful is said by its host."""
    if me() is None:
        return
    for finding in refuse_unfit_hosts():
        if finding.host == node_name(host):
            host.log_styled(finding.text, fg="yellow")


if started_directly(__name__):
    preflight()
