"""Router, firewall, names, leases and time of the LAN (`services.gateway`).

pyinfra inventories/home.py deploys/services/gateway.py
"""

from pyinfra import host, inventory
from pyinfra.api.deploy import deploy

from cluster import base
from cluster.model import Host
from cluster.services import chrony_server, dnsmasq
from cluster.services import gateway as service
from deploys.preflight import entry, refuse_unfit_hosts
from facts.node import host_state
from operations import config_files, dns, firewall, flow, system
from runtime.inventory import hosts_of_run
from runtime.run import cluster, fail, started_directly


@deploy("Gateway")
def server(me: Host) -> None:
    """Everything is checked by its own checker before it is used; routing comes last."""
    model = cluster()
    wanted = service.section(model)
    if packages := service.packages(model):
        system.packages(name="Packages of the gateway", names=packages)
    if wanted.dns or wanted.dhcp:
        names(me)
    if wanted.time:
        config_files.service(
            name="Time for the LAN",
            unit="chrony.service",
            wanted={base.CHRONY: chrony_server.text(model)},
            check=("chronyd", "-p", "-f"),
        )
    if wanted.firewall:
        firewall.rules(name="Firewall")
    if wanted.wan_interface:
        firewall.forwarding(name="Packets are forwarded")


def names(me: Host) -> None:
    """dnsmasq: its file first, then its service, which would take what resolved has."""
    model = cluster()
    interface = service.lan_interface(model, me, host_state(host, model))
    assert interface, "refused before"
    files = {service.DNSMASQ: dnsmasq.text(model, interface)}
    check = ("dnsmasq", "--test", "-C")
    config_files.service(
        name="Names and leases", unit=service.DNSMASQ_UNIT, wanted=files, check=check
    )
    system.packages(name="dnsmasq as a service", names=("dnsmasq",))
    config_files.service(
        name="Names and leases are served", unit=service.DNSMASQ_UNIT, wanted=files, check=check
    )


@deploy("Gateway seen by others")
def seen(me: Host) -> None:
    """Names, asked for by a host that is not the gateway where the run has one."""
    model = cluster()
    wanted = {name: str(address) for name, address in dnsmasq.expected(model).items()}
    for gateway_host in service.hosts(model):
        if _asker(gateway_host) == me:
            dns.answers(
                name=f"Names that {gateway_host.name} answers",
                server=str(gateway_host.ip),
                wanted=wanted,
            )


def _asker(gateway_host: Host) -> Host | None:
    """Who asks a gateway: the first other host of the LAN in this run, else the gateway itself."""
    model = cluster()
    known = (_known(one.name) for one in hosts_of_run(inventory))
    hosts = [found for found in known if found and found.ip in model.network.lan]
    if gateway_host not in hosts:
        return None
    others = [one for one in hosts if one not in service.hosts(model)]
    return (others or [gateway_host])[0]


def _known(name: str) -> Host | None:
    try:
        return cluster().host(name)
    except KeyError:
        return None


def refuse_strange_interfaces(me: Host) -> None:
    """Stop where the interfaces that the rules name are not the host's."""
    if problems := service.strange_interfaces(cluster(), me, host_state(host, cluster())):
        fail(problems)


def gateway() -> None:
    """The gateway of the LAN, called for every host of the run."""
    if (me := entry(host)) is None or cluster().services.gateway is None:
        return
    refuse_unfit_hosts()
    if me in service.hosts(cluster()):
        refuse_strange_interfaces(me)
        server(me)
    flow.barrier(name="The gateway is set up")
    if service.section(cluster()).dns:
        seen(me)


if started_directly(__name__):
    gateway()
