"""Names: whether a name server's answers are those that the model says."""

from __future__ import annotations

from collections.abc import Generator, Mapping

from pyinfra import host
from pyinfra.api import FunctionCommand, Host, State, operation

from cluster.few import some
from cluster.probe import Done, Pending, Probe
from facts.dns import Dns, DnsAnswers
from runtime import cache
from runtime.wait import until

LIMIT = 30  # seconds a name server may take to start


@operation()
def answers(server: str, wanted: Mapping[str, str]) -> Generator[FunctionCommand, None, None]:
    """Wait until the host that asks gets the right answers.

    + server: address of the name server
    + wanted: address by name
    """
    if _wrong(cache.cached(host, Dns, server=server, names=tuple(wanted)), wanted) is None:
        host.noop(f"{server} answers {len(wanted)} names rightly")
        return
    yield FunctionCommand(_wait, (server, dict(wanted)), {})


def _wait(state: State, host: Host, server: str, wanted: dict[str, str]) -> bool:
    def probe() -> Probe:
        found = host.get_fact(Dns, server=server, names=tuple(wanted))
        cause = _wrong(found, wanted)
        return Pending(cause) if cause else Done(f"{len(wanted)} answers are right")

    return until(probe, what=f"names from {server}", timeout=LIMIT, host=host)


def _wrong(found: DnsAnswers, wanted: Mapping[str, str]) -> str | None:
    """The first wrong answers; None when all are right."""
    if not found.asked:
        return "python3 is missing here, which asks"
    bad = [
        f"{name}: {found.answers.get(name, 'no answer')} instead of {address}"
        for name, address in wanted.items()
        if found.answers.get(name) != address
    ]
    if not bad:
        return None
    return some(bad, separator="; ")
