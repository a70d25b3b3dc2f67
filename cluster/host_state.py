"""What a host is at one moment, as immutable data; read by `facts.node.NodeState`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from cluster.boot import kernel

# A service that started this much before its configuration was written has not read it; file
# times are whole seconds and the time of boot is known to a second.
STALE_AFTER = 2.0


@dataclass(frozen=True, slots=True)
class File:
    """A file: mode in octal as text, `user:group`, time of change in Unix seconds, sha256."""

    mode: str
    owner: str = "root:root"
    changed: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Unit:
    """A systemd unit, in systemd's own words; `since` is in seconds after boot."""

    load: str = "not-found"
    active: str = "inactive"
    enabled: str = ""
    since: float = 0.0

    @property
    def exists(self) -> bool:
        """Whether systemd has a file for it; a masked one counts."""
        return self.load in ("loaded", "masked", "bad-setting", "error")

    @property
    def running(self) -> bool:
        """Whether it is up, or being reloaded."""
        return self.active in ("active", "reloading")


@dataclass(frozen=True, slots=True)
class Package:
    """A Debian package; `status` as dpkg abbreviates it, such as `ii` or `hi`."""

    version: str
    status: str

    @property
    def installed(self) -> bool:
        """Whether it is unpacked and configured."""
        return self.status[1:2] == "i"

    @property
    def held(self) -> bool:
        """Whether apt leaves it at its version."""
        return self.status[:1] == "h"


@dataclass(frozen=True, slots=True)
class Account:
    """A login of a person, or root; `authorized_keys` is the text of the file."""

    name: str
    uid: int
    home: str
    shell: str
    groups: tuple[str, ...] = ()
    authorized_keys: str = ""


@dataclass(frozen=True, slots=True)
class Snap:
    """An installed snap; `notes` as `snap list` says: `base`, `snapd`, `-`."""

    name: str
    notes: str = "-"


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket; `process` is empty when the kernel itself listens."""

    protocol: str  # tcp, udp
    port: int
    process: str = ""


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system, in KiB."""

    size: int
    free: int


@dataclass(frozen=True, slots=True)
class Clock:
    """The host's clock between two readings of this computer's, in Unix seconds."""

    at: float
    before: float = 0.0
    after: float = 0.0

    @property
    def ahead(self) -> float:
        """Seconds by which the host's clock is ahead of this computer's, as far as known."""
        return self.at - (self.before + self.after) / 2

    @property
    def error(self) -> float:
        """Seconds by which `ahead` may be wrong."""
        return (self.after - self.before) / 2


@dataclass(frozen=True)
class HostState:
    """A host as it is; what a host does not have is empty."""

    clock: Clock = Clock(0.0)
    uptime: float = 0.0  # seconds
    os: str = ""  # ID of os-release
    release: str = ""  # VERSION_ID of os-release
    os_name: str = ""
    arch: str = ""  # as dpkg names it
    kernel: str = ""
    board: str = ""
    hostname: str = ""  # of the running system
    hostname_file: str = ""
    timezone: str = ""
    locale: str = ""  # LANG of new sessions
    locales: tuple[str, ...] = ()  # as `locale -a` names them
    machine_id: str = ""
    boot_id: str = ""
    memory_kib: int = 0
    page_size: int = 0  # bytes
    stack: str = ""  # a high address of a process, in hexadecimal
    cgroup: str = ""  # v1, v2
    controllers: frozenset[str] = frozenset()
    packages: dict[str, Package] = field(default_factory=dict)
    units: dict[str, Unit] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)  # of files that are edited
    swaps: tuple[str, ...] = ()  # active swap areas
    modules: dict[str, str] = field(default_factory=dict)  # loaded, builtin or available
    sysctls: dict[str, str] = field(default_factory=dict)  # effective values
    accounts: dict[str, Account] = field(default_factory=dict)
    login: str = ""  # who logged in, before sudo
    snaps: tuple[Snap, ...] = ()
    snaps_unread: str = ""  # why they could not be listed
    lxd_instances: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()  # default routes, as `ip route` prints them
    addresses: tuple[str, ...] = ()
    interfaces: dict[str, str] = field(default_factory=dict)  # which has it, by address
    listeners: tuple[Listener, ...] = ()
    disks: dict[str, Disk] = field(default_factory=dict)
    initiator: str = ""  # iSCSI name
    iscsi_sessions: int = 0
    sshd: dict[str, str] = field(default_factory=dict)  # effective settings; empty: unknown
    inhibit_delay: float | None = None  # seconds logind lets an inhibitor delay a shutdown
    time_source: str = ""  # address chrony follows
    time_synchronised: bool = False
    has: frozenset[str] = frozenset()  # cloud-init, sshd-include, zram-generator
    reboot_required: tuple[str, ...] | None = None  # by which packages; None: not required
    late: tuple[str, ...] = ()  # what did not end in time, and so was not read

    def unit(self, name: str) -> Unit:
        """The unit of that name, a dead one when there is none."""
        return self.units.get(name, Unit())

    def installed(self, name: str) -> bool:
        """Whether a package is installed."""
        package = self.packages.get(name)
        return package is not None and package.installed

    def stale(self, unit: str, *paths: str) -> bool:
        """Whether a running unit is older than the file of one of the paths."""
        found = self.unit(unit)
        if not found.running:
            return False
        started = self.clock.at - self.uptime + found.since
        times = [self.files[path].changed for path in paths if path in self.files]
        # A time in the future says that the clock was set back, not when the file was written.
        return any(started + STALE_AFTER < time <= self.clock.at for time in times)

    @property
    def address_bits(self) -> int | None:
        """Bits of a process's addresses: 39 on some arm64 kernels, else 48; None: unknown."""
        return kernel.address_bits("", self.stack)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra --json`."""
        data = asdict(self)
        for name in ("controllers", "has"):
            data[name] = sorted(data[name])
        return data
