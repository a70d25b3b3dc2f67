"""Which Raspberry Pi a host is.

Source of the bits of a revision: raspberrypi.com, "Raspberry Pi revision codes".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME = "Raspberry Pi"
_NEW_STYLE = 1 << 23
# Model text after "Raspberry Pi " → the sections of config.txt that are for it; first match counts.
_FILTERS = (
    (r"500\+?\b", ("pi5", "pi500")),
    (r"400\b", ("pi4", "pi400")),
    (r"Compute Module 5\b", ("pi5", "cm5")),
    (r"Compute Module 4S\b", ("pi4", "cm4s")),
    (r"Compute Module 4\b", ("pi4", "cm4")),
    (r"5\b", ("pi5",)),
    (r"4\b", ("pi4",)),
    (r"(Compute Module )?3\b.*Plus", ("pi3", "pi3+")),
    (r"(Compute Module )?3\b", ("pi3",)),
    (r"Zero 2\b", ("pi0", "pi0w", "pi02")),
    (r"Zero W\b", ("pi0", "pi0w")),
    (r"Zero\b", ("pi0",)),
    (r"2\b", ("pi2",)),
)


@dataclass(frozen=True, slots=True)
class Board:
    """A Raspberry Pi; what its revision says is None where the revision is unknown."""

    model: str  # such as "Raspberry Pi 4 Model B Rev 1.4"
    filters: tuple[str, ...] = ()  # names of config.txt's sections for this model
    revision: int | None = None
    serial: str = ""  # sixteen hex digits, without 0x

    @property
    def family(self) -> str:
        """`pi4` and `pi5` also for their 400, 500 and compute modules; empty: not known."""
        return self.filters[0] if self.filters else ""

    @property
    def memory_mib(self) -> int | None:
        """Memory that is soldered on."""
        if self.revision is None or not self.revision & _NEW_STYLE:
            return None
        return 256 << (self.revision >> 20 & 0b111)

    @property
    def type_code(self) -> int | None:
        """What `[board-type=...]` of config.txt compares with."""
        if self.revision is None or not self.revision & _NEW_STYLE:
            return None
        return self.revision >> 4 & 0xFF


def parse(model: str, revision: str = "", serial: str = "") -> Board | None:
    """The board of `/proc/device-tree/model`; None: it is no Raspberry Pi.

    revision, serial: hexadecimal, with or without 0x; empty: unknown.
    """
    text = model.rstrip("\0\n ")
    if not text.startswith(NAME):
        return None
    rest = text.removeprefix(NAME).strip()
    filters = next((names for form, names in _FILTERS if re.match(form, rest)), ())
    return Board(text, filters, _hex(revision), serial.lower().removeprefix("0x").strip())


def _hex(text: str) -> int | None:
    try:
        return int(text.strip(), 16)
    except ValueError:
        return None
