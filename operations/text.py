"""Small text files and links, one command each, compared by facts that were read before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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


_WRITE = (
    'set -e; p=$1; mkdir -p "${p%/*}"; t=$(mktemp "$p.XXXXXX"); '
    'trap \'rm -f "$t"\' EXIT; cat > "$t"; chmod "$2" "$t"; mv -f "$t" "$p"; trap - EXIT'
)
# The new file lies outside of the folder: some services read whatever is in there. Its name ends as
# the final one does: some checkers (Fluent Bit's) go by that.
_CHECKED = (
    'set -e; PATH=$PATH:/usr/sbin:/sbin; p=$1 m=$2; shift 2; mkdir -p "${p%/*}" /etc/picluster; '
    "end=${p##*/}; case $end in *.*) end=.${end##*.} ;; *) end= ;; esac; "
    't=$(mktemp --suffix="$end" /etc/picluster/.new.XXXXXX); trap \'rm -f "$t"\' EXIT; '
    'cat > "$t"; chmod "$m" "$t"; '
    'out=$("$@" "$t" 2>&1) || { printf "%s\\n" "$out" >&2; exit 1; }; '
    'mv -f "$t" "$p"; trap - EXIT'
)


def write(path: str, content: str, mode: str, check: Sequence[str] = ()) -> StringCommand:
    """The command that puts the content at the path with that mode, atomically.

    The content travels on standard input: it is in no argument list.

    + check: words of the checker's command, to which the new file's path is added; what it refuses
      is not put in place
    """
    words = (QuoteString(word) for word in check)
    script = QuoteString(_CHECKED if check else _WRITE)
    return StringCommand(
        "sh", "-c", script, "write", QuoteString(path), mode, *words, _stdin=content
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
