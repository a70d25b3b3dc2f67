"""A healthy cluster as the doctor would read it: constructed, no real host was read.

Two kinds of board: a Pi 4 with Ubuntu 24.04 and a USB SSD, a Pi 5 with 26.04, A/B slots and NVMe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from ipaddress import IPv4Interface
from typing import Any

from cluster.answer import Present
from cluster.boot import board
from cluster.boot.board import Board
from cluster.boot.disk import Disk, Partition, Trim, Usb
from cluster.boot.eeprom import Eeprom
from cluster.boot.power import Throttled
from cluster.boot.state import BootState, Mount, Watchdog
from cluster.doctor import modules
from cluster.doctor.node import Fleet, Node
from cluster.doctor.seen import Address, Link, Probes, Seen, Usage
from cluster.model import Cluster, Host
from tests.unit.cluster_example import example
from tests.unit.node_world import NOW, finished

Change = Callable[[Fleet], Fleet]

LINE = "console=serial0,115200 root=LABEL=writable rootwait cgroup_enable=memory"
SLOT_LINE = f"{LINE} panic=10"
CONFIG = "[all]\nkernel=vmlinuz\ncmdline=cmdline.txt\n"
SLOTS = f"[all]\nos_prefix=current/\n[tryboot]\nos_prefix=new/\n{CONFIG}"
USB = Usb("174c:55aa", "2-1", 5000, autosuspend=False)
SSD = Disk("sda", "uas", USB, Trim(4 << 30, "unmap", unmap=True), 500 * 10**9, "SSD 870 EVO", False)
NVME = Disk("nvme0n1", "nvme", None, Trim(2 << 40), 500 * 10**9, "SN770M", False)


def cluster(servers: int = 3, agents: int = 2, **changes: Any) -> Cluster:
    """A cluster whose stack makes every check apply."""
    network = {
        "lan": "10.0.0.0/24",
        "gateway": "10.0.0.1",
        "dns": ("10.0.0.1",),
        "api": {"vip": "10.0.0.50"},
        "load_balancer_pool": "10.0.0.100-10.0.0.103",
    }
    stack = {"storage": "longhorn"}
    return example(servers, agents, **({"network": network, "stack": stack} | changes))


def _board(model: str, revision: str, me: Host) -> Present[Board]:
    found = board.parse(model, revision, f"{int(me.ip):016x}")
    assert found
    return Present(found)


def pi4(me: Host) -> BootState:
    """The boot layer of a Pi 4 with an SSD at a USB 3 port."""
    return BootState(
        board=_board("Raspberry Pi 4 Model B Rev 1.4", "d03114", me),
        release="24.04",
        kernel="6.8.0-1031-raspi",
        kernels=("6.8.0-1030-raspi", "6.8.0-1031-raspi"),
        boot_id="boot",
        now=NOW,
        uptime=1000.0,
        mount=Present(Mount("/dev/sda1", "vfat", ("rw",), "sda", 98 << 20)),
        root=Present(Mount("/dev/sda2", "ext4", ("rw", "noatime"), "sda", 30 << 30)),
        files={"config.txt": CONFIG, "cmdline.txt": f"{LINE}\n"},
        changed={"config.txt": int(NOW) - 9000, "cmdline.txt": int(NOW) - 9000},
        running=f"coherent_pool=1M cgroup_disable=memory {LINE}",
        eeprom=Present(
            Eeprom(built=int(NOW) - 86400 * 200, config={"BOOT_ORDER": "0xf14"}, config_known=True)
        ),
        disks={"sda": SSD},
        partitions=(
            Partition("sda1", "sda", "system-boot", "aa-01", "vfat", "/boot/firmware"),
            Partition("sda2", "sda", "writable", "aa-02", "ext4", "/"),
            Partition("sda3", "sda", "DATA", "aa-03", "ext4", "/var/lib/longhorn"),
        ),
        throttled=Present(Throttled(0)),
        under_voltage=Present(False),
        temperature=Present(48.2),
        page_size=4096,
        address_bits=48,
        routes=("eth0",),
        watchdog=Watchdog("Broadcom BCM2835 Watchdog timer", True, "15s"),
    )


def pi5(me: Host) -> BootState:
    """The boot layer of a Pi 5 with 26.04 and NVMe."""
    slot = {"current/state": "good\n", "current/cmdline.txt": f"{SLOT_LINE}\n"}
    return replace(
        pi4(me),
        board=_board("Raspberry Pi 5 Model B Rev 1.0", "d04170", me),
        release="26.04",
        mount=Present(Mount("/dev/nvme0n1p1", "vfat", ("rw",), "nvme0n1", 210 << 20)),
        root=Present(Mount("/dev/nvme0n1p2", "ext4", ("rw",), "nvme0n1", 30 << 30)),
        files={"config.txt": SLOTS, **slot},
        running=f"cgroup_disable=memory {SLOT_LINE}",
        eeprom=Present(
            Eeprom(built=int(NOW) - 86400 * 100, config={"BOOT_ORDER": "0xf146"}, config_known=True)
        ),
        disks={"nvme0n1": NVME},
        partitions=(
            Partition("nvme0n1p1", "nvme0n1", "system-boot", "bb-01", "vfat", "/boot/firmware"),
            Partition("nvme0n1p2", "nvme0n1", "writable", "bb-02", "ext4", "/"),
        ),
        supply=Present(5000),
    )


def mac(me: Host) -> str:
    return f"dc:a6:32:00:00:{int(me.ip) & 0xFF:02x}"


def look(model: Cluster, me: Host) -> Seen:
    """What the doctor's script reads on such a host."""
    return Seen(
        container="none",
        values={
            "/proc/device-tree/serial-number": f"{int(me.ip):016x}",
            "/sys/fs/ext4/sda2/errors_count": "0",
            "/sys/module/apparmor/parameters/enabled": "Y",
        },
        interfaces=("cni0", "eth0", "lo"),
        links={"eth0": Link(mac(me), 1500, True, 1000, "full")},
        addresses=(
            Address("lo", IPv4Interface("127.0.0.1/8")),
            Address("eth0", IPv4Interface(f"{me.ip}/24")),
            Address("cni0", IPv4Interface("10.42.0.1/24")),
        ),
        space={"/var/lib/longhorn": Usage(400 << 20, 300 << 20)},
        inodes={"/": Usage(3_000_000, 2_800_000)},
        resolvers={
            "/etc/resolv.conf": ("127.0.0.53",),
            "/run/systemd/resolve/resolv.conf": ("10.0.0.1",),
        },
        modules=dict.fromkeys(modules.names(modules.needs(model)), "available"),
        clock={"NTP": "yes", "NTPSynchronized": "yes"},
        # As sshd's are: all ECDSA keys begin with these 52 letters.
        host_keys=(
            "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBB"
            f"{int(me.ip):x}",
        ),
        failed_units=(),
        automatic_reboot="false",
        cloud_init="disabled",
        iptables="v1.8.10 (nf_tables)",
        firewall="no",
        k3s=model.k3s.version,
    )


