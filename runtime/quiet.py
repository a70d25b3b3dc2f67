"""Lines of pyinfra that say that nothing happened are left out; -v brings them back."""

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
