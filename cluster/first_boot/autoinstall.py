"""The answers for Ubuntu's installer, which sets a PC up by itself (autoinstall, version 1)."""

from __future__ import annotations

from typing import Any

from cluster.first_boot import disks, network, shell
from cluster.first_boot.cloud_config import Login, of_installed
from cluster.model import Cluster, Host

GROUP, ROOT = "ubuntu-vg", "ubuntu-lv"  # the installer's own names
REST = -1  # all that is left
EFI_SIZE, BOOT_SIZE = "1G", "2G"


def config(model: Cluster, host: Host, login: Login, *, erase: bool) -> dict[str, Any]:
    """The user-data of the installer; erase: what the disk holds may be overwritten.

    The guards against installing again and again, or elsewhere:
    without `autoinstall` among the kernel's words the installer asks before it writes;
    early-commands look at the machine and its disk; afterwards the PC switches itself off;
    the disk stays before the stick in the order of UEFI.
    """
    guard = ["sh", "-c", shell.GUARD, "guard", host.name, host.mac or "", host.boot_disk or ""]
    return {
        "autoinstall": {
            "version": 1,
            "early-commands": [[*guard, "yes" if erase else "no"]],
            "locale": model.locale,
            "timezone": model.timezone,
            "keyboard": {"layout": model.first_boot.keyboard},
            "network": network.config(model, host),
            "ssh": {"install-server": True, "allow-pw": False},
            "storage": {
                "swap": {"size": 0},
                # By default curtin puts what it was started from, the stick, first again.
                "grub": {"reorder_uefi": False},
                "config": _storage(model, host),
            },
            "user-data": of_installed(model, host, login),
            "late-commands": [["sh", "-c", shell.FINISH, "finish"]],
            "shutdown": "poweroff",
        }
    }


def _storage(model: Cluster, host: Host) -> list[dict[str, Any]]:
    place = disks.place_of(host)
    volume = place if isinstance(place, disks.Volume) else None
    group = volume.group if volume else GROUP
    return [
        {
            "type": "disk",
            "id": "disk",
            "match": disks.installer_match(host.boot_disk),
            "ptable": "gpt",
            "wipe": "superblock-recursive",
            "preserve": False,
        },
        _partition("efi", EFI_SIZE, flag="boot", grub_device=True),
        *_mounted("efi", "fat32", "/boot/efi"),
        _partition("boot", BOOT_SIZE),
        *_mounted("boot", "ext4", "/boot"),
        _partition("pv", REST),
        {"type": "lvm_volgroup", "id": "group", "name": group, "devices": ["pv"]},
        _volume("root", ROOT, model.first_boot.root_size if volume else REST),
        *_mounted("root", "ext4", "/"),
        *(_data(volume, model.first_boot.storage_path) if volume else ()),
    ]


def _data(volume: disks.Volume, folder: str) -> list[dict[str, Any]]:
    form, mount = _mounted("data", "ext4", folder)
    return [
        _volume("data", volume.name, REST),
        {**form, "label": shell.LABEL},
        {**mount, "options": shell.OPTIONS},
    ]


def _partition(name: str, size: str | int, **more: Any) -> dict[str, Any]:
    place = {"type": "partition", "id": name, "device": "disk", "size": size}
    return {**place, "wipe": "superblock", **more}


def _volume(name: str, label: str, size: str | int) -> dict[str, Any]:
    return {"type": "lvm_partition", "id": name, "name": label, "volgroup": "group", "size": size}


def _mounted(volume: str, kind: str, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    form = f"{volume}-format"
    return (
        {"type": "format", "id": form, "fstype": kind, "volume": volume},
        {"type": "mount", "id": f"{volume}-mount", "path": path, "device": form},
    )
