"""Metrics and logs of hosts outside the cluster (`services.telemetry`).

pyinfra inventories/home.py deploys/services/telemetry.py
"""

from pyinfra import host
from pyinfra.api.deploy import deploy

from cluster.services import telemetry as rules
from deploys.preflight import entry, refuse_unfit_hosts
from operations import flow, secret, system
from operations import telemetry as operations
from runtime import secrets
from runtime.run import cluster, started_directly


@deploy("Metrics of the host")
def metrics() -> None:
    """Node exporter, which the cluster's Prometheus reads."""
    system.packages(name="Node exporter", names=(rules.EXPORTER_PACKAGE,))
    operations.exporter(name="Node exporter for the LAN")


@deploy("Logs of the host")
def logs() -> None:
    """Fluent Bit: its repository, itself, the key it shows, then what it sends where."""
    model = cluster()
    system.packages(name="Tools to check a key", names=("ca-certificates", "curl", "gpg"))
    operations.repository(name="Repository of Fluent Bit")
    system.packages(name="Fluent Bit", names=(rules.PACKAGE,))
    secret.file(
        name="Key for the aggregator",
        path=rules.KEY_FILE,
        content=secrets.rendered(
            "the key for the aggregator", lambda values: rules.key_text(values["logs.shared_key"])
        ),
    )
    if rules.secured(model) and rules.section(model).ca is None:
        secret.file(name="CA", path=rules.CA, content=secrets.secret("ca.certificate"))
    operations.sender(name="Fluent Bit to the aggregator")


def telemetry() -> None:
    """Metrics and logs of one host, called for every host of the run."""
    if (me := entry(host)) is None or cluster().services.telemetry is None:
        return
    refuse_unfit_hosts()
    if me in rules.hosts(cluster()):
        if rules.section(cluster()).metrics:
            metrics()
        if rules.sends_logs(cluster()):
            logs()
    flow.barrier(name="Hosts outside the cluster are watched")


if started_directly(__name__):
    telemetry()
