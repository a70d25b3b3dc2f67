"""A file that holds a secret, seen without showing it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from pyinfra.api import FactBase


@dataclass(frozen=True)
class SecretFileState:
    """Mode in octal as text, owner and group, sha256 of the content."""

    mode: str
    user: str
    group: str
    sha256: str

    def to_json(self) -> dict[str, str]:
        """Plain data for `pyinfra --json`."""
        return asdict(self)


_LINE = re.compile(r"file (\d+) (\S+) (\S+) ([0-9a-f]{64})\s")


def parse(output: Iterable[str]) -> SecretFileState | None:
    """Read the fact's lines; None when there is no such file."""
    for line in output:
        if found := _LINE.match(f"{line} "):
            return SecretFileState(*found.groups())
    return None


class SecretFile(FactBase[SecretFileState | None]):
    """Mode, owner and hash of a file; None when it is absent.

    + path: absolute path
    """

    def command(self, path: str) -> str:
        file = shlex.quote(path)
        return (
            f"if [ -f {file} ]; then "
            f"echo \"file $(stat -c '%a %U %G' {file}) $(sha256sum < {file})\"; "
            "else echo absent; fi"
        )

    def process(self, output: Iterable[str]) -> SecretFileState | None:
        return parse(output)
