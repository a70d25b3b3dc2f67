"""USB-to-disk bridges by VID:PID: what is known of them, and from whom.

The ids are the only thing that counts: a wrong one in a quirk is ignored without a word, and the
same name is sold with different chips. Keys of the sources:

* HA: home-assistant/operating-system, its cmdline.txt and issues #1710, #3220, #3280, #4787, #4893
* UAS-H: torvalds/linux drivers/usb/storage/unusual_uas.h
* L#n: raspberrypi/linux, issue n; EE#n: raspberrypi/rpi-eeprom, issue n
* INC: incident report "pi-ctl-03 USB SSD Disconnect Recurrence" (2026-08-18, five Pi 4)
* PIC: ricsanfre/pi-cluster; JG: jeffgeerling.com 2020, TRIM on an external SSD
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["bad", "mixed", "good", "unknown"]
IGNORE_UAS = "u"  # flag of usb-storage.quirks: speak the old protocol
LONGEST_QUIRKS = 127  # characters; the kernel's buffer has 128 bytes (source: HA's patch 0002)


@dataclass(frozen=True, slots=True)
class Bridge:
    """What is known of a bridge; `bad` and `mixed` are about its UAS on a Raspberry Pi."""

    name: str
    verdict: Verdict
    source: str
    trims: bool = False  # passes TRIM on, as seen by the source


_BAD: tuple[tuple[str, str, str], ...] = (
    ("152d:0578", "JMicron JMS567/JMS578", "HA, UAS-H"),
    ("152d:0579", "JMicron JMS579", "HA"),
    ("152d:a578", "JMicron JMS578", "HA"),
    ("152d:a583", "JMicron JMS583", "HA"),
    ("152d:0562", "JMicron JMS567", "HA"),
    ("152d:0567", "JMicron JMS567", "HA, UAS-H"),
    ("152d:0583", "JMicron JMS583 (NVMe)", "HA"),
    ("152d:1561", "JMicron JMS561 (Sabrent)", "L#5060"),
    ("174c:0829", "ASMedia", "HA"),
    ("174c:225c", "ASMedia", "HA"),
    ("2109:0715", "VIA VL715/VL716/VL817", "HA"),
    ("0bda:9201", "Realtek RTL9201", "HA"),
    ("14b0:0206", "StarTech", "HA"),
    ("125f:a88a", "ADATA SD600Q", "HA"),
    ("0634:5605", "Crucial X9 (Micron)", "HA"),
    ("0930:1400", "sold as TOSHIBA USB DRV: replace it", "INC"),
    ("7825:a2a4", "enclosure without a name", "HA"),
)
_MIXED: tuple[tuple[str, str, str], ...] = (
    ("174c:1351", "ASMedia, does not start cold", "EE#132"),
    ("152d:0901", "JMicron", "public notes"),
    ("152d:2320", "JMicron", "public notes"),
    ("152d:0539", "JMicron", "UAS-H"),
    ("2109:0711", "VIA VL711", "UAS-H"),
    ("0bda:9210", "Realtek RTL9210(B) (NVMe), needs power", "public notes"),
    ("0781:55dd", "SanDisk Extreme", "public notes"),
    ("0bc2:2320", "Seagate", "public notes"),
)
TABLE: dict[str, Bridge] = {
    **{vid_pid: Bridge(name, "bad", source) for vid_pid, name, source in _BAD},
    **{vid_pid: Bridge(name, "mixed", source) for vid_pid, name, source in _MIXED},
    # On HA's list, and the usual choice of those who never saw a fault: its firmware decides.
    "174c:55aa": Bridge("ASMedia ASM1051E/1053E/1153/1153E", "mixed", "HA, INC, PIC, JG", True),
    # The kernel itself never speaks UAS to these.
    "0984:0301": Bridge("Apricorn", "good", "UAS-H"),
    "4971:1012": Bridge("Hitachi", "good", "UAS-H"),
}
_UNKNOWN = Bridge("not in the table", "unknown", "")

# What the kernel says when UAS fails (HA #1710, L#4844, L#5060).
UAS_FAILURE = re.compile(
    r"uas_eh_abort_handler|uas_eh_device_reset_handler start|data cmplt err -75"
    r"|reset SuperSpeed USB device|xHCI host not responding to stop endpoint"
)


def bridge(vid_pid: str) -> Bridge:
    """What is known of a bridge; an unknown one is neither good nor bad."""
    return TABLE.get(vid_pid.lower(), _UNKNOWN)


def uas_failures(log: tuple[str, ...]) -> tuple[str, ...]:
    """Lines of the kernel that tell of a failing UAS connection."""
    return tuple(line for line in log if UAS_FAILURE.search(line))


def quirks(value: str) -> dict[str, str]:
    """Flags by VID:PID of a `usb-storage.quirks` list, in its order."""
    found = {}
    for entry in value.split(","):
        vid_pid, _, flags = entry.strip().rpartition(":")
        if vid_pid:
            found[vid_pid.lower()] = flags
    return found


def quirks_value(entries: dict[str, str]) -> str:
    """The list of such entries."""
    return ",".join(f"{vid_pid}:{flags}" for vid_pid, flags in entries.items())
