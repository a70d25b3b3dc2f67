"""Programs of Debian's packages, unpacked into the cache and not installed."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from tests.lab.cache import cache_dir, made
from tests.lab.errors import LabError
from tests.lab.program import output

UNPACK_LIMIT_S = 300


def debian(package: str) -> Path:
    """The unpacked package, from the machine's own Debian mirror; raises LabError."""
    return made(cache_dir() / "debian" / package, partial(_unpack, package))


def _unpack(package: str, scratch: Path) -> None:
    for program in ("apt-get", "dpkg"):
        if not shutil.which(program):
            raise LabError(f"{package}: {program} is missing: this test needs a Debian")
    try:
        _unpacking(package, scratch, "apt-get", "download", package)
    except LabError:
        _unpacking(package, scratch, "apt-get", "update", "-q")
        _unpacking(package, scratch, "apt-get", "download", package)
    (archive,) = scratch.glob("*.deb")
    _unpacking(package, scratch, "dpkg", "-x", archive.name, ".")
    archive.unlink()


def _unpacking(package: str, folder: Path, *command: str) -> None:
    output(f"{package}: {command[0]} {command[1]}", command, UNPACK_LIMIT_S, folder=folder)
