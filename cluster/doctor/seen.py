"""What the doctor's own facts read of a host, beyond its state and its boot layer.

What could not be read is None or missing, so that a check can say "unknown".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Interface
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """Size and free part, in KiB or in inodes."""

    size: int
    free: int


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface; None: the kernel does not say."""

    mac: str
    mtu: int
    carrier: bool | None = None
    speed: int | None = None  # Mb/s
    duplex: str | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 address of an interface; dynamic: a DHCP server gave it."""

    interface: str
    network: IPv4Interface
    dynamic: bool = False


@dataclass(frozen=True)
class Seen:
    """A host as the doctor's script sees it."""

    container: str = ""  # as systemd-detect-virt says, `none` on a machine; empty: not known
    values: Mapping[str, str] = field(default_factory=dict)  # first line of small files, by path
    interfaces: tuple[str, ...] = ()  # all names; empty: not known
    links: Mapping[str, Link] = field(default_factory=dict)  # cards, and the way out
    addresses: tuple[Address, ...] = ()
    space: Mapping[str, Usage] = field(default_factory=dict)  # KiB, by path
    inodes: Mapping[str, Usage] = field(default_factory=dict)
    resolvers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by file
    modules: Mapping[str, str] | None = None  # loaded, builtin or available, of those asked for
    clock: Mapping[str, str] = field(default_factory=dict)  # of `timedatectl show`
    host_keys: tuple[str, ...] | None = None  # public ones of sshd
    failed_units: tuple[str, ...] | None = None
    automatic_reboot: str | None = None  # of unattended-upgrades
    cloud_init: str = ""  # absent, or a state of cluster/doctor/cloud.py; empty: not known
    cloud_errors: str = ""
    cloud_off: bool = False  # whether the next boot leaves it out
    multipath: tuple[str, ...] = ()  # lines of its configuration that name devices
    there: frozenset[str] = frozenset()  # paths of other clusters that exist
    running: frozenset[str] = frozenset()  # their services, and container runtimes, that run
    iptables: str = ""  # its version
    firewall: str = ""  # ENABLED of ufw
    k3s: str = ""  # version of the release that is linked
    late: tuple[str, ...] = ()  # what did not end in time

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra --json`."""
        return _plain(asdict(self))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Probes:
    """What the network answered to a host within the limit; what is missing did not answer."""

    neighbours: Mapping[str, str] = field(default_factory=dict)  # MAC by address, empty: nobody
    connects: Mapping[tuple[str, int], float] = field(default_factory=dict)  # seconds
    refused: frozenset[tuple[str, int]] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)  # address by name, empty: not found
    dns: frozenset[str] = frozenset()  # name servers that answer
    path_mtu: bool | None = None  # whether a whole packet reached the gateway; None: no ping did
    smart: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # smartctl's JSON, by disk
    asked: tuple[str, ...] = ()  # disks that smartctl was asked about
    tools: frozenset[str] = frozenset()  # those of bash, ip, ping, smartctl that are there

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra --json`."""
        return _plain(asdict(self))  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    """The value in types that JSON has."""
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else ":".join(map(str, key)): _plain(one)
            for key, one in value.items()
        }
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(one) for one in value)
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, IPv4Interface) else value
