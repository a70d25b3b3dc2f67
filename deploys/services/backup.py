"""Backups of hosts with restic: the repository, and on each host its keys, settings and timers.

pyinfra inventories/home.py deploys/services/backup.py
"""

from pyinfra import host
from pyinfra.api.deploy import deploy

from cluster.services import backup as service
from deploys.preflight import entry, refuse_unfit_hosts
from operations import backup, flow, system
from runtime.run import cluster, started_directly


@deploy("Backups of hosts")
def backups(keeper: bool) -> None:
    """The repository first: a wrong password ends the run before any host has it."""
    system.packages(name="restic", names=service.PACKAGES)
    if keeper:
        backup.repository(name="The repository is there")
    flow.barrier(name="The repository was looked at")
    backup.on_host(name="Keys, settings and timers of backups")


def host_backups() -> None:
    """Called for every host of the run."""
    me, model = entry(host), cluster()
    if me is None or me not in service.hosts(model):
        return
    refuse_unfit_hosts()
    backups(keeper=me.name == service.keeper(model))


if started_directly(__name__):
    host_backups()
