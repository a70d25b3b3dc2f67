"""Disks: how they are connected, how they are, how much is free."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from cluster.answer import Present
from cluster.boot import bridges, cmdline
from cluster.boot.disk import SUPER_SPEED, Disk, Partition
from cluster.doctor.check import (
    APPLY,
    Answer,
    Verdict,
    check,
    failed,
    passed,
    unfit,
    unknown,
    warned,
    worst,
)
from cluster.doctor.node import NOT_ASKED, Node
from cluster.doctor.seen import Usage
from cluster.quantity import quantity

_WARN = Verdict.WARN
MIN_FREE_KIB = 1 << 20
_LITTLE_FREE, _LITTLE_FREE_KIB = 0.2, 10 * (1 << 20)
_SMALL = 64 * 10**9  # bytes
_KUBELETS = ("/", "/var/lib/rancher")  # where its pods and images are
FSYNC_GOOD, FSYNC_BAD = 0.010, 0.020  # seconds, p99: etcd's guidance, OpenShift's limit
_UBUNTU_LABELS = ("writable", "system-boot")
_LOST = re.compile(r"I/O error|controller is down|Remounting filesystem read-only")
_NO_DISK = re.compile(r"dev (loop|sr|fd|zram|nbd)\d")
_NAME = re.compile(r"\b(sd[a-z]{1,2}|nvme\d+|mmcblk\d+|vd[a-z])(?=\b|\d|[np]\d)")
_PENDING, _WORN = (5, 187, 197, 198), (177, 202, 231, 233)  # numbers of SMART attributes
_ADAPTER = "an adapter or case that is known good (docs/hardware.md)"


def _used(node: Node) -> Iterator[Disk]:
    """The disk of / and the inventory's data disk."""
    if root := node.boot.root_disk:
        yield root
    data = (node.me.data_disk or "").removeprefix("/dev/")
    for name, disk in node.boot.disks.items():
        if data.startswith(name) and disk != node.boot.root_disk:
            yield disk


def _of_another(node: Node, text: str) -> bool:
    """Whether it names only other disks: Longhorn's volumes (sd* too), sticks, card readers."""
    named, used = _NAME.findall(text), [disk.name for disk in _used(node)]
    return bool(named and used) and not any(name.startswith(tuple(named)) for name in used)


@check(
    "root-medium",
    "the system is on an SSD",
    why="an SD card wears out within months under etcd's writes, and is too slow for them",
    remedy="copy the system to a USB SSD or NVMe disk, and set the boot order",
    members=True,
    physical=True,
)
def root_medium(node: Node) -> Answer:
    if not isinstance(node.boot.root, Present):
        return unknown("the mount of / was not read")
    mount, disk = node.boot.root.value, node.boot.root_disk
    if mount.kind in ("overlay", "tmpfs", "squashfs"):
        return failed(f"/ is {mount.kind}: it forgets everything at a reboot")
    if disk is None:
        return unknown(f"{mount.source}: its disk is not known")
    if disk.transport in ("sd", "emmc"):
        what = {"sd": "an SD card", "emmc": "eMMC"}[disk.transport]
        text = f"{mount.source}, {what}"
        return failed(text) if node.me.is_server and disk.transport == "sd" else warned(text)
    return passed(f"{mount.source}, {disk.transport}")


@check(
    "usb-bridge",
    "the bridge between USB and disk works with its driver",
    why="a bad bridge aborts commands under load: the disk vanishes, and etcd with it",
    remedy=f"usb-storage.quirks=VID:PID:u on the kernel's command line; better {_ADAPTER}",
    physical=True,
)
def usb_bridge(node: Node) -> Answer | None:
    return worst(_bridge(node, disk) for disk in _used(node) if disk.usb)


