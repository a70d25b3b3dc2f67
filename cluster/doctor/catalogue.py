"""Every check, and what all of them say of a fleet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.doctor import (
    boot,
    cgroups,
    disks,
    firmware,
    fleet,
    hardware,
    kernel,
    network,
    system,
)
from cluster.doctor.check import INVENTORY, Answer, FleetCheck, HostCheck, Verdict, unknown
from cluster.doctor.node import CONTAINER, Fleet, Node

HOST_CHECKS: tuple[HostCheck, ...] = (
    *hardware.CHECKS, *firmware.CHECKS, *boot.CHECKS, *cgroups.CHECKS, *kernel.CHECKS,
    *disks.CHECKS, *network.CHECKS, *system.CHECKS,
)  # fmt: skip
FLEET_CHECKS: tuple[FleetCheck, ...] = fleet.CHECKS
AnyCheck = HostCheck | FleetCheck
_ALL: tuple[AnyCheck, ...] = (*HOST_CHECKS, *FLEET_CHECKS)
CHECKS: Mapping[str, AnyCheck] = {check.id: check for check in _ALL}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check says of hosts; no host: of the whole cluster.

    ignored: its id is in `nodes.ignore_preflight`, so that it stops nothing.
    inventory: file of the inventory, which commands of the remedy name.
    """

    check: AnyCheck
    hosts: tuple[str, ...]
    answer: Answer
    ignored: bool = False
    inventory: str = INVENTORY

    @property
    def verdict(self) -> Verdict:
        """Shorthand."""
        return self.answer.verdict

    @property
    def remedy(self) -> str:
        """What to do, empty where nothing is wrong."""
        good = self.verdict is Verdict.PASS
        text = "" if good else self.answer.remedy or self.check.remedy
        return text.replace(INVENTORY, self.inventory)

    @property
    def forgiven(self) -> bool:
        """Whether it fails and may."""
        return self.verdict is Verdict.FAIL and self.ignored

    @property
    def fatal(self) -> bool:
        """Whether a run must not go on."""
        return self.verdict is Verdict.FAIL and not (self.forgiven or self.answer.mended)

    def __str__(self) -> str:
        where = ", ".join(self.hosts) or "cluster"
        remedy = "" if self.verdict is Verdict.UNKNOWN else self.remedy
        return f"{where}: {self.check.id}: {self.answer.seen}{f': {remedy}' if remedy else ''}"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "check": self.check.id,
            "area": self.check.area,
            "hosts": list(self.hosts),
            "answer": str(self.verdict),
            "ignored": self.ignored,
            "mended": self.answer.mended,
            "seen": self.answer.seen,
            "what": self.check.what,
            "why": self.check.why,
            "remedy": self.remedy,
        }


def examine(hosts: Fleet, *, extra: bool = False) -> list[Finding]:
    """What every check says, in the order of the catalogue; those that do not apply say nothing.

    extra: also those that only the doctor asks.
    """
    ignored = hosts.model.nodes.ignore_preflight
    return [
        Finding(check, names, answer, check.id in ignored, hosts.inventory)
        for check, names, answer in (*_of_hosts(hosts, extra), *_of_fleet(hosts, extra))
    ]


Said = Iterator[tuple[AnyCheck, tuple[str, ...], Answer]]


def _of_hosts(hosts: Fleet, extra: bool) -> Said:
    for check in HOST_CHECKS:
        if check.extra and not extra:
            continue
        for name, node in hosts.nodes.items():
            if answer := _ask(check, node):
                yield check, (name,), answer


def _ask(check: HostCheck, node: Node) -> Answer | None:
    if check.members and not node.me.in_cluster:
        return None
    answer = check.ask(node)
    # In a container, what is seen of the machine is not the container's to answer for.
    return unknown(CONTAINER) if answer and check.physical and node.is_container else answer


def _of_fleet(hosts: Fleet, extra: bool) -> Said:
    for check in FLEET_CHECKS:
        if check.extra and not extra:
            continue
        for names, answer in check.ask(hosts):
            yield check, names, answer


def count(found: Iterable[Finding]) -> dict[Verdict, int]:
    """How many findings there are of each verdict; ignored ones do not count as fail."""
    total = dict.fromkeys(Verdict, 0)
    for one in found:
        total[one.verdict] += not one.forgiven
    return total
