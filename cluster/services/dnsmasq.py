"""Names and addresses of the LAN for dnsmasq: leases and records follow from the model."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from cluster import kinds
from cluster.managed import MANAGED
from cluster.services import s3
from cluster.services.gateway import section

if TYPE_CHECKING:
    from cluster.model import Cluster

PROBE = "picluster-any-app"  # a name that only the wildcard can answer
_LEASES = "/var/lib/misc/dnsmasq.leases"


def apps(cluster: Cluster) -> IPv4Address | None:
    """Where names of apps lead; None when the load balancer chooses the address unseen."""
    stack = cluster.stack
    if stack.load_balancer == "servicelb" and stack.ingress != "none":
        return cluster.members[0].ip  # it opens the ports of the ingress on every node
    return cluster.ingress_address


def records(cluster: Cluster) -> dict[str, IPv4Address]:
    """Names with an address of their own: hosts, the API, those of the user, which win."""
    return {
        **{cluster.fqdn(host): host.ip for host in cluster.hosts},
        **dict.fromkeys(cluster.network.api.names, cluster.api_address),
        **s3.address(cluster),
        **section(cluster).records,
    }


def expected(cluster: Cluster) -> dict[str, IPv4Address]:
    """What the name server must answer: each record, and a name that nobody has for the apps."""
    known = records(cluster)
    if (address := apps(cluster)) and section(cluster).wildcard:
        known[f"{PROBE}.{cluster.domain}"] = address
    return known


def text(cluster: Cluster, lan: str) -> str:
    """dnsmasq's configuration (dnsmasq(8)).

    It listens on addresses of the interface only, so that systemd-resolved keeps its own port 53.

    + lan: interface towards the LAN
    """
    wanted = section(cluster)
    lines = [f"interface={lan}", "except-interface=lo", "bind-dynamic"]
    lines += _names(cluster) if wanted.dns else ["port=0"]
    lines += _leases(cluster) if wanted.dhcp else [f"no-dhcp-interface={lan}"]
    return MANAGED + "".join(f"{line}\n" for line in lines)


def _names(cluster: Cluster) -> Iterator[str]:
    wanted, domain = section(cluster), cluster.domain
    yield from ("no-resolv", "no-hosts", "domain-needed", "bogus-priv", f"local=/{domain}/")
    yield from (f"server={address}" for address in wanted.upstream_dns)
    for name, address in records(cluster).items():
        short = name.removesuffix(f".{domain}")
        names = f"{name},{short}" if short != name and "." not in short else name
        yield f"host-record={names},{address}"
    if (app := apps(cluster)) and wanted.wildcard:
        yield f"address=/{domain}/{app}"


def _leases(cluster: Cluster) -> Iterator[str]:
    network, wanted = cluster.network, section(cluster)
    yield from ("dhcp-authoritative", f"dhcp-leasefile={_LEASES}", f"domain={cluster.domain}")
    # A guest that calls itself like an app must not get the app's name.
    yield "dhcp-ignore-names=tag:!known"
    if found := network.dhcp_range:
        handed_out = f"{found.first},{found.last}"
    else:  # only the hosts of the inventory
        handed_out = f"{network.lan.network_address},static"
    yield f"dhcp-range={handed_out},{network.lan.netmask},{wanted.lease_time}"
    yield f"dhcp-option=option:router,{network.gateway}"
    yield f"dhcp-option=option:dns-server,{','.join(map(str, network.dns))}"
    if servers := [name for name in network.time_servers if kinds.is_address(name)]:
        yield f"dhcp-option=option:ntp-server,{','.join(servers)}"
    for host in cluster.hosts:
        if host.mac and host.ip in network.lan:
            yield f"dhcp-host={host.mac},{host.ip},{host.name}"
