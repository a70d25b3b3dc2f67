"""What the boot layer of a host is at one moment; read by `facts.boot.Boot`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

from cluster.answer import Absent, Answer, Present, Refused, Stopped, Unreachable
from cluster.boot import cmdline, config_txt
from cluster.boot import layout as layouts
from cluster.boot.board import Board
from cluster.boot.disk import Disk, Partition
from cluster.boot.eeprom import Eeprom
from cluster.boot.layout import Layout
from cluster.boot.power import Throttled
from cluster.boot.swaps import Swap

NOT_READ = Stopped("it was not read")
STALE_AFTER = 5.0  # seconds; FAT keeps times in steps of two, the time of boot is known to one


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system."""

    source: str  # such as /dev/sda1
    kind: str
    options: tuple[str, ...] = ()
    disk: str = ""  # the whole disk below it, such as sda; empty: not known
    free: int | None = None  # bytes

    @property
    def writable(self) -> bool:
        """Whether it is mounted for writing."""
        return "rw" in self.options


@dataclass(frozen=True, slots=True)
class Radio:
    """A radio that works now."""

    kind: str  # wifi, bluetooth
    name: str  # such as wlan0
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Watchdog:
    """The hardware watchdog, and what systemd does with it; times as systemd prints them."""

    identity: str = ""  # empty: there is none
    active: bool = False
    runtime: str = ""  # RuntimeWatchdogUSec, such as 15s; empty: not read
    reboot: str = ""  # RebootWatchdogUSec


@dataclass(frozen=True)
class BootState:
    """The boot layer of a host. An `Answer` that is `Stopped` was not read: that is not "no"."""

    board: Answer[Board] = NOT_READ  # Absent: this is no Raspberry Pi
    release: str = ""  # VERSION_ID of os-release
    kernel: str = ""
    kernels: tuple[str, ...] = ()  # installed ones: folders of /lib/modules
    boot_id: str = ""
    now: float = 0.0  # the host's clock, Unix seconds
    uptime: float = 0.0  # seconds
    started: float = 0.0  # seconds after the kernel's start at which systemd began
    mount: Answer[Mount] = NOT_READ  # of /boot/firmware
    root: Answer[Mount] = NOT_READ
    files: Mapping[str, str] = field(default_factory=dict)  # of the boot partition
    changed: Mapping[str, int] = field(default_factory=dict)  # their times, Unix seconds
    running: str = ""  # /proc/cmdline
    eeprom: Answer[Eeprom] = NOT_READ
    disks: Mapping[str, Disk] = field(default_factory=dict)
    partitions: tuple[Partition, ...] = ()
    throttled: Answer[Throttled] = NOT_READ
    under_voltage: Answer[bool] = NOT_READ  # the alarm of the kernel's own sensor
    temperature: Answer[float] = NOT_READ  # degrees Celsius
    supply: Answer[int] = NOT_READ  # mA that a Pi 5 negotiated with its power supply
    page_size: int | None = None  # bytes
    address_bits: int | None = None
    controllers: Answer[frozenset[str]] = NOT_READ  # of cgroup v2; Absent: v1
    radios: tuple[Radio, ...] = ()
    routes: tuple[str, ...] = ()  # interfaces that carry a default route
    swaps: tuple[Swap, ...] = ()
    watchdog: Watchdog = Watchdog()
    udev_rule: str | None = None  # our rule for TRIM
    watchdog_file: str | None = None  # our settings of systemd's watchdog
    log: tuple[str, ...] = ()  # kernel lines about USB, disks and power
    pending: tuple[str, ...] = ()  # what this tool changed since boot
    late: tuple[str, ...] = ()  # what did not end in time, and so was not read

    @property
    def pi(self) -> Board | None:
        """The board; None: no Raspberry Pi."""
        match self.board:
            case Present(value=board):
                return board
            case _:
                return None

    @cached_property
    def layout(self) -> Layout:
        """Where the live command line is."""
        if self.pi is None:
            return Layout(Absent("no Raspberry Pi"))
        if not isinstance(self.mount, Present):
            return Layout(self.mount)
        return layouts.layout(self.files, self.pi)

    @cached_property
    def config(self) -> config_txt.Config:
        """What config.txt says in force; nothing where there is none."""
        return config_txt.effective(self.files, self.pi) if self.pi else config_txt.Config()

    @property
    def live_cmdline(self) -> str | None:
        """Text of the file that the next ordinary boot reads; None: see `layout.live`."""
        match self.layout.live:
            case Present(value=path):
                return self.files[path]
            case _:
                return None

    @property
    def root_disk(self) -> Disk | None:
        """The disk that / is on; None: not a plain disk, or not read."""
        match self.root:
            case Present(value=mount):
                return self.disks.get(mount.disk)
            case _:
                return None

    @property
    def memory_controller(self) -> bool | None:
        """Whether containers' memory can be limited, as cgroup.controllers says; None: unknown."""
        match self.controllers:
            case Present(value=found):
                return "memory" in found
            case Absent():
                return None  # cgroup v1, which the preflight refuses
            case _:
                return None

    @property
    def cmdline_active(self) -> bool | None:
        """Whether the running kernel has what the live file says; None: there is no live file."""
        text = self.live_cmdline
        return None if text is None else cmdline.is_active(text, self.running)

    @property
    def config_changed(self) -> bool:
        """Whether config.txt was written after this boot."""
        time = self.changed.get(config_txt.NAME, 0)
        boot = self.now - self.uptime + self.started  # a container has the uptime of its machine
        # A time in the future says that the clock was set back, not when the file was written.
        return boot + STALE_AFTER < time <= self.now

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra --json`."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}


def _plain(value: Any) -> Any:
    """Dictionaries, lists, texts and numbers; an answer says which one it is."""
    if is_dataclass(value):
        data = {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
        is_answer = isinstance(value, (Present, Absent, Refused, Unreachable))
        return {"answer": type(value).__name__.lower(), **data} if is_answer else data
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value
