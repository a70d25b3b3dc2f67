"""Where the lab keeps what is slow to make and belongs to no single lab."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


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
