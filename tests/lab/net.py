"""Bounded questions to the network."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

REACH_LIMIT_S = 3.0


def reachable(host: str, port: int) -> bool:
    """Return whether a TCP connection to `host` succeeds within REACH_LIMIT_S.

    Asked in a process of its own: name resolution has no time limit, and a closed network can
    swallow its questions.
    """
    code = f"import socket; socket.create_connection(({host!r}, {port})).close()"
    try:
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, timeout=REACH_LIMIT_S
        )
    except subprocess.SubprocessError:
        return False
    return True


def ssh_answers(address: str, limit_s: float) -> bool:
    """Return whether an SSH server at `address` sends its banner within `limit_s` seconds."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            with socket.create_connection((address, 22), timeout=2) as connection:
                connection.settimeout(2)
                if connection.recv(4) == b"SSH-":
                    return True
        except OSError:
            pass
        time.sleep(0.1)
    return False
