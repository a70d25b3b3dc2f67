"""Hosts for tests, as the node fact would read them: constructed, no real host was read.

Values of board, kernel and release are modelled on public outputs of such hosts.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace

from cluster import base
from cluster.host_state import (
    Account,
    Clock,
    Disk,
    File,
    HostState,
    Listener,
    Package,
    Snap,
    Unit,
)
from cluster.model import Cluster, Host
from cluster.text import block, drop_ins, fstab, hosts

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBcSTbE2wUyVXqBhPZjIFn7eFs9W6JWmLaqzZXE2NRAe"
NOW = 1_795_636_765.0
ETC_HOSTS = "127.0.0.1 localhost\n127.0.1.1 ubuntu\n\n# mine\n10.0.0.250 nas\n"
ETC_FSTAB = "LABEL=writable / ext4 defaults 0 1\n/swap.img none swap sw 0 0\n"
KERNELS = {"20.04": "5.4.0-1080", "22.04": "5.15.0-1053", "24.04": "6.8.0-1031"}

_UP = Unit("loaded", "active", "enabled", since=10.0)
_THERE = Unit("loaded", "inactive", "disabled")


def pi(me: Host, release: str = "24.04") -> HostState:
    """A Raspberry Pi 4 with Ubuntu as it boots for the first time."""
    number = int(me.ip) & 0xFF
    return HostState(
        clock=Clock(NOW, NOW, NOW),
        uptime=1000.0,
        os="ubuntu",
        release=release,
        os_name=f"Ubuntu {release} LTS",
        arch=me.arch,
        kernel=f"{KERNELS.get(release, '7.0.0-1017')}-raspi",
        board="Raspberry Pi 4 Model B Rev 1.4",
        hostname="ubuntu",
        hostname_file="ubuntu",
        timezone="Etc/UTC",
        locale="C.UTF-8",
        locales=("C", "C.utf8", "POSIX"),
        machine_id=f"{number:032x}",
        boot_id=f"boot-{number}",
        memory_kib=8_001_156,
        page_size=4096,
        stack="ffff8a2c0000",
        cgroup="v2",
        controllers=frozenset("cpuset cpu io memory hugetlb pids rdma misc".split()),
        packages={
            name: Package("1", "ii")
            for name in (
                "ca-certificates",
                "curl",
                "dmsetup",
                "linux-image-raspi",
                "linux-raspi",
                "linux-base",
                "linux-image-6.8.0-1031-raspi",
                "locales",
                "multipath-tools",
                "needrestart",
                "open-iscsi",
                "snapd",
                "unattended-upgrades",
            )
        },
        units={
            "systemd-timesyncd.service": _UP,
            "systemd-journald.service": replace(_UP, enabled="static"),
            "systemd-logind.service": replace(_UP, enabled="static"),
            "ssh.service": _UP,
            "iscsid.service": _THERE,
            "multipathd.service": _UP,
            "fstrim.timer": _UP,
            "swap.target": replace(_UP, enabled="static"),
        },
        files={path: _file("") for path in (base.HOSTS, base.HOSTNAME, base.FSTAB)},
        texts={base.HOSTS: ETC_HOSTS, base.FSTAB: ETC_FSTAB},
        swaps=("/swap.img",),
        modules=dict.fromkeys(base.ALL_MODULES, "available") | {"overlay": "loaded"},
        sysctls=_SYSCTLS,
        accounts={
            "root": Account("root", 0, "/root", "/bin/bash", ("root",)),
            "ubuntu": Account("ubuntu", 1000, "/home/ubuntu", "/bin/bash", ("sudo",), f"{KEY}\n"),
        },
        login="ubuntu",
        snaps=(Snap("snapd", "snapd"), Snap("core20", "base"), Snap("lxd", "-")),
        routes=("default via 10.0.0.1 dev eth0 proto static",),
        addresses=("127.0.0.1", str(me.ip)),
        interfaces={"127.0.0.1": "lo", str(me.ip): "eth0"},
        listeners=(Listener("tcp", 22, "sshd"), Listener("udp", 8472, "")),
        disks={"/": Disk(30_000_000, 25_000_000)},
        initiator=f"iqn.2004-10.com.ubuntu:01:{number:x}",
        sshd={
            "passwordauthentication": "yes",
            "permitrootlogin": "without-password",
            "kbdinteractiveauthentication": "no",
            "x11forwarding": "yes",
        },
        inhibit_delay=30.0,
        has=frozenset({"sshd-include", "cloud-init"}),
    )


_SYSCTLS = {
    "net.ipv4.ip_forward": "0",
    "net.ipv4.conf.all.rp_filter": "2",
    "fs.inotify.max_user_instances": "128",
    "fs.inotify.max_user_watches": "14187",
    "vm.max_map_count": "1048576",
    "vm.overcommit_memory": "0",
    "vm.panic_on_oom": "0",
    "kernel.panic": "0",
    "kernel.panic_on_oops": "0",
}


def finished(model: Cluster, me: Host, release: str = "24.04") -> HostState:
    """The same host after deploys/nodes.py."""
    bare = pi(me, release)
    settings = base.settings(model, me)
    effective = bare.sysctls | {
        key: one.value
        for key, one in settings.items()
        if not (one.at_least and one.met(bare.sysctls.get(key, "")))
    }
    held = base.kernel_is_held(model, me)
    packages = {name: package for name, package in bare.packages.items() if name != "snapd"}
    packages |= {name: Package("1", "ii") for name in base.packages(model, me, bare)}
    if held:
        kernels = base.kernel_packages(HostState(packages=packages))
        packages |= {name: Package("1", "hi") for name in kernels}
    sshd = drop_ins.sshd("no")
    texts = {
        base.HOSTS: hosts.render(ETC_HOSTS, model),
        base.FSTAB: fstab.without_swap(ETC_FSTAB),
    }
    files = {
        base.HOSTNAME: f"{me.name}\n",
        base.CLOUD_INIT: drop_ins.cloud_init(),
        base.APT: drop_ins.apt(),
        base.NEEDRESTART: drop_ins.needrestart(),
        base.NO_SNAPD: drop_ins.no_snapd(),
        base.MODULES: drop_ins.modules(base.modules(model)),
        base.SYSCTL: drop_ins.sysctl(base.persistent(settings, effective)),
        base.LIMITS: drop_ins.limits(),
        base.MULTIPATH: drop_ins.multipath(),
        base.JOURNALD: drop_ins.journald("persistent", "200M"),
        base.LOGIND: drop_ins.logind(30),
        base.CHRONY: drop_ins.chrony(model.network.time_servers),
        base.SSHD: drop_ins.sshd_text(sshd),
    }
    if release == "22.04":
        files[base.CHRONY_WAIT] = drop_ins.chrony_wait()
    users = {user.name: user for user in model.nodes.users}
    files |= {base.sudoers(name): drop_ins.sudo(name) for name in users}
    modes = {base.sudoers(name): "440" for name in users}
    return replace(
        bare,
        hostname=me.name,
        hostname_file=me.name,
        packages=packages,
        units={
            **{name: unit for name, unit in bare.units.items() if "timesyncd" not in name},
            "chrony.service": _UP,
            "chrony-wait.service": replace(_UP, active="inactive"),
            "iscsid.service": _UP,
            "swap.target": Unit("masked", "inactive", "masked"),
        },
        files={
            path: _file(text, modes.get(path, "644")) for path, text in {**texts, **files}.items()
        },
        texts=texts,
        links={base.LOGIND_OF_UPGRADES: "/dev/null"},
        swaps=(),
        modules=dict.fromkeys(base.ALL_MODULES, "loaded"),
        sysctls=effective,
        accounts=bare.accounts
        | {
            name: Account(
                name, 1001, f"/home/{name}", user.shell, (name,), block.put("", user.keys)
            )
            for name, user in users.items()
        },
        snaps=(),
        sshd={key.lower(): value for key, value in sshd.items()},
        inhibit_delay=30.0,
        time_source="10.0.0.1",
        time_synchronised=True,
    )


def _file(text: str, mode: str = "644") -> File:
    return File(mode, changed=int(NOW) - 10_000, sha256=hashlib.sha256(text.encode()).hexdigest())


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def lines(state: HostState) -> list[str]:
    """What the fact's script prints on such a host."""
    return ["\t".join(fields) for fields in _fields(state)]


