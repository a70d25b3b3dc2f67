"""What a check is, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from cluster.doctor.node import Fleet, Node


class Verdict(StrEnum):
    """How a check ended, the worst first; unknown is never taken for pass."""

    FAIL = "fail"
    WARN = "warn"
    UNKNOWN = "unknown"
    PASS = "pass"


_ORDER = tuple(Verdict)
INVENTORY = "INVENTORY"  # in a remedy: where the file of the inventory stands
APPLY = f"pyinfra {INVENTORY} deploys/nodes.py"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a check says: the value seen, and what to do where that is not the check's own.

    mended: site.py itself puts it right, and so is not stopped by it.
    """

    verdict: Verdict
    seen: str
    remedy: str = ""
    mended: bool = False


def passed(seen: str) -> Answer:
    """It holds."""
    return Answer(Verdict.PASS, seen)


def warned(seen: str, remedy: str = "") -> Answer:
    """It works, but not well or not for long."""
    return Answer(Verdict.WARN, seen, remedy)


def failed(seen: str, remedy: str = "") -> Answer:
    """It does not work."""
    return Answer(Verdict.FAIL, seen, remedy)


def unfit(seen: str, remedy: str = "", *, mended: bool) -> Answer:
    """It does not work yet. mended: whether deploys/nodes.py is to put it right."""
    return Answer(Verdict.FAIL, seen, APPLY if mended else remedy, mended)


def unknown(why: str) -> Answer:
    """Nobody can say: a program or file is missing, or may not be read."""
    return Answer(Verdict.UNKNOWN, why)


def worst(answers: Iterable[Answer]) -> Answer | None:
    """Answers about parts of one thing as one: what was seen of the parts that are the worst."""
    found = sorted(answers, key=lambda one: (_ORDER.index(one.verdict), one.mended))
    if not found:
        return None
    same = [one for one in found if one.verdict is found[0].verdict]
    return replace(found[0], seen="; ".join(dict.fromkeys(one.seen for one in same)))


Ask = TypeVar("Ask", bound=Callable[..., object])
Ask_co = TypeVar("Ask_co", bound=Callable[..., object], covariant=True)


@dataclass(frozen=True, slots=True)
class Check(Generic[Ask_co]):
    """A check of the catalogue.

    what: what must hold; why: what happens where it does not; remedy: what to do, as a command
    where one does it (with INVENTORY in the place of the inventory's file).
    worst: fail, or warn for what only deserves a look.
    members: of Kubernetes nodes only. physical: of the machine, which a container cannot see.
    extra: asked by the doctor only, because it takes time or asks the network.
    """

    id: str
    what: str
    why: str
    remedy: str
    worst: Verdict
    ask: Ask_co
    members: bool = False
    physical: bool = False
    extra: bool = False

    @property
    def area(self) -> str:
        """What part of a cluster it is about: the name of its module."""
        return self.ask.__module__.rpartition(".")[2]


HostAsk = Callable[["Node"], Answer | None]
FleetAsk = Callable[["Fleet"], Iterator[tuple[tuple[str, ...], Answer]]]
HostCheck = Check[HostAsk]
FleetCheck = Check[FleetAsk]


def check(
    name: str,
    what: str,
    *,
    why: str,
    remedy: str,
    worst: Verdict = Verdict.FAIL,
    members: bool = False,
    physical: bool = False,
    extra: bool = False,
) -> Callable[[Ask], Check[Ask]]:
    """Make a check of a function; see `Check` for the arguments.

    A check of hosts answers None where it does not apply. A check of the fleet answers with the
    names of the hosts that an answer is about, none for the whole cluster.
    """

    def made(ask: Ask) -> Check[Ask]:
        return Check(name, what, why, remedy, worst, ask, members, physical, extra)

    return made
