"""What a look at something that is waited for can find."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """What was waited for is there."""

    text: str = ""


@dataclass(frozen=True)
class Pending:
    """Not yet; the text says what is missing."""

    text: str


@dataclass(frozen=True)
class Failed:
    """It will not come; the cause says why."""

    cause: str


Probe = Done | Pending | Failed
