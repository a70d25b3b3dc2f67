"""Our table of what a run would change, in the place of pyinfra's.

pyinfra's is 130 columns wide and has a line for all that stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from pyinfra import logger
from pyinfra.api import State
from pyinfra_cli import cli

from runtime import changes
from runtime.changes import Change
from runtime.inventory import node_name
from runtime.summary import INDENT


def install() -> None:
    """Let pyinfra's command show it, with `--dry` and before it asks."""
    cli.print_meta = show


def show(state: State) -> None:
    """Print the table of a prepared run."""
    for line in changes.lines(list(of(state)), "would change", INDENT):
        logger.info(line)


def of(state: State) -> Iterator[Change]:
    """The changes of a prepared run, in the order in which they would be made."""
    for op_hash in state.get_op_order():
        surely: list[str] = []
        perhaps: list[str] = []
        for host in state.activated_hosts:
            data = state.ops[host].get(op_hash)
            # What pyinfra's own table and its --json go by.
            if data and data.operation_meta._maybe_is_change:
                conditional = data.global_arguments["_if"]
                (perhaps if conditional else surely).append(node_name(host))
        if surely or perhaps:
            name = min(state.op_meta[op_hash].names)
            yield Change(name, tuple(sorted(surely)), tuple(sorted(perhaps)))
