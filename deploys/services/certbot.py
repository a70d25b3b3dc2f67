"""Certificates of hosts outside the cluster, by certbot (`services.certbot`).

pyinfra inventories/home.py deploys/services/certbot.py
"""

from pyinfra import host, inventory
from pyinfra.api.deploy import deploy

from cluster.services import certbot as rules
from deploys.preflight import entry, refuse_unfit_hosts
from operations import certbot as operations
from operations import secret, system
from runtime import secrets
from runtime.inventory import hosts_of_run
from runtime.run import cluster, fail, started_directly


@deploy("Certificates")
def certificates() -> None:
    """Installed, told, issued, handed on; the timer last, when there is something to renew."""
    model = cluster()
    system.packages(name="Packages of certbot", names=rules.PACKAGES)
    operations.program(name="certbot")
    if rules.plugin(model):
        secret.file(
            name="Account at the DNS provider",
            path=rules.CREDENTIALS,
            content=secrets.rendered(
                "the account at the DNS provider",
                lambda values: rules.credentials_text(model, values),
            ),
        )
    operations.settings(name="Settings of certbot")
    operations.issue(name="Issue what is missing")
    operations.deploy(name="Hand on to services")
    operations.timer(name="Renewal")


def refuse_damaged() -> None:
    """Stop when a certificate cannot be read: certbot would make a second one beside it."""
    model = cluster()
    names = {one.name for one in rules.hosts(model)}
    found = [
        f"{node.name}: {line}"
        for one in hosts_of_run(inventory)
        if (node := entry(one)) and node.name in names
        for name, certificate in operations.state_of(one).certificates.items()
        if (line := rules.damage(name, certificate))
    ]
    if found:
        fail(found)


def certbot() -> None:
    """The certificates of one host, called for every host of the run."""
    if (me := entry(host)) is None or me not in rules.hosts(cluster()):
        return
    refuse_unfit_hosts()
    refuse_damaged()
    for line in operations.doubts(host):
        host.log_styled(line, fg="yellow")
    certificates()


if started_directly(__name__):
    certbot()
