"""Every check of the doctor: an input that it finds wrong, and one that passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface
from typing import Any

import pytest

from cluster.answer import Absent, Present
from cluster.boot import board
from cluster.boot.disk import Partition, Trim
from cluster.boot.eeprom import Eeprom
from cluster.boot.power import Throttled
from cluster.boot.state import Mount, Radio, Watchdog
from cluster.doctor.catalogue import CHECKS, FLEET_CHECKS, HOST_CHECKS, Finding, examine
from cluster.doctor.check import Verdict
from cluster.doctor.node import Fleet
from cluster.doctor.seen import Address, Link, Usage
from cluster.host_state import Account, Clock, Disk, Listener, Package, Snap, Unit
from tests.unit import doctor_world as world
from tests.unit.doctor_world import (
    LINE,
    SLOT_LINE,
    SLOTS,
    SSD,
    USB,
    Change,
    boot,
    cluster,
    healthy,
    made,
    node,
    probes,
    seen,
    state,
    together,
)
from tests.unit.node_world import NOW

FAIL, WARN = Verdict.FAIL, Verdict.WARN
UP = Unit("loaded", "active", "enabled")
DATA = {"data_disk": "/dev/sda3"}


def unchanged(fleet: Fleet) -> Fleet:
    return fleet


@dataclass(frozen=True)
class Case:
    """A change of a healthy fleet that a check finds wrong.

    text: part of what it says was seen. slots: on a Pi 5 with 26.04. good: a change with which the
    check applies and passes. model: keys of the cluster.
    """

    bad: Change
    verdict: Verdict
    text: str
    slots: bool = False
    good: Change = unchanged
    model: dict[str, Any] | None = None


def eeprom(**changes: Any) -> Change:
    good = Eeprom(int(NOW) - 86400 * 200, config={"BOOT_ORDER": "0xf14"}, config_known=True)
    return boot(eeprom=Present(replace(good, **changes)))


def files(**changes: str) -> Change:
    slots = {"config.txt": SLOTS, "current/state": "good", "current/cmdline.txt": SLOT_LINE}
    return boot(files=slots | changes)


def new_slot(state: str, line: str = SLOT_LINE) -> Change:
    return files(**{"new/state": state, "new/cmdline.txt": line})


def usb(log: tuple[str, ...] = (), **changes: Any) -> Change:
    return boot(disks={"sda": replace(SSD, usb=replace(USB, **changes))}, log=log)


def listens(port: int, process: str) -> Change:
    return state(listeners=(Listener("tcp", port, process),))


def unit(name: str, active: str) -> Change:
    def change(fleet: Fleet) -> Fleet:
        units = fleet.nodes["node1"].state.units
        return state(units={**units, name: Unit("loaded", active, "enabled")})(fleet)

    return change


def me(**changes: Any) -> Change:
    def change(fleet: Fleet) -> Fleet:
        return node(me=fleet.nodes["node1"].me.model_copy(update=changes))(fleet)

    return change


def same(part: str, field: str) -> Change:
    """node2 has node1's value."""

    def change(fleet: Fleet) -> Fleet:
        value = getattr(getattr(fleet.nodes["node1"], part), field)
        change: Change = getattr(world, part)("node2", **{field: value})
        return change(fleet)

    return change


def clock(ahead: float) -> Change:
    return state(clock=Clock(NOW + ahead, NOW, NOW))


def log(line: str) -> Change:
    return boot(log=(line,))


def parts(*names: str) -> dict[str, Any]:
    return {"nodes": {"parts": dict.fromkeys(names, False)}}


PI4 = board.parse("Raspberry Pi 4 Model B Rev 1.1", "d03111")
ABORT = "sd 0:0:0:0: [sda] tag#28 uas_eh_abort_handler 0 uas-tag 10 inflight: CMD OUT"

