"""The bootloader in a Pi's EEPROM: its age, its configuration, where it looks for a system.

Sources: raspberrypi.com "Boot EEPROM"; raspberrypi/rpi-eeprom: rpi-eeprom-update.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

DEFAULT_ORDER = "0xf41"  # of a bootloader without BOOT_ORDER
_MEDIA = {
    "0": "sd-detect", "1": "sd", "2": "network", "3": "rpiboot", "4": "usb", "5": "usb-bcm",
    "6": "nvme", "7": "http", "e": "stop", "f": "restart",
}  # fmt: skip
# First release that can try a slot and go back (release notes of firmware-2711; for the Pi 5 the
# release notes of Ubuntu 26.04): an older one never boots a new kernel on 25.10 and later.
TRIES_SLOTS_FROM = {"pi4": 1669334400, "pi5": 1739232000}  # 2022-11-25, 2025-02-11


@dataclass(frozen=True)
class Eeprom:
    """The bootloader; times in Unix seconds, None: could not be read."""

    built: int | None = None
    version: str = ""
    updated: int | None = None
    config: dict[str, str] = field(default_factory=dict)
    config_known: bool = False
    hides_config_txt: bool = False  # a [config.txt] section, which config.txt does not show
    latest: int | None = None  # newest release that the installed package has
    tool: bool = False  # rpi-eeprom-update is installed
    staged: bool = False  # the file of an update is on the boot partition

    @property
    def boot_order(self) -> str | None:
        """BOOT_ORDER as written; None when the configuration could not be read."""
        return self.config.get("BOOT_ORDER", DEFAULT_ORDER) if self.config_known else None

    @property
    def media(self) -> tuple[str, ...]:
        """Where it looks for a system, in that order."""
        return media(self.boot_order) if self.boot_order else ()

    @property
    def frozen(self) -> bool:
        """Whether its configuration forbids updates."""
        return self.config.get("FREEZE_VERSION") == "1"

    @property
    def update(self) -> bool:
        """Whether the package has a newer release; never true for an older one."""
        return self.built is not None and self.latest is not None and self.latest > self.built

    @property
    def waits(self) -> bool:
        """Whether an update waits for the next boot.

        Its file may still be there when it is written: rpi-eeprom-update.service clears it away.
        """
        return self.staged and (self.update or self.built is None or self.latest is None)

    def tries_slots(self, family: str) -> bool | None:
        """Whether it can try a slot and go back on a board of the family; None: unknown."""
        floor = TRIES_SLOTS_FROM.get(family)
        return None if floor is None or self.built is None else self.built >= floor


def media(order: str) -> tuple[str, ...]:
    """The media of a BOOT_ORDER, which is read from right to left."""
    digits = order.lower().removeprefix("0x")
    return tuple(_MEDIA.get(digit, f"?{digit}") for digit in reversed(digits))


def configuration(text: str) -> tuple[dict[str, str], bool]:
    """Keys of the EEPROM's configuration, and whether it has a [config.txt] section."""
    head, hidden, _ = text.replace("\0", "").partition("[config.txt]")
    pairs = (line.partition("=") for line in head.splitlines() if "=" in line)
    found = {
        key.strip(): value.strip() for key, _, value in pairs if not key.lstrip().startswith("#")
    }
    return found, bool(hidden)


def version(text: str) -> dict[str, str]:
    """`vcgencmd bootloader_version`: version, timestamp, update-time, capabilities by name."""
    found = re.findall(r"^(version|timestamp|update-time|capabilities) (\S+)", text, re.MULTILINE)
    return dict(found)


def day(time: int | None) -> str:
    """The date of a release."""
    return "an unknown day" if time is None else f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d}"
