"""Where a host keeps its volumes, as first boots see it: read from `boot_disk` and `data_disk`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cluster.model import Arch, Host

# Ubuntu's images for the Raspberry Pi have a boot partition and root.
PARTITION = 3
BY_ID = "/dev/disk/by-id/"
_VOLUME = re.compile(r"/dev/(?!disk/|mapper/)([\w.+-]+)/([\w.+-]+)")
_KIND = re.compile(r"/dev/(sd|vd|nvme|mmcblk)")


@dataclass(frozen=True)
class BehindRoot:
    """The rest of the disk that the system is on: its third partition."""


@dataclass(frozen=True)
class Volume:
    """A logical volume beside root's."""

    group: str
    name: str


@dataclass(frozen=True)
class Elsewhere:
    """A disk or partition of its own; used only when it is blank or ours."""

    path: str


Place = BehindRoot | Volume | Elsewhere


class Unclear(ValueError):
    """The data do not say where: the key, what is wrong with it, what is allowed."""

    def __init__(self, key: str, found: str, allowed: str) -> None:
        super().__init__(f"{key}: {found}")
        self.key, self.found, self.allowed = key, found, allowed


def place_of(host: Host) -> Place | None:
    """Where the host keeps volumes, None when it has no `data_disk`; raises Unclear."""
    data, boot = host.data_disk, host.boot_disk
    if data is None:
        return None
    if data == boot:
        raise Unclear("data_disk", f"{data} is boot_disk", "a part of it, or another disk")
    if volume := _VOLUME.fullmatch(data):
        if host.arch is Arch.ARM64:
            allowed = f"partition {PARTITION} of boot_disk, or another disk"
            raise Unclear("data_disk", f"{data}: images for arm64 have no logical volumes", allowed)
        return Volume(*volume.groups())
    if boot is None:
        raise Unclear("boot_disk", f"missing, but data_disk is {data}", "the disk of the system")
    if not (data.startswith(boot) and re.fullmatch(r"(p|-part)?\d+", data.removeprefix(boot))):
        return Elsewhere(data)
    if host.arch is Arch.AMD64:
        allowed = "a logical volume such as /dev/ubuntu-vg/lv-data, or another disk"
        raise Unclear("data_disk", f"{data} is a partition of boot_disk", allowed)
    number = re.sub(r".*\D", "", data)
    if int(number) != PARTITION:
        found = f"{data}: the image has two partitions, so the next is {PARTITION}"
        raise Unclear("data_disk", found, f"partition {PARTITION} of {boot}")
    return BehindRoot()


def expected(boot_disk: str) -> str:
    """What root's disk must be: a path that names one disk, else the kind of a kernel's name.

    The kernel numbers disks as they appear, so that `sda` may be `sdb` the next time.
    """
    kind = _KIND.match(boot_disk)
    return kind[1] if kind else boot_disk


def installer_match(boot_disk: str | None) -> dict[str, str]:
    """How autoinstall finds the disk; raises Unclear.

    Source: subiquity compares `serial` with udev's ID_SERIAL, which links of by-id end with (that
    of an eMMC after its name; wwn and eui are other numbers), and `path` with the kernel's name;
    newer udev adds the namespace of an NVMe disk.
    """
    if boot_disk is None:
        return {"size": "largest"}  # never the disk that the installer was started from
    if not boot_disk.startswith("/dev/disk/"):
        return {"path": boot_disk}
    kind, _, serial = boot_disk.removeprefix(BY_ID).partition("-")
    if not boot_disk.startswith(BY_ID) or kind == "wwn" or serial.startswith("eui."):
        found = f"{boot_disk} is none by which the installer finds a disk"
        raise Unclear("boot_disk", found, f"a name such as {BY_ID}ata-MODEL_SERIAL, or /dev/sda")
    return {"serial": f"{serial.rpartition('_')[2] if kind == 'mmc' else serial}*"}
