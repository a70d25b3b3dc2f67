"""Plans and runs of deploys/nodes.py on simulated hosts: fresh, half-way, finished, refused."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster import base
from cluster.host_state import HostState
from cluster.model import Parts
from tests.plans.command import Ended, project, pyinfra
from tests.plans.simulated import K3S, NODE, Node, Planned, k3s, plan
from tests.unit.cluster_example import example
from tests.unit.node_world import KEY, finished, lines, pi

DEPLOY = "deploys/nodes.py"
NETWORK = {"lan": "10.0.0.0/24", "gateway": "10.0.0.1", "dns": ("10.0.0.1",)}
MODEL = example(servers=3, agents=1, name="home", domain="home.arpa", network=NETWORK)
NAMES = [host.name for host in MODEL.hosts]
ON_A_FRESH_HOST = [
    "System | Host name and hosts file",
    "System | needrestart lists only",
    "System | Upgrades without surprise reboots",
    "System | Packages",
    "System | Journal",
    "Kubernetes nodes | Hold the kernel of etcd's nodes",
    "Kubernetes nodes | No swap",
    "Kubernetes nodes | No snapd",
    "Kubernetes nodes | Kernel modules",
    "Kubernetes nodes | Kernel settings",
    "Kubernetes nodes | Limits of open files",
    "Kubernetes nodes | iSCSI client",
    "Kubernetes nodes | Shutdown waits for pods",
    "Clock | chrony",
    "Clock | The clock is synchronised",
    "Logins | sshd takes keys only",
]
# What a fresh Ubuntu has already.
NEVER = ["System | Time zone", "System | Locale", "System | TRIM of SSDs every week"]


def fresh() -> dict[str, HostState]:
    return {host.name: now(pi(host)) for host in MODEL.hosts}


def done() -> dict[str, HostState]:
    return {host.name: now(finished(MODEL, host)) for host in MODEL.hosts}


def now(state: HostState) -> HostState:
    """The host with the clock of this computer."""
    return replace(state, clock=replace(state.clock, at=time.time()))


def nodes(states: dict[str, HostState], **facts: list[str]) -> list[Node]:
    return [
        Node(
            host.name,
            host.role.value,
            {NODE: lines(states[host.name])} | ({K3S: facts[host.name]} if facts else {}),
        )
        for host in MODEL.hosts
    ]


def planned(tmp_path: Path, states: dict[str, HostState], *options: str, **data: Any) -> Planned:
    return plan(tmp_path, nodes(states), DEPLOY, *options, **data)


def test_everything_is_done_on_fresh_hosts_in_this_order(tmp_path: Path) -> None:
    found = planned(tmp_path, fresh())
    assert found.code == 0, found.text
    assert list(found.changed) == ON_A_FRESH_HOST
    holds = "Kubernetes nodes | Hold the kernel of etcd's nodes"
    assert sorted(found.changed.pop(holds)) == NAMES[:3]
    assert all(sorted(hosts) == NAMES for hosts in found.changed.values())
    assert set(NEVER) <= set(found.order)


def test_nothing_is_done_on_finished_hosts(tmp_path: Path) -> None:
    found = planned(tmp_path, done())
    assert found.code == 0, found.text
    assert found.changed == {} and set(ON_A_FRESH_HOST) <= set(found.order)


def test_what_is_missing_half_way_is_what_is_done(tmp_path: Path) -> None:
    states, last = done(), fresh()["node4"]
    states["node2"] = replace(states["node2"], swaps=("/dev/zram0",))
    states["node3"] = replace(states["node3"], modules={})
    states["node4"] = replace(
        states["node4"],
        files={path: one for path, one in states["node4"].files.items() if path != base.CHRONY},
        sshd=last.sshd,
    )
    found = planned(tmp_path, states)
    assert found.changed == {
        "Kubernetes nodes | No swap": ["node2"],
        "Kubernetes nodes | Kernel modules": ["node3"],
        "Clock | chrony": ["node4"],
        "Logins | sshd takes keys only": ["node4"],
    }


def test_a_limit_leaves_the_others_alone(tmp_path: Path) -> None:
    found = planned(tmp_path, fresh(), "--limit", "node2")
    assert found.code == 0, found.text
    assert {name for hosts in found.changed.values() for name in hosts} == {"node2"}
    assert list(found.changed) == ON_A_FRESH_HOST


def test_a_part_that_is_switched_off_is_no_operation(tmp_path: Path) -> None:
    off = dict.fromkeys(("swap", "snapd", "sshd", "time_sync", "kernel_modules"), False)
    found = planned(tmp_path, fresh(), nodes={"parts": off})
    gone = {"No swap", "No snapd", "sshd takes keys only", "chrony", "Kernel modules"}
    assert not gone & {name.partition(" | ")[2] for name in found.order}
    assert "System | Packages" in found.changed


def test_every_part_can_be_switched_off(tmp_path: Path) -> None:
    user = {"name": "ada", "keys": [KEY]}
    off = {
        "parts": dict.fromkeys(Parts.model_fields, False),
        "users": [user],
        # Fresh hosts are all named ubuntu, and not made for Longhorn.
        "ignore_preflight": ["hostname", "iscsi", "multipath"],
    }
    found = planned(tmp_path, fresh(), nodes=off, stack={"storage": "longhorn"})
    assert (found.code, found.order) == (0, ["Reboots | What still waits is named"]), found.text


def test_users_and_longhorn_bring_operations_of_their_own(tmp_path: Path) -> None:
    found = planned(
        tmp_path,
        fresh(),
        nodes={"users": [{"name": "ada", "keys": [KEY]}]},
        stack={"storage": "longhorn"},
    )
    assert found.code == 0, found.text
    assert "Logins | Users" in found.changed
    assert "Kubernetes nodes | multipathd leaves Longhorn alone" in found.changed
    assert found.order.index("Logins | Users") < found.order.index("Logins | sshd takes keys only")


def test_every_host_that_is_not_fit_is_refused_at_once_and_nothing_is_planned(
    tmp_path: Path,
) -> None:
    states = fresh()
    states["node1"] = now(pi(MODEL.hosts[0], "20.04"))
    states["node3"] = replace(states["node3"], controllers=frozenset({"cpu", "cpuset"}))
    states["node4"] = replace(
        states["node4"], clock=replace(states["node4"].clock, at=states["node4"].clock.at - 86400)
    )
    for deploy in (DEPLOY, "deploys/preflight.py"):
        found = plan(tmp_path, nodes(states), deploy)
        assert found.code == 1 and found.changed == {}
        said = [line.removeprefix("--> ") for line in found.text.splitlines() if ": " in line]
        wanted = (
            "node1: os-release: Ubuntu 20.04",
            "node3: cgroup-memory: its kernel has no",
            "node4: clock: its clock is",
        )
        for start in wanted:
            assert sum(line.startswith(start) for line in said) == 1, found.text
        assert "Traceback" not in found.text


def test_a_check_may_be_ignored_by_name_but_not_by_a_wrong_one(tmp_path: Path) -> None:
    states = fresh()
    states["node3"] = replace(states["node3"], cgroup="v1")
    assert planned(tmp_path, states).code == 1
    assert planned(tmp_path, states, nodes={"ignore_preflight": ["cgroup-v2"]}).code == 0
    wrong = planned(tmp_path, states, nodes={"ignore_preflight": ["cgroup2"]})
    assert wrong.code == 1 and "did you mean cgroup-v2" in wrong.text


def test_the_whole_site_prepares_hosts_before_k3s(tmp_path: Path) -> None:
    bare = {name: k3s(name != "node4", version="") for name in NAMES}
    found = plan(tmp_path, nodes(fresh(), **bare), "deploys/site.py")
    assert found.code == 0, found.text
    k3s_starts = next(n for n, name in enumerate(found.order) if name.startswith("K3s"))
    assert found.order.index("Logins | sshd takes keys only") < k3s_starts


# ---- runs, on hosts that change

_INVENTORY = """
from pathlib import Path
from tests.plans.living_host import LivingHost
from tests.plans.test_nodes_plan import MODEL

