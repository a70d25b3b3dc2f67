"""The files of a first boot, by name, and what the data lack for them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from cluster.first_boot import autoinstall, cloud_config, disks, network
from cluster.first_boot.cloud_config import Login, mebibytes
from cluster.first_boot.settings import address_of, release_of
from cluster.model import Arch, Cluster, Host
from cluster.problem import Problem
from cluster.services import gateway

LEAST_ROOT = "8G"  # Ubuntu with K3s and some images
HEADER = "#cloud-config\n"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, so that a person can read the scripts."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def files(model: Cluster, host: Host, login: Login, *, erase: bool = False) -> dict[str, str]:
    """What goes beside the image (a Raspberry Pi) or on a volume named CIDATA (a PC).

    Args:
        login: who pyinfra logs in as.
        erase: a PC's disk may be overwritten with what it holds.
    """
    # The same at each rendering: a new id would let cloud-init do everything once more.
    meta = {"instance-id": f"{model.name}-{host.name}", "local-hostname": host.name}
    if host.arch is Arch.AMD64:
        data = autoinstall.config(model, host, login, erase=erase)
        return {"user-data": HEADER + _yaml(data), "meta-data": _yaml(meta)}
    return {
        "user-data": HEADER + _yaml(cloud_config.of_image(model, host, login)),
        "network-config": _yaml(network.config(model, host)),
        "meta-data": _yaml(meta),
    }


def _yaml(data: Any) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def problems(model: Cluster, host: Host, login: Login | None, inventory: str) -> Iterator[Problem]:
    """Why there can be no first boot for the host.

    Args:
        login: who pyinfra logs in as, None where `ssh_user` is not set.
        inventory: name of the inventory, whose files the lines name.
    """
    at_host = f"inventories/{inventory}.py: {host.name}: "
    at_data = f"group_data/{inventory}.py: "
    if login is None:
        yield Problem(f"{at_host}ssh_user", "missing", "the user that pyinfra logs in as")
    elif login.name == "root":
        yield Problem(f"{at_host}ssh_user", "root may not log in over SSH", "another user")
    elif not login.keys:
        where = f"{at_data}first_boot.keys"
        yield Problem(where, "missing", "your public SSH key, such as 'ssh-ed25519 AAAA...'")
    if host.model == "pi5" and (release := release_of(model, host)) == "22.04":
        found = f"{release} does not start on {host.name}, a Raspberry Pi 5"
        yield Problem(f"{at_data}first_boot.release", found, "24.04 or later")
    yield from _of_network(model, host, at_host)
    yield from _of_router(model, host, at_data)
    yield from _of_disks(model, host, at_host, at_data)


def _of_network(model: Cluster, host: Host, at_host: str) -> Iterator[Problem]:
    address = address_of(model, host)
    if not host.mac and address == "reserved":
        found = "missing, but its address is reserved"
        yield Problem(f"{at_host}mac", found, "the network card that the DHCP server knows")
    elif not host.mac and host.arch is Arch.AMD64:
        found = "missing: a PC's network card has no name that is known before"
        yield Problem(f"{at_host}mac", found, "the address of its network card")
    if address == "static" and host.ip not in model.network.lan:
        found = f"{host.ip} lies outside network.lan {model.network.lan}"
        allowed = f"first_boot.hosts.{host.name}.address reserved"
        yield Problem(f"{at_host}ip", found, allowed)


def _of_router(model: Cluster, host: Host, at_data: str) -> Iterator[Problem]:
    router, card = model.services.gateway, network.card_of(model, host)
    if router is None or host not in gateway.hosts(model):
        return
    if card and card == router.wan_interface:
        found = f"missing, but services.gateway.wan_interface is {card}"
        yield Problem(f"{at_data}services.gateway.lan_interface", found, "the card of the LAN")
    if router.dhcp and address_of(model, host) == "reserved":
        where = f"{at_data}first_boot.hosts.{host.name}.address"
        yield Problem(where, "reserved, but it is the DHCP server itself", "static")


def _of_disks(model: Cluster, host: Host, at_host: str, at_data: str) -> Iterator[Problem]:
    try:
        place = disks.place_of(host)
        if host.arch is Arch.AMD64:
            disks.installer_match(host.boot_disk)
    except disks.Unclear as unclear:
        yield Problem(f"{at_host}{unclear.key}", unclear.found, unclear.allowed)
        return
    if place and mebibytes(model.first_boot.root_size) < mebibytes(LEAST_ROOT):
        where = f"{at_data}first_boot.root_size"
        yield Problem(where, model.first_boot.root_size, f"at least {LEAST_ROOT}")


def login_of(model: Cluster, user: str | None, password_hash: str | None = None) -> Login | None:
    """The user with the keys of `first_boot.keys`, else those of `nodes.users`."""
    if not user:
        return None
    listed = next((one.keys for one in model.nodes.users if one.name == user), ())
    return Login(user, model.first_boot.keys or listed, password_hash)
