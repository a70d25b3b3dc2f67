"""The lab's secrets: those that are made, and invented ones for accounts elsewhere."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from cluster.presets import PRESETS
from commands.secrets import main
from runtime import age, sops
from tests.lab.errors import LabError

STACKS = ("", *PRESETS)


def make(
    environment: Mapping[str, str],
    servers: int,
    file: Path,
    key: Path,
    stacks: tuple[str, ...] = STACKS,
) -> None:
    """Fill the lab's file of secrets for every stack that a run may have.

    Accounts elsewhere, such as those of an S3 service, do not exist in a lab: theirs are invented.

    Args:
        environment: of commands that work on this lab.
        servers: how many it has.
        stacks: presets that runs have; empty: K3s alone.

    Raises: LabError.
    """
    fitting = [stack for stack in stacks if _fits(stack, servers)]
    missing = [_run(environment, stack) for stack in fitting]
    if any(missing):
        plain = yaml.safe_load(sops.decrypt(file, key))
        age.replace(file, sops.encrypt(_dumped(plain), file, key, _readers(file)), 0o600)
    for stack in fitting:
        if wrong := _run(environment, stack, "--check"):
            raise LabError(f"secrets: {wrong}")


def _fits(stack: str, servers: int) -> bool:
    """Whether a lab can have the stack: v1_8 is highly available."""
    return stack != "v1_8" or servers >= 3


def _run(environment: Mapping[str, str], stack: str, *options: str) -> str:
    """What `commands.secrets` complains about."""
    kept = dict(os.environ)
    os.environ.update(environment, LAB_PRESET=stack)
    said = io.StringIO()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(said):
            main(["inventories/lab.py", *options])
    finally:
        os.environ.clear()
        os.environ.update(kept)
    return said.getvalue().strip()


def _readers(file: Path) -> list[str]:
    return sops.readers(file.read_text())["age"]


def _dumped(plain: Any) -> str:
    return yaml.safe_dump(_invented(plain))


def _invented(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _invented(below) for key, below in value.items()}
    return value if value not in (None, "") else secrets.token_hex(16)
