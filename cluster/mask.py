"""What must not be shown, judged by the name under which it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "*MASKED*"
_WORDS = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|private|api[-_]?key|access[-_]?key|"
    r"client[-_]?key|encryption[-_]?key|cookie|htpasswd|(^|[-_.])(auth|dsn|hash)$",
    re.IGNORECASE,
)
# Names that speak of a secret and hold none.
_HARMLESS = re.compile(
    r"(name|names|ref|refs|file|path|mount|enabled|create|type|class|ttl|expiry|"
    r"expiration|algorithm|length|annotations|labels|namespace)$",
    re.IGNORECASE,
)


def secret_like(path: Iterable[str]) -> bool:
    """Whether a value at this path, key by key, may be a secret."""
    keys = list(path)
    if not keys or _HARMLESS.search(keys[-1]):
        return False
    return any(_WORDS.search(key) for key in keys[-2:])
