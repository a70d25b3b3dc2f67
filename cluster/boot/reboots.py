"""Why a host wants a reboot, and whether it gets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cluster.answer import Present
from cluster.boot import cmdline, config_txt, layout, places, wanted
from cluster.boot.state import BootState
from cluster.host_state import HostState
from cluster.probe import Done, Failed, Pending, Probe

if TYPE_CHECKING:
    from cluster.model import Cluster, Host


class Reason(NamedTuple):
    """One reason; `ours` when it is the boot layer that waits, else packages do."""

    text: str
    ours: bool


def reasons(model: Cluster, me: Host, node: HostState, boot: BootState) -> tuple[Reason, ...]:
    """Everything that waits for a reboot, also what this run is about to edit."""
    found = [Reason(text, True) for text in _ours(model, me, boot)] if boot.pi else []
    if boot.layout.staged:
        found.append(Reason("a new kernel is staged and will be tried", False))
    if _bootloader_waits(boot):
        found.append(Reason("a new bootloader is staged", False))
    if node.reboot_required is not None:
        packages = ", ".join(node.reboot_required) or "/run/reboot-required"
        found.append(Reason(f"packages ask for it: {packages}", False))
    return tuple(found)


def _ours(model: Cluster, me: Host, boot: BootState) -> list[str]:
    edits = {
        **wanted.cmdlines(model, me, boot), **wanted.quirks(model, boot),
        **wanted.config(model, me, boot),
    }  # fmt: skip
    found = [f"{path} is to change" for path in edits]
    text = boot.live_cmdline
    if boot.cmdline_active is False and text is not None:
        missing = cmdline.not_yet_active(text, boot.running)
        found.append(
            f"the kernel does not have {', '.join(missing)} yet"
            if missing
            else "the kernel was started with another command line than the file has now"
        )
    if boot.config_changed or config_txt.NAME in boot.pending:
        found.append("config.txt was changed after the boot")
    return found


def _bootloader_waits(boot: BootState) -> bool:
    waits = isinstance(boot.eeprom, Present) and boot.eeprom.value.waits
    return waits or places.BOOTLOADER in boot.pending


def allowed(model: Cluster, found: tuple[Reason, ...]) -> bool:
    """Whether the host is rebooted for these reasons (`nodes.boot.reboots`)."""
    policy = model.nodes.boot.reboots
    return policy != "never" and any(one.ours or policy == "all" for one in found)


def after(me: Host, boot: BootState, *, tried: bool) -> Probe:
    """Whether a host that has booted again is what it was rebooted for.

    With A/B slots a new one is tried in a boot of its own: the first boot is not the last.
    tried: whether a new slot was staged for this reboot; one that had failed before is no reason
    why this reboot should have failed.
    """
    if boot.pi is None:
        return Done("it is back")
    if boot.layout.trying:
        return Pending("its new boot slot is being tried")
    if boot.layout.staged:
        return Pending(
            "its new boot slot is not tried yet: it boots twice (a bootloader that is too old "
            "never tries: rpi-eeprom-update)"
        )
    failed_slot = boot.layout.slot("new").state == layout.BAD
    if failed_slot and tried:
        return Failed(
            "its new boot slot failed and it runs the old one: journalctl -u piboot-try-validate"
        )
    if boot.cmdline_active is False:
        missing = cmdline.not_yet_active(boot.live_cmdline or "", boot.running)
        return Failed(
            f"it booted with another command line than {wanted.live(boot)} has"
            + (f", without {', '.join(missing)}" if missing else "")
        )
    if me.in_cluster and boot.memory_controller is False:
        return Failed("it has no memory controller after the reboot either (cgroup.controllers)")
    if failed_slot:
        return Done(
            "it is back; the new boot slot that failed earlier is still there, and its kernel is "
            "not in use: sudo piboot-try --reset-new"
        )
    return Done("it is back")


def text(found: tuple[Reason, ...]) -> str:
    """The reasons in one line."""
    return "; ".join(one.text for one in found)
