"""The boot layer of a host, read by one command."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Any

from pyinfra.api import FactBase, Host
from pyinfra.api.exceptions import FactProcessError, PyinfraError

from cluster.answer import Absent, Answer, Present, Stopped
from cluster.boot import board, disk, eeprom, kernel, places, power, swaps
from cluster.boot.state import BootState, Mount, Radio, Watchdog
from facts.boot_script import script
from facts.tagged import LIMIT, Tagged
from runtime.cache import cached, keep

_PAIR = re.compile(r'([A-Z]+)="((?:[^"\\]|\\.)*)"')
_CPU = ("cpu-thermal", "x86_pkg_temp", "cpu_thermal")


class Boot(FactBase[BootState | None]):
    """Board, boot partition, kernel's command line, EEPROM, disks, power: what a boot depends on.

    On anything but a Raspberry Pi the board is absent, and with it the boot layer.

    ```
    pyinfra inventories/home.py fact facts.boot.Boot
    ```
    """

    def command(self) -> str:
        """One shell script that only reads; exits 0 on a host that has nothing of it too."""
        return script()

    def process(self, output: Iterable[str]) -> BootState:
        """The script's lines as a `BootState`."""
        try:
            return parse(output)
        except (ValueError, IndexError, TypeError) as error:
            raise FactProcessError(f"the boot layer of the host: {error}") from error


def boot_state(host: Host) -> BootState:
    """The boot layer of a host, read once a phase.

    Raises PyinfraError when it cannot be read, which is not "nothing is there".
    """
    state = cached(host, Boot, _timeout=LIMIT)
    if state is None:
        raise PyinfraError(f"{host.name}: its boot layer cannot be read")
    return state


def keep_boot(host: Host, state: BootState) -> None:
    """Know the boot layer of a host, which another fact has read too."""
    keep(host, state, Boot, _timeout=LIMIT)


def parse(lines: Iterable[str]) -> BootState:
    """Read the script's lines; raises ValueError when they end early."""
    return _Found().read(lines).state()


