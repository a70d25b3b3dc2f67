"""The user-data of cloud-init: what a first boot of Ubuntu does."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from cluster.boot import places, wanted
from cluster.boot.layout import CMDLINE
from cluster.doctor.cloud import OFF as DISABLED
from cluster.first_boot import disks, shell
from cluster.first_boot.settings import release_of
from cluster.model import Cluster, Host

_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024, "": 1 / 1024 / 1024}


@dataclass(frozen=True)
class Login:
    """Who pyinfra logs in as: public keys, and the hash of a password for the console, if any."""

    name: str
    keys: tuple[str, ...]
    password_hash: str | None = field(default=None, repr=False)


def mebibytes(size: str) -> int:
    """A size such as 50G, in MiB."""
    number, unit = re.fullmatch(r"(\d+)([KMGT]?)", size).groups()  # type: ignore[union-attr]
    return int(int(number) * _UNITS[unit])


def system(model: Cluster, host: Host, login: Login) -> dict[str, Any]:
    """What every host is told, be it by an image or by the installer."""
    own_clock = str(host.ip) in model.network.time_servers
    return {
        "hostname": host.name,
        "fqdn": model.fqdn(host),
        "prefer_fqdn_over_hostname": False,
        "manage_etc_hosts": "localhost",
        "locale": model.locale,
        "timezone": model.timezone,
        "users": [_user(login)],
        "disable_root": True,
        "ssh_pwauth": False,
        **({} if own_clock else {"ntp": {"servers": list(model.network.time_servers)}}),
        # Upgrades are those of deploys/nodes.py, when somebody looks.
        "package_update": False,
        "package_upgrade": False,
    }


def _user(login: Login) -> dict[str, Any]:
    user: dict[str, Any] = {
        "name": login.name,
        "gecos": "pyinfra",
        "groups": ["adm", "sudo"],
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": list(login.keys),
        "lock_passwd": login.password_hash is None,
    }
    if login.password_hash:
        user["passwd"] = login.password_hash
    return user


def of_image(model: Cluster, host: Host, login: Login) -> dict[str, Any]:
    """The user-data of an image that is written to a disk: a Raspberry Pi's."""
    data = system(model, host, login)
    place = disks.place_of(host)
    if isinstance(place, disks.BehindRoot):
        assert host.boot_disk is not None  # or its place would be unclear
        size = mebibytes(model.first_boot.root_size)
        words = (disks.expected(host.boot_disk), str(size))
        # bootcmd comes before growpart; `once` also where a new instance-id would say again.
        data["bootcmd"] = [
            ["cloud-init-per", "once", "divide-disk", *_sh(shell.DIVIDE, "divide-disk", *words)]
        ]
    file, tokens = command_line(release_of(model, host))
    data["runcmd"] = [
        "set -e",
        _sh(shell.CMDLINE, "command-line", file, *tokens),
        *_mounting(model, place),
        *last(),
    ]
    data["power_state"] = {
        "mode": "reboot",
        "delay": "now",
        "message": "the kernel is started again with the memory controller",
        # Not from /proc/cgroups, where newer kernels never list it.
        "condition": "! grep -qw memory /sys/fs/cgroup/cgroup.controllers",
    }
    return data


def of_installed(model: Cluster, host: Host, login: Login) -> dict[str, Any]:
    """The user-data that the installer leaves for the first boot of a PC."""
    data = system(model, host, login)
    place = disks.place_of(host)
    mounting = _mounting(model, place) if isinstance(place, disks.Elsewhere) else []
    data["runcmd"] = ["set -e", *mounting, *last()]
    return data


def command_line(release: str) -> tuple[str, tuple[str, ...]]:
    """The file of a Raspberry Pi's kernel command line, and what turns the memory controller on.

    From 25.10 on the file lies in the slot that is booted, and the one beside it is not read.
    """
    slot = "current/" if release >= "25.10" else ""
    older = (wanted.OLD_MEMORY,) if release in wanted.OLD_RELEASES else ()
    return f"{places.FOLDER}/{slot}{CMDLINE}", (*older, wanted.MEMORY)


def last() -> list[Any]:
    """cloud-init has done its work and is not to do it again."""
    return [["touch", DISABLED]]


def _mounting(model: Cluster, place: disks.Place | None) -> list[Any]:
    if place is None:
        return []
    path = place.path if isinstance(place, disks.Elsewhere) else ""
    return [_sh(shell.MOUNT, "mount-volumes", path, model.first_boot.storage_path)]


def _sh(script: str, name: str, *words: str) -> list[str]:
    return ["sh", "-c", script, name, *words]
