"""Hosts for tests as the boot fact reads them: the fixtures of `../shared`, and two of our own.

A profile is a folder's texts by file name without its ending; its README says what each one is.
All of them are constructed, no real host was read.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.boot.state import BootState
from facts.boot import parse

NAMES = (
    "pi4-2404-usb-uas", "pi4-2404-jmicron-bad", "pi5-2604-nvme", "pi4-2204-sd-undervolt",
    "x86-n100-2404",
)  # fmt: skip
NOW, UPTIME = 1_795_600_000, 1000
Profile = Mapping[str, str]

_CONFIG = "[all]\nkernel=vmlinuz\ncmdline=cmdline.txt\n[pi4]\narm_boost=1\n[all]\n"
PI4: Profile = {
    "device-tree-model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc-cpuinfo-tail": "Revision\t: c03114\nSerial\t: 10000000a1b2c3d4\n",
    "os-release": 'VERSION_ID="24.04"\n',
    "uname-a": "Linux node1 6.8.0-1031-raspi #35-Ubuntu",
    "config-txt": _CONFIG,
    "cmdline-txt": "console=serial0,115200 root=LABEL=writable rootwait\n",
    "proc-cmdline": "coherent_pool=1M console=ttyS0,115200 root=LABEL=writable rootwait\n",
    "cgroup-controllers": "cpuset cpu io hugetlb pids rdma misc\n",
    "findmnt-root-json": "/dev/sda2 ext4 rw,noatime",
    "findmnt-boot-firmware-json": "/dev/sda1 vfat rw,relatime",
    "proc-swaps": "Filename Type Size Used Priority\n",
}
PI5: Profile = {
    **PI4,
    "device-tree-model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc-cpuinfo-tail": "Revision\t: d04170\nSerial\t: 9d00ce41d137e638\n",
    "os-release": 'VERSION_ID="26.04"\n',
    "uname-a": "Linux node2 7.0.0-1017-raspi #17-Ubuntu",
    "config-txt": f"[all]\nos_prefix=current/\n[tryboot]\nos_prefix=new/\n{_CONFIG}",
    "cmdline-txt": "console=serial0,115200 root=LABEL=writable panic=10 rootwait\n",
    "proc-cmdline": (
        "cgroup_disable=memory console=ttyAMA10,115200 root=LABEL=writable panic=10 rootwait\n"
    ),
    "boot-firmware-current-state": "good\n",
}


def shared() -> Path | None:
    """The folder of the fixtures, None where they are not on this machine."""
    given = os.environ.get("PICLUSTER_SHARED")
    root = Path(given) if given else Path(__file__).parents[3] / "shared"
    folder = root / "fixtures" / "pi"
    return folder if folder.is_dir() else None


def profile(name: str) -> Profile:
    """The texts of one of the fixtures; the folder must be there."""
    folder = shared()
    assert folder, "the fixtures of Raspberry Pis are not on this machine"
    return {file.stem: file.read_bytes().decode() for file in (folder / name).glob("*.txt")}


def state(texts: Profile, **changes: Any) -> BootState:
    """What the fact makes of a profile; `changes` as `lines` takes them."""
    return parse(lines(texts, **changes))


def lines(
    texts: Profile,
    *,
    files: Mapping[str, str] | None = None,
    more: tuple[str, ...] = (),
    now: float = NOW,
) -> list[str]:
    """What the fact's script prints on such a host.

    Args:
        files: texts of the boot partition by path that replace or add to those of the profile.
        more: further lines.
        now: the host's clock.
    """
    boot = {**_boot_files(texts), **(files or {})} if "config-txt" in texts else {}
    written = int(now) - 10_000
    found = ["\t".join(fields) for fields in _fields(texts, now)]
    found += [f"file\t{path}\t{written}\t{encoded(text)}" for path, text in boot.items()]
    return [*found, *more, "end\t"]


def encoded(text: str) -> str:
    """A text as the script prints it."""
    return base64.b64encode(text.encode(errors="surrogateescape")).decode()


def live_path(texts: Profile) -> str:
    """Where the profile's live command line is."""
    return "current/cmdline.txt" if "os_prefix" in texts.get("config-txt", "") else "cmdline.txt"


def _boot_files(texts: Profile) -> dict[str, str]:
    names = {
        "config-txt": "config.txt",
        "cmdline-txt": live_path(texts),
        "dead-root-cmdline-txt": "cmdline.txt",
        "autoboot-txt": "autoboot.txt",
        "boot-firmware-current-state": "current/state",
    }
    return {path: texts[name] for name, path in names.items() if name in texts}


