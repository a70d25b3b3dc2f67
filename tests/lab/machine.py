"""The one limit of the machine that a lab outgrows: inotify instances, counted over all containers.

A systemd takes about six, K3s about ten; Linux allows a user 128 (`fs.inotify`, inotify(7)), and a
systemd that gets none ends without a word. What `ensure` raises, `restore` puts back.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.lab.cache import cache_dir

LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
ENOUGH = 1024
RAISED = 8192


def ensure(limit: Path = LIMIT) -> str | None:
    """Raise the limit if it is too low for labs; return a line for the user, or None."""
    found = int(limit.read_text())
    if found >= ENOUGH:
        return None
    if not os.access(limit, os.W_OK):
        return (
            f"{limit} is {found}: hosts may not boot; sudo sysctl fs.inotify.{limit.name}={RAISED}"
        )
    _record().write_text(json.dumps(found))
    limit.write_text(str(RAISED))
    return f"raised {limit} from {found} to {RAISED} until the last lab is down"


def restore(limit: Path = LIMIT) -> None:
    """Put back the limit that `ensure` had found."""
    record = _record()
    if record.exists():
        limit.write_text(str(json.loads(record.read_text())))
        record.unlink()


def _record() -> Path:
    return cache_dir() / f"{LIMIT.name}.json"
