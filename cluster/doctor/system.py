"""The operating system and its services."""

from __future__ import annotations

from cluster import base, snaps
from cluster.doctor import cloud
from cluster.doctor.check import (
    APPLY,
    Answer,
    Verdict,
    check,
    failed,
    passed,
    unfit,
    unknown,
    warned,
)
from cluster.doctor.node import Node
from cluster.few import some

SUPPORTED = {"ubuntu": ("22.04", "24.04", "26.04"), "debian": ("12",)}
_WARN = Verdict.WARN
# No computer had this program before, 2026-11-01; Unix seconds.
_YOUNGEST = 1_793_491_200
_UPGRADE = (
    "upgrade twice, to 22.04 and then to 24.04, with a reboot after each: "
    "sudo apt-get update && sudo apt-get full-upgrade && sudo do-release-upgrade"
)
OLD_CLUSTERS = (
    "/etc/kubernetes", "/etc/cni/net.d", "/etc/rancher/rke2", "/var/lib/rancher/k3s",
    "/var/snap/microk8s",
)  # fmt: skip
RUNTIMES = (
    "docker.service", "containerd.service", "crio.service", "kubelet.service",
    "snap.microk8s.daemon-kubelite.service",
)  # fmt: skip
_RIVALS = ("kubelet.service", "snap.microk8s.daemon-kubelite.service")


@check(
    "os-release",
    "Ubuntu 22.04, 24.04, 26.04 or Debian 12",
    why="other releases lack packages or kernel features that are counted on",
    remedy="install Ubuntu 24.04 or 26.04 Server",
)
def os_release(node: Node) -> Answer:
    state = node.state
    name = state.os_name or "its system"
    if state.release in SUPPORTED.get(state.os, ()):
        if (state.os, state.release) == ("ubuntu", "22.04"):
            text = f"{name} is near its end: security updates until 2027"
            return warned(text, "sudo do-release-upgrade")
        return passed(name)
    text = f"{name} is not supported: expected Ubuntu 22.04, 24.04, 26.04 or Debian 12"
    return failed(text, _UPGRADE if (state.os, state.release) == ("ubuntu", "20.04") else "")


@check(
    "architecture",
    "the architecture of the system is the inventory's `arch`",
    why="the K3s binary of another architecture does not start",
    remedy="correct `arch` in the inventory, or install the 64-bit image",
)
def architecture(node: Node) -> Answer:
    if node.state.arch != node.me.arch:
        return failed(f"its system is {node.state.arch}, its `arch` says {node.me.arch}")
    return passed(node.state.arch)


@check(
    "ssh-key",
    "who logs in has a key, before passwords end",
    why="deploys/nodes.py lets sshd take keys only, and would lock you out",
    remedy="ssh-copy-id USER@HOST, or set nodes.parts.sshd to False",
)
def ssh_key(node: Node) -> Answer | None:
    state = node.state
    if not node.model.nodes.parts.sshd:
        return None
    account = state.accounts.get(state.login)
    lines = account.authorized_keys.splitlines() if account else []
    keys = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        text = f"{state.login} has no key in ~/.ssh/authorized_keys, and sshd will take keys only"
        remedy = f"ssh-copy-id {state.login}@{node.me.ip}, or set nodes.parts.sshd to False"
        return failed(text, remedy)
    return passed(f"{state.login}: {len(keys)} keys")


@check(
    "snaps",
    "no snap that somebody chose is in the way of removing snapd",
    why="deploys/nodes.py removes snapd, and a snap's data would go with it",
    remedy="snap remove NAME, or set nodes.parts.snapd to False",
    members=True,
)
def chosen_snaps(node: Node) -> Answer | None:
    state = node.state
    if not (node.model.nodes.parts.snapd and state.installed("snapd")):
        return None
    if state.snaps_unread:
        return failed(f"its snaps cannot be listed: {state.snaps_unread}")
    if used := snaps.in_use(state):
        text = f"has snaps with data of yours ({', '.join(used)})"
        remedy = "remove them (`snap remove`), or set nodes.parts.snapd to False"
        return failed(text, remedy)
    return passed("none")


