"""Central storage: an iSCSI target with a volume for each node, and the nodes that mount them.

One host that has everything is one point of failure; it is the release's option for nodes without
disks of their own. A disk that holds anything is never formatted unless its name is typed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cluster import kinds
from cluster.answer import Absent, Answer, Present
from cluster.frozen import Model
from cluster.managed import MANAGED

if TYPE_CHECKING:
    from cluster.model import Cluster, Host

PORT = 3260
BY_PATH = "/dev/disk/by-path/ip-"  # udev's names of disks by iSCSI begin so
LUN = 1  # tgt keeps 0 for its controller; LIO takes any
PACKAGES = {"tgt": ("tgt",), "lio": ("python3-rtslib-fb", "targetcli-fb")}
EXTENT = 4 << 20  # bytes, of a volume group that vgcreate makes without being told otherwise
# Seconds: longer than a target host takes to start again, so that writes wait and do not fail.
REPLACEMENT_TIMEOUT = 120


class Volume(Model):
    """A node's volume, and where the node mounts it."""

    size: kinds.Size  # e.g. 100G
    path: kinds.Folder = "/storage"
    filesystem: Literal["ext4", "xfs"] = "ext4"


class San(Model):
    """A host whose disk is the storage of nodes."""

    volumes: dict[kinds.HostName, Volume] = Field(min_length=1)  # by node
    host: kinds.HostName | None = None  # None: the only host of the role external
    product: Literal["lio", "tgt"] = "lio"  # tgt needs nothing of the kernel, and is slower
    disk: kinds.Disk | None = None  # for LVM; None: data_disk of the host
    folder: kinds.Folder | None = None  # volumes are files in it, in place of LVM
    group: kinds.HostName = "picluster"  # volume group of LVM
    iqn: kinds.Iqn | None = None  # begins every name; None: from the domain


def section(cluster: Cluster) -> San:
    """The section of a cluster that has one."""
    found = cluster.services.san
    assert found is not None, "asked only where the service is wanted"
    return found


def target_host(cluster: Cluster) -> Host | None:
    """The host with the disk; None when the inputs leave it open, which a rule refuses."""
    wanted = cluster.services.san
    if wanted is None:
        return None
    found = [
        host
        for host in cluster.hosts
        if (host.name == wanted.host if wanted.host else host.role == "external")
    ]
    return found[0] if len(found) == 1 else None


def disk(cluster: Cluster) -> str | None:
    """The disk for LVM; None where volumes are files."""
    wanted, host = section(cluster), target_host(cluster)
    if wanted.folder or host is None:
        return None
    return wanted.disk or host.data_disk


def nodes(cluster: Cluster) -> tuple[Host, ...]:
    """The nodes that have a volume, in inventory order."""
    wanted = cluster.services.san
    return tuple(host for host in cluster.hosts if wanted and host.name in wanted.volumes)


def target(cluster: Cluster, node: str) -> str:
    """The name of a node's target, one for each so that each has a password of its own.

    Source of the form: RFC 3720 §3.2.6.3.1, a month and the domain of who gives the name.
    """
    begin = section(cluster).iqn or f"iqn.2024-01.{'.'.join(reversed(cluster.domain.split('.')))}"
    return f"{begin}:{node}"


def secret(node: str) -> str:
    """Name of a node's password among the secrets."""
    return f"san.{node}"


def secret_names(cluster: Cluster) -> tuple[str, ...]:
    """The passwords that a cluster needs."""
    return tuple(secret(host.name) for host in nodes(cluster))


def backing(cluster: Cluster, node: str) -> str:
    """What a node's volume is on the target host."""
    wanted = section(cluster)
    if wanted.folder:
        return f"{wanted.folder}/{node}.img"
    return f"/dev/{wanted.group}/{node}"


def device(cluster: Cluster, node: str) -> str:
    """What it is on the node: a name that does not depend on the order of disks."""
    host = target_host(cluster)
    assert host is not None, "a rule demands it of the inputs"
    return f"{BY_PATH}{host.ip}:{PORT}-iscsi-{target(cluster, node)}-lun-{LUN}"


def bytes_of(size: str) -> int:
    """`100G` in bytes, as LVM counts."""
    number, unit = re.fullmatch(r"(\d+)([KMGT]?)", size).groups()  # type: ignore[union-attr]
    return int(number) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]


