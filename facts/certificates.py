"""When the certificates of K3s on a node expire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pyinfra.api import FactBase

from cluster import k3s_config

FOLDERS = ("server/tls", "server/tls/etcd", "agent")
_MARK = "# "


@dataclass(frozen=True)
class Certificate:
    """A certificate file: its path below K3s' data folder, and its end in RFC 3339, UTC."""

    path: str
    expires: str

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra --json`."""
        return asdict(self)


class Certificates(FactBase[tuple[Certificate, ...]]):
    """All certificates of K3s on the node; certificates are public, no key is read.

    Of a chain the first one counts, which is the node's own. Read from the files: `k3s certificate
    check` has its `--output json` only since 1.30.9.
    """

    @staticmethod
    def default() -> tuple[Certificate, ...]:
        """What a node without K3s has."""
        return ()

    def command(self) -> str:
        """One shell command; exits 0 where there is no K3s."""
        globs = " ".join(f"{folder}/*.crt" for folder in FOLDERS)
        return (
            f"cd {k3s_config.DATA} 2>/dev/null || exit 0; "
            f'for f in {globs}; do [ -f "$f" ] || continue; echo "{_MARK}$f"; cat "$f"; done'
        )

    def process(self, output: list[str]) -> tuple[Certificate, ...]:
        """The files as certificates; a file that holds none is left out."""
        return tuple(parse(output))


def parse(lines: list[str]) -> Iterator[Certificate]:
    """Read the lines of the command."""
    from cryptography import x509  # heavy, and only asked for by a person

    files: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith(_MARK):
            files[line.removeprefix(_MARK)] = []
        elif files:
            files[next(reversed(files))].append(line)
    for path, text in files.items():
        try:
            found = x509.load_pem_x509_certificate("\n".join(text).encode())
        except ValueError:
            continue
        yield Certificate(path, found.not_valid_after_utc.isoformat())
