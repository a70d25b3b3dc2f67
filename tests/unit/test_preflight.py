"""What is refused before anything is changed, and what is only said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import base
from cluster.host_state import Account, Clock, Disk, HostState, Listener, Package, Snap
from cluster.model import Cluster
from cluster.preflight import CHECKS, duration, findings
from tests.unit.cluster_example import example
from tests.unit.node_world import KEY, NOW, finished, pi

MODEL = example()
SERVER, AGENT = MODEL.servers[0], MODEL.agents[0]
# Constructed from public reports, kept beside the project's reference.
PROFILES = Path(__file__).parents[3] / "shared" / "fixtures" / "pi"


def said(state: HostState, model: Cluster = MODEL, name: str = "node1") -> list[str]:
    return [str(one) for one in findings(model, {name: state})]


def checks(states: Mapping[str, HostState], model: Cluster = MODEL) -> list[tuple[str, str]]:
    return [(one.check, one.host) for one in findings(model, states)]


@pytest.mark.parametrize("release", ["22.04", "24.04", "26.04"])
def test_fresh_and_finished_hosts_of_each_release_pass(release: str) -> None:
    for state in (pi, finished):
        made = {
            host.name: pi(host, release) if state is pi else finished(MODEL, host, release)
            for host in MODEL.hosts
        }
        assert findings(MODEL, made) == []


def test_focal_is_refused_with_the_way_up() -> None:
    (line,) = said(pi(SERVER, "20.04"))
    assert line.startswith("node1: Ubuntu 20.04 LTS is not supported: expected Ubuntu 22.04, 24.04")
    assert "to 22.04 and then to 24.04" in line and "do-release-upgrade" in line


@pytest.mark.parametrize(
    ("os", "release", "fits"),
    [("debian", "12", True), ("debian", "11", False), ("ubuntu", "25.10", False), ("", "", False)],
)
def test_other_systems_are_refused_without_it(os: str, release: str, fits: bool) -> None:
    state = replace(pi(SERVER), os=os, release=release)
    assert [one for one, _ in checks({"node1": state})] == ([] if fits else ["os-release"])
    assert not any("do-release-upgrade" in line for line in said(state))


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": ({"arch": "armhf"}, "its system is armhf, its `arch` says arm64"),
    "address": (
        {"addresses": ("127.0.0.1", "10.0.0.77")},
        "does not have its address 10.0.0.11 (it has 10.0.0.77)",
    ),
    "default-route": (
        {"routes": ()},
        "has no default route, which K3s needs: expected one via 10.0.0.1",
    ),
    "disk-space": (
        {"disks": {"/": Disk(30 << 20, 2 << 20)}},
        "2.0 GiB of 30.0 GiB are free on /: expected at least 3.0 GiB (the kubelet evicts pods "
        "below 10%)",
    ),
    "cgroup-v2": ({"cgroup": "v1"}, "has control groups of version 1"),
    "cgroup-memory": (
        {"controllers": frozenset({"cpu", "cpuset", "pids"})},
        "its kernel has no memory cgroup controller, which K3s needs: add cgroup_enable=memory to "
        "the line of /boot/firmware/cmdline.txt and reboot",
    ),
    "page-size": ({"page_size": 65536}, "its kernel has pages of 64 KiB"),
    "ports": (
        {"listeners": (Listener("tcp", 6443, "haproxy"), Listener("tcp", 6443, "haproxy"))},
        "haproxy listens on port 6443, which K3s needs",
    ),
    "snaps": (
        {"snaps": (Snap("core22", "base"), Snap("nextcloud"))},
        "has snaps with data of yours (nextcloud): remove them (`snap remove`)",
    ),
    "ssh-key": (
        {
            "accounts": {
                "ubuntu": Account("ubuntu", 1000, "/home/ubuntu", "/bin/sh", (), "# none\n")
            }
        },
        "ubuntu has no key in ~/.ssh/authorized_keys, and sshd will take keys only: "
        "ssh-copy-id ubuntu@10.0.0.11",
    ),
}


@pytest.mark.parametrize("check", ODD)
def test_each_wrong_thing_is_one_refusal_in_one_line(check: str) -> None:
    changes, text = ODD[check]
    state = replace(pi(SERVER), **changes)
    (found,) = findings(MODEL, {"node1": state})
    assert found.check == check and found.fatal
    assert str(found).startswith(f"node1: {text}") and "\n" not in str(found)


@pytest.mark.parametrize("check", ODD)
def test_a_check_can_be_switched_off_by_its_name(check: str) -> None:
    state = replace(pi(SERVER), **ODD[check][0])
    assert findings(example(nodes={"ignore_preflight": (check,)}), {"node1": state}) == []


def test_every_check_has_a_name_and_a_meaning() -> None:
    tested_below = {
        "os-release", "hostname", "same-computer", "clock", "time-daemons", "address-bits",
    }  # fmt: skip
    assert set(CHECKS) == set(ODD) | tested_below


def test_every_check_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    assert [f"| `{name}` | {meaning} |" in page for name, meaning in CHECKS.items()].count(
        False
    ) == 0


def test_the_command_line_of_26_04_is_in_a_slot() -> None:
    state = replace(pi(SERVER, "26.04"), controllers=frozenset({"cpu", "cpuset", "pids"}))
    (line,) = said(state)
    assert "/boot/firmware/current/cmdline.txt" in line
    pc = replace(state, board="HP EliteDesk 800 G3")
    assert "cmdline" not in said(pc)[0]


def test_hosts_outside_the_cluster_need_no_cgroups() -> None:
    outside = {"name": "gateway", "role": "gateway", "ip": "10.0.0.1", "arch": "arm64"}
    model = example(hosts=[*(host.model_dump() for host in MODEL.hosts), outside])
    host = model.host("gateway")
    state = replace(pi(host), controllers=frozenset(), cgroup="v1", routes=())
    assert findings(model, {"gateway": state}) == []


def test_ports_of_k3s_itself_and_of_the_kernel_are_free() -> None:
    taken = (Listener("tcp", 6443, "k3s-server"), Listener("tcp", 10250, ""))
    assert said(replace(pi(SERVER), listeners=taken)) == []
    etcd = (Listener("tcp", 2379, "etcd"),)
    assert said(replace(pi(SERVER), listeners=etcd)) != []
    assert said(replace(pi(AGENT), listeners=etcd), name="node4") == []


def test_two_time_daemons_are_refused_and_named() -> None:
    host = pi(SERVER)
    both = replace(host, units=finished(MODEL, SERVER).units | host.units)
    (line,) = said(both)
    assert line.endswith("runs 2 time daemons (chrony, systemd-timesyncd): disable all but one")


def test_small_pages_pass_larger_ones_are_said_and_the_largest_refused() -> None:
    for size, fatal in ((16384, [False]), (65536, [True]), (4096, [])):
        state = replace(pi(SERVER), page_size=size)
        assert [one.fatal for one in findings(MODEL, {"node1": state})] == fatal


def test_short_addresses_are_refused_where_envoy_is_planned() -> None:
    state = replace(pi(SERVER), stack="7fb91c7000")
    for stack, fatal in (
        ({}, False),
        ({"cni": "cilium"}, False),
        ({"ingress": "envoy"}, True),
        ({"mesh": "istio"}, True),
    ):
        (found,) = findings(example(stack=stack), {"node1": state})
        assert (found.check, found.fatal) == ("address-bits", fatal)


def test_unused_lxd_goes_and_used_lxd_stays() -> None:
    used = replace(pi(SERVER), lxd_instances=("db",))
    assert "(lxd)" in said(used)[0]
    kept = example(nodes={"parts": {"snapd": False}})
    assert said(used, kept) == []
    unread = replace(pi(SERVER), snaps=(), snaps_unread="cannot communicate with server")
    assert said(unread) == ["node1: its snaps cannot be listed: cannot communicate with server"]
    without = {
        name: Package("", "un") if name == "snapd" else one for name, one in used.packages.items()
    }
    assert said(replace(used, packages=without)) == []


def test_a_host_without_a_key_is_no_problem_where_passwords_stay() -> None:
    state = replace(pi(SERVER), accounts={})
    assert said(state, example(nodes={"parts": {"sshd": False}})) == []
    key = Account("ubuntu", 1000, "/home/ubuntu", "/bin/sh", (), f"\n# a\n{KEY}")
    assert said(replace(state, accounts={"ubuntu": key})) == []


# ---- all hosts together


def clocks(*ahead: float, error: float = 0.05) -> dict[str, HostState]:
    return {
        host.name: replace(pi(host), clock=Clock(NOW + off, NOW - error, NOW + error))
        for host, off in zip(MODEL.hosts, ahead, strict=False)
    }


def test_clocks_that_agree_pass_although_this_computer_is_off() -> None:
    assert checks(clocks(0, 1.5, -0.3, 0.2)) == []
    assert checks(clocks(500, 500.1, 499.7)) == []


def test_the_host_whose_clock_is_off_is_named() -> None:
    found = findings(MODEL, clocks(0.1, 7300, 0.2))
    assert [one.host for one in found] == ["node2"]
    assert str(found[0]).startswith("node2: its clock is 2 hours ahead of the other computers'")
    assert "behind" in str(findings(MODEL, clocks(0, 0, -90))[0])


def test_of_two_hosts_the_one_that_this_computer_contradicts_is_named() -> None:
    assert checks(clocks(0.1, 60)) == [("clock", "node2")]
    assert checks(clocks(86400 * 3)) == [("clock", "node1")]


def test_a_slow_answer_is_no_wrong_clock() -> None:
    assert checks(clocks(0, 3.0, 0, error=1.5)) == []
    assert checks(clocks(0, 3.6, 0, error=1.5)) == [("clock", "node2")]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.6, "3 seconds"),
        (90, "90 seconds"),
        (600, "10 minutes"),
        (7200, "2 hours"),
        (9e5, "10 days"),
    ],
)
def test_lengths_of_time_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_equal_names_are_refused_where_we_do_not_set_them() -> None:
    hosts = {host.name: pi(host) for host in MODEL.hosts[:2]}
    assert checks(hosts) == []
    model = example(nodes={"parts": {"hostname": False}})
    (found,) = findings(model, hosts)
    assert str(found).startswith("node1: node1 and node2 are all named ubuntu")


def test_one_computer_under_two_addresses_is_not_a_cloned_disk() -> None:
    first, second = pi(MODEL.hosts[0]), pi(MODEL.hosts[1])
    cloned = {"node1": first, "node2": replace(second, machine_id=first.machine_id)}
    (found,) = findings(MODEL, cloned)
    assert "has the machine id of node2" in str(found) and "machine-id-setup" in str(found)
    same = {"node1": first, "node2": replace(cloned["node2"], boot_id=first.boot_id)}
    (found,) = findings(MODEL, same)
    assert "is the same computer as node2" in str(found)
    unset = {name: replace(state, machine_id="") for name, state in cloned.items()}
    assert findings(MODEL, unset) == []


# ---- profiles of reported hosts


def profile(name: str) -> HostState:
    if not PROFILES.is_dir():
        pytest.skip("the reference's profiles are not here")

    def text(file: str) -> str:
        path = PROFILES / name / f"{file}.txt"
        return path.read_text().strip("\0\n") if path.exists() else ""

    release = dict(line.replace('"', "").split("=", 1) for line in text("os-release").splitlines())
    arch = "arm64" if "aarch64" in text("uname-a") else "amd64"
    host = example(servers=1, agents=0).hosts[0]
    return replace(
        pi(host, release["VERSION_ID"]),
        os_name=release["PRETTY_NAME"],
        arch=arch,
        board=text("device-tree-model") or text("dmi-product-name"),
        kernel=text("uname-a").split()[2],
        page_size=int(text("getconf-pagesize")),
        controllers=frozenset(text("cgroup-controllers").split()),
        swaps=tuple(line.split()[0] for line in text("proc-swaps").splitlines()[1:]),
        sysctls=dict(line.split(" = ") for line in text("sysctl").splitlines()),
    )


@pytest.mark.parametrize(
    ("name", "refused", "swaps", "unmet"),
    [
        ("pi4-2404-usb-uas", [], 0, False),
        ("pi5-2604-nvme", [], 1, False),
        ("pi4-2204-sd-undervolt", ["cgroup-memory"], 1, True),
    ],
)
def test_reported_boards_pass_or_are_refused_for_their_fault(
    name: str, refused: list[str], swaps: int, unmet: bool
) -> None:
    state = profile(name)
    assert [check for check, _ in checks({"node1": state})] == refused
    assert len(state.swaps) == swaps
    wanted = {key: one for key, one in base.settings(MODEL, SERVER).items() if "dirty" not in key}
    assert bool(base.unmet(wanted, state.sysctls)) == unmet


def test_a_reported_mini_pc_passes_as_amd64() -> None:
    state = profile("x86-n100-2404")
    hosts = [host.model_dump() | {"arch": "amd64"} for host in MODEL.hosts]
    assert checks({"node1": state}, example(hosts=hosts)) == []
