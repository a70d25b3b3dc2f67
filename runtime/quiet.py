"""What nobody asked for is left out of the output: -v and --debug bring it back."""

from __future__ import annotations

import logging
import re

_NOTHING = re.compile(r"\[[^\]]+\] +(Skipped|No changes)")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


class Quiet(logging.Filter):
    """Drops `[node1] Skipped` and `[node1] No changes`, of which a run has hundreds."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is kept."""
        text = record.msg if isinstance(record.msg, str) else ""
        return not _NOTHING.fullmatch(_COLOUR.sub("", text).strip())


def quiet_ssh() -> None:
    """Keep tracebacks of paramiko's threads off the screen: pyinfra says why a host is away.

    Python prints the records of a logger without handlers; with `--debug` pyinfra has its own.
    """
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
