"""Who carries the virtual address of the API (`network.api.carrier`), and that it answers there.

pyinfra inventories/home.py deploys/services/api_address.py
"""

from pyinfra import host, inventory, logger
from pyinfra.api.deploy import deploy

from cluster.services import api_address as service
from deploys.preflight import entry, refuse_unfit_hosts
from facts.node import host_state
from operations import api_address as operations
from operations import config_files, flow, secret, system
from runtime import secrets
from runtime.inventory import hosts_of_run, node_name
from runtime.run import cluster, fail, started_directly


@deploy("Address of the API")
def balanced() -> None:
    """haproxy first: keepalived asks it before it takes the address."""
    model = cluster()
    # Before anything of theirs: a run that is cut is taken back by the mark, too.
    config_files.files(
        name="haproxy and keepalived are ours here", wanted={service.MARK: service.MARK_TEXT}
    )
    system.packages(
        name="Packages of the address", names=("ca-certificates", "curl", *service.PACKAGES)
    )
    config_files.service(
        name="haproxy before the servers",
        unit=service.HAPROXY_UNIT,
        wanted={service.HAPROXY: service.haproxy(model)},
        check=("haproxy", "-c", "-f"),
        verb="reload",
    )
    if service.needs_password(model):
        secret.file(
            name="Password among keepalived's peers",
            path=service.KEEPALIVED_SECRET,
            content=secrets.rendered(
                "the password of keepalived's peers",
                lambda values: service.authentication(values[service.PASSWORD]),
            ),
        )
    operations.keepalived(name="keepalived has the address by turns")


@deploy("Address of the API")
def not_balanced() -> None:
    """What an earlier choice left here goes."""
    if service.MARK in host_state(host, cluster()).files:
        for line in service.foreign_left(node_name(host), operations.foreign(host)):
            logger.warning(line)
    operations.no_haproxy(name="No haproxy of ours")


@deploy("Address of the API")
def carried_by_servers(wanted: bool) -> None:
    """kube-vip, or none any more."""
    if wanted:
        operations.kube_vip(name="kube-vip for K3s to apply")
        return
    now = host_state(host, cluster())
    if service.has_kube_vip(now) and not now.unit(operations.K3S).running:
        logger.warning(
            f"{node_name(host)}: K3s does not run: the next run that finds it running deletes "
            "what is left of kube-vip"
        )
    operations.no_kube_vip(name="No kube-vip")


def refuse_unfit_carriers() -> None:
    """Stop where nobody knows the interface for the address, or where a file is somebody else's."""
    model, lines = cluster(), list[str]()
    chosen = model.network.api.haproxy.interface
    for one in hosts_of_run(inventory):
        me = entry(one)
        if me not in service.haproxy_hosts(model):
            continue
        now = host_state(one, model)
        if not chosen and str(me.ip) not in now.interfaces:
            lines.append(
                f"{me.name}: no interface has {me.ip} (network.api.haproxy.interface names one)"
            )
        lines += service.foreign_refusals(me.name, operations.foreign(one))
    if lines:
        fail(lines)


def _something_is_left() -> bool:
    """Whether a host of the run still has a carrier that is not wanted."""
    model = cluster()
    return any(
        (me := entry(one)) is not None and service.left(model, me, host_state(one, model))
        for one in hosts_of_run(inventory)
    )


def api_address() -> None:
    """The carriers of the address, called for every host of the run; before K3s."""
    model, me = cluster(), entry(host)
    if me is None:
        return
    refuse_unfit_hosts()
    if model.network.api.vip is None and not _something_is_left():
        return
    refuse_unfit_carriers()
    if me in service.haproxy_hosts(model):
        balanced()
    else:
        not_balanced()
    if me.is_server:
        carried_by_servers(model.network.api.carrier == "kube-vip")
    flow.barrier(name="The address of the API has its carriers")


def api_answers(*, runs: bool) -> None:
    """Every node reaches the API at its address, called for every host of the run; after K3s.

    runs: K3s must be there by then; False: nothing is asked while no server runs it.
    """
    model, me = cluster(), entry(host)
    if me and me.in_cluster and model.network.api.vip and model.network.api.carrier != "none":
        operations.answers(name="The API answers at its address", runs=runs)


if started_directly(__name__):
    api_address()
    api_answers(runs=False)
