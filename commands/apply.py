"""Run a deploy: `python -m commands.apply inventories/home.py`; with -y without a question."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from commands import plan


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Become pyinfra, so that signals and exit codes are its own."""
    options, more = plan.options_of("apply", __doc__, arguments)
    os.execv(sys.executable, plan.pyinfra(options.inventory, options.deploy, *more))


if __name__ == "__main__":
    main()