def largest(size: str) -> int:
    """Bytes that a volume of that size may have: LVM rounds up to whole extents."""
    return -(-bytes_of(size) // EXTENT) * EXTENT


# ---- what a disk holds


@dataclass(frozen=True)
class Contents:
    """What is on a disk.

    Args:
        signatures: of file systems, partition tables, LVM, RAID, as wipefs names them.
        blank: whether its first megabytes are zeros.
        users: what has it or a part of it open: mounts, swap, a volume group that is active.
        group: the LVM volume group that it belongs to.
        parts: its partitions.
        begun: whether a script of ours began to write to it and did not end.
        unused: whether it is a file system that no kernel has mounted yet, as far as that shows.
        asked: whether LVM could say of what group it is.
    """

    signatures: tuple[str, ...] = ()
    blank: bool = True
    users: tuple[str, ...] = ()
    group: str = ""
    parts: tuple[str, ...] = ()
    begun: bool = False
    unused: bool = False
    asked: bool = True

    @property
    def empty(self) -> bool:
        """Whether nothing can be lost by a new signature."""
        return self.blank and not (self.signatures or self.users or self.parts)

    @property
    def half_made(self) -> bool:
        """Whether it is as a cut left it between a script's first write and LVM's group."""
        held = self.users or self.parts or self.group
        return self.begun and not held and self.signatures in ((), ("LVM2_member",))

    @property
    def half_formatted(self) -> bool:
        """Whether it is as a cut left it while a script of ours made a file system."""
        held = self.users or self.parts
        return self.begun and not held and (self.unused or not self.signatures)

    def __str__(self) -> str:
        found = ", ".join(self.signatures) or ("" if self.blank else "data without a signature")
        found += f" (partitions {', '.join(self.parts)})" if self.parts else ""
        used = f"in use by {', '.join(self.users)}" if self.users else ""
        return "; ".join(part for part in (found, used) if part) or "nothing"


def disk_refusal(
    where: str, path: str, found: Answer[Contents], group: str, typed: Iterable[str]
) -> str | None:
    """Why a disk may not be taken for volumes; None: it is ours already, empty, or named.

    where: the host, typed: `host:disk` as the operator typed them.
    """
    match found:
        case Present(value=contents):
            if contents.empty or contents.half_made or contents.group == group:
                return None
            if contents.users:
                return f"{where}: {path} is in use: it holds {contents}; choose another disk"
            if not contents.asked:
                return (
                    f"{where}: {path} is LVM's, and nobody can say of which group without lvm2: "
                    "sudo apt-get install lvm2 there, then run again"
                )
            name = f"{where}:{path}"
            if name in typed:
                return None
            return (
                f"{where}: {path} holds {contents}: to lose all of it, type its name with "
                f"--data wipe_disk={name}"
            )
        case Absent():
            return f"{where}: there is no {path}: expected a disk (services.san.disk)"
        case answer:
            return f"{where}: {path} cannot be read ({answer.reason}); nobody knows what it holds"


def typed_names(data: Mapping[str, object]) -> tuple[str, ...]:
    """The disks named on the command line."""
    value = data.get("wipe_disk")
    items = value if isinstance(value, list) else str(value or "").split(",")
    return tuple(str(item).strip() for item in items if str(item).strip())


# ---- the target host


@dataclass(frozen=True)
class TargetState:
    """What the target host has.

    Args:
        disk: what is on the disk for LVM.
        volumes: size in bytes by path of a volume.
        new: paths of those that a cut left before they were emptied.
        targets: path of the volume by name of a target that is offered now.
        passwords: sha256 of the password by name of a target, where it can be read (LIO).
        config, applied: sha256 of the file with targets, and of the one that tgtd has read.
        kernel: whether the kernel has LIO.
    """

    disk: Answer[Contents] = field(default_factory=lambda: Absent("not asked for"))
    volumes: Mapping[str, int] = field(default_factory=dict)
    new: frozenset[str] = frozenset()
    targets: Mapping[str, str] = field(default_factory=dict)
    passwords: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    applied: str = ""
    kernel: bool = False


def target_refusals(cluster: Cluster, found: TargetState, typed: Iterable[str]) -> list[str]:
    """Why the target host must not be set up, one line each."""
    host, wanted = target_host(cluster), section(cluster)
    assert host is not None, "a rule demands it of the inputs"
    lines = []
    if path := disk(cluster):
        refusal = disk_refusal(host.name, path, found.disk, wanted.group, typed)
        lines += [refusal] if refusal else []
    if wanted.product == "lio" and not found.kernel:
        lines.append(
            f"{host.name}: its kernel has no iSCSI target (target_core_mod, iscsi_target_mod): "
            "install linux-modules-extra, or choose services.san.product tgt"
        )
    for node, volume in wanted.volumes.items():
        size = found.volumes.get(backing(cluster, node))
        if size is not None and size > largest(volume.size):
            lines.append(
                f"{host.name}: the volume of {node} has {size >> 20} MiB, more than {volume.size}: "
                "nothing is made smaller"
            )
    return lines


def tgt_config(cluster: Cluster, values: Mapping[str, str]) -> str:
    """Targets for tgt (targets.conf(5)); values: the secrets by name."""
    parts = [
        f"<target {target(cluster, host.name)}>\n"
        f"    <backing-store {backing(cluster, host.name)}>\n"
        f"        lun {LUN}\n"
        "    </backing-store>\n"
        f"    initiator-address {host.ip}\n"
        f"    incominguser {host.name} {values[secret(host.name)]}\n"
        "</target>\n"
        for host in nodes(cluster)
    ]
    return MANAGED + "default-driver iscsi\n" + "".join(parts)


def lio_wanted(cluster: Cluster, node: str, password: str) -> str:
    """A node's target for LIO_OFFER, as JSON.

    One target for each node: its password is the target's, and no other initiator knows it.
    """
    host = target_host(cluster)
    assert host is not None, "a rule demands it of the inputs"
    wanted = {
        "node": node,
        "path": backing(cluster, node),
        "target": target(cluster, node),
        "lun": LUN,
        "address": str(host.ip),
        "port": PORT,
        "password": password,
    }
    return json.dumps(wanted) + "\n"


# ---- the nodes


@dataclass(frozen=True)
class InitiatorState:
    """What a node has of its volume.

    Args:
        sessions: names of targets that it is logged in to.
        settings: what open-iscsi keeps of the target.
        password: sha256 of the password among them.
        disk: what is on the volume.
        real: the device that the volume is.
        mounted: the device that is mounted at the path.
        read_only: whether nothing can be written there, as after an outage of the target.
        hidden: a file that is at the path while nothing is mounted there.
    """

    sessions: frozenset[str] = frozenset()
    settings: Mapping[str, str] = field(default_factory=dict)
    password: str = ""
    disk: Answer[Contents] = field(default_factory=lambda: Absent("not logged in"))
    real: str = ""
    mounted: str = ""
    read_only: bool = False
    hidden: str = ""


@dataclass(frozen=True)
class Mount:
    """A mount of a volume by a unit of ours.

    Args:
        unit: its name.
        device: what it mounts, by the name that `device` gives.
        path: where.
        mounted: whether it is.
        holders: what keeps it from being unmounted: processes, mounts of the same volume.
    """

    unit: str
    device: str
    path: str
    mounted: bool = False
    holders: tuple[str, ...] = ()

    @property
    def portal(self) -> str:
        """Address and port of its target."""
        return self.device.removeprefix(BY_PATH).partition("-iscsi-")[0]

    @property
    def target(self) -> str:
        """The name of its target."""
        return self.device.partition("-iscsi-")[2].rpartition("-lun-")[0]


def former(cluster: Cluster, node: str, found: Iterable[Mount]) -> tuple[Mount, ...]:
    """The mounts of ours that a node must not have any more."""
    wanted = None
    if node in {one.name for one in nodes(cluster)}:
        wanted = (device(cluster, node), section(cluster).volumes[node].path)
    return tuple(one for one in found if (one.device, one.path) != wanted)


def former_refusals(node: str, left: Iterable[Mount]) -> list[str]:
    """Why a node's former mounts cannot be taken away, one line each."""
    return [
        f"{node}: {one.path}, where its volume is mounted no longer, is in use by "
        f"{', '.join(one.holders)}: stop that, then run again"
        for one in left
        if one.holders
    ]


def node_refusals(
    cluster: Cluster, node: str, found: InitiatorState, kernel: bool, left: Iterable[Mount] = ()
) -> list[str]:
    """Why a node cannot have its volume, one line each.

    kernel: whether it has `iscsi_tcp`; left: former mounts, which go first.
    """
    volume, lines = section(cluster).volumes[node], []
    if not kernel:
        lines.append(
            f"{node}: its kernel has no iSCSI initiator (iscsi_tcp): install linux-modules-extra"
        )
    match found.disk:
        case Present(value=contents):
            ours = contents.half_formatted or contents.signatures == (volume.filesystem,)
            if not (contents.empty or ours):
                lines.append(
                    f"{node}: its volume holds {contents}, expected {volume.filesystem} or nothing "
                    f"(to lose all of it, remove {backing(cluster, node)} on the target's host)"
                )
        case Absent():
            pass
        case answer:
            lines.append(f"{node}: its volume cannot be read ({answer.reason})")
    if volume.path in {one.path for one in left if one.mounted}:
        pass
    elif found.mounted and found.mounted != found.real:
        lines.append(f"{node}: {found.mounted} is mounted at {volume.path} already")
    elif found.read_only:
        lines.append(
            f"{node}: {volume.path} has become read-only, as after {REPLACEMENT_TIMEOUT} s without "
            "its host: reboot the node, whose pods still hold it"
        )
    if found.hidden:
        lines.append(
            f"{node}: {volume.path} is not empty, and the volume would hide what is there "
            f"({found.hidden}): move it away"
        )
    return lines


def record_settings(node: str) -> dict[str, str]:
    """What open-iscsi keeps of the target, beside the password; its own defaults for the rest.

    CHAP is of the target alone: other targets of the node, such as Longhorn's, have none.
    """
    return {
        "node.startup": "manual",  # a unit of ours logs in, see san_units
        "node.session.auth.authmethod": "CHAP",
        "node.session.auth.username": node,
        "node.session.timeo.replacement_timeout": str(REPLACEMENT_TIMEOUT),
    }
