"""The boot layer of a Raspberry Pi: command line, config.txt, quirks, TRIM, bootloader, reboots.

Every operation reads the combined boot fact and does nothing on any other computer.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Generator, Mapping

from pyinfra import host, logger, state
from pyinfra.api import FunctionCommand, Host, StringCommand, operation
from pyinfra.api.command import PyinfraCommand, QuoteString
from pyinfra.operations.util.files import generate_color_diff

from cluster import k3s_config
from cluster.answer import Present
from cluster.boot import places, reboots, wanted
from cluster.boot.eeprom import day
from cluster.boot.state import BootState
from facts.boot import boot_state
from facts.k3s import k3s_state
from facts.node import host_state
from operations import boot_process, config_files, text
from operations.boot_write import script
from runtime.run import cluster

Commands = Generator[PyinfraCommand, None, None]

TIMER = "fstrim.timer"


# ---- files of the boot partition


@operation()
def cmdline() -> Commands:
    """The kernel's command line: the memory controller, and the tokens of `nodes.boot`.

    Only named tokens change; the file stays one line. A slot that is staged gets the same edit.
    """
    now = boot_state(host)
    yield from _files(now, wanted.cmdlines(cluster(), cluster().host(host.name), now))


@operation()
def usb_quirks() -> Commands:
    """No UAS for USB bridges of which it is known to fail; entries of others stay in the list."""
    now = boot_state(host)
    yield from _files(now, wanted.quirks(cluster(), now))


@operation()
def config() -> Commands:
    """config.txt: memory of the GPU, radios, the watchdog and the lines of `nodes.boot`.

    Our lines are one block at the end; what the file has in force already is not repeated.
    """
    now = boot_state(host)
    yield from _files(now, wanted.config(cluster(), cluster().host(host.name), now))


def _files(now: BootState, texts: Mapping[str, str]) -> Commands:
    for path, new in texts.items():
        _show(path, now.files[path], new)
        yield _write(path, now.files[path], new)
    if not texts:
        host.noop("the boot partition is as wanted")


def _write(path: str, old: str, new: str) -> StringCommand:
    """The command that replaces a file of the boot partition, and keeps a copy of it."""
    note = "config.txt" if path == "config.txt" else ""  # of cmdline.txt the kernel itself tells
    words = (places.FOLDER, path, _sha256(old), _sha256(new), note)
    encoded = base64.b64encode(new.encode(errors="surrogateescape")).decode()
    return StringCommand(
        "sh", "-c", QuoteString(script()), "boot", *map(QuoteString, words), _stdin=f"{encoded}\n"
    )


def _sha256(content: str) -> str:
    return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()


def _show(path: str, old: str, new: str) -> None:
    """With --diff, what changes; the fact has the file already."""
    if not state.config.DIFF:
        return
    logger.info(f"\n    {host.print_prefix}{places.FOLDER}/{path}")
    before, after = (
        one.encode(errors="surrogateescape").decode(errors="replace").splitlines(keepends=True)
        for one in (old, new)
    )
    for line in generate_color_diff(before, after):
        logger.info(f"  {line}")


# ---- what needs no reboot


_TRIM = r"""set -e
udevadm control --reload
udevadm trigger --action=change --subsystem-match=scsi_disk
udevadm settle --timeout=10
for name; do
  for f in /sys/block/"$name"/device/scsi_disk/*/provisioning_mode; do
    read -r mode < "$f"
    [ "$mode" = unmap ] || { echo "$name: stays at $mode: the kernel refuses unmap" >&2; exit 1; }
  done
done
"""


@operation()
def trim() -> Commands:
    """TRIM through USB bridges that are known to pass it on and say so themselves.

    A udev rule by VID:PID, which holds now and at every boot, and fstrim.timer for such hosts.
    """
    now = boot_state(host)
    rule = wanted.trim_rule(cluster(), now)
    if rule != now.udev_rule:
        config_files.show_difference(places.UDEV_RULE, rule or "", known=now.udev_rule is not None)
        path = places.UDEV_RULE
        yield text.remove(path) if rule is None else text.write(path, rule, config_files.MODE)
    waiting = wanted.waiting_for_trim(now, rule or "")
    if waiting:
        yield StringCommand("sh", "-c", QuoteString(_TRIM), "trim", *waiting)
    elif rule is None and now.udev_rule is not None:
        yield StringCommand("udevadm", "control", "--reload")
    timer = rule is not None and cluster().nodes.parts.fstrim
    if timer and host_state(host, cluster()).unit(TIMER).enabled != "enabled":
        yield StringCommand("systemctl", "enable", "--now", TIMER)
    elif rule == now.udev_rule and not waiting:
        host.noop("TRIM is as wanted")


# systemctl returns when systemd hangs up, before it answers again.
_WATCHDOG = r"""set -e
systemctl daemon-reexec
n=0
until systemctl show -p Version > /dev/null 2>&1 || [ "$n" -ge 20 ]; do
  n=$((n + 1)); sleep 0.5
done
check() {
  is=$(systemctl show -p "$1USec" --value)
  case $is in "" | "$2") return ;; esac
  echo "$1Sec is $is, not $2: a later file in system.conf.d says so, see" \
    "systemd-analyze cat-config systemd/system.conf (or set nodes.boot.watchdog to False)" >&2
  exit 1
}
check RuntimeWatchdog "$1"; check RebootWatchdog "$2"
"""


@operation()
def watchdog() -> Commands:
    """systemd keeps the hardware watchdog quiet: a host that hangs restarts within seconds.

    What systemd really does counts, not only our file; it reads it again when it re-executes.
    """
    now, content = boot_state(host), wanted.watchdog()
    changed = now.watchdog_file != content
    if changed:
        known = now.watchdog_file is not None
        config_files.show_difference(places.WATCHDOG, content, known=known)
        yield text.write(places.WATCHDOG, content, config_files.MODE)
    effective = (now.watchdog.runtime, now.watchdog.reboot)
    if changed or effective not in (wanted.WATCHDOG_TIMES, ("", "")):
        yield StringCommand("sh", "-c", QuoteString(_WATCHDOG), "watchdog", *wanted.WATCHDOG_TIMES)
    else:
        host.noop("the watchdog is as wanted")


# ---- the bootloader


# Staged for the next boot, or written at once where /etc/default/rpi-eeprom-update asks for it.
_EEPROM = f"""set -e
said=$(rpi-eeprom-update -a 2>&1) || {{ printf '%s\\n' "$said" >&2; exit 1; }}
[ ! -f {places.FOLDER}/pieeprom.upd ] || exit 0
case $said in
  *'UPDATE SUCCESSFUL'*) echo {places.BOOTLOADER} >> {places.PENDING} ;;
  *) printf '%s\\n' "$said" >&2; exit 1 ;;
esac
"""


@operation()
def eeprom() -> Commands:
    """The newest bootloader that the installed package has, never an older one.

    It is staged, and written by the next boot. With `nodes.boot.eeprom` at `report` it is only
    named; so is a package that is not there.
    """
    policy, now = cluster().nodes.boot.eeprom, boot_state(host)
    match now.eeprom:
        case Present(value=found):
            pass
        case answer:
            host.noop(f"the bootloader is not known: {answer}")
            return
    if not found.tool:
        host.noop(
            f"rpi-eeprom is not installed: nobody knows what is newer than {day(found.built)}"
        )
    elif now.pi and set(now.pi.filters) & {"cm4", "cm4s"}:
        host.noop("a compute module of that kind gets its bootloader by rpiboot")
    elif found.frozen:
        host.noop("its own configuration forbids updates (FREEZE_VERSION)")
    elif found.waits or places.BOOTLOADER in now.pending:
        host.noop("a newer bootloader is staged: the next boot writes it")
    elif found.built is None or found.latest is None:
        host.noop("nobody knows whether the installed package has a newer bootloader")
    elif not found.update:
        host.noop(f"the bootloader of {day(found.built)} is the newest")
    elif policy == "update":
        yield StringCommand("sh", "-c", QuoteString(_EEPROM))
    else:
        newer = f"{day(found.built)} → {day(found.latest)}"
        host.log(f"a newer bootloader is there ({newer}): sudo rpi-eeprom-update -a, then a reboot")


# ---- reboots


@operation()
def reboot_if_needed() -> Commands:
    """Reboot the host when something waits for it, and prove that it came into force.

    A node of a living cluster is drained before and uncordoned after, between the gates of the
    rolling engine: call it for one node at a time. Others simply reboot. Proved are a new boot id,
    the command line, and the memory controller; a slot that is tried is waited for.
    """
    model, me = cluster(), cluster().host(host.name)
    waiting = reasons(host)
    if not waiting:
        host.noop("nothing waits for a reboot")
        return
    if not reboots.allowed(model, waiting):
        host.noop(f"a reboot waits, and is not made here: {reboots.text(waiting)}")
        return
    version = ""
    runs: bool | None = False
    if is_member(host):
        k3s = k3s_state(host)
        unit = k3s.unit(k3s_config.unit_name(me))
        # One that was just starting may have pods by the time of the reboot.
        version, runs = k3s.version or "", unit.running or (False if unit.down else None)
    tried = boot_state(host).layout.staged
    words = (me.name, reboots.text(waiting), version, runs, tried)
    yield FunctionCommand(boot_process.reboot, words, {})


@operation()
def reboot_report() -> Commands:
    """Say that the host wants a reboot, and why; it is not done here."""
    if waiting := reasons(host):
        host.log(f"wants a reboot: {reboots.text(waiting)}")
    else:
        host.noop("no reboot is pending")
    yield from ()


def reasons(one: Host) -> tuple[reboots.Reason, ...]:
    """What waits for a reboot of a host."""
    model = cluster()
    return reboots.reasons(model, model.host(one.name), host_state(one, model), boot_state(one))


def is_member(one: Host) -> bool:
    """Whether a host is a node of a cluster: it has K3s' data, and K3s starts at boot."""
    me = cluster().member(one.name)
    if me is None:
        return False
    k3s = k3s_state(one)
    known = k3s.datastore is not None if me.is_server else k3s.registered
    return known and k3s.unit(k3s_config.unit_name(me)).enabled == "enabled"
