"""What a run did to each host: one table at its end, however it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pyinfra import logger
from pyinfra.api import Host, State
from pyinfra.api.state import BaseStateCallback

from runtime import table
from runtime.inventory import CONTROL, ROLES, node_name

INDENT = 4  # columns that pyinfra's log puts before a line
Versions = Callable[[State], Mapping[str, str]]


class Summary(BaseStateCallback):
    """Keeps what pyinfra forgets about hosts, and prints the table once.

    versions: K3s version by node name, as far as it can be known at the end.
    """

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._begun: dict[Host, str] = {}  # the operation that runs, by its hash
        self._failed: dict[Host, str] = {}
        self._printed = False

    def operation_host_start(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str
    ) -> None:
        """Remember what a host is at; pyinfra calls it for hosts without the operation too."""
        if op_hash in state.ops[host]:
            self._begun[host] = op_hash

    def operation_host_error(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        """Remember where a host failed."""
        self._failed[host] = op_hash

    def failure(self, state: State, host: Host) -> str:
        """Name of the operation in which a host failed; empty when it was in none."""
        op_hash = self._failed.get(host) or host.executing_op_hash
        return _name(state, op_hash) if op_hash else ""

    def print_once(self, state: State, broken_off: bool = False) -> None:
        """Print the table of a run that executed something; later calls print nothing.

        broken_off: the run was stopped from outside.
        """
        if self._printed or not state.is_executing:
            return
        self._printed = True
        versions = self._versions(state)
        incomplete = broken_off or bool(state.failed_hosts)
        rows = [
            (
                node_name(host),
                role_of(host),
                versions.get(node_name(host), "-"),
                str(changes(state, host)),
                self._result(state, host, incomplete),
            )
            for host in state.inventory
            if host in state.activated_hosts
        ]
        headings = ("Node", "Role", "Version", "Changed", "Result")
        for line in table.render(headings, rows, INDENT):
            logger.info(line)

    def _result(self, state: State, host: Host, incomplete: bool) -> str:
        if host in state.failed_hosts:
            return f"failed in {self.failure(state, host)}"
        if not incomplete:
            return "ok"
        begun = self._begun.get(host)
        ended = not begun or state.ops[host][begun].operation_meta.is_complete()
        if begun and (not ended or host in self._failed):
            return f"interrupted in {_name(state, begun)}"
        return "incomplete" if changes(state, host) else "untouched"


def changes(state: State, host: Host) -> int:
    """Number of operations that changed something on a host so far."""
    metas = (data.operation_meta for data in state.ops[host].values())
    return sum(meta.is_complete() and meta.did_change() for meta in metas)


def role_of(host: Host) -> str:
    """The host's roles, as one word each."""
    groups = dict.fromkeys(group for group in host.groups if group in (*ROLES, CONTROL))
    return ", ".join(_singular(group) for group in groups) or "-"


def names(hosts: Iterable[Host]) -> str:
    """The hosts' names in order."""
    return ", ".join(sorted(node_name(host) for host in hosts))


def _singular(group: str) -> str:
    return group.removesuffix("s")


def _name(state: State, op_hash: str) -> str:
    return min(state.op_meta[op_hash].names, default="")
