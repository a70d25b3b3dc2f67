"""What a kernel gives processes and containers: pages, addresses, controllers."""

from __future__ import annotations

import re

NEEDED_CONTROLLERS = frozenset({"cpu", "cpuset", "memory", "pids"})  # by K3s: pkg/cgroups


def address_bits(config: str, stack: str = "") -> int | None:
    """Bits of a process's addresses: 39, 47 or 48 on arm64; None: unknown.

    Args:
        config: the kernel's own configuration, or the lines of it that matter.
        stack: a high address of a process in hexadecimal, for a kernel without one.
    """
    if found := re.search(r"^CONFIG_ARM64_VA_BITS=(\d+)", config, re.MULTILINE):
        return int(found[1])
    if re.fullmatch(r"[0-9a-f]+", stack):
        return 39 if int(stack, 16) < 1 << 39 else 48
    return None


def controllers(text: str) -> frozenset[str]:
    """The controllers of cgroup.controllers."""
    return frozenset(text.split())