@check(
    "time-daemons",
    "one time daemon runs",
    why="two daemons set the clock against each other, and etcd sees it jump",
    remedy="sudo systemctl disable --now systemd-timesyncd",
)
def time_daemons(node: Node) -> Answer:
    state = node.state
    ours = node.model.nodes.parts.time_sync
    running = [name for name in base.TIME_DAEMONS if state.unit(f"{name}.service").running]
    if len(running) > 1:
        text = f"runs {len(running)} time daemons ({', '.join(running)})"
        # operations/clock.py stops all but chrony.
        return unfit(text, f"sudo systemctl disable --now {running[1]}", mended=ours)
    if not running:
        return unfit("no time daemon runs", "sudo apt-get install chrony", mended=ours)
    return passed(running[0])


@check(
    "clock-synchronised",
    "the clock follows a time server",
    why="without it, clocks drift apart: certificates are not valid yet, etcd's leases run out",
    remedy="timedatectl set-ntp true; chronyc sources shows which servers answer",
)
def clock_synchronised(node: Node) -> Answer:
    state, clock = node.state, node.seen.clock
    if state.time_synchronised:
        return passed(f"follows {state.time_source}")
    if clock.get("NTPSynchronized") == "yes":
        return passed("synchronised")
    if late := node.late("chronyc"):
        return unknown(late[0])
    chrony = state.unit("chrony.service").running
    if not clock and not chrony:
        return unknown(node.unread("timedatectl", "timedatectl does not say"))
    text = "its clock is not synchronised"
    if clock.get("NTP") == "no" and not chrony:
        text += ", and no time daemon is switched on"
    if not node.me.is_server:
        return warned(text)
    return unfit(text, mended=node.model.nodes.parts.time_sync)


@check(
    "clock-date",
    "the clock shows a date after this program was made",
    why="a Raspberry Pi 4 has no clock of its own: after a power cut it starts in the past, and no "
    "certificate is valid",
    remedy="sudo date --set TIME; then let its time daemon reach a server (timedatectl "
    "timesync-status, chronyc sources)",
)
def clock_date(node: Node) -> Answer:
    if node.state.clock.at < _YOUNGEST:
        return failed("its clock is years behind")
    battery = "/sys/class/rtc/rtc0/name" in node.seen.values
    return passed("right" if battery else "right; the board itself has no clock")


@check(
    "swap",
    "no swap on a disk",
    why="the kubelet gives pods none, and swapping wears out the disk and delays etcd",
    remedy="sudo swapoff -a, and remove its line from /etc/fstab",
    members=True,
)
def swap(node: Node) -> Answer:
    on_disk = [name for name in node.state.swaps if "zram" not in name]
    if on_disk:
        text = f"swaps to {', '.join(on_disk)}"
        # Who keeps swap on purpose has switched that part off.
        return unfit(text, mended=True) if node.model.nodes.parts.swap else warned(text)
    return passed(", ".join(node.state.swaps) or "none")


@check(
    "sysctl",
    "the kernel settings of a Kubernetes node are in effect",
    why="pods cannot reach each other, or log shippers run out of watches",
    remedy=APPLY,
    worst=_WARN,
    members=True,
)
def sysctl(node: Node) -> Answer:
    wanted = base.settings(node.model, node.me)
    if not node.state.sysctls:
        return unknown("/proc/sys cannot be read")
    if unmet := base.unmet(wanted, node.state.sysctls):
        return warned(some(f"{key} {node.state.sysctls[key]}" for key in unmet))
    return passed(f"{len(wanted)} settings")


@check(
    "reboot",
    "no reboot is pending",
    why="an upgrade is only half done: the running kernel or libraries are the old ones",
    remedy="sudo reboot, after kubectl drain where the node is in a cluster",
    worst=_WARN,
)
def reboot(node: Node) -> Answer:
    if node.state.reboot_required is None:
        return passed("none")
    return warned(f"required by {', '.join(node.state.reboot_required) or 'a package'}")


