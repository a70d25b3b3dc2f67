"""Programs of this machine that a lab needs: run within a limit, their failure in one line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.lab.errors import LabError


def output(
    what: str,
    command: Sequence[str | Path],
    limit: float,
    *,
    folder: Path | None = None,
    text: str = "",
    **environment: str,
) -> str:
    """Return what a program prints.

    Args:
        what: begins the line of a failure.
        limit: seconds after which it is ended.
        folder: where it runs, None for here.
        text: what it reads.
        environment: variables besides this process' own.

    Raises: LabError with the end of what the program said.
    """
    try:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=folder,
            env={**os.environ, **environment},
            input=text,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{what}: not done within {limit:g} s") from error
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise LabError(f"{what}: {' / '.join(last)}")
    return done.stdout
