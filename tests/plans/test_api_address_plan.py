"""Plans of deploys/services/api_address.py on simulated hosts: carriers that go, or are refused."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.host_state import File
from cluster.services import api_address
from tests.plans.simulated import NODE, NOTHING_KNOWN, Lines, Node, Planned, plan, surveyed
from tests.unit.cluster_example import example
from tests.unit.node_world import finished, lines

DEPLOY = "deploys/services/api_address.py"
STRANGE = "say strange"  # of the script that asks whose a file is
NETWORK = {"lan": "10.0.0.0/24", "gateway": "10.0.0.1", "dns": ("10.0.0.1",)}
MODEL = example(servers=3, agents=0, name="home", domain="home.arpa", network=NETWORK)
HAPROXY = {"vip": "10.0.0.5", "carrier": "haproxy", "haproxy": {"hosts": ["node1"], "port": 7443}}


def planned(tmp_path: Path, api: Any, *files: str, **more: Lines) -> Planned:
    """The plan where node1 has those files of ours; more: further facts by host."""
    found = []
    for host in MODEL.hosts:
        state = finished(MODEL, host)
        own = {path: File("644") for path in files} if host.name == "node1" else {}
        clock = replace(state.clock, at=time.time())
        text = lines(replace(state, clock=clock, files=state.files | own))
        facts = surveyed({**NOTHING_KNOWN, NODE: text}) | more.get(host.name, {})
        found.append(Node(host.name, host.role.value, facts))
    data = {"network": NETWORK | ({"api": api} if api else {})}
    return plan(tmp_path, found, DEPLOY, **data)


def test_an_address_that_nobody_ever_had_plans_nothing(tmp_path: Path) -> None:
    found = planned(tmp_path, None)
    assert found.code == 0 and found.order == [], found.text


def test_carriers_of_an_address_that_was_taken_out_of_the_data_go(tmp_path: Path) -> None:
    theirs = {STRANGE: [f"strange\t{api_address.HAPROXY}", "end"]}
    found = planned(tmp_path, None, api_address.MARK, api_address.MANIFEST, node1=theirs)
    assert found.code == 0, found.text
    assert f"node1: {api_address.HAPROXY} was not written by picluster: it stays" in found.text
    assert "node1: K3s does not run: the next run that finds it running" in found.text
    assert found.changed == {
        "Address of the API | No haproxy of ours": ["node1"],
        "Address of the API | No kube-vip": ["node1"],
    }


@pytest.mark.parametrize("ours", [(), (api_address.MARK,)])
def test_a_file_of_somebody_else_is_refused_before_anything_is_changed(
    tmp_path: Path, ours: tuple[str, ...]
) -> None:
    """Also where haproxy was ours before."""
    theirs = {STRANGE: [f"strange\t{api_address.HAPROXY}", "end"]}
    found = planned(tmp_path, HAPROXY, *ours, node1=theirs)
    assert found.code == 1
    assert f"node1: {api_address.HAPROXY} was not written by picluster" in found.text, found.text