@check(
    "automatic-reboot",
    "upgrades do not reboot the host by themselves",
    why="two servers that reboot in the same night are the end of etcd's quorum",
    remedy=APPLY,
)
def automatic_reboot(node: Node) -> Answer:
    said = node.seen.automatic_reboot
    if said is None:
        return unknown(node.unread("apt-config", "apt-config does not say"))
    if said.lower() in ("true", "1", "yes", "on", "with", "enable"):
        text = f'Unattended-Upgrade::Automatic-Reboot "{said}"'
        remedy = 'Unattended-Upgrade::Automatic-Reboot "false"; in /etc/apt/apt.conf.d/'
        if node.me.is_server:
            return unfit(text, remedy, mended=node.model.nodes.parts.unattended_upgrades)
        return warned(text, remedy)
    return passed(said or "not set")


@check(
    "shutdown-delay",
    "logind lets the kubelet delay a shutdown until its pods have ended",
    why="otherwise pods are killed at a reboot, and databases recover at the next start",
    remedy=APPLY,
    worst=_WARN,
    members=True,
)
def shutdown_delay(node: Node) -> Answer:
    wanted = node.model.k3s.kubelet.shutdown_grace_period
    delay = node.state.inhibit_delay
    if delay is None:
        return unknown(node.unread("busctl", "logind does not say"))
    if delay < wanted:
        return warned(f"{delay:.0f} s, pods may take {wanted} s")
    return passed(f"{delay:.0f} s")


@check(
    "cloud-init",
    "cloud-init has ended without errors, and is switched off",
    why="while it runs, at each boot, it installs packages and changes the network under our hands",
    remedy=f"cloud-init status --long; sudo touch {cloud.OFF} when all is done",
)
def cloud_init(node: Node) -> Answer | None:
    why = node.seen.cloud_errors
    match node.seen.cloud_init:
        case "absent":
            return None
        case "":
            return unknown(node.unread("systemctl", "/run/cloud-init does not say"))
        case cloud.RUNNING:
            return failed(f"it still runs{f': {why}' if why else ''}", "cloud-init status --wait")
        case cloud.CRASHED:
            text = f"it broke off and never ended: {why}"
            return warned(text, "journalctl -b -u 'cloud-*'; less /var/log/cloud-init.log")
        case cloud.ERROR | cloud.DEGRADED as state:
            text = "ended with errors" if state == cloud.ERROR else "went on after errors"
            return warned(f"it {text}: {why}", "cloud-init status --long")
        case cloud.DONE if not node.seen.cloud_off:
            return warned(
                "it has done its work, and is not switched off", f"sudo touch {cloud.OFF}"
            )
        case state:
            return passed(state)


@check(
    "iscsi",
    "the iSCSI client for Longhorn's volumes is there",
    why="Longhorn attaches a volume by iSCSI: without iscsid its pods do not start",
    remedy="sudo apt-get install open-iscsi && sudo systemctl enable --now iscsid",
    members=True,
)
def iscsi(node: Node) -> Answer | None:
    if node.model.stack.storage != "longhorn":
        return None
    if node.state.unit("iscsid.service").running:
        return passed("iscsid runs")
    return unfit("iscsid does not run", mended=node.model.nodes.parts.storage_clients)


@check(
    "multipath",
    "multipathd leaves Longhorn's volumes alone",
    why="it takes them for paths of a disk array; then they cannot be mounted",
    remedy="sudo systemctl disable --now multipathd multipathd.socket",
    members=True,
)
def multipath(node: Node) -> Answer | None:
    if node.model.stack.storage != "longhorn":
        return None
    if not node.state.unit("multipathd.service").running:
        return passed("multipathd does not run")
    lines = [line for line in node.seen.multipath if not line.startswith("#")]
    if any("sd" in line for line in lines) or base.MULTIPATH in node.state.files:
        return passed("its configuration leaves sd* out")
    return unfit("multipathd claims every sd*", mended=node.model.nodes.parts.multipath)


