"""What a Raspberry Pi's boot files are to say, and why nothing may be written there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from cluster.answer import Present
from cluster.boot import bridges, cmdline, config_txt, places
from cluster.boot.disk import Disk
from cluster.boot.state import BootState
from cluster.managed import MANAGED
from cluster.services import gateway
from cluster.text import cmdline as cmdline_text
from cluster.text import config_txt as config_text

if TYPE_CHECKING:
    from cluster.model import Cluster, Host

MEMORY = "cgroup_enable=memory"
# What K3s' guides name beside it; later kernels do not know it (raspberrypi/linux#6980).
OLD_MEMORY, OLD_RELEASES = "cgroup_memory=1", ("20.04", "22.04")
LABEL = "system-boot"  # of the boot partition of every Ubuntu image
WATCHDOG_TIMES = ("15s", "2min")  # while it runs, while it reboots; the hardware counts to 16 s
_RULE_IDS = re.compile(r'ATTRS\{idVendor\}=="(\w{4})", ATTRS\{idProduct\}=="(\w{4})"')

Texts = dict[str, str]  # new content by path on the boot partition
Edit = Callable[[str], str]


# ---- the kernel's command line


def cmdlines(model: Cluster, me: Host, state: BootState) -> Texts:
    """The command lines that need other tokens: the live one, and that of a staged slot."""
    if not (state.pi and model.nodes.boot.cmdline):
        return {}
    put, drop = tokens(model, me, state)
    return _edited(state, lambda text: cmdline_text.edit(text, put=put, drop=drop))


def tokens(model: Cluster, me: Host, state: BootState) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tokens that are to be there, and that are not."""
    boot = model.nodes.boot
    put, drop = [], [*boot.cmdline_remove]
    if me.in_cluster and _memory_hangs_on_tokens(state):
        put.append(MEMORY)
        drop.append("cgroup_disable=memory")
        if state.release in OLD_RELEASES:
            put.append(OLD_MEMORY)
    known = map(cmdline.key, cmdline.tokens(state.live_cmdline or ""))
    if state.layout.ab and "panic" not in known:
        put.append("panic=10")  # without it a new kernel that fails is never given up
    return (*put, *boot.cmdline_add), tuple(drop)


def _memory_hangs_on_tokens(state: BootState) -> bool:
    """Whether the memory controller is off, or is on only because of a token.

    Firmware of late 2024 and later switches it off before the file can say anything; kernels in
    between have it on by themselves.
    """
    said = cmdline.switches_on(cmdline.tokens(state.running))
    return state.memory_controller is False or said is not None


def quirks(model: Cluster, state: BootState) -> Texts:
    """The command lines that need other USB quirks."""
    if not (state.pi and model.nodes.boot.usb_quirks):
        return {}
    flags = quirk_flags(model, state)
    return _edited(state, lambda text: cmdline_text.with_quirks(text, flags))


def quirk_flags(model: Cluster, state: BootState) -> dict[str, str]:
    """Flags of the bridges that need some, by VID:PID; without flags: they leave the list.

    What stands there for other bridges is not touched, nor is a quirk ever taken away by itself:
    the failures that asked for it are gone because of it.
    """
    chosen = model.nodes.boot.quirks
    flags = {vid_pid: "" for vid_pid, given in chosen.items() if not given}
    for disk in state.disks.values():
        if disk.usb:
            vid_pid = disk.usb.vid_pid
            wanted = chosen.get(vid_pid, bridges.IGNORE_UAS if _uas_fails(disk, state) else None)
            if wanted is not None:
                flags[vid_pid] = wanted
    return flags


def _uas_fails(disk: Disk, state: BootState) -> bool:
    assert disk.usb
    verdict = bridges.bridge(disk.usb.vid_pid).verdict
    aborts = f"[{disk.name}]"
    seen = any(aborts in line for line in bridges.uas_failures(state.log))
    return verdict == "bad" or (verdict == "mixed" and disk.transport == "uas" and seen)


def _edited(state: BootState, edit: Edit) -> Texts:
    """What an edit makes of the live command line and of a staged one, where it changes them.

    A slot that is staged has a copy of its own and takes the live one's place at the next boot.
    """
    match state.layout.live:
        case Present(value=path):
            paths = [path]
        case _:
            return {}
    if state.layout.staged and state.layout.slot("new").cmdline is not None:
        paths.append(f"new/{path.removeprefix(state.layout.prefix)}")
    found = {}
    for path in paths:
        try:
            found[path] = edit(state.files[path])
        except ValueError as error:
            raise ValueError(f"{places.FOLDER}/{path}: {error}") from error
    return {path: new for path, new in found.items() if new != state.files[path]}


# ---- config.txt


def config(model: Cluster, me: Host, state: BootState) -> Texts:
    """config.txt when it needs other lines."""
    if not (state.pi and model.nodes.boot.config and config_txt.NAME in state.files):
        return {}
    old = state.files[config_txt.NAME]
    new = config_text.edit(state.files, state.pi, config_lines(model, me, state))
    return {config_txt.NAME: new} if new != old else {}


def config_lines(model: Cluster, me: Host, state: BootState) -> dict[str, tuple[str, ...]]:
    """Lines of config.txt by section."""
    boot = model.nodes.boot
    everywhere = []
    if boot.watchdog:
        everywhere.append("dtparam=watchdog=on")
    if boot.wifi_off and not _needs_wifi(model, me, state):
        everywhere.append("dtoverlay=disable-wifi")
    if boot.bluetooth_off:
        everywhere.append("dtoverlay=disable-bt")
    lines = {"all": everywhere}
    if boot.gpu_mem is not None and state.pi and state.pi.family == "pi4":
        lines["pi4"] = [f"gpu_mem={boot.gpu_mem}"]  # a Pi 5 gives its GPU what it asks for
    for section, more in boot.config_lines.items():
        lines[section] = [*lines.get(section, ()), *more]
    return {section: tuple(dict.fromkeys(some)) for section, some in lines.items() if some}


