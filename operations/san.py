"""Central storage: volumes and targets on one host, log-ins and mounts on the nodes."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import Host, StringCommand, operation
from pyinfra.api.command import QuoteString
from pyinfra.api.exceptions import PyinfraError

from cluster.answer import Present
from cluster.managed import UNITS
from cluster.services import san
from cluster.services.san import InitiatorState, TargetState
from facts.node import host_state
from facts.san import Initiator, Target
from operations import config_files, secret
from runtime import secrets
from runtime.cache import cached
from runtime.run import cluster

Commands = Generator[StringCommand, None, None]


def target_state(one: Host) -> TargetState:
    """What the target host has, read once a phase; raises PyinfraError when it cannot be read."""
    model = cluster()
    paths = tuple(san.backing(model, node.name) for node in san.nodes(model))
    found = cached(one, Target, disk=san.disk(model) or "", paths=paths)
    if found is None:
        raise PyinfraError(f"{one.name}: its storage cannot be read")
    return found


def initiator_state(one: Host) -> InitiatorState:
    """What a node has of its volume, read once a phase; raises PyinfraError like `target_state`."""
    model = cluster()
    node = model.host(one.name).name
    found = cached(
        one,
        Initiator,
        device=san.device(model, node),
        target=san.target(model, node),
        path=san.section(model).volumes[node].path,
    )
    if found is None:
        raise PyinfraError(f"{one.name}: its storage cannot be read")
    return found


def _script(script: str, *words: str) -> StringCommand:
    return StringCommand("sh", "-c", QuoteString(script), "san", *map(QuoteString, words))


@operation()
def volumes(wipe: bool = False) -> Commands:
    """A volume for each node: of LVM on the disk, or files. What is there is not touched.

    + wipe: the disk's name was typed, so what it holds may be lost
    """
    model, now, changed = cluster(), target_state(host), False
    wanted, disk = san.section(model), san.disk(model)
    if disk and not (isinstance(now.disk, Present) and now.disk.value.group == wanted.group):
        changed = True
        yield _script(san.MAKE_GROUP, disk, wanted.group, "wipe" if wipe else "")
    for node in san.nodes(model):
        path, size = san.backing(model, node.name), san.bytes_of(wanted.volumes[node.name].size)
        found = now.volumes.get(path)
        if found is not None:
            if found < size:
                larger = "lvextend" if disk else "truncate --size"
                host.log(
                    f"the volume of {node.name} has {found >> 20} MiB, not {size >> 20}: {larger}"
                )
            continue
        changed = True
        if disk:
            yield StringCommand(
                *("lvcreate", "--yes", "--wipesignatures", "n", "--size", f"{size}b"),
                *("--name", node.name, wanted.group),
            )
        else:
            yield _script(san.MAKE_FILE, path, str(size))
    if not changed:
        host.noop("the volumes are there")


@operation()
def tgt() -> Commands:
    """tgt offers the volumes on the LAN; its file is checked by tgt-admin before it is read.

    Sessions go on.
    """
    model, now, known = cluster(), target_state(host), host_state(host, cluster())
    me = model.host(host.name)
    if (yield from config_files.write(known, {san.TGT_UNIT: san.tgt_unit(me.ip)})):
        yield StringCommand("systemctl", "daemon-reload")
        yield StringCommand("systemctl", "restart", san.TGT)
    elif not known.unit(san.TGT).running or known.unit(san.TGT).enabled != "enabled":
        yield StringCommand("systemctl", "enable", "--now", san.TGT)
    wanted = {
        san.target(model, node.name): san.backing(model, node.name) for node in san.nodes(model)
    }
    missing = [name for name, path in wanted.items() if now.targets.get(name) != path]
    if missing or now.config != now.applied:
        yield _script(san.TGT_APPLY)
    else:
        host.noop("tgt offers the volumes")


@operation()
def lio() -> Commands:
    """LIO offers the volumes on the LAN, each under a password of its own, also after a boot."""
    model, now, known = cluster(), target_state(host), host_state(host, cluster())
    changed = False
    for node in san.nodes(model):
        name, password = san.target(model, node.name), secrets.secret(san.secret(node.name))
        present = now.passwords.get(name, "") if name in now.targets else ""
        if secret.differs(name, present, password, secret.value_hash):
            changed = True
            wanted = secrets.rendered(
                f"the target of {node.name}",
                lambda values, node=node: san.lio_wanted(  # type: ignore[misc]
                    model, node.name, values[san.secret(node.name)]
                ),
            )
            yield StringCommand(
                *("python3", "-c", QuoteString(san.LIO_OFFER)),
                _stdin=wanted,  # type: ignore[arg-type]
            )
    if (yield from config_files.write(known, {san.LIO_UNIT: san.lio_unit()})):
        changed = True
        yield StringCommand("systemctl", "daemon-reload")
    if known.unit(san.LIO).enabled != "enabled":
        changed = True
        yield StringCommand("systemctl", "enable", san.LIO)
    if not changed:
        host.noop("LIO offers the volumes")


@operation()
def login() -> Commands:
    """The node is logged in to its target, with that target's password, and so after a boot."""
    model, now = cluster(), initiator_state(host)
    node = model.host(host.name).name
    name, settings = san.target(model, node), san.record_settings(node)
    password = secrets.secret(san.secret(node))
    right = all(now.settings.get(key) == value for key, value in settings.items())
    at_boot = host_state(host, model).unit(san.AT_BOOT).enabled == "enabled"
    if not at_boot:
        yield StringCommand("systemctl", "enable", san.AT_BOOT)
    same = right and name in now.sessions
    if same and not secret.differs(name, now.password, password, secret.value_hash):
        if at_boot:
            host.noop(f"is logged in to {name}")
        return
    target = san.target_host(model)
    assert target is not None, "a rule demands it of the inputs"
    words = (name, f"{target.ip}:{san.PORT}", san.device(model, node))
    lines = (f"{key} = {value}" for key, value in settings.items())
    command = _script(san.LOGIN, *words, *lines)
    yield StringCommand(*command.bits, _stdin=password)  # type: ignore[arg-type]


@operation()
def mount() -> Commands:
    """The volume is mounted, after a boot too; a file system is made only where nothing is."""
    model, now, known = cluster(), initiator_state(host), host_state(host, cluster())
    node = model.host(host.name).name
    volume, device = san.section(model).volumes[node], san.device(model, node)
    unit, changed = san.mount_unit(volume.path), False
    there = isinstance(now.disk, Present) and now.disk.value.signatures == (volume.filesystem,)
    if not there:
        changed = True
        yield _script(san.MAKE_FILE_SYSTEM, device, volume.filesystem)
    files = {f"{UNITS}/{unit}": san.mount_text(model, node)}
    if (yield from config_files.write(known, files)):
        changed = True
        yield StringCommand("systemctl", "daemon-reload")
    if known.unit(unit).enabled != "enabled" or not now.mounted:
        changed = True
        yield StringCommand("systemctl", "enable", "--now", QuoteString(unit))
    if not changed:
        host.noop(f"the volume is mounted at {volume.path}")
