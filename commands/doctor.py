"""What is wrong with the hosts of a cluster and their LAN, and what to do about it.

Reads only; --write-test also writes and removes a small file on each node. Exit code 0 when nothing
fails, 2 when something does, 1 when nothing could be checked.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cluster.doctor.catalogue import CHECKS, AnyCheck, Finding, count, examine
from cluster.doctor.check import Verdict
from cluster.doctor.node import Fleet
from cluster.doctor.page import merged, page
from cluster.problem import Problems
from runtime import table

_SHOWN = (Verdict.FAIL, Verdict.WARN)
_ANSWERS = ("fail", "warn", "ignored", "unknown", "pass")  # in the order of the table


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    from gevent import monkey

    monkey.patch_all()  # before anything that connects is imported
    from pyinfra.api.exceptions import PyinfraError

    from commands.visit import visit

    start = time.monotonic()
    try:
        fleet = visit(options.inventory, write_test=options.write_test)
    except (Problems, PyinfraError) as error:
        print(error, file=sys.stderr)
        return 1
    found, seconds = examine(fleet, extra=True), time.monotonic() - start
    when = datetime.now().astimezone()
    if options.html:
        text = page(fleet.model.name, f"{when:%Y-%m-%d %H:%M %Z}", found, _names(fleet))
        try:
            Path(options.html).write_text(text, encoding="utf-8")
        except OSError as error:
            print(f"{options.html}: {error.strerror}", file=sys.stderr)
            return 1
    if options.json:
        _say(json.dumps(report(fleet, found, when.isoformat(timespec="seconds"), seconds)))
    else:
        _say("\n".join(lines(fleet, found, seconds, everything=options.all)))
    if not fleet.nodes:
        return 1
    return 2 if count(found)[Verdict.FAIL] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m commands.doctor", description=__doc__)
    parser.add_argument("inventory", help="e.g. inventories/home.py")
    parser.add_argument("--json", action="store_true", help="print all answers as JSON")
    parser.add_argument("--html", metavar="FILE", help="write a page for the browser too")
    parser.add_argument("--all", action="store_true", help="list what passes and is unknown too")
    parser.add_argument(
        "--write-test", action="store_true", help="measure fsync: writes 0.7 MB on each node"
    )
    return parser


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # whoever reads has had enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _names(fleet: Fleet) -> list[str]:
    known = fleet.nodes.keys() | fleet.unreachable.keys()
    return [host.name for host in fleet.model.hosts if host.name in known]


def report(fleet: Fleet, found: Sequence[Finding], when: str, seconds: float) -> dict[str, Any]:
    """What --json prints."""
    return {
        "cluster": fleet.model.name,
        "time": when,
        "seconds": round(seconds, 1),
        "hosts": list(fleet.nodes),
        "unreachable": dict(fleet.unreachable),
        "counts": {str(verdict): number for verdict, number in count(found).items()},
        "findings": [one.to_json() for one in found],
    }


def lines(
    fleet: Fleet, found: Sequence[Finding], seconds: float, *, everything: bool = False
) -> Iterator[str]:
    """What is printed for people."""
    numbers = ", ".join(f"{number} {verdict}" for verdict, number in count(found).items())
    read = f"{len(fleet.nodes)} of {len(fleet.model.hosts)} hosts"
    text = f"{fleet.model.name}: {read} in {seconds:.1f} s: {numbers}"
    if mended := sum(one.answer.mended and not one.ignored for one in found):
        text += f"; site.py puts {mended} of the fails right"
    yield from table.wrapped(text)
    shown = [one for one in found if everything or one.verdict in _SHOWN]
    rows = list(_rows(shown))
    if rows:
        yield ""
        yield from table.render(("Answer", "Check", "Hosts", "Seen"), rows)
    bad = [one for one in found if one.verdict in _SHOWN and not one.forgiven]
    if bad:
        yield ""
        yield from _remedies(bad)
    if not everything:
        yield from _unknown(found)


def _rows(found: Sequence[Finding]) -> Iterator[Sequence[str]]:
    for answer in _ANSWERS:
        said = [one for one in found if _answer(one) == answer]
        for check in _checks(said):
            for seen, hosts in merged(one for one in said if one.check is check):
                yield (answer, check.id, hosts, seen)


def _answer(one: Finding) -> str:
    return "ignored" if one.forgiven else str(one.verdict)


def _checks(found: Iterable[Finding]) -> list[AnyCheck]:
    """The checks of the findings, in the catalogue's order."""
    said = {one.check.id for one in found}
    return [check for name, check in CHECKS.items() if name in said]


def _remedies(bad: Sequence[Finding]) -> Iterator[str]:
    yield "What to do"
    by_verdict = ([one for one in bad if one.verdict is verdict] for verdict in _SHOWN)
    for check in dict.fromkeys(check for own in by_verdict for check in _checks(own)):
        yield from table.wrapped(f"- {check.id}: {check.why}.")
        for remedy in dict.fromkeys(one.remedy for one in bad if one.check is check):
            yield from (f"    {line}" for line in table.wrapped(remedy, 4))


def _unknown(found: Sequence[Finding]) -> Iterator[str]:
    """One line: what could not be told; the reasons are behind --all."""
    if unknown := _checks(one for one in found if one.verdict is Verdict.UNKNOWN):
        names = ", ".join(check.id for check in unknown)
        yield ""
        yield from table.wrapped(f"unknown (--all says why): {names}")


if __name__ == "__main__":
    sys.exit(main())