def _of(role):
    return [
        (host.name, {{"ip": str(host.ip), "arch": "arm64", "fake_delay": 0, "fake_delay_jitter": 0,
                      "fake_responses": LivingHost(MODEL, host.name, Path({folder!r}))}})
        for host in MODEL.hosts if host.role == role
    ]

servers, agents, control = _of("servers"), _of("agents"), ["@local"]
"""


def execute(folder: Path) -> Ended:
    """A run with -y on living hosts that start fresh."""
    inventory = project(folder, _INVENTORY.format(folder=str(folder)))
    return pyinfra(inventory, DEPLOY, "-y", simulated=True)


def after(folder: Path, name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads((folder / f"{name}.json").read_text())
    return found


def test_a_run_ends_where_the_next_one_finds_nothing_to_do(tmp_path: Path) -> None:
    run = execute(tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    did = after(tmp_path, "node1")["did"]
    for command in ("swapoff -a", "mask swap.target", "modprobe -a", "apt-get .*purge snapd"):
        assert did.count(command) == 1, did
    assert did.index("(?s)apt-get .*install") < did.index("restart chrony")
    again = plan(
        tmp_path,
        [
            Node(host.name, host.role.value, {NODE: after(tmp_path, host.name)["lines"]})
            for host in MODEL.hosts
        ],
        DEPLOY,
    )
    assert (again.code, again.changed) == (0, {}), again.text