def _bridge(node: Node, disk: Disk) -> Answer:
    assert disk.usb
    known = bridges.bridge(disk.usb.vid_pid)
    text = f"{disk.name} by {disk.usb.vid_pid} ({known.name}), {disk.transport}"
    if disk.transport == "unknown":
        return unknown(f"{text}: its driver was not read")
    aborts = bridges.uas_failures(node.boot.log) if disk.transport == "uas" else ()
    remedy = f"usb-storage.quirks={disk.usb.vid_pid}:u on the kernel's command line and a reboot"
    mended = _takes_uas_away(node, disk)
    if aborts:
        return unfit(f"{text}: {len(aborts)} aborts in the kernel's log", remedy, mended=mended)
    if disk.transport == "uas" and known.verdict == "bad":
        return warned(f"{text}: reported as bad", APPLY if mended else remedy)
    return passed(text)


def _takes_uas_away(node: Node, disk: Disk) -> bool:
    """Whether site.py gives the bridge a quirk that ends such aborts."""
    settings, vid_pid = node.model.nodes.boot, disk.usb.vid_pid if disk.usb else ""
    known_bad = settings.usb_quirks and bridges.bridge(vid_pid).verdict == "bad"
    return node.mends_cmdline and "u" in settings.quirks.get(vid_pid, "u" if known_bad else "")


@check(
    "usb-speed",
    "USB disks run at USB 3 speed",
    why="at USB 2 a disk is ten times slower: etcd misses its deadlines",
    remedy="the blue port, a USB 3 cable, another adapter",
    physical=True,
)
def usb_speed(node: Node) -> Answer | None:
    return worst(_speed(disk) for disk in _used(node) if disk.usb)


def _speed(disk: Disk) -> Answer:
    speed = disk.usb.speed if disk.usb else None
    if speed is None:
        return unknown(f"{disk.name}: its port does not say")
    text = f"{disk.name}: {speed} Mb/s"
    return failed(text) if speed < SUPER_SPEED else passed(text)


@check(
    "kernel-log",
    "the kernel has reported no faults of disks, USB or power since boot",
    why="a disk that stumbles once will do so under load, and take the node with it",
    remedy="dmesg --level=err,warn; then cable, adapter, supply, disk, in this order",
    physical=True,
)
def kernel_log(node: Node) -> Answer:
    log = node.boot.log
    if not node.boot.kernel:
        return unknown("the kernel's log was not read")
    lost = [line for line in log if _LOST.search(line) and not _NO_DISK.search(line)]
    if own := [line for line in lost if not _of_another(node, line)]:
        return failed(f"{len(own)} lines, the last: {own[-1][:80]}")
    if aborts := bridges.uas_failures(log):
        mended = any(_takes_uas_away(node, disk) for disk in _used(node))
        return unfit(f"{len(aborts)} aborts of a USB disk: {aborts[-1][:80]}", mended=mended)
    if power := [line for line in log if "ndervoltage detected" in line]:
        return warned(f"{len(power)} times under-voltage")
    if lost:
        return warned(f"{len(lost)} lines of other disks or volumes, the last: {lost[-1][:80]}")
    return passed("none")


@check(
    "disk-labels",
    "labels and partition ids are there once, and / and the boot partition are on one disk",
    why="every image of Ubuntu has the same labels: with a card and an SSD, chance decides which "
    "one becomes /",
    remedy="take the card out; or e2label and fatlabel, with cmdline.txt and fstab changed alike",
    physical=True,
)
def disk_labels(node: Node) -> Answer:
    boot = node.boot
    if not boot.partitions:
        return unknown(node.unread("lsblk", "lsblk lists nothing"))
    twice = [
        *_twice(boot.partitions, lambda one: one.label if one.label in _UBUNTU_LABELS else ""),
        *_twice(boot.partitions, lambda one: one.partuuid),
    ]
    if twice:
        return failed("; ".join(twice))
    if isinstance(boot.root, Present) and isinstance(boot.mount, Present) and boot.pi:
        disks = {boot.root.value.disk, boot.mount.value.disk} - {""}
        if len(disks) > 1:
            return failed(f"/ is on {boot.root.value.disk}, the boot partition on "
                          f"{boot.mount.value.disk}")  # fmt: skip
    return passed(f"{len(boot.partitions)} partitions")


