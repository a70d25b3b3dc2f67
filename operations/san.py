"""Central storage: volumes and targets on one host, log-ins and mounts on the nodes."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import Host, StringCommand, operation
from pyinfra.api.command import QuoteString
from pyinfra.api.exceptions import PyinfraError

from cluster.answer import Present
from cluster.services import san, san_scripts, san_units
from cluster.services.san import Contents, InitiatorState, Mount, TargetState
from facts.node import host_state
from facts.san import Initiator, Mounts, Target
from operations import config_files, secret, text
from runtime import secrets
from runtime.cache import cached
from runtime.run import cluster

Commands = Generator[StringCommand, None, None]

START_LIMIT = 120  # seconds; at a boot there is none
_LIMIT = ("timeout", str(START_LIMIT))


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


def mounts_left(one: Host) -> tuple[Mount, ...]:
    """Mounts of ours that a host must not have any more; none where no log-in of ours is."""
    model = cluster()
    if san_units.LOGIN_FILE not in host_state(one, model).files:
        return ()
    found = cached(one, Mounts)
    if found is None:
        raise PyinfraError(f"{one.name}: its mounts cannot be read")
    return san.former(model, model.host(one.name).name, found)


def left(one: Host) -> bool:
    """Whether a host has a log-in of ours and no volume any more."""
    model = cluster()
    login = san_units.LOGIN_FILE in host_state(one, model).files
    return login and model.host(one.name) not in san.nodes(model)


def _script(script: str, *words: str) -> StringCommand:
    return StringCommand("sh", "-c", QuoteString(script), "san", *map(QuoteString, words))


@operation()
def volumes(wipe: bool = False) -> Commands:
    """A volume for each node: of LVM on the disk, or files. What is there is not touched.

    + wipe: the disk's name was typed, so what it holds may be lost
    """
    model, now, changed = cluster(), target_state(host), False
    wanted, disk = san.section(model), san.disk(model)
    if disk and not _in_group(now, wanted.group):
        changed = True
        yield _script(san_scripts.MAKE_GROUP, disk, wanted.group, "wipe" if wipe else "")
    elif isinstance(now.disk, Present) and now.disk.value.begun:
        changed = True
        yield StringCommand(san_scripts.ENDED)
    for node in san.nodes(model):
        path, size = san.backing(model, node.name), san.bytes_of(wanted.volumes[node.name].size)
        found = now.volumes.get(path)
        if found is not None and path not in now.new:
            if found < size:
                larger = "lvextend" if disk else "truncate --size"
                host.log(
                    f"the volume of {node.name} has {found >> 20} MiB, not {size >> 20}: {larger}"
                )
            continue
        changed = True
        if disk:
            yield _script(san_scripts.MAKE_VOLUME, wanted.group, node.name, str(size))
        else:
            yield _script(san_scripts.MAKE_FILE, path, str(size))
    if not changed:
        host.noop("the volumes are there")


def _in_group(now: TargetState, group: str) -> bool:
    return isinstance(now.disk, Present) and now.disk.value.group == group


@operation()
def tgt() -> Commands:
    """tgt offers the volumes on the LAN; its file is checked by tgt-admin before it is read.

    Sessions go on, also when a volume comes: it restarts only where it listens elsewhere.
    """
    model, now, known = cluster(), target_state(host), host_state(host, cluster())
    files = san_units.target_files(model, model.host(host.name))
    listens = {san_units.TGT_UNIT: files.pop(san_units.TGT_UNIT)}
    restart = yield from config_files.write(known, listens)
    written = yield from config_files.write(known, files)
    # A run that was cut off after it wrote the file leaves a daemon that does not know of it.
    restart = restart or known.stale(san_units.TGT, san_units.TGT_UNIT)
    if restart or written:
        yield StringCommand("systemctl", "daemon-reload")
    if restart:
        yield StringCommand(*_LIMIT, "systemctl", "restart", san_units.TGT)
    elif not known.unit(san_units.TGT).running or known.unit(san_units.TGT).enabled != "enabled":
        yield StringCommand(*_LIMIT, "systemctl", "enable", "--now", san_units.TGT)
    wanted = {
        san.target(model, node.name): san.backing(model, node.name) for node in san.nodes(model)
    }
    missing = [name for name, path in wanted.items() if now.targets.get(name) != path]
    if missing or now.config != now.applied:
        yield StringCommand("flock", san_scripts.LOCK, *_script(san_scripts.TGT_APPLY).bits)
    else:
        host.noop("tgt offers the volumes")


@operation()
def lio() -> Commands:
    """LIO offers the volumes on the LAN, each under a password of its own, also after a boot."""
    model, now, known = cluster(), target_state(host), host_state(host, cluster())
    me, changed = model.host(host.name), False
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
                *("flock", san_scripts.LOCK, "python3", "-c", QuoteString(san_scripts.LIO_OFFER)),
                _stdin=wanted,  # type: ignore[arg-type]
            )
    if (yield from config_files.write(known, san_units.target_files(model, me))):
        changed = True
        yield StringCommand("systemctl", "daemon-reload")
    if known.unit(san_units.LIO).enabled != "enabled":
        changed = True
        yield StringCommand("systemctl", "enable", san_units.LIO)
    if not changed:
        host.noop("LIO offers the volumes")


@operation()
def leave() -> Commands:
    """Mounts of ours that the data do not have any more go, and what is only for them.

    The volumes themselves stay on the target host.
    """
    model, former, gone = cluster(), mounts_left(host), left(host)
    node = model.host(host.name).name
    wanted = [] if gone or not former else [san.device(model, node)]
    if gone:  # before the log-out: it would log in again
        yield StringCommand(*_LIMIT, "systemctl", "disable", "--now", san_units.LOGIN)
    for count, one in enumerate(former, 1):
        keep = one.device in (*wanted, *(other.device for other in former[count:]))
        whom = ("", "") if keep else (one.target, one.portal)
        files = san_units.former_files(one, keep)
        words = _script(san_scripts.LEAVE, one.unit, one.path, *whom, *files)
        yield StringCommand(*_LIMIT, *words.bits)
    if gone:
        yield text.remove(san_units.LOGIN_FILE)
        yield StringCommand("systemctl", "daemon-reload")
    elif not former:
        host.noop("no former mount of ours")


@operation()
def login() -> Commands:
    """The node is logged in to its target, with that target's password."""
    model, now = cluster(), initiator_state(host)
    node = model.host(host.name).name
    name, settings = san.target(model, node), san.record_settings(node)
    password = secrets.secret(san.secret(node))
    right = all(now.settings.get(key) == value for key, value in settings.items())
    goes_out = host_state(host, model).unit(san_units.OPEN_ISCSI).enabled == "enabled"
    if not goes_out:  # it logs out before the network goes
        yield StringCommand("systemctl", "enable", san_units.OPEN_ISCSI)
    same = right and name in now.sessions
    if same and not secret.differs(name, now.password, password, secret.value_hash):
        if goes_out:
            host.noop(f"is logged in to {name}")
        return
    target = san.target_host(model)
    assert target is not None, "a rule demands it of the inputs"
    words = (name, f"{target.ip}:{san.PORT}", san.device(model, node))
    lines = (f"{key} = {value}" for key, value in settings.items())
    command = _script(san_scripts.LOGIN, *words, *lines)
    yield StringCommand(*command.bits, _stdin=password)  # type: ignore[arg-type]


