"""The Ubuntu base of a host: which packages, modules, kernel settings and files it is to have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.host_state import HostState
from cluster.model import Cluster, Host
from cluster.question import Question, together
from cluster.services.asked import asked

HOSTS = "/etc/hosts"
HOSTNAME = "/etc/hostname"
FSTAB = "/etc/fstab"
CLOUD_INIT = "/etc/cloud/cloud.cfg.d/99-picluster.cfg"
APT = "/etc/apt/apt.conf.d/52picluster"
NO_SNAPD = "/etc/apt/preferences.d/no-snapd"
NEEDRESTART = "/etc/needrestart/conf.d/50-picluster.conf"
MODULES = "/etc/modules-load.d/k3s-node.conf"
SYSCTL = "/etc/sysctl.d/90-k3s-node.conf"
LIMITS = "/etc/security/limits.d/90-k3s-node.conf"
MULTIPATH = "/etc/multipath/conf.d/90-longhorn.conf"
JOURNALD = "/etc/systemd/journald.conf.d/90-picluster.conf"
LOGIND = "/etc/systemd/logind.conf.d/90-picluster.conf"
# Sorts after every number and sets 30 seconds: kubelet's own drop-in loses to it (KK#102818).
LOGIND_OF_UPGRADES = "/etc/systemd/logind.conf.d/unattended-upgrades-logind-maxdelay.conf"
LOGIND_OF_KUBELET = "/etc/systemd/logind.conf.d/99-kubelet.conf"
CHRONY = "/etc/chrony/chrony.conf"
CHRONY_WAIT = "/etc/systemd/system/chrony-wait.service"
# sshd takes the first value it finds, so this must sort before 50-cloud-init.conf.
SSHD = "/etc/ssh/sshd_config.d/10-picluster.conf"
SSHD_MAIN = "/etc/ssh/sshd_config"
# What the fact reads of `sshd -T`.
SSHD_SETTINGS = (
    "passwordauthentication", "permitrootlogin", "kbdinteractiveauthentication",
    "permitemptypasswords", "x11forwarding", "usedns",
)  # fmt: skip
ZRAM = "/etc/systemd/zram-generator.conf"
INITIATOR = "/etc/iscsi/initiatorname.iscsi"

FILES = (
    HOSTS, HOSTNAME, FSTAB, CLOUD_INIT, APT, NO_SNAPD, NEEDRESTART, MODULES, SYSCTL, LIMITS,
    MULTIPATH, JOURNALD, LOGIND, LOGIND_OF_KUBELET, CHRONY, CHRONY_WAIT, SSHD,
    ZRAM,
)  # fmt: skip
EDITED = (HOSTS, FSTAB)
LINKS = (LOGIND_OF_UPGRADES,)

TIME_DAEMONS = ("chrony", "systemd-timesyncd", "ntp", "ntpsec", "ntpd-rs", "openntpd")
# Services that make a swap area of their own at boot: Raspberry Pi OS, zram-tools, Ubuntu's zram.
SWAP_SERVICES = ("dphys-swapfile", "zramswap", "zram-config")
UNITS = (
    *(f"{name}.service" for name in (*TIME_DAEMONS, *SWAP_SERVICES)),
    "chrony-wait.service", "iscsid.service", "multipathd.service", "systemd-journald.service",
    "systemd-logind.service", "ssh.service", "fstrim.timer", "swap.target", "k3s.service",
    "k3s-agent.service",
)  # fmt: skip

_COMMON = ("ca-certificates", "curl")
_STORAGE = ("cryptsetup", "dmsetup", "nfs-common", "open-iscsi")
PACKAGES = (
    *_COMMON, *_STORAGE, "chrony", "unattended-upgrades", "needrestart", "snapd",
    "multipath-tools", "locales", "linux-*",
)  # fmt: skip
_KERNEL = re.compile(
    r"linux-(image-|headers-|modules-extra-)?(raspi|generic|virtual|lowlatency|(cloud-)?a\w+64)"
    r"(-hwe-[\d.]+(-edge)?)?"
)

_MODULES = ("br_netfilter", "nf_conntrack", "overlay")
_STORAGE_MODULES = ("dm_crypt", "iscsi_tcp")
ALL_MODULES = (*_MODULES, *_STORAGE_MODULES)


def sudoers(name: str) -> str:
    """Path of the rule that lets a user become root."""
    return f"/etc/sudoers.d/91-picluster-{name}"


def packages(model: Cluster, me: Host, state: HostState) -> tuple[str, ...]:
    """Names of the packages the host is to have."""
    parts = model.nodes.parts
    wanted = [*_COMMON, *model.nodes.packages]
    if parts.time_sync:
        wanted.append("chrony")
    if parts.unattended_upgrades:
        wanted.append("unattended-upgrades")
    if parts.locale and not _built_in(model.locale):
        wanted.append("locales")
    if me.in_cluster and parts.storage_clients:
        wanted += _STORAGE
    # Only there vxlan and others are in a package of their own (K3s #4234).
    if me.in_cluster and state.release == "22.04" and state.kernel.endswith("-raspi"):
        wanted.append("linux-modules-extra-raspi")
    return tuple(dict.fromkeys(wanted))


def _built_in(locale: str) -> bool:
    """Whether libc has the locale without generating it."""
    return locale.partition(".")[0] in ("C", "POSIX")


def locale_is_there(locale: str, state: HostState) -> bool:
    """Whether the host has the locale; `locale -a` writes en_GB.UTF-8 as en_GB.utf8."""
    name, _, charset = locale.partition(".")
    plain = f"{name}.{charset.lower().replace('-', '')}"
    return _built_in(locale) or plain in state.locales or locale in state.locales


def kernel_packages(state: HostState) -> tuple[str, ...]:
    """Installed packages that pull new kernels in."""
    return tuple(
        sorted(
            name
            for name, package in state.packages.items()
            if package.installed and _KERNEL.fullmatch(name)
        )
    )


def kernel_is_held(model: Cluster, me: Host) -> bool:
    """Whether the host's kernel is upgraded only by us: a surprise would hit etcd's quorum."""
    return me.is_server and model.datastore == "etcd"


def modules(model: Cluster) -> tuple[str, ...]:
    """Kernel modules of a Kubernetes node, with underscores as /sys/module has them."""
    parts = model.nodes.parts
    return tuple(sorted((*_MODULES, *(_STORAGE_MODULES if parts.storage_clients else ()))))


@dataclass(frozen=True, slots=True)
class Setting:
    """A kernel setting; `at_least`: a higher number is as good and never lowered."""

    value: str
    at_least: bool = False

    def met(self, effective: str) -> bool:
        """Whether the effective value does."""
        if self.at_least and effective.isdigit():
            return int(effective) >= int(self.value)
        return effective.split() == self.value.split()


_PROC = "/proc/sys/"
_SETTINGS = {
    "net.ipv4.ip_forward": Setting("1"),
    "net.bridge.bridge-nf-call-iptables": Setting("1"),
    "net.bridge.bridge-nf-call-ip6tables": Setting("1"),
    # Strict filtering (1) drops what comes back another way.
    "net.ipv4.conf.all.rp_filter": Setting("2"),
    "fs.inotify.max_user_instances": Setting("512", at_least=True),
    "fs.inotify.max_user_watches": Setting("256000", at_least=True),
    "vm.max_map_count": Setting("1048576", at_least=True),
    "vm.overcommit_memory": Setting("1"),
    "vm.panic_on_oom": Setting("0"),
    "kernel.panic": Setting("10"),
    "kernel.panic_on_oops": Setting("1"),
    "kernel.keys.root_maxbytes": Setting("25000000", at_least=True),
    "kernel.keys.root_maxkeys": Setting("1000000", at_least=True),
    # Smaller bursts of writes beside etcd's fsync: on etcd's nodes only.
    "vm.dirty_background_ratio": Setting("5"),
    "vm.dirty_ratio": Setting("10"),
}
SETTINGS = tuple(_SETTINGS)


def settings(model: Cluster, me: Host) -> dict[str, Setting]:
    """Kernel settings of a Kubernetes node by key; the user's own win.

    Sources: K3s' hardening guide for what the kubelet checks, Elasticsearch for max_map_count,
    Cilium for rp_filter (effective is the larger of `all` and the interface's).
    """
    table = dict(_SETTINGS)
    if model.stack.cni == "cilium":
        table["net.ipv4.conf.all.rp_filter"] = Setting("0")
    if not kernel_is_held(model, me):
        del table["vm.dirty_background_ratio"], table["vm.dirty_ratio"]
    table |= {dotted(key): Setting(str(value)) for key, value in model.nodes.sysctl.items()}
    parts = model.nodes.parts
    return {
        key: setting
        for key, setting in table.items()
        if (parts.sysctl if key.startswith("net.") else parts.sysctl_machine)
    }


def dotted(key: str) -> str:
    """The key with dots between its parts, as `sysctl` prints it (sysctl.d(5))."""
    first = re.search(r"[./]", key)
    if first and first[0] == "/":
        return key.translate(str.maketrans("./", "/."))
    return key


def kernel_path(key: str) -> str:
    """The file under /proc/sys that a dotted key stands for."""
    return _PROC + key.translate(str.maketrans("./", "/."))


def kernel_key(path: str) -> str:
    """The dotted key of a file under /proc/sys."""
    return path.removeprefix(_PROC).translate(str.maketrans("./", "/."))


def persistent(wanted: Mapping[str, Setting], effective: Mapping[str, str]) -> dict[str, str]:
    """The settings that belong into our file: all but those that the system has set higher."""
    return {
        key: setting.value
        for key, setting in wanted.items()
        if not (setting.at_least and _higher(effective.get(key, ""), setting.value))
    }


def _higher(effective: str, value: str) -> bool:
    return effective.isdigit() and int(effective) > int(value)


def unmet(wanted: Mapping[str, Setting], effective: Mapping[str, str]) -> tuple[str, ...]:
    """Keys whose effective value does not do; one that the kernel does not have is left out."""
    return tuple(
        key for key, one in wanted.items() if key in effective and not one.met(effective[key])
    )


def question(model: Cluster) -> Question:
    """What the model adds to the question."""
    own = Question(
        packages=model.nodes.packages,
        settings=tuple(sorted(map(dotted, model.nodes.sysctl))),
        users=tuple(user.name for user in model.nodes.users),
    )
    return together((own, asked(model)))
