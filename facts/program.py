"""Programs of releases on a host: see cluster/programs.py."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pyinfra.api import FactBase

from cluster import programs


@dataclass(frozen=True)
class Installed:
    """The versions of a program that are on a host, and the path that is called by its name."""

    versions: tuple[str, ...] = ()
    link: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra fact`."""
        return asdict(self)


class InstalledProgram(FactBase[Installed]):
    """Which versions of a program a host has, one command.

    + program: as in cluster/programs.py, such as helm
    """

    @staticmethod
    def default() -> Installed:
        """A host without it."""
        return Installed()

    def command(self, program: str) -> str:
        """One line each."""
        known = programs.BY_NAME[program]
        return (
            f'echo "link $(readlink {known.link} 2>/dev/null)"; '
            f"for d in {known.releases}/*/; do "
            f'[ -x "${{d}}{program}" ] && d=${{d%/}} && echo "version ${{d##*/}}"; done; true'
        )

    def process(self, output: list[str]) -> Installed:
        """Read the lines."""
        found = [line.partition(" ")[::2] for line in output]
        return Installed(
            versions=tuple(value for key, value in found if key == "version"),
            link=next((value for key, value in found if key == "link"), ""),
        )
