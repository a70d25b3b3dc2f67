"""The network of a first boot, as netplan wants it (version 2)."""

from __future__ import annotations

from typing import Any

from cluster.first_boot.settings import address_of
from cluster.model import Arch, Cluster, Host

# The only network card of a Raspberry Pi. Its name says enough, also after its board was replaced;
# PCs have names that nobody knows before, so theirs is found by its mac.
CARD = "eth0"


def config(model: Cluster, host: Host) -> dict[str, Any]:
    """The host's card: with its own address, or with the one that a DHCP server keeps for it."""
    board = host.arch is Arch.ARM64
    card: dict[str, Any] = {} if board else {"match": {"macaddress": host.mac}}
    if address_of(model, host) == "reserved":
        # networkd would ask under an identity of its own, which a reservation by mac does not know.
        card |= {"dhcp4": True, "dhcp-identifier": "mac"}
    else:
        card |= _static(model, host)
    return {"version": 2, "ethernets": {CARD if board else "lan": card}}


def _static(model: Cluster, host: Host) -> dict[str, Any]:
    network = model.network
    card: dict[str, Any] = {
        "dhcp4": False,
        "addresses": [f"{host.ip}/{network.lan.prefixlen}"],
    }
    if host.ip != network.gateway:  # whose own way out is another card
        card["routes"] = [{"to": "default", "via": str(network.gateway)}]
    servers = [str(address) for address in network.dns if address != host.ip]
    if servers:
        card["nameservers"] = {"addresses": servers, "search": [model.domain]}
    return card
