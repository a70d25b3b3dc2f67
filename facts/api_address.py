"""Whether the API answers at its address, as the host that asks sees it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from pyinfra.api import FactBase

LIMIT = 5  # seconds


class ApiAnswer(FactBase[str]):
    """`pong` when K3s answers at the URL, else why not.

    Source: K3s answers `/ping` without authentication on the port of its API.

    + url: of the API
    """

    def command(self, url: str) -> str:
        """One request; the certificate is checked by everybody who logs in, not here."""
        ping = shlex.quote(f"{url}/ping")
        return (
            "if command -v curl > /dev/null; then "
            f"curl -ksS -m {LIMIT} {ping} 2>&1 || true; else echo 'curl is missing'; fi"
        )

    def process(self, output: Iterable[str]) -> str:
        """The last line that says something."""
        return next((line.strip() for line in reversed(list(output)) if line.strip()), "no answer")
