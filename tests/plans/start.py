"""pyinfra's command with the fake connector where SSH stands: `python -m tests.plans.start WORDS`.

Simulated: every SSH host.
"""

from __future__ import annotations

import pyinfra_cli  # noqa: F401  patches for gevent first
from pyinfra.api import inventory
from pyinfra.connectors.fake import FakeConnector
from pyinfra_cli.main import main


def simulate() -> None:
    """Let every SSH host of this process be a simulated one."""
    connectors = inventory.get_execution_connectors()
    inventory.get_execution_connectors = lambda: connectors | {"ssh": FakeConnector}


if __name__ == "__main__":
    simulate()
    main()
