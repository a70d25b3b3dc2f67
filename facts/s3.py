"""What the host of the S3 server has of it, beside what the one fact of a host reads."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import Any

from pyinfra.api import FactBase

from cluster.services import s3


@dataclass(frozen=True)
class S3Host:
    """Whether its user exists; mode and owner of the folder of its data, empty when there is
    none; the product whose data it holds; the certificate, PEM."""

    user: bool = False
    folder: str = ""
    holds: str = ""
    certificate: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra fact`."""
        return asdict(self)


class S3HostState(FactBase[S3Host]):
    """The host of the S3 server; no key is read.

    + path: the folder of its data
    + certificate: file of the certificate, which may hold the key as well
    """

    @staticmethod
    def default() -> S3Host:
        """A host without any of it."""
        return S3Host()

    def command(self, path: str, certificate: str) -> str:
        """One line each, then the certificates."""
        folder, file = shlex.quote(path), shlex.quote(certificate)
        return (
            f"getent passwd {s3.USER} > /dev/null && echo user; "
            f"[ ! -e {folder} ] || echo \"folder $(stat -c '%F %a %U:%G' {folder})\"; "
            f"if [ -e {folder}/.minio.sys ]; then echo holds minio; "
            f"elif [ -e {folder}/.vgwlocks ]; then echo holds versitygw; fi; "
            f"sed -n '/BEGIN CERTIFICATE/,/END CERTIFICATE/p' {file} 2> /dev/null; true"
        )

    def process(self, output: list[str]) -> S3Host:
        """Read the lines."""
        lines = [one for one in output if not one.startswith(("user", "folder ", "holds "))]
        return S3Host(
            user="user" in output,
            folder=next((line[7:] for line in output if line.startswith("folder ")), ""),
            holds=next((line[6:] for line in output if line.startswith("holds ")), ""),
            certificate="\n".join(lines) + "\n" if lines else "",
        )
