"""Why a host wants a reboot, and whether it gets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cluster.answer import Present
from cluster.boot import cmdline, wanted
from cluster.boot.state import BootState
from cluster.host_state import HostState

if TYPE_CHECKING:
    from cluster.model import Cluster, Host


class Reason(NamedTuple):
    """One reason; `ours` when it is the boot layer that waits, else packages do."""

    text: str
    ours: bool


def reasons(
    model: Cluster, me: Host, node: HostState, boot: BootState | None
) -> tuple[Reason, ...]:
    """Everything that waits for a reboot, also what this run is about to edit.

    boot: None on a computer that is no Raspberry Pi.
    """
    found = [Reason(text, True) for text in _ours(model, me, boot)] if boot else []
    if boot and boot.layout.staged:
        found.append(Reason("a new kernel is staged and will be tried", False))
    if boot and isinstance(boot.eeprom, Present) and boot.eeprom.value.staged:
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
    found += [f"{one} was changed" for one in dict.fromkeys(boot.pending)]
    if boot.config_changed and "config.txt" not in boot.pending:
        found.append("config.txt was changed after the boot")
    return found


def allowed(model: Cluster, found: tuple[Reason, ...]) -> bool:
    """Whether the host is rebooted for these reasons (`nodes.boot.reboots`)."""
    policy = model.nodes.boot.reboots
    return policy != "never" and any(one.ours or policy == "all" for one in found)


def text(found: tuple[Reason, ...]) -> str:
    """The reasons in one line."""
    return "; ".join(one.text for one in found)


def will_have_memory(model: Cluster, me: Host, board: str) -> bool:
    """Whether the memory controller is switched on by this project before K3s starts.

    board: the model's name as the node fact has it.
    """
    boot = model.nodes.boot
    return me.in_cluster and "Raspberry Pi" in board and boot.cmdline and boot.reboots != "never"