def answers(model: Cluster, me: Host) -> Probes:
    """What the network answers to it."""
    others = [host for host in model.hosts if host is not me]
    free = ["10.0.0.50", *(f"10.0.0.{n}" for n in range(100, 104))]
    return Probes(
        neighbours={str(one.ip): mac(one) for one in others} | dict.fromkeys(free, ""),
        connects={(str(one.ip), 22): 0.0004 for one in others},
        names={one.name: str(one.ip) for one in model.hosts}
        | {"registry-1.docker.io": "192.0.2.9"},
        dns=frozenset({"10.0.0.1"}),
        path_mtu=True,
        smart={"sda": {"smart_status": {"passed": True}, "ata_smart_attributes": {"table": []}}},
        tools=frozenset({"bash", "ip", "ping", "smartctl"}),
    )


@cache
def healthy(*, slots: bool = False) -> Fleet:
    """Every host of the cluster, after deploys/nodes.py and before K3s; slots: Pi 5 with 26.04."""
    return made(cluster(), slots=slots)


def made(model: Cluster, *, slots: bool = False) -> Fleet:
    """The same for another cluster."""
    nodes = {}
    for me in model.hosts:
        state = replace(
            finished(model, me, "26.04" if slots else "24.04"),
            kernel="6.8.0-1031-raspi",
            time_source="10.0.0.1",
        )
        boot = pi5(me) if slots else pi4(me)
        nodes[me.name] = Node(
            model, me, state, look(model, me), boot, answers(model, me), fsync=(0.001,) * 300
        )
    return Fleet(model, nodes)


# ---- changes of one host, node1, unless another is named


def node(**changes: Any) -> Change:
    """Change the node itself."""

    def change(fleet: Fleet, name: str = "node1") -> Fleet:
        return replace(fleet, nodes={**fleet.nodes, name: replace(fleet.nodes[name], **changes)})

    return change


def _part(part: str, changes: dict[str, Any], name: str) -> Change:
    def change(fleet: Fleet) -> Fleet:
        one = fleet.nodes[name]
        new = replace(one, **{part: replace(getattr(one, part), **changes)})
        return replace(fleet, nodes={**fleet.nodes, name: new})

    return change


def state(on: str = "node1", **changes: Any) -> Change:
    """Change what the node fact read."""
    return _part("state", changes, on)


def seen(on: str = "node1", **changes: Any) -> Change:
    """Change what the doctor's fact read."""
    return _part("seen", changes, on)


def boot(on: str = "node1", **changes: Any) -> Change:
    """Change the boot layer."""
    return _part("boot", changes, on)


def probes(on: str = "node1", **changes: Any) -> Change:
    """Change what the network answered."""
    return _part("probes", changes, on)


def together(*changes: Change) -> Change:
    """One change after the other."""

    def change(fleet: Fleet) -> Fleet:
        for one in changes:
            fleet = one(fleet)
        return fleet

    return change
