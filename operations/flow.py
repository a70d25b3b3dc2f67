"""Order across hosts."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation


@operation()
def barrier() -> Generator[StringCommand, None, None]:
    """Every host that calls it from the same line waits there for the others.

    pyinfra interleaves the operations of different groups; only an operation that all hosts
    share keeps what comes before apart from what comes after. It costs no command. A failed host
    ends the run before it is reached (`config.FAIL_PERCENT = 0`).
    """
    host.noop("all hosts are here")
    yield from ()
