"""Hosts of every kind, and the files of their first boots."""

from __future__ import annotations

from typing import Any

from cluster.first_boot import seed
from cluster.first_boot.cloud_config import Login
from cluster.model import Cluster
from tests.unit.cluster_example import example

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPq3Xq5K0lbPRnUu3PIe9ChdbYwTgYvCDnQYuHmZCvrO ada@laptop"
HASH = "$6$rounds=5000$saltsalt$" + "x" * 86


def _host(number: int, **keys: Any) -> dict[str, Any]:
    common = {"role": "servers", "arch": "arm64", "mac": f"00:00:5e:00:53:{number}"}
    return {"name": f"node{number}", "ip": f"10.0.0.{number}", **common, **keys}


HOSTS = (
    _host(11, boot_disk="/dev/sda", data_disk="/dev/sda3"),
    _host(12, boot_disk="/dev/nvme0n1", data_disk="/dev/nvme0n1p3"),
    _host(13, boot_disk="/dev/mmcblk0", data_disk="/dev/sda"),
    _host(10, role="gateway", ip="10.0.0.1"),
    _host(14, role="external"),
    _host(21, role="agents", arch="amd64", data_disk="/dev/ubuntu-vg/lv-data"),
    _host(
        22,
        role="agents",
        arch="amd64",
        boot_disk="/dev/disk/by-id/nvme-WD_BLUE_24",
        data_disk="/dev/disk/by-id/ata-Samsung_SSD_S3Z",
    ),
    _host(23, role="agents", arch="amd64", boot_disk="/dev/sda"),
)


def model(**first_boot: Any) -> Cluster:
    """A cluster of these hosts."""
    return example(
        hosts=HOSTS,
        timezone="Europe/Madrid",
        locale="es_ES.UTF-8",
        first_boot={"keys": [KEY], **first_boot},
    )


def files(**first_boot: Any) -> dict[str, dict[str, str]]:
    """What `make images` writes for them, by host and name."""
    made = model(**first_boot)
    login = Login("ubuntu", (KEY,), HASH)
    return {host.name: seed.files(made, host, login) for host in made.hosts}