def _needs_wifi(model: Cluster, me: Host, state: BootState) -> bool:
    router = model.services.gateway
    if router and me in gateway.hosts(model) and (router.wan_interface or "").startswith("wl"):
        return True  # also before somebody has told it the password of that network
    radios = {radio.name: radio for radio in state.radios if radio.kind == "wifi"}
    routed = any(name in radios or name.startswith("wl") for name in state.routes)
    return routed or any(str(me.ip) in radio.addresses for radio in radios.values())


# ---- TRIM and the watchdog


def trim_rule(model: Cluster, state: BootState) -> str | None:
    """The udev rule for bridges through which TRIM may be switched on; None: for none.

    A bridge that lies loses data. So it must be known by its ids, and say itself that it can
    (LBPU), which only a bridge that the user has tested may leave out.
    """
    tested = set(model.nodes.boot.trim_bridges)
    ruled = {":".join(found) for found in _RULE_IDS.findall(state.udev_rule or "")}
    wanted = {one for one in ruled if one in tested or bridges.bridge(one).trims}
    for disk in state.disks.values():
        if disk.usb and disk.transport == "uas" and disk.trim.mode == "full":
            vid_pid = disk.usb.vid_pid
            known = vid_pid in tested or bridges.bridge(vid_pid).trims
            if known and (disk.trim.unmap or (disk.trim.unmap is None and vid_pid in tested)):
                wanted.add(vid_pid)
    return rule(sorted(wanted)) if wanted else None


def rule(vid_pids: Iterable[str]) -> str:
    """The rule that has the kernel send UNMAP through these bridges (sd.c, provisioning_mode)."""
    lines = [
        f'ACTION=="add|change", SUBSYSTEM=="scsi_disk", ATTRS{{idVendor}}=="{vid}", '
        f'ATTRS{{idProduct}}=="{pid}", ATTR{{provisioning_mode}}="unmap"'
        for vid, pid in (one.split(":") for one in vid_pids)
    ]
    return MANAGED + "\n".join(lines) + "\n"


def waiting_for_trim(state: BootState, text: str) -> tuple[str, ...]:
    """Disks that the rule is for and that do not trim yet."""
    ruled = {":".join(found) for found in _RULE_IDS.findall(text)}
    return tuple(
        disk.name
        for disk in state.disks.values()
        if disk.usb and disk.usb.vid_pid in ruled and disk.trim.mode not in ("unmap", "")
    )


def watchdog() -> str:
    """systemd keeps the hardware watchdog quiet as long as it lives (systemd-system.conf(5))."""
    runtime, reboot = WATCHDOG_TIMES
    return f"{MANAGED}[Manager]\nRuntimeWatchdogSec={runtime}\nRebootWatchdogSec={reboot}\n"


# ---- refusals


def refusals(model: Cluster, me: Host, state: BootState) -> list[str]:
    """Why the boot files of a host must not be edited, or need not be, one line each."""
    boot = model.nodes.boot
    if state.pi is None or not (boot.cmdline or boot.config or boot.usb_quirks):
        return []
    if problem := _unfit_partition(state):
        return [f"{me.name}: {problem}"]
    if state.live_cmdline is None:
        return [f"{me.name}: {places.FOLDER}: {state.layout.live}"]
    found = []
    try:
        changes: Mapping[str, str] = {
            **cmdlines(model, me, state), **quirks(model, state), **config(model, me, state),
        }  # fmt: skip
    except ValueError as error:
        return [f"{me.name}: {error}"]
    if changes and state.layout.trying:
        found.append(
            f"{me.name}: its new boot slot is being tried right now, and an edit would be lost: "
            f"wait until {places.FOLDER}/new is gone (journalctl -u piboot-try-validate)"
        )
    if me.in_cluster and _memory_cannot_be_had(state):
        found.append(
            f"{me.name}: its kernel {state.kernel} was started with {MEMORY} and has no memory "
            "controller all the same: it lacks the Raspberry Pi patch (linux-raspi has it)"
        )
    return found


def live(state: BootState) -> str:
    match state.layout.live:
        case Present(value=path):
            return f"{places.FOLDER}/{path}"
        case _:
            return places.FOLDER


def _unfit_partition(state: BootState) -> str:
    match state.mount:
        case Present(value=mount):
            pass
        case answer:
            return f"{answer}: an edit would land on the root file system (mount {places.FOLDER})"
    if not mount.writable:
        return f"{places.FOLDER} is mounted read-only: check it (fsck.vfat) and mount it again"
    twins = [one.name for one in state.partitions if one.label == LABEL]
    root = state.root_disk
    if root is None or mount.disk == root.name:
        return ""
    if lost := [one for one in state.late if one.startswith("lsblk")]:
        return f"{places.FOLDER} is on {mount.disk}, / is on {root.name}, and {lost[0]}"
    if len(twins) > 1:
        return (
            f"{places.FOLDER} is on {mount.disk}, / is on {root.name}, and {', '.join(twins)} have "
            f"the label {LABEL}: take the other disk out, or give it another label (fatlabel)"
        )
    return ""


def _memory_cannot_be_had(state: BootState) -> bool:
    asked = cmdline.switches_on(cmdline.tokens(state.running))
    return state.memory_controller is False and asked is True
