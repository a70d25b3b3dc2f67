"""The clock of a host: one time daemon, the cluster's time servers, and K3s after it."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import FunctionCommand, Host, State, StringCommand, operation
from pyinfra.api.command import PyinfraCommand

from cluster import base
from cluster.host_state import HostState
from cluster.probe import Done, Pending, Probe
from cluster.text import drop_ins
from facts.node import host_state
from operations import config_files
from runtime import cache
from runtime.run import cluster
from runtime.wait import until

CHRONY, WAIT = "chrony.service", "chrony-wait.service"
SYNC_TIMEOUT = 90  # seconds; chrony's first four answers take eight

Commands = Generator[PyinfraCommand, None, None]


@operation()
def chrony() -> Commands:
    """chrony follows the cluster's time servers, alone, and boots wait for it.

    `chrony-wait` holds time-sync.target back until the clock is right; K3s' unit comes after it.
    """
    model, now = cluster(), host_state(host, cluster())
    wanted = {base.CHRONY: drop_ins.chrony(model.network.time_servers)}
    changed = yield from config_files.write(now, wanted)
    if changed or now.stale(CHRONY, base.CHRONY):
        changed = True
        yield StringCommand("systemctl", "restart", CHRONY)
    # Ubuntu 22.04's package has no such unit.
    if now.installed("chrony") and (base.CHRONY_WAIT in now.files or not now.unit(WAIT).exists):
        written = yield from config_files.write(now, {base.CHRONY_WAIT: drop_ins.chrony_wait()})
        if written:
            changed = True
            yield StringCommand("systemctl", "daemon-reload")
    for name in _rivals(now):
        changed = True
        yield StringCommand("systemctl", "disable", "--now", name)
    for name, verb in ((CHRONY, "--now"), (WAIT, "")):
        if now.unit(name).enabled != "enabled":
            changed = True
            yield StringCommand("systemctl", "enable", *([verb] if verb else []), name)
    if not changed:
        host.noop("chrony follows the time servers")


def _rivals(now: HostState) -> list[str]:
    units = [f"{name}.service" for name in base.TIME_DAEMONS if name != "chrony"]
    return [name for name in units if now.unit(name).running]


@operation()
def synchronised() -> Commands:
    """Wait until the clock follows a time server; certificates and etcd need the right time."""
    servers = cluster().network.time_servers
    if _synchronised(host_state(host, cluster())):
        host.noop("the clock is synchronised")
        return
    yield FunctionCommand(_wait, (list(servers), SYNC_TIMEOUT), {})


def _synchronised(now: HostState) -> bool:
    return now.unit(CHRONY).running and now.time_synchronised


def _wait(state: State, host: Host, servers: list[str], timeout: float) -> bool:
    def probe() -> Probe:
        cache.forget(host)
        now = host_state(host, cluster())
        if _synchronised(now):
            return Done(f"follows {now.time_source}")
        if not now.unit(CHRONY).running:
            return Pending(f"chrony does not run ({now.unit(CHRONY).active})")
        return Pending(
            f"chrony has no answer yet from {', '.join(servers)} (network.ntp names others)"
        )

    return until(probe, what="the clock", timeout=timeout, host=host)
