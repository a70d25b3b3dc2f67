"""Installs a Debian package that the lab needs on the machine it runs on, when it may."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.lab.errors import LabError


def is_debian() -> bool:
    """Return whether this machine is a Debian or Ubuntu with apt."""
    return Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None


def ensure(program: str, package: str, say: Callable[[str], None] = print) -> bool:
    """Make `program` available by installing `package`; return whether it was installed now.

    Raises LabError with the command to type when this process may not install packages.
    """
    if shutil.which(program):
        return False
    if not is_debian():
        raise LabError(f"{program} is missing: install it and run this again")
    if os.geteuid() != 0:
        raise LabError(f"{program} is missing: sudo apt-get install {package}")
    say(f"installing {package} (for {program})")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-q"], ["install", "-qy", "--no-install-recommends", package]):
        result = subprocess.run(
            ["apt-get", *arguments], env=environment, capture_output=True, text=True, check=False
        )
        if result.returncode:
            reason = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:]
            raise LabError(f"apt-get {arguments[0]} {package}: {' '.join(reason)}")
    if not shutil.which(program):
        raise LabError(f"package {package} was installed but {program} is not on the PATH")
    return True
