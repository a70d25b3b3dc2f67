"""What can be said about anything remote: present, absent, stopped or forbidden, unreachable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Present(Generic[T]):
    """It was found: `value` is what was read."""

    value: T

    def __str__(self) -> str:
        return "present"

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra fact` and `--json`."""
        return {"answer": "present", "value": self.value}


@dataclass(frozen=True, slots=True)
class _Without:
    reason: str = ""

    def __str__(self) -> str:
        word = type(self).__name__.lower()
        return f"{word}: {self.reason}" if self.reason else word

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra fact` and `--json`."""
        return {"answer": type(self).__name__.lower(), "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Absent(_Without):
    """Somebody who knows was asked, and it does not exist."""


@dataclass(frozen=True, slots=True)
class Refused(_Without):
    """It was reached and gave no answer; the base of `Stopped` and `Forbidden`."""


@dataclass(frozen=True, slots=True)
class Stopped(Refused):
    """It was reached and does not serve: not started, starting, overloaded or broken."""


@dataclass(frozen=True, slots=True)
class Forbidden(Refused):
    """It was reached and does not let us."""


@dataclass(frozen=True, slots=True)
class Unreachable(_Without):
    """Nobody who could know was reached. It says nothing about existence."""


NoValue: TypeAlias = Absent | Refused | Unreachable
Answer: TypeAlias = Present[T] | Absent | Refused | Unreachable