@check(
    "watchdog",
    "a watchdog restarts the host when its kernel hangs",
    why="a node that hangs is only seen, not repaired, until somebody pulls the plug",
    remedy="dtparam=watchdog=on in config.txt (Raspberry Pi), RuntimeWatchdogSec=15s in "
    "/etc/systemd/system.conf.d/",
    worst=_WARN,
    physical=True,
)
def watchdog(node: Node) -> Answer:
    dog = node.boot.watchdog
    remedy = APPLY if node.boot.pi and node.model.nodes.boot.watchdog else ""
    if not node.boot.kernel:
        return unknown("it was not read")
    if not dog.identity:
        if node.boot.pi:
            return warned("the board's watchdog is switched off", remedy)
        return unknown("this board's kernel shows no watchdog")
    if dog.active:
        return passed(f"{dog.identity}, {dog.runtime or 'active'}")
    return warned(f"{dog.identity}: nobody uses it", remedy)


@check(
    "failed-units",
    "no service has failed",
    why="what failed at boot is often what is missing later",
    remedy="systemctl --failed; systemctl reset-failed once it is understood",
    worst=_WARN,
)
def failed_units(node: Node) -> Answer:
    failing = node.seen.failed_units
    if failing is None:
        return unknown(node.unread("systemctl", "systemd does not answer"))
    if failing:
        return warned(some(failing, most=4))
    return passed("none")


@check(
    "programs",
    "no program that is asked hangs",
    why="a disk of the network that is gone, or a service that hangs, holds K3s up too",
    remedy="findmnt -t nfs,nfs4,cifs shows disks of the network; systemctl list-jobs and dmesg "
    "tell who waits",
    worst=_WARN,
)
def programs(node: Node) -> Answer:
    late = node.late()
    return warned("; ".join(late)) if late else passed("none")


@check(
    "machine-id",
    "the host has an id of its own",
    why="DHCP, the journal and Cilium take hosts without one for the same",
    remedy="sudo systemd-machine-id-setup",
)
def machine_id(node: Node) -> Answer:
    if node.state.machine_id in ("", "uninitialized"):
        return failed(node.state.machine_id or "/etc/machine-id is empty")
    return passed(node.state.machine_id[:8])


@check(
    "other-kubernetes",
    "no other Kubernetes or its remains are there",
    why="its network interfaces, rules and ports clash with those of K3s",
    remedy="sudo snap remove microk8s; sudo kubeadm reset; sudo rm -r the folders that are named",
    members=True,
)
def other_kubernetes(node: Node) -> Answer:
    if rivals := sorted(node.seen.running & set(_RIVALS)):
        return failed(f"{', '.join(rivals)} runs")
    if not node.has_k3s:
        if left := sorted(node.seen.there):
            return warned(f"K3s is not installed, but there is {', '.join(left)}")
        if runtimes := sorted(node.seen.running):
            return warned(f"{', '.join(runtimes)} runs beside K3s' own containerd")
    if late := node.late("systemctl"):
        return unknown(late[0])
    return passed("none")


@check(
    "apparmor",
    "AppArmor is on",
    why="without it, pods that ask for a profile do not start",
    remedy="add apparmor=1 security=apparmor to the kernel's command line and reboot",
    worst=_WARN,
    members=True,
    physical=True,
)
def apparmor(node: Node) -> Answer:
    state = node.seen.values.get("/sys/module/apparmor/parameters/enabled", "")
    if not state:
        return unknown("its kernel does not say")
    return passed("on") if state == "Y" else warned("off")


@check(
    "iptables",
    "iptables is none of the releases 1.8.0 to 1.8.4",
    why="these add the same rule again and again until the network is slow (K3s #3117)",
    remedy='server_config and agent_config: {"prefer-bundled-bin": True}',
    worst=_WARN,
    members=True,
)
def iptables(node: Node) -> Answer:
    version = node.seen.iptables
    if not version:
        return passed("none; K3s brings its own")
    number = version.split()[0].lstrip("v")
    if number in ("1.8.0", "1.8.1", "1.8.2", "1.8.3", "1.8.4"):
        return warned(version)
    return passed(version)


CHECKS = (
    os_release, architecture, ssh_key, chosen_snaps, time_daemons,
    clock_synchronised, clock_date, swap, sysctl, reboot, automatic_reboot, shutdown_delay,
    cloud_init, iscsi, multipath, watchdog, failed_units, programs, machine_id, other_kubernetes,
    apparmor, iptables,
)  # fmt: skip
