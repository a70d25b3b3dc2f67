"""For measurements: PICLUSTER_TRACE=FILE gets one JSON line for each remote command.

A line has the host's name and the seconds the command took, never its text. Deploys add figures
of their own under a name of their own, and every helm that is started its arguments.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pyinfra.api import Host, State
from pyinfra.api.state import BaseStateCallback

VARIABLE = "PICLUSTER_TRACE"


class Trace(BaseStateCallback):
    """Counts what goes through a host's connector: commands, uploads and downloads."""

    @staticmethod
    def host_connect(state: State, host: Host) -> None:
        """Put the count around the connector's functions."""
        connector: Any = host.connector
        for name in ("run_shell_command", "put_file", "get_file"):
            setattr(connector, name, _timed(host.name, getattr(connector, name)))


def requested() -> bool:
    """Whether the environment asks for a trace."""
    return bool(os.environ.get(VARIABLE))


def _timed(host: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.monotonic()
        try:
            return function(*args, **kwargs)
        finally:
            record(host, time.monotonic() - start)

    return call


def record(host: str, seconds: float) -> None:
    """Write one line, when a trace is asked for."""
    note({"host": host, "seconds": round(seconds, 4)})


def note(figures: Mapping[str, Any]) -> None:
    """Write figures as one line, when a trace is asked for."""
    if requested():
        line = json.dumps(figures)
        with Path(os.environ[VARIABLE]).open("a") as file:
            file.write(f"{line}\n")
