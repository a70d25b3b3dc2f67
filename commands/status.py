"""How a cluster is: nodes, versions, certificates, migrations.

Exit code 0 when its API answers, 1 when it does not or the inventory is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from cluster.answer import Present
from cluster.node import Node
from cluster.problem import Problems
from runtime import table

if TYPE_CHECKING:
    from commands.look import Report

EXPIRY = timedelta(days=120)  # K3s renews at a start with less than that left (before 1.33: 90)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m commands.status", description=__doc__)
    parser.add_argument("inventory", help="e.g. inventories/home.py")
    options = parser.parse_args(arguments)

    from gevent import monkey

    monkey.patch_all()  # before anything that connects is imported
    from pyinfra.api.exceptions import PyinfraError

    from commands.look import look

    try:
        report = look(options.inventory)
    except (Problems, PyinfraError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(lines(report, datetime.now(UTC))))
    return 0 if isinstance(report.nodes, Present) else 1


def lines(report: Report, now: datetime) -> Iterator[str]:
    """What is printed. now: for the age of certificates."""
    yield from table.wrapped(
        f"{report.cluster.name}: K3s {report.cluster.k3s.version} wanted; {_api(report)}"
    )
    yield ""
    yield from table.render(_HEADINGS, _rows(report))
    yield ""
    for name in _strangers(report):
        yield f"not in the inventory: {name}"
    for name, why in sorted(report.unreachable.items()):
        yield from table.wrapped(f"unreachable: {name}: {why}")
    yield from _certificates(report, now)
    yield from table.wrapped(f"migrations: {_migrations(report)}")


def _migrations(report: Report) -> str:
    match report.migrations:
        case Present(value=found):
            return ", ".join(item["metadata"]["name"] for item in found) or "none"
        case answer if isinstance(report.nodes, Present):
            return f"not known ({answer})"
        case _:
            return "not known"  # why is said of the API


_HEADINGS = ("Node", "Role", "Installed", "Kubelet", "Ready", "Pods", "etcd")


def _api(report: Report) -> str:
    match report.nodes:
        case Present():
            return f"the API of {report.server} answers"
        case answer:
            return f"no API: {answer}"


def _rows(report: Report) -> Iterator[Sequence[str]]:
    nodes = report.nodes.value if isinstance(report.nodes, Present) else {}
    for member in report.cluster.members:
        state = report.k3s.get(member.name)
        installed = (state.version or "none") if state else "?"
        role = str(member.role).removesuffix("s")
        yield (member.name, role, installed, *_seen(nodes.get(member.name), bool(nodes)))
    for name in _strangers(report):
        yield (name, "unknown", "?", *_seen(nodes[name], True))


def _strangers(report: Report) -> list[str]:
    """Nodes of the cluster that the inventory does not have."""
    nodes = report.nodes.value if isinstance(report.nodes, Present) else {}
    return sorted(set(nodes) - {member.name for member in report.cluster.members})


def _seen(node: Node | None, known: bool) -> Sequence[str]:
    """What the API says of a node: version, readiness, whether it takes pods, its vote."""
    if node is None:
        return ("no node" if known else "?", "-", "-", "-")
    ready = "yes" if node.ready else f"no: {node.why_not_ready}"
    pods = "yes" if node.schedulable else "cordoned"
    vote = {None: "-", True: "votes", False: "no vote"}[node.etcd_voter]
    return (node.version, ready, pods, vote)


def _certificates(report: Report, now: datetime) -> Iterator[str]:
    """Those of a node that end on the same day are one row; most of a node do."""
    soon: dict[tuple[date, str], list[str]] = defaultdict(list)
    for name, found in report.certificates.items():
        for one in found:
            end = datetime.fromisoformat(one.expires)
            if end - now < EXPIRY:
                soon[end.date(), name].append(one.path)
    rows = [
        (name, f"{end}", _when((end - now.date()).days), ", ".join(sorted(paths)))
        for (end, name), paths in sorted(soon.items())
    ]
    if rows:
        yield from table.render(("Certificates of", "Expire on", "In days", "Files"), rows)
        yield ""
    checked = sum(map(len, report.certificates.values()))
    if not soon and checked:
        yield f"certificates: none of {checked} expires within {EXPIRY.days} days"
    silent = [name for name, found in report.certificates.items() if not found]
    if silent:
        yield f"certificates: none found on {', '.join(sorted(silent))}"


def _when(days: int) -> str:
    return str(days) if days >= 0 else f"{-days} ago"


if __name__ == "__main__":
    sys.exit(main())