def _fields(texts: Profile, now: float) -> Iterator[tuple[str, ...]]:
    yield "clock", str(int(now)), str(UPTIME)
    yield "release", _search(r'VERSION_ID="(.*)"', texts["os-release"])
    yield "kernel", texts["uname-a"].split()[2]
    yield "boot_id", "first"
    cpu = texts["proc-cpuinfo-tail"]
    yield (
        "board",
        texts.get("device-tree-model", "").rstrip("\0"),
        _search(r"Revision\s*: (\w+)", cpu),
        _search(r"Serial\s*: (\w+)", cpu),
        texts.get("dmi-product-name", "").strip(),
    )
    for name, target in (
        ("findmnt-root-json", "/"),
        ("findmnt-boot-firmware-json", "/boot/firmware"),
    ):
        if name in texts:
            source, kind, options = _mount(texts[name])
            yield "mount", target, source, kind, options, _disk_of(source, texts), "98000"
    yield "running", texts["proc-cmdline"].strip()
    yield from _eeprom(texts)
    for name, key in (
        ("vcgencmd-get-throttled", "throttled"),
        ("hwmon-rpi-volt-in0-lcrit-alarm", "alarm"),
    ):
        if name in texts:
            yield key, texts[name].strip()
    if "power-max-current-hex" in texts:
        yield "supply", texts["power-max-current-hex"].replace(" ", "").strip()
    if "thermal-zone0-temp" in texts:
        yield "thermal", "cpu-thermal", texts["thermal-zone0-temp"].strip()
    yield from _disks(texts)
    yield "page", texts.get("getconf-pagesize", "4096").strip()
    yield "bits", _search("(CONFIG_ARM64_VA_BITS=.*)", texts.get("boot-config-va", "")), ""
    yield "controllers", "v2", texts["cgroup-controllers"].strip()
    yield "route", "eth0"
    yield "swaps", encoded(texts["proc-swaps"])
    for name in ("journal-kernel-usb", "journal-kernel-power"):
        yield from (("log", line) for line in texts.get(name, "").splitlines())


def _eeprom(texts: Profile) -> Iterator[tuple[str, ...]]:
    if said := texts.get("vcgencmd-bootloader-version"):
        yield "eeprom", "said", encoded(said)
    if config := texts.get("rpi-eeprom-config"):
        yield "eeprom", "config", encoded(config)


def _mount(text: str) -> tuple[str, str, str]:
    if not text.startswith("{"):
        source, kind, options = text.split()
        return source, kind, options
    found = json.loads(text)["filesystems"][0]
    return found["source"], found["fstype"], found["options"]


def _devices(texts: Profile) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(texts.get("lsblk-json", '{"blockdevices": []}'))[
        "blockdevices"
    ]
    return [one for one in found if one["type"] == "disk" and not one["name"].startswith("zram")]


def _disk_of(source: str, texts: Profile) -> str:
    name = source.removeprefix("/dev/mapper/").removeprefix("/dev/")
    return next((one["name"] for one in _devices(texts) if _has(one, name)), "")


def _has(device: dict[str, Any], name: str) -> bool:
    return device["name"] == name or any(_has(one, name) for one in device.get("children", ()))


def _disks(texts: Profile) -> Iterator[tuple[str, ...]]:
    for device in _devices(texts):
        name = device["name"]
        found = {
            "device": f"/sys/devices/{name}",
            "discard_max_bytes": _bytes(device["disc-max"]),
            "rotational": str(int(device["rota"])),
            "model": device["model"] or "",
            "provisioning_mode": texts.get("scsi-disk-provisioning-mode", "").strip(),
            "mmc_type": "SD",
        }
        if device["tran"] == "usb":
            found |= _usb(texts)
        yield from (("disk", name, key, value) for key, value in found.items() if value)


def _usb(texts: Profile) -> dict[str, str]:
    """The one disk of `lsusb -t`, and its ids in `lsusb` by bus and device."""
    tree, bus = texts["lsusb-t"], ""
    for line in tree.splitlines():
        bus = _search(r"Bus 0*(\d+)", line) or bus
        if "Mass Storage" in line:
            port, device, driver = (
                _search(form, line)
                for form in (r"Port 0*(\d+)", r"Dev 0*(\d+)", r"Driver=([\w-]+)")
            )
            break
    form = rf"Bus 0*{bus} Device 0*{device}: ID (\w+):(\w+)"
    vid, pid = re.search(form, texts["lsusb"]).groups()  # type: ignore[union-attr]
    return {
        "port": f"{bus}-{port}",
        "driver": driver,
        "idVendor": vid,
        "idProduct": pid,
        "speed": texts["usb-root-speed"].strip(),
        "control": texts["usb-root-power-control"].strip(),
    }


def _bytes(text: str) -> str:
    number, unit = float(text[:-1]), text[-1]
    return str(int(number * {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}[unit]))


def _search(form: str, text: str) -> str:
    found = re.search(form, text)
    return found[1] if found else ""