def _twice(partitions: tuple[Partition, ...], value: Callable[[Partition], str]) -> Iterator[str]:
    names: dict[str, list[str]] = defaultdict(list)
    for one in partitions:
        # lsblk lists what lies on two disks (RAID) below each of them.
        if (found := value(one)) and one.name not in names[found]:
            names[found].append(one.name)
    yield from (f"{found} is {' and '.join(of)}" for found, of in names.items() if len(of) > 1)


@check(
    "trim",
    "free blocks are told to the SSD every week",
    why="without TRIM an SSD gets slower with each write, until fsync takes too long",
    remedy="a udev rule with provisioning_mode=unmap for an adapter that can "
    "(sg_vpd -p lbpv /dev/sda); systemctl enable --now fstrim.timer",
    worst=_WARN,
    physical=True,
)
def trim(node: Node) -> Answer | None:
    disk = node.boot.root_disk
    if disk is None or (disk.rotating and not disk.usb):
        return None
    if disk.trim.on is None:
        return unknown(f"{disk.name}: its kernel does not say")
    if not disk.trim.on:
        mode = f" (provisioning_mode {disk.trim.mode})" if disk.trim.mode else ""
        return warned(f"{disk.name}: off{mode}", APPLY if _switches_trim_on(node, disk) else "")
    timer = node.state.units.get("fstrim.timer")
    if timer and timer.active != "active":
        ours = node.model.nodes.parts.fstrim
        remedy = APPLY if ours else "sudo systemctl enable --now fstrim.timer"
        return warned("fstrim.timer is off", remedy)
    return passed(f"{disk.name}: on")


def _switches_trim_on(node: Node, disk: Disk) -> bool:
    """Whether site.py makes the bridge pass TRIM on."""
    settings = node.model.nodes.boot
    if node.boot.pi is None or disk.usb is None or not settings.trim:
        return False
    vid_pid = disk.usb.vid_pid
    return bridges.bridge(vid_pid).trims or vid_pid in settings.trim_bridges


@check(
    "usb-autosuspend",
    "the port of a USB disk is never put to sleep",
    why="some adapters do not wake up again",
    remedy="usbcore.autosuspend=-1 on the kernel's command line, or a udev rule",
    worst=_WARN,
    physical=True,
)
def usb_autosuspend(node: Node) -> Answer | None:
    off = "usbcore.autosuspend=-1" in cmdline.tokens(node.boot.running)
    return worst(_sleep(disk, off) for disk in _used(node) if disk.usb)


def _sleep(disk: Disk, off: bool) -> Answer:
    sleeps = disk.usb.autosuspend if disk.usb else None
    if off or sleeps is False:
        return passed(f"{disk.name}: never")
    if sleeps is None:
        return unknown(f"{disk.name}: power/control was not read")
    return warned(f"{disk.name}: power/control is auto")


@check(
    "smart",
    "the disks' own diagnosis (SMART) is good",
    why="it often tells of a dying disk some days before",
    remedy="copy the data, replace the disk; sudo smartctl -a /dev/NAME",
    physical=True,
    extra=True,
)
def smart(node: Node) -> Answer:
    if node.probes is None:
        return unknown(NOT_ASKED)
    if "smartctl" not in node.probes.tools:
        return unknown("smartctl is missing (sudo apt-get install smartmontools)")
    said = node.probes.smart
    silent = [
        f"{name}: smartctl did not end in time" for name in node.probes.asked if name not in said
    ]
    answers = [*(_smart(name, one) for name, one in said.items()), *map(unknown, silent)]
    return worst(answers) or unknown("no disk answers smartctl")


