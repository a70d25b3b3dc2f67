"""Runs that meet a bad day: hosts away, wrong sudo, two at once, broken off in an upgrade.

A test goes on from the last. Simulated by the lab's stand-in for K3s: containers, images, the pod
network, and the versions, which are one build under several version strings.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from tests.lab.fingerprint import difference
from tests.lab.lab import Lab
from tests.lab.living import cordoned, kubectl, versions, wait_for, web
from tests.lab.runs import Live, command, k3s, run

pytestmark = pytest.mark.lab(servers=3, agents=2)

SITE = "deploys/site.py"
K3S = "deploys/k3s.py"
OLD, NEW = "v1.35.7+k3s1", "v1.36.3+k3s1"
SERVERS, AGENTS = ("node1", "node2", "node3"), ("node4", "node5")
NODES = SERVERS + AGENTS


def upgrade(lab: Lab) -> Live:
    return Live(lab, command(K3S, "-y", data=k3s(lab, NEW)))


def fingerprints(lab: Lab) -> dict[str, dict[str, str]]:
    return {name: lab.fingerprint(name) for name in NODES if name != "node5"}


def touched(lab: Lab, before: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    """What has changed on which host, beside sudo's own mark of its first use."""
    found = {
        name: [line for line in difference(before[name], now) if "sudo_as_admin" not in line]
        for name, now in fingerprints(lab).items()
    }
    return {name: lines for name, lines in found.items() if lines}


@pytest.fixture(scope="module")
def bare(lab: Lab) -> Iterator[Lab]:
    """The lab with bare hosts at the beginning of this file."""
    lab.clear_faults()
    lab.recreate(*NODES)
    yield lab


@pytest.fixture(scope="module")
def built(bare: Lab) -> Lab:
    """The lab with a cluster of the old version."""
    done = run(bare, K3S, data=k3s(bare, OLD))
    assert done.code == 0, done.text
    return bare


def test_an_unreachable_host_is_named_and_the_others_are_untouched(bare: Lab) -> None:
    before = fingerprints(bare)
    bare.stop("node5")
    try:
        done = run(bare, SITE, data=k3s(bare, OLD))
    finally:
        bare.start("node5")
    assert done.code == 1
    assert "node5: cannot be reached; nothing was changed on any host" in done.text
    assert "Traceback" not in done.text
    assert touched(bare, before) == {}


def test_wrong_sudo_is_named_and_nothing_is_touched(bare: Lab) -> None:
    rule = "/etc/sudoers.d/90-cloud-init-users"
    before = fingerprints(bare)
    text = bare.read("node4", rule)
    bare.check("node4", f"rm {rule}")
    try:
        done = run(bare, SITE, data=k3s(bare, OLD))
    finally:
        bare.put("node4", rule, text, 0o440)
    assert done.code == 1
    assert "node4: sudo: a password is required: ubuntu needs a rule with NOPASSWD" in done.text
    assert "Traceback" not in done.text
    assert touched(bare, before) == {}


def test_ctrl_c_in_a_rolling_upgrade_leaves_no_cordon_on_an_untouched_node(built: Lab) -> None:
    kubectl(built, "node1", "apply -f -", web("node2"))
    wait_for(lambda: _running(built) == 2, "two pods to run on node2")
    going = upgrade(built)
    going.until("waiting for drain of node2")
    assert cordoned(built) == ["node2"]
    assert going.end(signal.SIGINT) == 130, going.text
    assert "uncordoning node2: it was not changed" in going.text
    assert "interrupted in K3s servers | node2" in going.text
    assert cordoned(built) == []
    found = versions(built)
    assert found["node1"] == NEW
    assert {found[name] for name in NODES[1:]} == {OLD}


def test_a_second_run_is_refused_and_names_the_holder(built: Lab) -> None:
    first = upgrade(built)
    first.until("waiting for drain of node2")
    second = run(built, K3S, data=k3s(built, NEW))
    assert second.code == 1
    assert f"(pid {first.pid}) since" in second.text
    assert "deploys/k3s.py; nothing was changed" in second.text
    assert first.end(signal.SIGTERM) == 143, first.text


def test_after_a_kill_in_a_rolling_upgrade_the_next_run_completes(built: Lab) -> None:
    going = upgrade(built)
    going.until("waiting for drain of node2")
    assert going.end(signal.SIGKILL) == -signal.SIGKILL
    assert cordoned(built) == ["node2"]
    kubectl(built, "node1", "delete deployment/web poddisruptionbudget/web")
    done = run(built, K3S, data=k3s(built, NEW))
    assert done.code == 0, done.text
    assert set(versions(built).values()) == {NEW}
    assert cordoned(built) == []


def _running(lab: Lab) -> int:
    pods = json.loads(kubectl(lab, "node1", "get pods -o json"))["items"]
    return sum(pod["status"].get("phase") == "Running" for pod in pods)
