"""Say whether anything differs from its description: exit code 0 nothing, 2 drift, 1 error."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from commands import plan


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; a change that depends on a condition alone is no drift."""
    options, more = plan.options_of("drift", __doc__, arguments)
    try:
        notes, changes = plan.dry(options.inventory, options.deploy, more)
    except plan.RunFailed as error:
        print(error, file=sys.stderr)
        return 1
    drifted = [change for change in changes if change.hosts]
    plan.show(notes, drifted, "would change")
    return 2 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