def _smart(name: str, said: Mapping[str, Any]) -> Answer:
    status = said.get("smart_status", {}).get("passed")
    nvme = said.get("nvme_smart_health_information_log")
    if status is None and not nvme:
        return unknown(f"{name} does not tell")
    if status is False:
        return failed(f"{name}: failing")
    if nvme:
        return _nvme(name, nvme)
    rows = said.get("ata_smart_attributes", {}).get("table", [])
    raw = {row["id"]: row.get("raw", {}).get("value", 0) & 0xFFFF_FFFF for row in rows}
    bad = sum(raw.get(number, 0) for number in _PENDING[1:])
    if bad:
        return failed(f"{name}: {bad} sectors cannot be read")
    if raw.get(199):
        return warned(f"{name}: {raw[199]} transfer errors", "another cable or adapter")
    left = [row["value"] for row in rows if row["id"] in _WORN and row.get("value")]
    if left and min(left) <= 20:
        return warned(f"{name}: {min(left)} % of its life left")
    return passed(f"{name}: good")


def _nvme(name: str, log: Mapping[str, Any]) -> Answer:
    used = log.get("percentage_used", 0)
    if log.get("critical_warning") or log.get("media_errors"):
        text = f"critical warning {log.get('critical_warning', 0)}, "
        return failed(f"{name}: {text}{log.get('media_errors', 0)} media errors")
    if log.get("available_spare", 100) <= log.get("available_spare_threshold", 0):
        return failed(f"{name}: no spare blocks left")
    text = f"{name}: {used} % of its life used"
    return warned(text) if used >= 80 else passed(text)


@check(
    "disk-space",
    "more is free than the kubelet's limit for evictions, and one GiB",
    why="below the limit the kubelet evicts pods and takes no new ones",
    remedy="sudo k3s crictl rmi --prune; sudo journalctl --vacuum-size=100M; a larger disk",
    members=True,
)
def disk_space(node: Node) -> Answer | None:
    threshold = node.model.k3s.kubelet.eviction_hard.get("nodefs.available", "10%")
    disks = {path: Usage(one.size, one.free) for path, one in node.state.disks.items()}
    disks |= {path: one for path, one in node.seen.space.items() if path not in disks}
    found = [_free(path, one, threshold) for path, one in disks.items() if one.size]
    return worst([*found, *map(unknown, node.late("df"))]) or unknown("df does not say")


def _free(path: str, disk: Usage, threshold: str) -> Answer:
    text = f"{_gib(disk.free)} of {_gib(disk.size)} are free on {path}"
    needed = max(MIN_FREE_KIB, _least(threshold, disk.size))
    if disk.free < needed and path not in _KUBELETS:
        # Where only volumes are the kubelet evicts nobody: Longhorn keeps its own reserve.
        return warned(text, "delete snapshots that are not needed, fewer copies, or a larger disk")
    if disk.free < needed:
        more = f"expected at least {_gib(needed)} (the kubelet evicts pods below {threshold})"
        return failed(f"{text}: {more}")
    if disk.free < max(_LITTLE_FREE * disk.size, _LITTLE_FREE_KIB):
        return warned(text)
    return passed(text)


def _least(threshold: str, size: int) -> float:
    """KiB that a limit of the kubelet such as 10% or 2Gi stands for on a disk of that many KiB."""
    if threshold.endswith("%"):
        return float(threshold[:-1]) / 100 * size
    return float(quantity(threshold) or 0) / 1024  # the kubelet itself refuses what is none


def _gib(kib: float) -> str:
    return f"{kib / (1 << 20):.1f} GiB"


@check(
    "inodes",
    "a tenth of the files that fit is still free",
    why="without inodes nothing can be written, however much space is free",
    remedy="sudo k3s crictl rmi --prune; find folders with millions of small files",
    members=True,
)
def inodes(node: Node) -> Answer | None:
    used = [
        failed(f"{one.free / one.size:.0%} left on {path}")
        if one.free < 0.1 * one.size
        else passed(f"{one.free / one.size:.0%} left on {path}")
        for path, one in node.seen.inodes.items()
        if one.size  # btrfs has no fixed number
    ]
    return worst([*used, *map(unknown, node.late("df"))]) or unknown("df does not say")


