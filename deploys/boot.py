"""The boot layer of Raspberry Pis, and reboots: together before K3s runs, else one at a time.

pyinfra inventories/home.py deploys/boot.py
"""

from __future__ import annotations

from typing import NamedTuple

from pyinfra import host, inventory
from pyinfra.api.deploy import deploy

from cluster.boot import reboots as rules
from cluster.boot import wanted
from cluster.model import Role
from deploys.preflight import entry, refuse_unfit_hosts
from facts.boot import boot_state
from operations import boot, flow
from runtime.inventory import hosts_of_run, node_name
from runtime.run import cluster, fail, started_directly


class Turns(NamedTuple):
    """Names of the hosts that are rebooted: at once, and then each in its turn."""

    together: tuple[str, ...]
    one_by_one: tuple[str, ...]


def refuse_unfit_boot_files() -> None:
    """Stop when a boot partition must not be edited, all reasons of all hosts at once."""
    model = cluster()
    if problems := [
        problem
        for one in hosts_of_run(inventory)
        if (me := entry(one))
        for problem in wanted.refusals(model, me, boot_state(one))
    ]:
        fail(problems)


@deploy("Raspberry Pi")
def boot_layer() -> None:
    """What the board reads at its next boot, and what needs none; nothing on other computers."""
    settings = cluster().nodes.boot
    if boot_state(host).pi is None:
        return
    if settings.cmdline:
        boot.cmdline(name="Command line of the kernel")
    if settings.usb_quirks:
        boot.usb_quirks(name="Quirks of USB bridges")
    if settings.config:
        boot.config(name="config.txt")
    if settings.trim:
        boot.trim(name="TRIM through USB bridges")
    if settings.watchdog:
        boot.watchdog(name="Watchdog")
    if settings.eeprom != "ignore":
        boot.eeprom(name="Bootloader")


def turns() -> Turns:
    """Which hosts of this run are to be rebooted, as far as it is known before anything is changed.

    Nodes that K3s does not run on yet go together; then agents, servers, and the hosts outside the
    cluster, which the others may need.
    """
    model = cluster()
    due = {
        node_name(one): one
        for one in hosts_of_run(inventory)
        if entry(one)
        if rules.allowed(model, boot.reasons(one))
    }
    hosts = [one for one in (*model.agents, *model.servers) if one.name in due]
    members = [one.name for one in hosts if boot.is_member(due[one.name])]
    outside = [
        one.name for one in model.hosts
        if one.name in due and one.role in (Role.GATEWAY, Role.EXTERNAL)
    ]  # fmt: skip
    together = tuple(one.name for one in hosts if one.name not in members)
    return Turns(together, (*members, *outside))


@deploy("Reboots")
def reboots() -> None:
    """Reboot what waits for it; `nodes.boot.reboots` says how far. Ends with what still waits."""
    me, order = node_name(host), turns()
    if me in order.together:
        boot.reboot_if_needed(name="Hosts without K3s: reboot")
    if order.together:
        flow.barrier(name="Hosts without K3s are back")
    for name in host.loop(order.one_by_one):
        if me == name:
            boot.reboot_if_needed(name=f"{name}: reboot")
        flow.barrier(name=f"{name} is back")
    boot.reboot_report(name="What still waits is named")


def boot_and_reboots() -> None:
    """The boot layer alone, called for every host of the run."""
    if entry(host) is None:
        return
    refuse_unfit_hosts()
    refuse_unfit_boot_files()
    boot_layer()
    reboots()


if started_directly(__name__):
    boot_and_reboots()