CASES: dict[str, Case] = {
    # hardware
    "board": Case(
        boot(board=Present(board.parse("Raspberry Pi 3 Model B Plus Rev 1.3"))), FAIL, "Pi 3"
    ),
    "memory": Case(state(memory_kib=1_800_000), FAIL, "1.7 GiB"),
    "under-voltage": Case(boot(throttled=Present(Throttled(0x1))), FAIL, "under-voltage now"),
    "throttled": Case(
        boot(throttled=Present(Throttled(0x4))), FAIL, "throttled now",
    ),
    "voltage-alarm": Case(boot(under_voltage=Present(True)), FAIL, "alarm"),
    "temperature": Case(boot(temperature=Present(82.4)), FAIL, "82 °C"),
    "usb-current": Case(
        boot(supply=Present(3000), disks={"nvme0n1": replace(world.NVME, usb=USB)}),
        FAIL, "3000 mA", slots=True,
    ),
    "radio": Case(boot(radios=(Radio("wifi", "wlan0"),), routes=("wlan0",)), WARN, "wlan0"),
    # firmware
    "eeprom": Case(
        eeprom(built=int(NOW) - 86400 * 560), WARN, "older than 18 months",
        good=eeprom(built=int(NOW) - 86400 * 530),
    ),
    "boot-order": Case(eeprom(config={"BOOT_ORDER": "0xf41"}), WARN, "begins with sd"),
    "eeprom-frozen": Case(eeprom(config={"FREEZE_VERSION": "1"}), WARN, "FREEZE_VERSION=1"),
    "eeprom-config": Case(eeprom(hides_config_txt=True), WARN, "[config.txt]"),
    # boot
    "boot-partition": Case(boot(mount=Absent("not mounted")), FAIL, "nothing is mounted"),
    "boot-cmdline": Case(files(**{"cmdline.txt": "ds=nocloud"}), WARN, "never read", slots=True),
    "boot-one-line": Case(
        boot(files={"config.txt": world.CONFIG, "cmdline.txt": f"{LINE}\nquiet\n"}), FAIL, "2 lines"
    ),
    "boot-active": Case(boot(running="root=LABEL=writable"), WARN, "cgroup_enable=memory"),
    "boot-slot": Case(new_slot("bad"), FAIL, "new bad", slots=True),
    "boot-staged": Case(
        new_slot("unknown", "root=LABEL=writable"), FAIL, "lacks", slots=True,
        good=new_slot("unknown"),
    ),
    "boot-space": Case(
        boot(mount=Present(Mount("/dev/nvme0n1p1", "vfat", ("rw",), "nvme0n1", 5 << 20))),
        FAIL, "5 MiB", slots=True,
    ),
    "boot-panic": Case(files(**{"current/cmdline.txt": LINE}), WARN, "no panic=", slots=True),
    # cgroups
    "cgroup-v2": Case(state(cgroup="v1"), FAIL, "version 1"),
    "cgroup-memory": Case(
        state(controllers=frozenset({"cpu", "cpuset", "pids"})), FAIL, "no memory cgroup"
    ),
    "cgroup-tokens": Case(boot(running="cgroup_disable=memory quiet"), FAIL, "cgroup_disable"),
    "cgroup-io": Case(
        state(controllers=frozenset({"cpu", "cpuset", "pids", "memory"})), WARN, "off"
    ),
    # kernel
    "page-size": Case(state(page_size=65536), FAIL, "64 KiB"),
    "address-bits": Case(
        state(stack="7fb91c7000"), FAIL, "39 bits", model={"stack": {"mesh": "istio"}}
    ),
    "kernel-modules": Case(seen(modules={"overlay": "loaded"}), FAIL, "vxlan for Flannel"),
    "kernel-flavour": Case(state(kernel="6.12.0-1-arm64"), WARN, "6.12.0-1-arm64"),
    "kernel-newest": Case(
        boot(kernels=("6.8.0-1031-raspi", "6.8.0-1040-raspi")), WARN, "installed is 6.8.0-1040"
    ),
    # disks
    "root-medium": Case(
        boot(
            root=Present(Mount("/dev/mmcblk0p2", "ext4", ("rw",), "mmcblk0")),
            disks={"mmcblk0": replace(SSD, name="mmcblk0", transport="sd", usb=None)},
        ),
        FAIL, "an SD card",
    ),
    "usb-bridge": Case(usb((ABORT,), vid_pid="152d:0578"), FAIL, "152d:0578 (JMicron"),
    "usb-speed": Case(usb(speed=480), FAIL, "480 Mb/s"),
    "kernel-log": Case(log("blk_update_request: I/O error, dev sda, sector 5"), FAIL, "dev sda"),
    "disk-labels": Case(
        boot(partitions=(Partition("sda2", label="writable"), Partition("mm2", label="writable"))),
        FAIL, "writable is sda2 and mm2",
    ),
    "trim": Case(boot(disks={"sda": replace(SSD, trim=Trim(0, "full"))}), WARN, "mode full"),
    "usb-autosuspend": Case(usb(autosuspend=True), WARN, "auto"),
    "smart": Case(probes(smart={"sda": {"smart_status": {"passed": False}}}), FAIL, "failing"),
    "disk-space": Case(state(disks={"/": Disk(30 << 20, 2 << 20)}), FAIL, "2.0 GiB of 30.0 GiB"),
    "inodes": Case(seen(inodes={"/": Usage(1000, 50)}), FAIL, "5% left on /"),
    "file-system": Case(seen(values={"/sys/fs/ext4/sda2/errors_count": "3"}), FAIL, "3 errors"),
    "data-disk": Case(me(data_disk="/dev/sdb1"), FAIL, "no /dev/sdb1", good=me(**DATA)),
    "fsync": Case(node(fsync=(0.002,) * 98 + (0.03, 0.05)), FAIL, "p99 50.0 ms"),
    # network
    "address": Case(state(addresses=("127.0.0.1", "10.0.0.77")), FAIL, "it has 10.0.0.77"),
    "address-fixed": Case(
        seen(addresses=(Address("eth0", IPv4Interface("10.0.0.11/24"), dynamic=True),)),
        WARN, "is a lease",
    ),
    "default-route": Case(state(routes=()), FAIL, "no default route"),
    "gateway": Case(state(routes=("default via 10.0.0.254 dev eth0",)), WARN, "10.0.0.254"),
    "router-interfaces": Case(
        seen(interfaces=("eth0", "lo", "wlan0")), FAIL,
        "has no interface wan0 (services.gateway.wan_interface): it has eth0, wlan0",
        good=seen(interfaces=("eth0", "lo", "wan0")),
        model={"services": {"gateway": {"hosts": ["node1"], "wan_interface": "wan0"}}},
    ),
    "link": Case(seen(links={"eth0": Link("m", 1500, True, 100, "full")}), WARN, "100 Mb/s"),
    "path-mtu": Case(probes(path_mtu=False), WARN, "1500 bytes"),
    "dns-servers": Case(
        seen(resolvers={"/etc/resolv.conf": ("127.0.0.53",)}), FAIL, "only 127.0.0.53"
    ),
    "dns-answers": Case(probes(dns=frozenset()), FAIL, "no answer from 10.0.0.1"),
    "ports": Case(listens(6443, "haproxy"), FAIL, "haproxy listens on port 6443"),
    "ports-ingress": Case(listens(80, "nginx"), WARN, "nginx on port 80"),
    "firewall": Case(seen(firewall="yes"), WARN, "ufw is on"),
    "networks": Case(
        seen(addresses=(Address("docker0", IPv4Interface("10.42.0.1/16")),)),
        FAIL, "docker0 10.42.0.0/16 overlaps network.pod_cidr",
    ),
    # system
    "os-release": Case(
        state(release="20.04", os_name="Ubuntu 20.04 LTS"), FAIL, "20.04 LTS is not supported"
    ),
    "architecture": Case(state(arch="armhf"), FAIL, "its system is armhf, its `arch` says arm64"),
    "ssh-key": Case(
        state(accounts={"ubuntu": Account("ubuntu", 1000, "/h", "/bin/sh", (), "# none\n")}),
        FAIL, "ubuntu has no key",
    ),
    "snaps": Case(
        state(packages={"snapd": Package("1", "ii")}, snaps=(Snap("nextcloud"),)),
        FAIL, "nextcloud", good=state(packages={"snapd": Package("1", "ii")}, snaps=()),
    ),
    "time-daemons": Case(unit("systemd-timesyncd.service", "active"), FAIL, "2 time daemons"),
    "clock-synchronised": Case(
        together(state(time_synchronised=False), seen(clock={"NTPSynchronized": "no"})),
        FAIL, "not synchronised",
    ),
    "clock-date": Case(state(clock=Clock(1.7e9, 1.7e9, 1.7e9)), FAIL, "years behind"),
    "swap": Case(state(swaps=("/swapfile", "/dev/zram0")), FAIL, "swaps to /swapfile"),
    "sysctl": Case(state(sysctls={"net.ipv4.ip_forward": "0"}), WARN, "net.ipv4.ip_forward 0"),
    "reboot": Case(state(reboot_required=("linux-base",)), WARN, "linux-base"),
    "automatic-reboot": Case(seen(automatic_reboot="true"), FAIL, 'Automatic-Reboot "true"'),
    "shutdown-delay": Case(state(inhibit_delay=5.0), WARN, "5 s, pods may take 30 s"),
    "cloud-init": Case(
        seen(cloud_init="running"), FAIL, "still runs",
        good=seen(cloud_init="done", cloud_off=True),
    ),
    "iscsi": Case(unit("iscsid.service", "inactive"), FAIL, "iscsid does not run"),
    "multipath": Case(
        together(unit("multipathd.service", "active"), state(files={})), FAIL, "claims every sd"
    ),
    "watchdog": Case(boot(watchdog=Watchdog()), WARN, "switched off"),
    "failed-units": Case(seen(failed_units=("smartd.service",)), WARN, "smartd.service"),
    "programs": Case(seen(late=("df /storage did not end",)), WARN, "df /storage did not end"),
    "machine-id": Case(state(machine_id="uninitialized"), FAIL, "uninitialized"),
    "other-kubernetes": Case(
        seen(running=frozenset({"kubelet.service"})), FAIL, "kubelet.service runs"
    ),
    "apparmor": Case(seen(values={"/sys/module/apparmor/parameters/enabled": "N"}), WARN, "off"),
    "iptables": Case(seen(iptables="v1.8.2 (nf_tables)"), WARN, "v1.8.2"),
    # fleet
    "reachable": Case(
        lambda fleet: replace(fleet, unreachable={"node9": "no route"}), FAIL, "no route"
    ),
    "hostname": Case(
        same("state", "hostname"), FAIL, "all named node1", model=parts("hostname")
    ),
    "same-computer": Case(same("state", "machine_id"), FAIL, "machine id of node2"),
    "same-mac": Case(same("seen", "links"), FAIL, "node1 and node2 both have the network card"),
    "same-board": Case(same("seen", "values"), FAIL, "serial number"),
    "same-initiator": Case(same("state", "initiator"), FAIL, "iSCSI name iqn"),
    "same-host-key": Case(same("seen", "host_keys"), FAIL, "same host keys"),
    "clock": Case(clock(7300.0), FAIL, "2 hours ahead"),
    "time-source": Case(state(time_source="192.0.2.1"), WARN, "node1: 192.0.2.1"),
    "address-free": Case(
        probes(neighbours={"10.0.0.50": "02:00:00:00:00:99"}), FAIL, "10.0.0.50 (02:00:00:00:00:99)"
    ),
    "same-address": Case(
        probes("node2", neighbours={"10.0.0.11": "02:00:00:00:00:99"}), FAIL, "99 for node2"
    ),
    "arch-images": Case(
        lambda fleet: fleet, FAIL, "keycloak-bitnami has no images for arm64",
        model={"stack": {"identity": "keycloak-bitnami"}},
    ),
    "same-release": Case(state(os="debian", release="12"), FAIL, "debian 12: node1"),
    "same-kernel": Case(state(kernel="6.8.0-1-raspi"), WARN, "6.8.0-1-raspi: node1"),
    "same-pages": Case(state(page_size=16384), WARN, "16 KiB, 48 bits: node1"),
    "same-eeprom": Case(eeprom(built=int(NOW) - 86400 * 600), WARN, "node1: 20"),
    "same-mtu": Case(seen(links={"eth0": Link("m", 9000)}), FAIL, "9000: node1"),
    "names-resolve": Case(
        probes(names={"node2": "127.0.1.1"}), FAIL, "node2 is 127.0.1.1"
    ),
    "connections": Case(probes(connects={}), FAIL, "no answer from 10.0.0.12:22"),
    "latency": Case(probes(connects={("10.0.0.12", 22): 0.06}), FAIL, "60.0 ms from node1"),
    "storage": Case(
        together(seen(space={}), state(disks={"/var/lib/longhorn": Disk(5 << 20, 4 << 20)})),
        WARN, "5 GiB on node1",
    ),
    "k3s-versions": Case(seen("node4", k3s="v1.37.0+k3s1"), FAIL, "newer than the servers"),
}  # fmt: skip
# On a healthy fleet of the default stack there is no bad component: any other stack passes.
GOOD_MODEL: dict[str, dict[str, Any]] = {"arch-images": {}}