@check(
    "file-system",
    "the root file system can be written to and has recorded no errors",
    why="after an error the kernel makes it read-only: the node looks alive and can do nothing",
    remedy="start from another medium and sudo fsck -f the root partition; check cable and disk",
    members=True,
    physical=True,
)
def file_system(node: Node) -> Answer:
    if not isinstance(node.boot.root, Present):
        return unknown("the mount of / was not read")
    mount = node.boot.root.value
    if not mount.writable:
        return failed(f"{mount.source} is read-only")
    errors = {
        path.split("/")[4]: int(value)
        for path, value in node.seen.values.items()
        if path.startswith("/sys/fs/ext4/") and path.endswith("errors_count") and value.isdigit()
    }
    if wrong := {name: count for name, count in errors.items() if count}:
        text = ", ".join(f"{name}: {count} errors" for name, count in wrong.items())
        own = [name for name in wrong if not _of_another(node, name)]
        # A volume keeps its count over every repair but fsck, and comes with its pod.
        return failed(text) if own else warned(text, "fsck of the volume, while no pod has it")
    if mount.kind == "ext4" and not errors:
        return unknown("/sys/fs/ext4 cannot be read")
    return passed(f"{mount.source} {mount.kind}")


@check(
    "data-disk",
    "the inventory's `data_disk` is there, and large enough",
    why="volumes would fill the system's own disk instead",
    remedy="make it (docs/first-boot.md, A data disk by hand), or correct data_disk",
    members=True,
    physical=True,
)
def data_disk(node: Node) -> Answer | None:
    if not node.me.data_disk:
        return None
    if not node.boot.partitions and not node.boot.disks:
        return unknown(node.unread("lsblk", "lsblk lists nothing"))
    if not node.me.data_disk.startswith("/dev/") or "/" in node.me.data_disk[5:]:
        return unknown(f"{node.me.data_disk} is another name of a disk")
    name = node.me.data_disk.removeprefix("/dev/")
    found = next((one for one in node.boot.partitions if one.name == name), None)
    if found is None and name not in node.boot.disks:
        return failed(f"there is no {node.me.data_disk}")
    disk = node.boot.root_disk
    if disk and disk.size and disk.size < _SMALL and found and found.disk == disk.name:
        return warned(f"{node.me.data_disk} is on the system's disk of {disk.size // 10**9} GB")
    if not (found and found.mounted):
        return passed(f"{node.me.data_disk}, not mounted")
    at, volumes = found.mounted, node.model.platform.storage.path
    if node.model.stack.storage == "longhorn" and not PurePath(volumes).is_relative_to(at):
        text = f"{node.me.data_disk} is at {at}, Longhorn's volumes go to {volumes}"
        return warned(text, f"platform.storage.path {at}, before volumes are made")
    return passed(f"{node.me.data_disk}, {found.kind} at {at}")


@check(
    "fsync",
    "99 of 100 small writes are on the disk within 10 ms (only with --write-test)",
    why="etcd waits for each of them: when they take longer, leaders change and the API stalls",
    remedy=f"NVMe, or {_ADAPTER}; nothing else that writes on a server",
    members=True,
    extra=True,
)
def fsync(node: Node) -> Answer | None:
    times = node.fsync
    if times is None:
        return None
    if not times:
        return unknown("python3 is missing, the folder cannot be written to, or it did not end")
    p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
    text = f"p50 {_ms(times[len(times) // 2])}, p99 {_ms(p99)}, longest {_ms(times[-1])}"
    if p99 > FSYNC_BAD:
        return failed(text) if node.me.is_server else warned(text)
    return warned(text) if p99 > FSYNC_GOOD else passed(text)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


CHECKS = (
    root_medium, usb_bridge, usb_speed, kernel_log, disk_labels, trim, usb_autosuspend, smart,
    disk_space, inodes, file_system, data_disk, fsync,
)  # fmt: skip
