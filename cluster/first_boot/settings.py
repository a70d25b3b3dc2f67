"""What `make images` is told by the data: the section `first_boot`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cluster import kinds
from cluster.frozen import Model

if TYPE_CHECKING:
    from cluster.model import Cluster, Host

Release = Literal["22.04", "24.04", "26.04"]
# static: the host itself has its `ip`; reserved: a DHCP server gives it to the host's `mac`.
AddressKind = Literal["static", "reserved"]


class OfHost(Model):
    """What is different for one host; None: as for all."""

    release: Release | None = None
    address: AddressKind | None = None


class FirstBoot(Model):
    """What a fresh Ubuntu is told before anybody logs in."""

    release: Release = "24.04"
    address: AddressKind = "static"
    keys: tuple[kinds.PublicKey, ...] = ()  # of who runs pyinfra, one line each
    password: bool = False  # at screen and keyboard; its hash is a secret, never over SSH
    keyboard: str = Field("us", pattern=r"[a-z]{2,}")  # layout, asked for at PCs only
    root_size: kinds.Size = "50G"  # of the system, where the rest of its disk is for volumes
    storage_path: kinds.Folder = "/storage"  # where that rest is mounted
    hosts: dict[kinds.HostName, OfHost] = Field(default_factory=dict)


def release_of(model: Cluster, host: Host) -> Release:
    """The Ubuntu release of the host's image."""
    own = model.first_boot.hosts.get(host.name, OfHost())
    return own.release or model.first_boot.release


def address_of(model: Cluster, host: Host) -> AddressKind:
    """How the host gets its address."""
    own = model.first_boot.hosts.get(host.name, OfHost())
    return own.address or model.first_boot.address
