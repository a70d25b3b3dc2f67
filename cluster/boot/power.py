"""Power and heat of a Pi.

Source of the bits: raspberrypi.com, "vcgencmd get_throttled".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
_SINCE = 16  # bits of what happened at some time since boot


@dataclass(frozen=True, slots=True)
class Throttled:
    """What limits the processor now, and what did since boot."""

    bits: int

    @property
    def now(self) -> tuple[str, ...]:
        """What holds at this moment."""
        return tuple(text for bit, text in _BITS.items() if self.bits >> bit & 1)

    @property
    def since_boot(self) -> tuple[str, ...]:
        """What held at some time since boot."""
        return tuple(text for bit, text in _BITS.items() if self.bits >> bit + _SINCE & 1)


def throttled(text: str) -> Throttled | None:
    """Read `throttled=0x50005`, or the bare hexadecimal number of sysfs; None: neither."""
    found = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]+)", text.strip())
    return Throttled(int(found[1], 16)) if found else None


def celsius(text: str) -> float | None:
    """Degrees of the kernel's thousandths; None: no number."""
    found = re.fullmatch(r"-?\d+", text.strip())
    return int(found[0]) / 1000 if found else None
