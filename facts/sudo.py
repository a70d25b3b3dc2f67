"""Whether who logs in may become root."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from pyinfra.api import FactBase


@dataclass(frozen=True)
class SudoState:
    """Who logged in, and why sudo refuses; empty: it does not."""

    login: str
    refusal: str = ""

    def to_json(self) -> dict[str, str]:
        """Plain data for `pyinfra --json`."""
        return asdict(self)


class Sudo(FactBase[SudoState | None]):
    """Whether sudo works without a password; to be read without sudo."""

    def command(self) -> str:
        """Exits 0 also when sudo refuses or is missing."""
        return (
            'id -un; { out=$(LC_ALL=C sudo -n true 2>&1) && echo "sudo works"; } '
            "|| printf '%s\\n' \"$out\" | tail -n 1"
        )

    def process(self, output: Iterable[str]) -> SudoState:
        """Two lines: the login, and what sudo said."""
        login, said, *_ = [*output, "", ""]
        return SudoState(login, "" if said == "sudo works" else said or "it is not installed")
