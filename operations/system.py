"""The operating system of a host: its name, its language, its packages."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.command import QuoteString

from cluster import base
from cluster.snaps import removal_order
from cluster.text import drop_ins, hosts
from facts.node import host_state
from operations import config_files, text
from runtime.run import cluster

Commands = Generator[StringCommand, None, None]

# UTC has three names, and no link at all is a fourth.
_UTC = ("", "UTC", "Etc/UTC")

# A first boot runs apt by itself, for minutes. dpkg's lock has an option to wait for it, the lock
# of the lists has none. A run installs several times: lists are read again after ten minutes, when
# a source has come, or when one could not be read, of which apt only warns.
_INSTALL = r"""set -e
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l LC_ALL=C
[ -z "$(dpkg --audit)" ] || dpkg --configure -a
lists=/var/lib/apt/lists sources=/etc/apt/sources.list mark=/run/picluster/apt-lists
if [ -z "$(find "$mark" -mmin -10 2>/dev/null)" ] || ! ls "$lists"/*Packages* > /dev/null 2>&1 ||
  [ -n "$(find "$sources" "$sources.d" -newer "$mark" 2>/dev/null)" ]; then
  n=0
  until out=$(apt-get -q update 2>&1); do
    case $out in *'get lock'*|*'to lock'*) ;; *) printf '%s\n' "$out" >&2; exit 1 ;; esac
    n=$((n + 1)); [ $n -lt 180 ] || { printf '%s\n' "$out" >&2; exit 1; }
    sleep 5
  done
  case $out in *'Failed to fetch'*|*'Some index files failed'*) ;;
    *) mkdir -p "${mark%/*}"; : > "$mark" ;; esac
fi
exec apt-get -qy -o DPkg::Lock::Timeout=900 -o Dpkg::Options::=--force-confdef \
  -o Dpkg::Options::=--force-confold --no-install-recommends install "$@"
"""

_LOCALE = r"""set -e
if [ "$2" = generate ]; then
  grep -q "^$1 " /etc/locale.gen 2>/dev/null ||
    printf '%s %s\n' "$1" "${1#*.}" >> /etc/locale.gen
  locale-gen > /dev/null
fi
if command -v update-locale > /dev/null; then update-locale "LANG=$1"
else printf 'LANG=%s\n' "$1" > /etc/default/locale; fi
"""

_NO_SNAPD = r"""set -e
for name; do snap remove --purge "$name"; done
export DEBIAN_FRONTEND=noninteractive
apt-get -qy -o DPkg::Lock::Timeout=900 purge snapd
"""


def _script(script: str, *arguments: str) -> StringCommand:
    words = (QuoteString(word) for word in arguments)
    return StringCommand("sh", "-c", QuoteString(script), "sh", *words)


@operation()
def hostname() -> Commands:
    """The host's name from the inventory, and every host of the cluster in /etc/hosts.

    Lines of others in /etc/hosts stay. cloud-init is told to leave both alone.
    """
    model, now = cluster(), host_state(host, cluster())
    name, changed = model.host(host.name).name, False
    known = now.texts.get(base.HOSTS, "")
    if (wanted := hosts.render(known, model)) != known:
        changed = True
        config_files.show_difference(base.HOSTS, wanted, known=bool(known))
        yield text.write(base.HOSTS, wanted, config_files.MODE)
    if "cloud-init" in now.has:
        files = {base.CLOUD_INIT: drop_ins.cloud_init()}
        changed = (yield from config_files.write(now, files)) or changed
    if now.hostname_file != name:
        changed = True
        yield text.write(base.HOSTNAME, f"{name}\n", config_files.MODE)
    if now.hostname != name:
        changed = True
        yield StringCommand("hostname", name)
    if not changed:
        host.noop(f"its name is {name}")


@operation()
def timezone() -> Commands:
    """The time zone of the cluster."""
    wanted, now = cluster().timezone, host_state(host, cluster())
    if now.timezone == wanted or {now.timezone, wanted} <= set(_UTC):
        host.noop(f"the time zone is {wanted}")
        return
    yield StringCommand("timedatectl", "set-timezone", QuoteString(wanted))


@operation()
def locale() -> Commands:
    """The language of new sessions, generated where it is missing."""
    wanted, now = cluster().locale, host_state(host, cluster())
    there = base.locale_is_there(wanted, now)
    if now.locale == wanted and there:
        host.noop(f"the locale is {wanted}")
        return
    yield _script(_LOCALE, wanted, "" if there else "generate")


@operation()
def packages(names: tuple[str, ...] = ()) -> Commands:
    """The packages of the host: those of its parts, and `nodes.packages`.

    What is there is not upgraded. Waits up to a quarter of an hour for another run of apt.

    + names: of a service's packages, in place of those of the base; the node fact is asked for them
    """
    model, now = cluster(), host_state(host, cluster())
    wanted = names or base.packages(model, model.host(host.name), now)
    if missing := [name for name in wanted if not now.installed(name)]:
        yield _script(_INSTALL, *missing)
    else:
        host.noop(f"{len(wanted)} packages are installed")


@operation()
def snapd_absent() -> Commands:
    """No snapd: its snaps, then itself, then a pin that keeps it away.

    Snaps that somebody chose are refused before (cluster/doctor/system.py), not removed.
    """
    now = host_state(host, cluster())
    changed = yield from config_files.write(now, {base.NO_SNAPD: drop_ins.no_snapd()})
    if now.installed("snapd"):
        yield _script(_NO_SNAPD, *removal_order(now.snaps))
    elif not changed:
        host.noop("snapd is not installed")


@operation()
def kernel_hold() -> Commands:
    """No new kernel by itself on a node of etcd: it would come with the next reboot of any cause.

    Only packages that pull kernels in are held. Holds of others stay.
    """
    model, now = cluster(), host_state(host, cluster())
    free = [name for name in base.kernel_packages(now) if not now.packages[name].held]
    if free and base.kernel_is_held(model, model.host(host.name)):
        yield StringCommand("apt-mark", "hold", *free)
    else:
        host.noop("no kernel package to hold")


@operation()
def trim() -> Commands:
    """Free blocks are told to SSDs every week (fstrim.timer)."""
    if host_state(host, cluster()).unit("fstrim.timer").enabled == "enabled":
        host.noop("fstrim.timer is enabled")
        return
    yield StringCommand("systemctl", "enable", "--now", "fstrim.timer")