def _fields(state: HostState) -> Iterator[tuple[str, ...]]:
    yield "clock", str(state.clock.at), f"{state.uptime} 0.0"
    yield "os", state.os, state.release, state.os_name
    for key in ("arch", "kernel", "stack", "login"):
        yield key, getattr(state, key)
    yield "board", state.board, ""
    yield "hostname", state.hostname, state.hostname_file
    yield "timezone", f"/usr/share/zoneinfo/{state.timezone}"
    yield "locale", state.locale, " ".join(state.locales)
    yield "ids", state.machine_id, state.boot_id
    yield "memory", str(state.memory_kib), str(state.page_size)
    yield "cgroup", state.cgroup, " ".join(state.controllers)
    for name, package in state.packages.items():
        yield "package", name, package.version, package.status
    for name, unit in state.units.items():
        yield from (("unit", line) for line in _unit(name, unit))
    for path, file in state.files.items():
        yield "file", path, file.mode, file.owner, str(file.changed)
        yield "sha256", path, file.sha256
    for path, target in state.links.items():
        yield "link", path, target
    for path, text in state.texts.items():
        yield "text", path, _encoded(text)
    yield from (("swap", name) for name in state.swaps)
    yield from (("module", name, how) for name, how in state.modules.items())
    for key, value in state.sysctls.items():
        yield "sysctl", f"{base.kernel_path(key)}:{value}"
    for one in state.accounts.values():
        keys = _encoded(one.authorized_keys)
        yield "account", one.name, str(one.uid), one.home, one.shell, " ".join(one.groups), keys
    yield from (("snap", snap.name, snap.notes) for snap in state.snaps)
    yield from (("lxd", name) for name in state.lxd_instances)
    yield from (("route", route) for route in state.routes)
    yield from (("address", one, state.interfaces.get(one, "")) for one in state.addresses)
    for listener in state.listeners:
        process = f'users:(("{listener.process}",pid=1,fd=3))' if listener.process else ""
        yield "listen", listener.protocol, f"0.0.0.0:{listener.port}", process
    for path, disk in state.disks.items():
        yield "disk", path, str(disk.size), str(disk.free)
    yield "iscsi", state.initiator, str(state.iscsi_sessions)
    yield from (("sshd", key, value) for key, value in state.sshd.items())
    yield from (("has", what) for what in sorted(state.has))
    if state.inhibit_delay is not None:
        yield "inhibit", f"t {state.inhibit_delay * 1e6:.0f}"
    if state.time_source:
        status = "Normal" if state.time_synchronised else "Not synchronised"
        yield "tracking", f"0A000001,{state.time_source},11,{status}"
    if state.snaps_unread:
        yield "snaps_unread", state.snaps_unread
    if state.reboot_required is not None:
        yield "reboot", " ".join(state.reboot_required)
    yield ("end",)


def _unit(name: str, unit: Unit) -> tuple[str, ...]:
    return (
        f"Id={name}",
        f"LoadState={unit.load}",
        f"ActiveState={unit.active}",
        f"UnitFileState={unit.enabled}",
        f"StateChangeTimestampMonotonic={unit.since * 1e6:.0f}",
        "",
    )
