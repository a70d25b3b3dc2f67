"""Small text files and links, one command each, compared by facts that were read before."""

from __future__ import annotations

import hashlib
from typing import Protocol

from pyinfra.api import StringCommand
from pyinfra.api.command import QuoteString


class Known(Protocol):
    """What a fact knows of a file: mode in octal as text, sha256 of the content."""

    @property
    def mode(self) -> str: ...
    @property
    def sha256(self) -> str: ...


def differs(known: Known | None, content: str | None, mode: str) -> bool:
    """Whether a file is not as wanted; `content` None: it must not be there."""
    if content is None or known is None:
        return (known is None) != (content is None)
    return known.mode != mode or known.sha256 != hashlib.sha256(content.encode()).hexdigest()


def write(path: str, content: str, mode: str) -> StringCommand:
    """The command that puts the content at the path with that mode, atomically.

    The content travels on standard input: it is in no argument list.
    """
    script = (
        'set -e; p=$1; mkdir -p "${p%/*}"; t=$(mktemp "$p.XXXXXX"); '
        'trap \'rm -f "$t"\' EXIT; cat > "$t"; chmod "$2" "$t"; mv -f "$t" "$p"; trap - EXIT'
    )
    return StringCommand(
        "sh", "-c", QuoteString(script), "write", QuoteString(path), mode, _stdin=content
    )


def remove(path: str) -> StringCommand:
    """The command that removes a file."""
    return StringCommand("rm", "-f", QuoteString(path))


def link(target: str, path: str) -> StringCommand:
    """The command that makes a symbolic link, atomically."""
    return StringCommand(
        "ln", "-sfn", QuoteString(target), QuoteString(f"{path}.new"),
        "&&", "mv", "-Tf", QuoteString(f"{path}.new"), QuoteString(path),
    )  # fmt: skip
