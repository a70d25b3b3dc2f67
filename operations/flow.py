"""Order across hosts, and how an operation's function ends."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import Host, StringCommand, operation


@operation()
def barrier() -> Generator[StringCommand, None, None]:
    """Every host that calls it from the same line waits there for the others.

    pyinfra interleaves the operations of different groups; only an operation that all hosts
    share keeps what comes before apart from what comes after. It costs no command. A failed host
    ends the run before it is reached (`config.FAIL_PERCENT = 0`).
    """
    host.noop("all hosts are here")
    yield from ()


def ended(host: Host, cause: str | None) -> bool:
    """What a function of an operation answers: True without a cause, else False, and it is said."""
    if cause is None:
        return True
    host.log_styled(cause, fg="red")
    return False
