"""Configuration files that are ours as a whole, and the service that reads them."""

from __future__ import annotations

from collections.abc import Generator, Mapping

from pyinfra import host, logger, state
from pyinfra.api import StringCommand, operation
from pyinfra.facts.files import FileContents
from pyinfra.operations.util.files import generate_color_diff

from cluster.host_state import HostState
from facts.node import host_state
from operations import text
from runtime.run import cluster

MODE = "644"


@operation()
def files(
    wanted: Mapping[str, str], unit: str | None = None
) -> Generator[StringCommand, None, None]:
    """Keep files as given, and restart the service that reads them when it has not.

    Reads the combined node fact. A service that started before its file was written is restarted
    too: an earlier run was cut off between the two.

    + wanted: content by absolute path; mode 0644, owner root
    + unit: the service, restarted once and only when it runs
    """
    now = host_state(host, cluster())
    changed = yield from write(now, wanted)
    if unit and now.unit(unit).running and (changed or now.stale(unit, *wanted)):
        yield StringCommand("systemctl", "restart", unit)
    elif not changed:
        host.noop(f"{', '.join(wanted)}: as wanted")


@operation()
def service(
    unit: str, wanted: Mapping[str, str], check: tuple[str, ...], verb: str = "restart"
) -> Generator[StringCommand, None, None]:
    """Keep the configuration of a service that is checked by its own checker; it runs, and at boot.

    Where its package is still missing, only the files are written: Debian's packages start their
    service at once, and then it finds them.

    + unit: the service
    + wanted: content by absolute path, read by that service alone
    + check: words of the checker's command; the path of the new file comes last
    + verb: of systemctl, `restart` or `reload`, for a service that runs with an older file
    """
    now = host_state(host, cluster())
    changed = yield from write(now, wanted, check=check)
    found = now.unit(unit)
    if found.running and (changed or now.stale(unit, *wanted)):
        changed = True
        yield StringCommand("systemctl", verb, unit)
    if found.exists and not (found.running and found.enabled == "enabled"):
        changed = True
        if found.active == "failed":  # systemd knows nothing to reset of a unit that is just off
            yield StringCommand("systemctl", "reset-failed", unit)
        yield StringCommand("systemctl", "enable", "--now", unit)
    if not changed:
        host.noop(f"{unit} runs as wanted")


def write(
    now: HostState, wanted: Mapping[str, str], mode: str = MODE, check: tuple[str, ...] = ()
) -> Generator[StringCommand, None, bool]:
    """Write the files that differ, after their check; whether any did."""
    changed = False
    for path, content in wanted.items():
        if text.differs(now.files.get(path), content, mode):
            changed = True
            show_difference(path, content, known=path in now.files)
            yield text.write(path, content, mode, check)
    return changed


def show_difference(path: str, content: str, known: bool) -> None:
    """With --diff, what changes in a file; never call it for a secret."""
    if not state.config.DIFF:
        return
    old = (host.get_fact(FileContents, path=path) or []) if known else []
    logger.info(f"\n    {host.print_prefix}{path}")
    for line in generate_color_diff(
        [f"{line}\n" for line in old], content.splitlines(keepends=True)
    ):
        logger.info(f"  {line}")