@operation()
def mount() -> Commands:
    """The volume is mounted, and so after a boot, before K3s, however late its host comes.

    A file system is made only where nothing is.
    """
    model, now, known = cluster(), initiator_state(host), host_state(host, cluster())
    me = model.host(host.name)
    volume, device = san.section(model).volumes[me.name], san.device(model, me.name)
    units = (san_units.LOGIN, san_units.mount_unit(volume.path))
    found = now.disk.value if isinstance(now.disk, Present) else Contents()
    there = found.signatures == (volume.filesystem,) and not found.half_formatted
    changed = not there
    if not there:
        yield _script(san_scripts.MAKE_FILE_SYSTEM, device, volume.filesystem)
    elif found.begun:
        changed = True
        yield StringCommand(san_scripts.ENDED)
    written = yield from config_files.write(known, san_units.node_files(model, me))
    if written:
        yield StringCommand("systemctl", "daemon-reload")
    linked = san_units.required(model, me) in known.files
    if written or not (linked and all(known.unit(unit).enabled == "enabled" for unit in units)):
        changed = True
        # An enabled unit keeps the links of its former text.
        yield StringCommand("systemctl", "reenable", *map(QuoteString, units))
    if not (now.mounted and known.unit(san_units.LOGIN).running):
        changed = True
        yield StringCommand(*_LIMIT, "systemctl", "start", *map(QuoteString, units))
    if not changed:
        host.noop(f"the volume is mounted at {volume.path}")
