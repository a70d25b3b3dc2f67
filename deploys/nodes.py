"""The Ubuntu base of every host of the inventory; `nodes.parts` switches parts of it off.

pyinfra inventories/home.py deploys/nodes.py
"""

from pyinfra import host
from pyinfra.api.deploy import deploy

from cluster import base
from cluster.model import Host
from cluster.services import gateway
from cluster.text import drop_ins
from deploys.boot import boot_layer, reboots, refuse_unfit_boot_files
from deploys.preflight import entry, refuse_unfit_hosts
from operations import clock, config_files, kernel, login, power, storage_clients, system
from runtime.run import cluster, started_directly


@deploy("System")
def system_base() -> None:
    """Name, packages and their upgrades, language, journal."""
    model = cluster()
    parts = model.nodes.parts
    if parts.hostname:  # sudo waits for a name server while the hosts file lacks the name
        system.hostname(name="Host name and hosts file")
    if parts.needrestart:  # before the first run of apt
        config_files.files(
            name="needrestart lists only", wanted={base.NEEDRESTART: drop_ins.needrestart()}
        )
    if parts.unattended_upgrades:
        config_files.files(
            name="Upgrades without surprise reboots", wanted={base.APT: drop_ins.apt()}
        )
    if parts.packages:
        system.packages(name="Packages")
    if parts.timezone:
        system.timezone(name="Time zone")
    if parts.locale:
        system.locale(name="Locale")
    if parts.journald:
        journal = drop_ins.journald(model.nodes.journal_storage, model.nodes.journal_max_use)
        config_files.files(
            name="Journal",
            wanted={base.JOURNALD: journal},
            unit="systemd-journald.service",
        )
    if parts.fstrim:
        system.trim(name="TRIM of SSDs every week")


@deploy("Kubernetes nodes")
def kubernetes_base() -> None:
    """What a node of the cluster needs beyond that."""
    model = cluster()
    parts = model.nodes.parts
    if parts.kernel_hold:
        system.kernel_hold(name="Hold the kernel of etcd's nodes")
    if parts.swap:
        kernel.swap_off(name="No swap")
    if parts.snapd:
        system.snapd_absent(name="No snapd")
    if parts.kernel_modules:
        kernel.modules(name="Kernel modules")
    if parts.sysctl or parts.sysctl_machine:
        kernel.settings(name="Kernel settings")
    if parts.limits:
        config_files.files(name="Limits of open files", wanted={base.LIMITS: drop_ins.limits()})
    if parts.multipath and model.stack.storage == "longhorn":
        config_files.files(
            name="multipathd leaves Longhorn alone",
            wanted={base.MULTIPATH: drop_ins.multipath()},
            unit="multipathd.service",
        )
    if parts.storage_clients:
        storage_clients.iscsi(name="iSCSI client")
    if parts.logind:
        power.logind(name="Shutdown waits for pods")


@deploy("Clock")
def clock_base(me: Host) -> None:
    """One time daemon; a host that is itself the time server is left to its own deploy."""
    model = cluster()
    is_server = str(me.ip) in model.network.time_servers or gateway.serves_time(model, me)
    if model.nodes.parts.time_sync and not is_server:
        clock.chrony(name="chrony")
        clock.synchronised(name="The clock is synchronised")


@deploy("Logins")
def login_base() -> None:
    """Users first: their keys must be there before passwords end."""
    parts = cluster().nodes.parts
    if parts.users and cluster().nodes.users:
        login.users(name="Users")
    if parts.sshd:
        login.sshd(name="sshd takes keys only")


def nodes() -> None:
    """The whole base, called for every host of the run."""
    if (me := entry(host)) is None:
        return
    refuse_unfit_hosts()
    refuse_unfit_boot_files()
    system_base()
    boot_layer()
    if me.in_cluster:
        kubernetes_base()
    clock_base(me)
    login_base()
    reboots()  # before K3s, which does not start without the memory controller


if started_directly(__name__):
    nodes()
