"""Programs of Debian's packages, unpacked into the cache and not installed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.lab.cache import cache_dir, made
from tests.lab.errors import LabError
from tests.lab.program import output

UNPACK_LIMIT_S = 300


def debian(*packages: str) -> list[Path]:
    """The unpacked packages, from the machine's own Debian mirror; raises LabError."""
    places = {name: cache_dir() / "debian" / name for name in packages}
    missing = [name for name, place in places.items() if not place.exists()]
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            _download(missing, Path(folder))
            for name in missing:
                made(places[name], partial(_unpack, name, Path(folder)))
    return list(places.values())


def _download(packages: Sequence[str], folder: Path) -> None:
    """Fetch all at once: apt reads its lists, most of a second's work, each time."""
    for program in ("apt-get", "dpkg"):
        if not shutil.which(program):
            raise LabError(f"{' '.join(packages)}: {program} is missing: this needs a Debian")
    command = ("apt-get", "download", *packages)
    try:
        _run(folder, *command)
    except LabError:
        _run(folder, "apt-get", "update", "-q")
        _run(folder, *command)


def _unpack(package: str, folder: Path, scratch: Path) -> None:
    (archive,) = folder.glob(f"{package}_*.deb")
    _run(scratch, "dpkg", "-x", str(archive), ".")


def _run(folder: Path, *command: str) -> None:
    output(" ".join(command[:3]), command, UNPACK_LIMIT_S, folder=folder)
