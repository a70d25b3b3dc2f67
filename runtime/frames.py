"""Less work for pyinfra, which looks at the whole call stack for each operation of each host."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path


def know(files: Iterable[str]) -> None:
    """Tell `inspect` that these files are no modules: pyinfra executes deploy files itself.

    Otherwise `inspect.getmodule` searches all loaded modules for each frame of such a file, in
    vain every time; that was a third of the processor time of a plan for twenty hosts.
    """
    for file in files:
        inspect.modulesbyfile[str(Path(file).absolute())] = ""
