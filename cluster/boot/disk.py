"""Disks of a host: how they are connected, by which bridge, whether they can trim.

Sources: Documentation/ABI/stable/sysfs-block and testing/sysfs-bus-usb; sd.c for
`provisioning_mode`; SBC-4, "Logical Block Provisioning VPD page", byte 5 bit 7 is LBPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Transport = Literal["uas", "usb-storage", "nvme", "sd", "emmc", "sata", "virtual", "unknown"]
SUPER_SPEED = 5000  # Mbit/s of a USB 3 port
_LBPU = 0x80


@dataclass(frozen=True, slots=True)
class Usb:
    """The USB device that a disk hangs on."""

    vid_pid: str  # such as 174c:55aa
    port: str = ""  # such as 2-1
    speed: int | None = None  # Mbit/s
    firmware: str = ""  # bcdDevice
    product: str = ""
    serial: str = ""
    autosuspend: bool | None = None  # whether the port may be put to sleep; None: unknown


@dataclass(frozen=True, slots=True)
class Trim:
    """Whether free blocks can be told to a disk."""

    most: int | None  # bytes of one request; 0: off, None: unknown
    mode: str = ""  # provisioning_mode of a SCSI disk: full is off
    unmap: bool | None = None  # whether the disk itself says that it can; None: it was not read

    @property
    def on(self) -> bool | None:
        """Whether it works now."""
        return None if self.most is None else self.most > 0


@dataclass(frozen=True)
class Disk:
    """A whole disk; sizes in bytes."""

    name: str  # such as sda
    transport: Transport = "unknown"
    usb: Usb | None = None
    trim: Trim = Trim(None)
    size: int | None = None
    model: str = ""
    rotating: bool | None = None  # bridges often say so of an SSD


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition or a whole disk with a file system."""

    name: str
    disk: str = ""
    label: str = ""
    partuuid: str = ""
    kind: str = ""  # of the file system
    mounted: str = ""


def parse(name: str, read: Mapping[str, str]) -> Disk:
    """A disk from what sysfs says of it.

    Args:
        name: such as sda, nvme0n1, mmcblk0.
        read: texts by the names that `facts/boot_script.py` gives them; missing: not there.
    """
    usb = _usb(read)
    return Disk(
        name=name,
        transport=_transport(name, read, usb),
        usb=usb,
        trim=Trim(
            most=_number(read.get("discard_max_bytes")),
            mode=read.get("provisioning_mode", ""),
            unmap=_lbpu(read.get("vpd_pgb2", "")),
        ),
        size=_blocks(read.get("size")),
        model=read.get("model", ""),
        rotating=_flag(read.get("rotational")),
    )


def _transport(name: str, read: Mapping[str, str], usb: Usb | None) -> Transport:
    if usb:
        driver = read.get("driver", "")
        return "uas" if driver == "uas" else "usb-storage" if driver else "unknown"
    if name.startswith("nvme"):
        return "nvme"
    if name.startswith("mmcblk"):
        return "emmc" if read.get("mmc_type") == "MMC" else "sd"
    path = read.get("device", "")
    if "/ata" in path:
        return "sata"
    return "virtual" if name.startswith(("vd", "xvd")) or "/virtio" in path else "unknown"


def _usb(read: Mapping[str, str]) -> Usb | None:
    vid, pid = read.get("idVendor", ""), read.get("idProduct", "")
    if not (vid and pid):
        return None
    control = read.get("control", "")
    return Usb(
        vid_pid=f"{vid}:{pid}".lower(),
        port=read.get("port", ""),
        speed=_number(read.get("speed")),
        firmware=read.get("bcdDevice", ""),
        product=read.get("product", ""),
        serial=read.get("serial", ""),
        autosuspend=control == "auto" if control else None,
    )


def _lbpu(page: str) -> bool | None:
    """LBPU of the page's bytes in hexadecimal; None where the kernel does not show the page."""
    octets = page.split()
    return bool(int(octets[5], 16) & _LBPU) if len(octets) > 5 else None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _blocks(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else number * 512


def _flag(text: str | None) -> bool | None:
    return {"0": False, "1": True}.get(text or "")