class _Found(Tagged):
    plain = ("release", "kernel", "boot_id", "running")

    def __init__(self) -> None:
        super().__init__()
        self.disks: dict[str, dict[str, str]] = {}
        self.eeprom: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self.changed: dict[str, int] = {}
        self.systemd: dict[str, str] = {}
        self.dog = ("", "")

    def state(self) -> BootState:
        pi = isinstance(self.fields.get("board"), Present)
        nothing = Absent("no Raspberry Pi")
        late = next((one for one in self.lists.get("late", ()) if one.startswith("vcgencmd")), "")
        unread = _UNREAD | ({"throttled": Stopped(late)} if late else {})
        for name in ("throttled", "under_voltage", "supply"):
            self.fields.setdefault(name, unread[name] if pi else nothing)
        self.fields.setdefault("mount", Absent(f"{places.FOLDER} is not mounted"))
        self.fields.setdefault("temperature", Stopped("no sensor of the processor"))
        identity, state = self.dog
        started = self.systemd.get("UserspaceTimestampMonotonic", "")
        fields: dict[str, Any] = {
            **self.fields,
            **self.tuples,
            "started": int(started) / 1e6 if started.isdigit() else 0.0,
            "files": self.files,
            "changed": self.changed,
            "disks": {name: disk.parse(name, read) for name, read in self.disks.items()},
            "eeprom": _eeprom(self.eeprom, late) if pi else nothing,
            "watchdog": Watchdog(
                identity,
                state == "active",
                self.systemd.get("RuntimeWatchdogUSec", ""),
                self.systemd.get("RebootWatchdogUSec", ""),
            ),
        }
        return BootState(**fields)

    def _clock(self, now: str, uptime: str) -> None:
        self.fields |= {"now": float(now), "uptime": float(uptime or 0)}

    def _installed(self, name: str) -> None:
        self.add("kernels", name)

    def _board(self, model: str, revision: str, serial: str, product: str) -> None:
        found = board.parse(model, revision, serial)
        name = model or product or "its board has no name"
        self.fields["board"] = Present(found) if found else Absent(f"no Raspberry Pi: {name}")

    def _mount(
        self, target: str, source: str, kind: str, options: str, disk_: str, free: str
    ) -> None:
        found = Mount(
            source, kind, tuple(options.split(",")), disk_, int(free) * 1024 if free else None
        )
        self.fields["root" if target == "/" else "mount"] = Present(found)

    def _file(self, path: str, changed: str, encoded: str) -> None:
        self.files[path] = decode(encoded)
        self.changed[path] = int(changed or 0)

    def _eeprom(self, key: str, value: str) -> None:
        self.eeprom[key] = value

    def _throttled(self, said: str) -> None:
        if found := power.throttled(said):
            self.fields.setdefault("throttled", Present(found))

    def _supply(self, octets: str) -> None:
        if octets:
            self.fields["supply"] = Present(int(octets, 16))

    def _alarm(self, value: str) -> None:
        if value in ("0", "1"):
            self.fields["under_voltage"] = Present(value == "1")

    def _thermal(self, kind: str, value: str) -> None:
        degrees = power.celsius(value)
        if degrees is not None and kind in _CPU:
            self.fields["temperature"] = Present(degrees)

    def _disk(self, name: str, key: str, *value: str) -> None:
        self.disks.setdefault(name, {})[key] = " ".join(value).strip()

    def _partition(self, line: str, *more: str) -> None:
        read = dict(_PAIR.findall("\t".join((line, *more))))
        self.add(
            "partitions",
            disk.Partition(
                name=read.get("NAME", ""),
                disk=read.get("PKNAME", ""),
                label=read.get("LABEL", ""),
                partuuid=read.get("PARTUUID", ""),
                kind=read.get("FSTYPE", ""),
                mounted=read.get("MOUNTPOINT", ""),
            ),
        )

    def _page(self, size: str) -> None:
        self.fields["page_size"] = int(size) if size.strip().isdigit() else None

    def _bits(self, config: str, stack: str) -> None:
        self.fields["address_bits"] = kernel.address_bits(config, stack)

    def _controllers(self, version: str, names: str) -> None:
        answer: Answer[frozenset[str]] = Absent("control groups of version 1")
        if version == "v2":
            answer = Present(kernel.controllers(names))
        self.fields["controllers"] = answer

    def _radio(self, kind: str, name: str, addresses: str = "") -> None:
        self.add("radios", Radio(kind, name, tuple(addresses.split())))

    def _route(self, interface: str) -> None:
        if interface not in self.lists.get("routes", ()):
            self.add("routes", interface)

    def _swaps(self, encoded: str) -> None:
        self.fields["swaps"] = swaps.parse(decode(encoded))

    def _watchdog(self, identity: str, state: str) -> None:
        self.dog = (identity, state)

    def _systemd(self, line: str) -> None:
        key, _, value = line.partition("=")
        self.systemd[key] = value

    def _ours(self, path: str, encoded: str) -> None:
        name = {places.UDEV_RULE: "udev_rule", places.WATCHDOG: "watchdog_file"}[path]
        self.fields[name] = decode(encoded)

    def _log(self, *words: str) -> None:
        self.add("log", " ".join(words))

    def _pending(self, *words: str) -> None:
        self.add("pending", " ".join(words))


_UNREAD = {
    "throttled": Stopped("neither vcgencmd nor the kernel tells"),
    "under_voltage": Stopped("the kernel has no sensor rpi_volt"),
    "supply": Stopped("the firmware does not tell"),
}


def _eeprom(read: dict[str, str], late: str) -> Answer[eeprom.Eeprom]:
    said = eeprom.version(decode(read.get("said", "")))
    built = _octets(read.get("built", "")) or _number(said.get("timestamp"))
    text = decode(read.get("config") or read.get("asked", ""))
    config, hidden = eeprom.configuration(text)
    if built is None and not config:
        return Stopped(late or "neither the device tree nor vcgencmd tells of the EEPROM")
    return Present(
        eeprom.Eeprom(
            built=built,
            version=read.get("version", "") or said.get("version", ""),
            updated=_octets(read.get("updated", "")) or _number(said.get("update-time")),
            config=config,
            config_known=bool(config),
            hides_config_txt=hidden,
            latest=_number(read.get("latest", "").partition("=")[2]),
            tool="tool" in read,
            staged="staged" in read,
        )
    )


def _octets(text: str) -> int | None:
    return int(text, 16) if text else None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def decode(encoded: str) -> str:
    """The text of a file, byte for byte: what is no UTF-8 survives as lone surrogates."""
    try:
        return base64.b64decode(encoded).decode(errors="surrogateescape")
    except binascii.Error as error:
        raise ValueError(f"not base64: {encoded[:20]}") from error
