"""Every chart's version: pinned, installed, and whether it fits: `python -m commands.versions`.

Exit code 0 when all fit, 2 when an installed one differs or a chart does not work with the
cluster's Kubernetes, 1 when the inventory is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cluster.answer import Present
from cluster.graph import GraphError
from cluster.platform_report import VERSIONS, retired_lines, version_rows
from cluster.problem import Problems
from runtime import table

DIFFERS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m commands.versions", description=__doc__)
    parser.add_argument("inventory", help="e.g. inventories/home.py")
    parser.add_argument("--offline", action="store_true", help="do not ask the cluster")
    options = parser.parse_args(arguments)

    from gevent import monkey

    monkey.patch_all()  # before anything that connects is imported
    from pyinfra.api.exceptions import PyinfraError

    from commands.look import charts

    try:
        found = charts(options.inventory, ask=not options.offline)
    except (Problems, PyinfraError, GraphError) as error:
        print(error, file=sys.stderr)
        return 1
    releases = found.releases.value if isinstance(found.releases, Present) else None
    kubernetes = found.cluster.k3s.version
    rows = list(version_rows(found.components, releases, kubernetes))
    print(f"Kubernetes of this cluster: {kubernetes}")
    print("\n".join(table.render(VERSIONS, rows, whole=VERSIONS[:1])))
    if releases is None:
        print(*table.wrapped(f"Installed versions are not known: {found.releases}"), sep="\n")
    for line in retired_lines(found.components):
        print(line)
    return (
        DIFFERS
        if any(row[2].endswith(" (differs)") or row[3].endswith(" (unfit)") for row in rows)
        else 0
    )


if __name__ == "__main__":
    sys.exit(main())
