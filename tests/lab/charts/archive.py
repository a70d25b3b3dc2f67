"""Chart archives and the index of a chart repository, byte for byte the same for the same input."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

EPOCH = "2020-01-01T00:00:00Z"


def pack(name: str, files: Mapping[str, str | bytes]) -> bytes:
    """A gzipped tar with `files` below the folder `name`; 0755 for what has no suffix."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w") as tar,
    ):
        for path, content in sorted(files.items()):
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size, entry.mode = len(data), 0o644 if "." in path else 0o755
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def index(archives: Iterable[tuple[Mapping[str, object], Path]]) -> str:
    """The index.yaml of a repository; each archive with the content of its Chart.yaml."""
    entries: dict[str, list[dict[str, object]]] = {}
    for about, archive in archives:
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        entry = {**about, "urls": [archive.name], "digest": digest, "created": EPOCH}
        entries.setdefault(str(about["name"]), []).append(entry)
    return yaml.safe_dump({"apiVersion": "v1", "entries": entries, "generated": EPOCH})
