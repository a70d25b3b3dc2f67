"""Snaps of a host: which came with the system, and the order in which they can be removed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cluster.host_state import HostState, Snap

# What server images bring along. lxd counts as unused while it has no instances.
_OF_THE_SYSTEM = re.compile(r"core\d*|bare|snapd|lxd")
_BASE = re.compile(r"core\d*|bare")


def removal_order(snaps: Iterable[Snap]) -> tuple[str, ...]:
    """Applications first, then the bases they run on, snapd last."""
    return tuple(snap.name for snap in sorted(snaps, key=_rank))


def _rank(snap: Snap) -> tuple[int, str]:
    if snap.name == "snapd":
        return 2, snap.name
    is_base = snap.notes.startswith(("base", "core")) or bool(_BASE.fullmatch(snap.name))
    return int(is_base), snap.name


def in_use(state: HostState) -> tuple[str, ...]:
    """Names of snaps that somebody chose and whose data would go with them."""
    chosen = [snap.name for snap in state.snaps if not _OF_THE_SYSTEM.fullmatch(snap.name)]
    return (*chosen, *(["lxd"] if state.lxd_instances else []))
