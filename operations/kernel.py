"""The kernel of a Kubernetes node: swap, modules, settings."""

from __future__ import annotations

from collections.abc import Generator, Mapping

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.command import QuoteString

from cluster import base
from cluster.text import drop_ins, fstab
from facts.node import host_state
from operations import config_files, text
from runtime.run import cluster

Commands = Generator[StringCommand, None, None]


@operation()
def swap_off() -> Commands:
    """No swap, now and after a reboot.

    Swap lines of /etc/fstab become comments, services that make swap areas are disabled, and
    `swap.target` is masked: partitions and generators hang on it. No swap file is deleted.
    """
    now, changed = host_state(host, cluster()), False
    known = now.texts.get(base.FSTAB, "")
    if (wanted := fstab.without_swap(known)) != known:
        changed = True
        config_files.show_difference(base.FSTAB, wanted, known=True)
        yield text.write(base.FSTAB, wanted, config_files.MODE)
    if "zram-generator" in now.has:
        changed = (yield from config_files.write(now, {base.ZRAM: drop_ins.zram()})) or changed
    for name in base.SWAP_SERVICES:
        unit = now.unit(f"{name}.service")
        if unit.running or unit.enabled in ("enabled", "enabled-runtime"):
            changed = True
            yield StringCommand("systemctl", "disable", "--now", f"{name}.service")
    if now.unit("swap.target").load != "masked":
        changed = True
        yield StringCommand("systemctl", "mask", "swap.target")
    if now.swaps:
        changed = True
        yield StringCommand("swapoff", "-a")
    if not changed:
        host.noop("there is no swap")


@operation()
def modules() -> Commands:
    """The kernel modules of a Kubernetes node, now and at boot; built-in ones count as loaded."""
    now = host_state(host, cluster())
    wanted = base.modules(cluster())
    changed = yield from config_files.write(now, {base.MODULES: drop_ins.modules(wanted)})
    missing = [name for name in wanted if now.modules.get(name) not in ("loaded", "builtin")]
    if missing:
        yield StringCommand("modprobe", "-a", *missing)
    elif not changed:
        host.noop(f"{len(wanted)} kernel modules are there")


@operation()
def settings() -> Commands:
    """Kernel settings of a Kubernetes node: what is effective counts, not only our file.

    A setting that may be higher is never lowered: where the system has set more, our file does
    not mention it. Fails with the names of those that another file keeps otherwise.
    """
    model, now = cluster(), host_state(host, cluster())
    wanted = base.settings(model, model.host(host.name))
    ours = base.persistent(wanted, now.sysctls)
    changed = yield from config_files.write(now, {base.SYSCTL: drop_ins.sysctl(ours)})
    if changed or base.unmet(wanted, now.sysctls):
        yield StringCommand(
            "sh", "-c", QuoteString(_APPLY), "sh", *map(QuoteString, _triples(ours))
        )
    else:
        host.noop(f"{len(wanted)} kernel settings are effective")


_APPLY = f"""sysctl -q -e -p {base.SYSCTL} 2>/dev/null
bad=0
while [ $# -gt 0 ]; do
  if [ -r "$2" ]; then
    v=$(tr -s '\\t' ' ' < "$2")
    [ "$v" = "$3" ] || {{ echo "$1 stays $v, wanted is $3: the kernel refuses it" >&2; bad=1; }}
  fi
  shift 3
done
exit $bad
"""


def _triples(settings: Mapping[str, str]) -> list[str]:
    """Key, file under /proc/sys and value of each setting; patterns name no single file."""
    return [
        word
        for key, value in settings.items()
        if "*" not in key
        for word in (key, base.kernel_path(key), " ".join(value.split()))
    ]
