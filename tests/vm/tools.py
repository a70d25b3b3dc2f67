"""Programs of Debian's packages, started from where they were unpacked."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab.debian import debian
from tests.lab.errors import LabError

LIMIT_S = 60
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Done:
    """How a program ended, and all that it said."""

    code: int
    output: str


@dataclass(frozen=True)
class Tools:
    """The unpacked packages' programs before those of this machine."""

    roots: tuple[Path, ...]
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Where programs and what they are made of are found."""
        triple = f"{platform.machine()}-linux-gnu"
        programs = [
            root / place for root in self.roots for place in ("usr/sbin", "sbin", "usr/bin")
        ]
        libraries = [root / place / triple for root in self.roots for place in ("usr/lib", "lib")]
        modules = [root / "usr/lib/python3/dist-packages" for root in self.roots]
        return {
            "PATH": ":".join([*map(str, programs), SYSTEM]),
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            "PYTHONPATH": ":".join(map(str, modules)),
            "LC_ALL": "C",
            **self.extra,
        }

    def run(self, *words: str | Path, path: Path | None = None) -> Done:
        """Run a program; path: a folder whose programs come before all others."""
        environment = self.environment
        if path:
            environment["PATH"] = f"{path}:{environment['PATH']}"
        done = subprocess.run(
            [str(word) for word in words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return Done(done.returncode, done.stdout)


def tools(*packages: str) -> Tools:
    """The programs of these packages; skips the test, and says why, where they cannot be had."""
    return Tools(tuple(unpacked(packages)))


def unpacked(packages: Iterable[str]) -> list[Path]:
    """The folders of the unpacked packages; skips the test where they cannot be had."""
    try:
        return debian(*packages)
    except LabError as error:
        pytest.skip(f"needs packages of Debian: {error}")


def system_python() -> str:
    """The distribution's own Python, which its packages are made for."""
    found = shutil.which("python3", path=SYSTEM)
    if not found:
        pytest.skip("needs the distribution's python3")
    return os.path.realpath(found)
