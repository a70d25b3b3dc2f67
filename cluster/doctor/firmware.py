"""The bootloader in a Raspberry Pi's EEPROM."""

from __future__ import annotations

from datetime import UTC, datetime

from cluster.answer import Absent, Present
from cluster.boot.disk import Disk
from cluster.boot.eeprom import Eeprom
from cluster.doctor.check import APPLY, Answer, Verdict, check, passed, unfit, unknown, warned
from cluster.doctor.node import Node

OLD = 548 * 86400  # seconds: 18 months (pi-nodes.md, FW-01)
_WARN = Verdict.WARN
_UPDATE = "sudo apt-get install rpi-eeprom && sudo rpi-eeprom-update -a, then reboot"
_EDIT = "sudo -E rpi-eeprom-config --edit"


def _read(node: Node) -> Eeprom | Answer | None:
    """The EEPROM; an answer where it could not be read, None where there is none."""
    match node.boot.eeprom:
        case Present(value=found):
            return found
        case Absent():
            return None
        case said:
            return unknown(getattr(said, "reason", "") or "it was not read")


@check(
    "eeprom",
    "the bootloader is new enough for the release, and not older than 18 months",
    why="an old one never tries a new kernel of 25.10 and later: updates stay unapplied; and USB "
    "and NVMe disks start less reliably",
    remedy=_UPDATE,
    physical=True,
)
def age(node: Node) -> Answer | None:
    found = _read(node)
    if not isinstance(found, Eeprom) or node.boot.pi is None:
        return found if isinstance(found, Answer) else None
    if found.built is None:
        return unknown("its bootloader does not say when it was made")
    ours = node.model.nodes.boot.eeprom == "update"
    date = f"of {datetime.fromtimestamp(found.built, UTC):%Y-%m-%d}"
    if node.boot.layout.ab and found.tries_slots(node.boot.pi.family) is False:
        return unfit(f"{date}: too old to try a new kernel", mended=ours)
    if node.state.clock.at - found.built > OLD:
        return warned(f"{date}: older than 18 months", APPLY if ours else "")
    return passed(f"{date}{', an update is staged' if found.waits else ''}")


@check(
    "boot-order",
    "the bootloader looks first at the disk that / is on, and has a way to a rescue card",
    why="a forgotten SD card starts another system, or a dead disk leaves no way in",
    remedy=f"{_EDIT}: BOOT_ORDER=0xf14 (USB, then SD), 0xf146 (NVMe, USB, SD)",
    worst=_WARN,
    physical=True,
)
def order(node: Node) -> Answer | None:
    found = _read(node)
    if not isinstance(found, Eeprom):
        return found
    if found.boot_order is None:
        return unknown("its configuration cannot be read")
    text = f"BOOT_ORDER={found.boot_order}"
    wanted = _medium(node.boot.root_disk)
    if wanted and found.media[0] != wanted:
        return warned(f"{text} begins with {found.media[0]}, / is on {wanted}")
    if found.media[-1] != "restart":
        return warned(f"{text} ends without another try")
    if "sd" not in found.media:
        return warned(f"{text} never looks at an SD card")
    return passed(text)


def _medium(disk: Disk | None) -> str:
    """The bootloader's word for what a disk hangs on; empty: none of its own."""
    if disk is None:
        return ""
    if disk.usb:
        return "usb"
    return {"nvme": "nvme", "sd": "sd", "emmc": "sd"}.get(disk.transport, "")


@check(
    "eeprom-frozen",
    "the bootloader takes updates",
    why="FREEZE_VERSION=1 keeps security fixes and fixes of USB boot away without a word",
    remedy=f"{_EDIT}: remove FREEZE_VERSION",
    worst=_WARN,
    physical=True,
)
def frozen(node: Node) -> Answer | None:
    found = _read(node)
    if not isinstance(found, Eeprom):
        return found
    if not found.config_known:
        return unknown("its configuration cannot be read")
    return warned("FREEZE_VERSION=1") if found.frozen else passed("not frozen")


@check(
    "eeprom-config",
    "no settings of config.txt are hidden in the EEPROM",
    why="a [config.txt] section there counts after the file, and is seen nowhere else",
    remedy=f"{_EDIT}: move the section into config.txt",
    worst=_WARN,
    physical=True,
)
def hidden(node: Node) -> Answer | None:
    found = _read(node)
    if not isinstance(found, Eeprom):
        return found
    if not found.config_known:
        return unknown("its configuration cannot be read")
    return warned("it has a section [config.txt]") if found.hides_config_txt else passed("none")


CHECKS = (age, order, frozen, hidden)
