"""The network of a first boot, as netplan wants it (version 2)."""

from __future__ import annotations

from typing import Any

from cluster.first_boot.settings import address_of
from cluster.model import Arch, Cluster, Host
from cluster.services import gateway

# A Raspberry Pi's own network card. Its name says enough, also after its board was replaced; PCs
# have names that nobody knows before, so theirs is found by its mac.
CARD = "eth0"


def config(model: Cluster, host: Host) -> dict[str, Any]:
    """The host's card: with its own address, or with the one that a DHCP server keeps for it."""
    name = card_of(model, host)
    card: dict[str, Any] = {} if name else {"match": {"macaddress": host.mac}}
    if address_of(model, host) == "reserved":
        # networkd would ask under an identity of its own, which a reservation by mac does not know.
        card |= {"dhcp4": True, "dhcp-identifier": "mac"}
    else:
        card |= _static(model, host)
    return {"version": 2, "ethernets": {name or "lan": card, **_uplink(model, host)}}


def card_of(model: Cluster, host: Host) -> str | None:
    """The name of the card towards the LAN; None: a PC's, which is found by its mac."""
    router = model.services.gateway
    if router and router.lan_interface and host in gateway.hosts(model):
        return router.lan_interface
    return CARD if host.arch is Arch.ARM64 else None


def _uplink(model: Cluster, host: Host) -> dict[str, Any]:
    """The router's way out; one by Wi-Fi has a password, which a seed must not hold."""
    router = model.services.gateway
    if host.ip != model.network.gateway or not router or not router.wan_interface:
        return {}
    if router.wan_interface.startswith("wl"):
        return {}
    return {router.wan_interface: {"dhcp4": True, "optional": True}}


def _static(model: Cluster, host: Host) -> dict[str, Any]:
    network = model.network
    card: dict[str, Any] = {
        "dhcp4": False,
        "addresses": [f"{host.ip}/{network.lan.prefixlen}"],
    }
    if host.ip != network.gateway:  # the router's way out is another card
        card["routes"] = [{"to": "default", "via": str(network.gateway)}]
    servers = [str(address) for address in network.dns if address != host.ip]
    if servers:
        card["nameservers"] = {"addresses": servers, "search": [model.domain]}
    return card
