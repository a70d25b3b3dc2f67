"""What the doctor says of the five hosts of the reference: constructed from public reports."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from cluster.answer import Present
from cluster.doctor.catalogue import CHECKS, examine
from cluster.doctor.check import Verdict
from cluster.doctor.node import Fleet, Node
from cluster.doctor.seen import Link
from tests.unit import boot_world, doctor_world
from tests.unit.doctor_world import cluster
from tests.unit.node_world import finished

pytestmark = pytest.mark.skipif(
    boot_world.shared() is None, reason="the fixtures are not on this machine"
)
MODEL = cluster(servers=1, agents=0)


def said(name: str) -> dict[Verdict, set[str]]:
    """The checks of a host by what they say of a profile."""
    texts = boot_world.profile(name)
    healthy = doctor_world.pi4(MODEL.servers[0])
    boot = replace(boot_world.state(texts), watchdog=healthy.watchdog)  # no part of the profiles
    if isinstance(boot.mount, Present) and boot.layout.ab:
        boot = replace(boot, mount=Present(replace(boot.mount.value, free=210 << 20)))
    arch = "arm64" if "aarch64" in texts["uname-a"] else "amd64"
    me = MODEL.servers[0].model_copy(update={"arch": arch})
    clock = dict(line.split("=", 1) for line in texts["timedatectl-show"].splitlines())
    memory = re.search(r"Mem:\s+(\d+)", texts["free-b"])
    speed = re.search(r"Speed: (\d+)", texts["ethtool-eth0"])
    assert memory and speed
    done = finished(MODEL, me, boot.release)
    unset = set(done.sysctls) - set(re.findall(r"^(\S+) =", texts["sysctl"], re.MULTILINE))
    pairs = dict(line.split(" = ") for line in texts["sysctl"].splitlines())
    state = replace(
        done,
        clock=replace(done.clock, at=boot_world.NOW, before=boot_world.NOW, after=boot_world.NOW),
        arch=arch,
        kernel=boot.kernel,
        board=boot.pi.model if boot.pi else texts["dmi-product-name"].strip(),
        memory_kib=int(memory[1]) // 1024,
        page_size=int(texts["getconf-pagesize"]),
        stack="ffff8a2c0000",
        controllers=frozenset(texts["cgroup-controllers"].split()),
        swaps=tuple(one.name for one in boot.swaps),
        sysctls={key: value for key, value in done.sysctls.items() if key in unset} | pairs,
        packages=done.packages
        if boot.release != "22.04"
        else {name: one for name, one in done.packages.items() if "modules-extra" not in name},
        time_synchronised=clock["NTPSynchronized"] == "yes",
        time_source="",
    )
    # Written by deploys/nodes.py, and no part of the profiles.
    for key in ("vm.dirty_ratio", "vm.dirty_background_ratio"):
        state.sysctls.pop(key, None)
    seen = doctor_world.look(MODEL, me)
    if "not found" in texts.get("modinfo-vxlan", ""):
        known = {name: how for name, how in (seen.modules or {}).items() if name != "vxlan"}
        seen = replace(seen, modules=known)
    seen = replace(
        seen,
        clock=clock,
        links={"eth0": Link("aa", 1500, True, int(speed[1]), "full")},
    )
    found: dict[Verdict, set[str]] = {verdict: set() for verdict in Verdict}
    for one in examine(Fleet(MODEL, {me.name: Node(MODEL, me, state, seen, boot)})):
        if one.hosts:
            found[one.verdict].add(one.check.id)
    return found


@pytest.mark.parametrize(
    ("name", "fails", "warns"),
    [
        ("pi4-2404-usb-uas", set(), {"eeprom"}),
        (
            "pi4-2404-jmicron-bad",
            {"usb-bridge", "kernel-log"},
            {"trim", "boot-active", "usb-autosuspend", "boot-order", "sysctl", "eeprom"},
        ),
        ("pi5-2604-nvme", set(), {"boot-cmdline"}),
        (
            "pi4-2204-sd-undervolt",
            {
                "cgroup-memory", "root-medium", "under-voltage", "throttled", "voltage-alarm",
                "swap", "clock-synchronised", "kernel-modules",
            },
            {"temperature", "link", "sysctl", "eeprom", "os-release", "kernel-log"},
        ),
        ("x86-n100-2404", set(), set()),
    ],
)  # fmt: skip
def test_a_profile_gets_the_verdicts_its_story_asks_for(
    name: str, fails: set[str], warns: set[str]
) -> None:
    found = said(name)
    assert (found[Verdict.FAIL], found[Verdict.WARN]) == (fails, warns)
    assert len(found[Verdict.PASS]) > 25 and found[Verdict.UNKNOWN] <= set(CHECKS)


def test_a_healthy_profile_leaves_little_unknown() -> None:
    # The profiles have neither the folder of installed kernels nor the labels of partitions.
    assert said("pi4-2404-usb-uas")[Verdict.UNKNOWN] == {"kernel-newest", "disk-labels"}
