"""The gateway's firewall: new rules stay only when a new connection says so."""

from __future__ import annotations

import time
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import FunctionCommand, Host, State, StringCommand, operation
from pyinfra.api.command import PyinfraCommand
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.connectors.ssh import SSHConnector

from cluster.managed import UNITS
from cluster.services import firewall, gateway
from facts.firewall import Firewall
from facts.node import host_state
from operations import config_files, text
from operations.flow import ended
from runtime import cache
from runtime.endpoint import as_root
from runtime.run import cluster

Commands = Generator[PyinfraCommand, None, None]

EARLIER = 2.0  # seconds before the timer runs out in which nothing is confirmed any more


def interface(one: Host) -> str:
    """The interface towards the LAN; raises PyinfraError, which the deploy refuses before."""
    model = cluster()
    me = model.host(one.name)
    found = gateway.lan_interface(model, me, host_state(one, model))
    if found is None:
        raise PyinfraError(f"{me.name}: no interface has {me.ip}")
    return found


@operation()
def rules() -> Commands:
    """Load the rules, and keep them once a connection that is made after that succeeds.

    Otherwise the former rules come back by a timer on the host. Only confirmed rules are loaded at
    boot. Rules that somebody changed by hand are put back; tables of others are never touched.
    """
    model, now, found = cluster(), host_state(host, cluster()), cache.cached(host, Firewall)
    wanted = firewall.rules(model, model.host(host.name), interface(host))
    seconds = gateway.section(model).confirm_seconds
    changed = yield from config_files.write(
        now, {gateway.FIREWALL_COMMAND: firewall.COMMAND}, mode="755"
    )
    units = {
        f"{UNITS}/{gateway.FIREWALL_UNIT}": firewall.UNIT_TEXT,
        gateway.NFTABLES_DROP_IN: firewall.DROP_IN_TEXT,
    }
    if (yield from config_files.write(now, units)):
        changed = True
        yield StringCommand("systemctl", "daemon-reload")
    known = now.files.get(gateway.FIREWALL)
    differs = text.differs(known, wanted, config_files.MODE)
    if differs or not found.as_in_file:
        changed = True
        if differs:
            config_files.show_difference(gateway.FIREWALL, wanted, known=known is not None)
        yield text.write(f"{gateway.FIREWALL}.new", wanted, config_files.MODE)
        yield StringCommand(gateway.FIREWALL_COMMAND, "try", f"{seconds}s")
        yield FunctionCommand(confirm, (seconds,), {})
    if now.unit(gateway.FIREWALL_UNIT).enabled != "enabled":
        changed = True
        yield StringCommand("systemctl", "enable", "--now", gateway.FIREWALL_UNIT)
    if not changed:
        host.noop("the firewall has its rules")


def confirm(state: State, host: Host, seconds: float) -> bool:
    """Keep the new rules by a connection of its own; the one there is proves nothing.

    Packets of a connection that stands pass an established-rule, so it would not notice.
    """
    deadline = time.monotonic() + seconds - EARLIER
    while True:
        cause = _confirmed(state, host, max(1.0, deadline - time.monotonic()))
        if cause is None or time.monotonic() >= deadline:
            break
        time.sleep(1)
    back = f"the former rules come back within {seconds:.0f} s of the new ones"
    return ended(host, cause and f"no new connection after the new rules ({cause}): {back}")


def _confirmed(state: State, host: Host, limit: float) -> str | None:
    """Why a new connection could not confirm; None when it has."""
    is_ssh = isinstance(host.connector, SSHConnector)
    # Where pyinfra is on the host itself or beside it, no firewall stands between.
    connector = SSHConnector(state, host) if is_ssh else host.connector
    try:
        if is_ssh:
            connector.connect()
        done, output = connector.run_shell_command(
            StringCommand(gateway.FIREWALL_COMMAND, "confirm"),
            print_output=False,
            print_input=False,
            **as_root(host) | {"_timeout": int(limit) + 1},
        )
    except (ConnectError, OSError, EOFError) as error:
        return str(error)
    finally:
        if is_ssh:
            connector.disconnect()
    return None if done else " ".join(output.stderr_lines[-1:]) or "it was refused"


@operation()
def forwarding() -> Commands:
    """The kernel forwards packets on a router, also after a reboot."""
    now, wanted = host_state(host, cluster()), {gateway.FORWARDING: gateway.forwarding()}
    changed = yield from config_files.write(now, wanted)
    if changed or now.sysctls.get("net.ipv4.ip_forward") != "1":
        yield StringCommand("sysctl", "-q", "-p", gateway.FORWARDING)
    else:
        host.noop("the kernel forwards packets")
