"""The gateway of the LAN: its section of the model, which hosts it is, what is asked of them.

Its texts are made in `firewall.py`, `dnsmasq.py` and `chrony_server.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cluster import kinds
from cluster.frozen import Model
from cluster.managed import MANAGED, UNITS
from cluster.question import Question
from cluster.services.placement import placed

if TYPE_CHECKING:
    from cluster.host_state import HostState
    from cluster.model import Cluster, Host

FIREWALL = "/etc/picluster/firewall.nft"
FIREWALL_COMMAND = "/usr/local/sbin/picluster-firewall"
FIREWALL_UNIT = "picluster-firewall.service"
NFTABLES_DROP_IN = f"{UNITS}/nftables.service.d/picluster.conf"
FORWARDING = "/etc/sysctl.d/90-picluster-gateway.conf"
DNSMASQ = "/etc/dnsmasq.d/picluster.conf"
DNSMASQ_UNIT = "dnsmasq.service"

# What one side may open on the other.
Way = Literal["lan-to-gateway", "wan-to-gateway", "wan-to-lan", "lan-to-wan"]


class Opening(Model):
    """Connections that the firewall lets through beyond those that the services need."""

    way: Way
    ports: tuple[kinds.Ports, ...] = Field(min_length=1)
    protocol: Literal["tcp", "udp"] = "tcp"
    source: kinds.Cidr | None = None  # None: everybody on that side
    target: kinds.Address | None = None  # a host of the LAN; None: all of them


class Gateway(Model):
    """Router, firewall, name server, DHCP server and time server of the LAN."""

    hosts: tuple[kinds.HostName, ...] = ()  # empty: every host of the role gateway
    lan_interface: kinds.Interface | None = None  # None: the one that has the host's address
    wan_interface: kinds.Interface | None = None  # None: no router, nothing is forwarded
    firewall: bool = True
    dns: bool = True
    dhcp: bool = True
    time: bool = True
    ssh_port: kinds.Whole = Field(22, ge=1, le=65535)  # open to the LAN
    forward: Literal["all", "listed"] = "all"  # of what hosts of the LAN open to the outside
    openings: tuple[Opening, ...] = ()
    # Seconds after which new rules of the firewall go by themselves, unless a new connection
    # confirms them.
    confirm_seconds: kinds.Whole = Field(60, ge=5, le=600)
    upstream_dns: tuple[kinds.Address, ...] = Field(("1.1.1.1", "9.9.9.9"), validate_default=True)
    upstream_ntp: tuple[kinds.DnsNameOrAddress, ...] = ("pool.ntp.org",)
    records: dict[kinds.DnsName, kinds.Address] = Field(default_factory=dict)
    wildcard: bool = True  # other names of the domain are those of apps: the ingress' address
    lease_time: kinds.Duration = "12h"


def section(cluster: Cluster) -> Gateway:
    """The section of a cluster that has one."""
    found = cluster.services.gateway
    assert found is not None, "asked only where the service is wanted"
    return found


def hosts(cluster: Cluster) -> tuple[Host, ...]:
    """The hosts that are gateways; none without a section."""
    from cluster.model import Role

    wanted = cluster.services.gateway
    return placed(cluster, wanted.hosts, Role.GATEWAY) if wanted else ()


def serves_time(cluster: Cluster, me: Host) -> bool:
    """Whether the host's chrony belongs to the gateway's deploy."""
    return me in hosts(cluster) and section(cluster).time


def packages(cluster: Cluster) -> tuple[str, ...]:
    """What must be there before configuration can be checked; dnsmasq itself comes after it.

    Its package starts the service at once, which would take port 53 of every address and fight
    with systemd-resolved; `dnsmasq-base` has the program alone.
    """
    wanted = section(cluster)
    return (
        *(("nftables",) if wanted.firewall else ()),
        *(("dnsmasq-base",) if wanted.dns or wanted.dhcp else ()),
        *(("chrony",) if wanted.time else ()),
    )


def lan_interface(cluster: Cluster, me: Host, state: HostState) -> str | None:
    """The interface towards the LAN; None when no interface has the host's address."""
    return section(cluster).lan_interface or state.interfaces.get(str(me.ip))


def strange_interfaces(cluster: Cluster, me: Host, state: HostState) -> list[str]:
    """Why the interfaces that the rules name cannot be the host's, one line each."""
    lan, wan = lan_interface(cluster, me, state), section(cluster).wan_interface
    if lan is None:
        return [f"{me.name}: no interface has {me.ip} (services.gateway.lan_interface names one)"]
    if lan == wan:  # what is open to the LAN would be open to the outside
        return [f"{me.name}: services.gateway.wan_interface {wan} has {me.ip}, so it is the LAN's"]
    return []


def forwarding() -> str:
    """The kernel setting that makes a router, as a file for each boot (sysctl.d(5))."""
    return f"{MANAGED}net.ipv4.ip_forward = 1\n"


def asks(cluster: Cluster) -> Question:
    """What the combined fact is to read for the gateway."""
    if cluster.services.gateway is None:
        return Question()
    return Question(
        packages=("nftables", "dnsmasq-base", "dnsmasq", "chrony"),
        files=(
            *(FIREWALL, FIREWALL_COMMAND, f"{UNITS}/{FIREWALL_UNIT}", NFTABLES_DROP_IN),
            *(FORWARDING, DNSMASQ),
        ),
        units=(FIREWALL_UNIT, DNSMASQ_UNIT),
    )
