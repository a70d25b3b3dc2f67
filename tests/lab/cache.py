"""Where the lab keeps what is slow to make and belongs to no single lab."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT = 2  # older ones of a kind: one may still be served by another lab


def cache_dir() -> Path:
    """Return (and make) the user's cache folder of this project."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "picluster"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def digest(parts: Iterable[str | bytes]) -> str:
    """Return 12 hex digits that change when any of `parts` or their order changes."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()[:12]


def files_digest(folder: Path, *extra: str) -> str:
    """Return the digest of the files under `folder` (name, mode, content) and of `extra`.

    Tests and documents are left out: what is built does not depend on them.
    """
    parts: list[str | bytes] = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.endswith(("_test.go", ".md")):
            mode = "x" if path.stat().st_mode & 0o100 else "-"
            parts += [f"{path.relative_to(folder)} {mode}", path.read_bytes()]
    return digest([*parts, *extra])


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Wait until no other process of this user is in a block of this name."""
    with (cache_dir() / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`, filled by `make` if it is not there: a half-made one never has its name.

    Whoever wants it meanwhile waits: two builds of the same would only slow each other down.
    """
    if not folder.exists():
        with alone(f"{folder.parent.name}-{folder.name}"):
            if not folder.exists():
                _make(folder, make)
    return folder


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="making-", dir=folder.parent))
    try:
        make(scratch)
        scratch.chmod(0o755)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def prune(parent: Path, pattern: str) -> None:
    """Remove all but the newest folders of one kind."""
    found = sorted(parent.glob(pattern), key=lambda path: path.stat().st_mtime)
    for old in found[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