def fleet_of(model: dict[str, Any] | None, *, slots: bool) -> Fleet:
    return made(cluster(**model), slots=slots) if model else healthy(slots=slots)


def said(fleet: Fleet, check: str) -> Iterator[Finding]:
    return (one for one in examine(fleet, extra=True) if one.check.id == check)


def test_every_check_has_a_case_and_no_id_is_used_twice() -> None:
    assert set(CASES) == set(CHECKS)
    assert len(CHECKS) == len(HOST_CHECKS) + len(FLEET_CHECKS) >= 90


@pytest.mark.parametrize("check", CASES)
def test_a_wrong_input_is_found(check: str) -> None:
    case = CASES[check]
    fleet = case.bad(fleet_of(case.model, slots=case.slots))
    (found,) = [one for one in said(fleet, check) if one.verdict is not Verdict.PASS]
    assert found.verdict is case.verdict and case.text in found.answer.seen, str(found)
    assert found.remedy and "\n" not in str(found)
    assert found.check.worst is FAIL or found.verdict is WARN


@pytest.mark.parametrize("check", CASES)
def test_a_good_input_passes(check: str) -> None:
    case = CASES[check]
    fleet = case.good(fleet_of(GOOD_MODEL.get(check, case.model), slots=case.slots))
    assert {one.verdict for one in said(fleet, check)} == {Verdict.PASS}


def test_volumes_that_do_not_go_to_the_data_disk_are_found() -> None:
    parts = (Partition("sda3", disk="sda", kind="ext4", mounted="/srv/disk"),)
    change = together(me(**DATA), boot(partitions=parts))
    stack = {"stack": {"storage": "longhorn", "snapshots": "none"}}
    (found,) = said(change(fleet_of(stack, slots=False)), "data-disk")
    assert found.verdict is WARN and "volumes go to /var/lib/longhorn" in str(found)
    inside = stack | {"platform": {"storage": {"path": "/srv/disk/longhorn"}}}
    (found,) = said(change(fleet_of(inside, slots=False)), "data-disk")
    assert found.verdict is Verdict.PASS


@pytest.mark.parametrize("slots", [False, True])
def test_a_healthy_cluster_has_nothing_but_passes(slots: bool) -> None:
    assert [
        str(one)
        for one in examine(healthy(slots=slots), extra=True)
        if one.verdict is not Verdict.PASS
    ] == []
