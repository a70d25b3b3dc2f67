"""The plan of a mixed fleet: each profile of ../shared, as deploys/nodes.py and boot.py see it.

Simulated: the hosts. Their boot layer is read from the fixtures (constructed, no real host was
read), the rest of their operating system is finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.boot import places, wanted
from cluster.host_state import HostState
from tests.plans.simulated import BOOT, DOCTOR, K3S, NODE, Node, Planned, k3s, plan
from tests.unit import boot_world
from tests.unit.cluster_example import example
from tests.unit.node_world import finished, lines

pytestmark = pytest.mark.skipif(
    boot_world.shared() is None, reason="the fixtures are not on this machine"
)
NETWORK = {"lan": "10.0.0.0/24", "gateway": "10.0.0.1", "dns": ("10.0.0.1",)}
MODEL = example(servers=3, agents=2, name="home", domain="home.arpa", network=NETWORK)
FLEET = dict(zip(
    (host.name for host in MODEL.hosts),
    ("pi4-2404-usb-uas", "pi5-2604-nvme", "x86-n100-2404", "pi4-2404-jmicron-bad",
     "pi4-2204-sd-undervolt"),
    strict=True,
))  # fmt: skip
HEALTHY, SLOTS, PC, BRIDGE, CARD = FLEET
VERSION = "v1.36.2+k3s1"
# What the fixtures have on purpose, and no edit of a file mends.
IGNORED = ("under-voltage", "throttled", "voltage-alarm", "same-release")


def system(name: str) -> HostState:
    """The rest of a host: all that deploys/nodes.py does elsewhere is done."""
    profile = boot_world.profile(FLEET[name])
    found = boot_world.state(profile)
    me = MODEL.host(name)
    done = finished(MODEL, me, found.release)
    return replace(
        done,
        kernel=found.kernel,
        board=found.pi.model if found.pi else "EQ12",
        controllers=frozenset(profile["cgroup-controllers"].split()),
        clock=replace(done.clock, at=time.time()),
    )


def node(name: str, boot: list[str], running: bool = False) -> Node:
    me = MODEL.host(name)
    agent_or_server = k3s(server=me.is_server, version=VERSION if running else "")
    unit = "k3s" if me.is_server else "k3s-agent"
    facts = {
        NODE: lines(system(name)),
        BOOT: boot,
        DOCTOR: ["end"],
        K3S: [f"unit\t{unit}\tUnitFileState=enabled", *agent_or_server],
    }
    return Node(name, me.role.value, facts)


def fixture(name: str) -> list[str]:
    """The boot layer of a host as its fixture has it."""
    return boot_world.lines(boot_world.profile(FLEET[name]), now=time.time())


def booted(name: str) -> list[str]:
    """The same after the boot layer and a reboot: edited files, read by the kernel."""
    profile = dict(boot_world.profile(FLEET[name]))
    if "config-txt" not in profile:
        return fixture(name)
    me, found = MODEL.host(name), boot_world.state(profile)
    texts = {**wanted.cmdlines(MODEL, me, found), **wanted.quirks(MODEL, found)}
    live = texts.get(boot_world.live_path(profile), profile["cmdline-txt"])
    profile["proc-cmdline"] = f"coherent_pool=1M {live}"
    profile["cgroup-controllers"] += " memory"
    ours = f"ours\t{places.WATCHDOG}\t{boot_world.encoded(wanted.watchdog())}"
    files = {**texts, **wanted.config(MODEL, me, found)}
    return boot_world.lines(profile, files=files, more=(ours,), now=time.time())


def fleet(
    tmp_path: Path,
    boot: Callable[[str], list[str]] = fixture,
    *,
    deploy: str = "deploys/nodes.py",
    running: bool = False,
    ignored: tuple[str, ...] = IGNORED,
    **settings: Any,
) -> Planned:
    nodes = [node(name, boot(name), running) for name in FLEET]
    data = {"ignore_preflight": list(ignored), "boot": settings}
    return plan(tmp_path, nodes, deploy, nodes=data)


def test_a_pi_without_power_is_refused_before_anything_is_edited(tmp_path: Path) -> None:
    found = fleet(tmp_path, ignored=("same-release",))
    assert found.code == 1 and found.changed == {}
    assert "node5: under-voltage" in found.text
    assert not any(f"--> {name}:" in found.text for name in (HEALTHY, SLOTS, PC, BRIDGE))


def test_a_slot_that_is_being_tried_is_not_edited_and_the_run_ends_before_it_begins(
    tmp_path: Path,
) -> None:
    def trying(name: str) -> list[str]:
        files = {"new/state": "trying"} if name == SLOTS else {}
        return boot_world.lines(boot_world.profile(FLEET[name]), files=files, now=time.time())

    found = fleet(tmp_path, trying, deploy="deploys/boot.py", ignored=(*IGNORED, "boot-slot"))
    assert found.code == 1 and found.changed == {}
    assert "node2: its new boot slot is being tried right now" in found.text


def test_a_fresh_fleet_gets_what_each_board_lacks_and_reboots_at_once(tmp_path: Path) -> None:
    found = fleet(tmp_path)
    assert found.code == 0, found.text
    assert {name: sorted(hosts) for name, hosts in found.changed.items()} == {
        "Raspberry Pi | Command line of the kernel": [CARD],
        "Raspberry Pi | config.txt": [SLOTS, BRIDGE, CARD],
        "Raspberry Pi | Watchdog": [HEALTHY, SLOTS, BRIDGE, CARD],
        "Reboots | Hosts without K3s: reboot": [SLOTS, BRIDGE, CARD],
    }
    assert "the kernel does not have usb-storage.quirks=152d:0578:u yet" in found.text
    assert found.order.index("Reboots | Hosts without K3s are back") < len(found.order) - 1


def test_a_living_cluster_is_rebooted_node_by_node_agents_first(tmp_path: Path) -> None:
    found = fleet(tmp_path, deploy="deploys/boot.py", running=True)
    assert found.code == 0, found.text
    assert found.order[-7:] == [
        "Reboots | node4: reboot", "Reboots | node4 is back",
        "Reboots | node5: reboot", "Reboots | node5 is back",
        "Reboots | node2: reboot", "Reboots | node2 is back",
        "Reboots | What still waits is named",
    ]  # fmt: skip
    assert found.changed["Reboots | node2: reboot"] == [SLOTS]


def test_a_fleet_that_has_booted_with_it_needs_nothing(tmp_path: Path) -> None:
    found = fleet(tmp_path, booted, running=True)
    assert found.code == 0, found.text
    assert found.changed == {} and "wants a reboot" not in found.text
    assert not any(name.endswith(": reboot") for name in found.order)


def test_who_says_never_is_told_what_waits(tmp_path: Path) -> None:
    unmended = ("cgroup-memory", "usb-bridge", "kernel-log")  # fatal where no reboot mends them
    found = fleet(
        tmp_path, deploy="deploys/boot.py", ignored=(*IGNORED, *unmended), reboots="never"
    )
    assert found.code == 0, found.text
    assert not any(name.endswith(": reboot") for name in found.order)
    assert "wants a reboot: cmdline.txt is to change; config.txt is to change" in found.text
