"""Plans of deploys/reset.py: what goes where, in which order, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.leftovers import TOPICS
from tests.plans.simulated import K3S, LEFTOVERS, Node, k3s, plan
from tests.unit.fake_api import FakeApi

RESET = "deploys/reset.py"
FULL = [
    "units\tk3s.service",
    "processes\tcontainerd-shim-runc-v2 (3)",
    "links\tcni0",
    "data\t/var/lib/rancher/k3s (2 local-path volumes)",
    "config\t/etc/rancher/k3s",
    "end",
]
TOUCHED = ("units", "processes", "links", "data", "config")
CLEAN = ["end"]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A simulated API with the nodes of a healthy cluster."""
    server = FakeApi()
    for name in ("node1", "node2", "node3", "node4"):
        conditions = [{"type": "Ready", "status": "True"}]
        if name != "node4":
            conditions.append({"type": "EtcdIsVoter", "status": "True"})
        server.put("nodes", name, status={"conditions": conditions})
    yield server
    server.stop()


def cluster(api: FakeApi | None = None, found: list[str] = FULL) -> list[Node]:
    url = api.url if api else ""
    servers = [
        Node(name, "servers", {K3S: k3s(), LEFTOVERS: found}, url)
        for name in ("node1", "node2", "node3")
    ]
    return [*servers, Node("node4", "agents", {K3S: k3s(server=False), LEFTOVERS: found})]


def test_the_whole_cluster_stops_before_anything_is_removed(tmp_path: Path) -> None:
    found = plan(tmp_path, cluster(), RESET, confirm="home")
    assert found.code == 0, found.text
    titles = [f"Clean | {TOPICS[topic].title}" for topic in TOPICS]
    barrier = "Clean | K3s has stopped everywhere"
    assert found.order == [titles[0], barrier, *titles[1:]]
    everywhere = ["node1", "node2", "node3", "node4"]
    assert {name: sorted(hosts) for name, hosts in found.changed.items()} == {
        f"Clean | {TOPICS[topic].title}": everywhere for topic in TOUCHED
    }


def test_on_clean_hosts_there_is_nothing_to_do(tmp_path: Path) -> None:
    found = plan(tmp_path, cluster(found=CLEAN), RESET, confirm="home")
    assert (found.code, found.changed) == (0, {})


def test_without_the_name_the_plan_is_a_refusal_that_says_it_once(tmp_path: Path) -> None:
    found = plan(tmp_path, cluster(), RESET)
    assert (found.code, found.order) == (1, [])
    lines = found.text.splitlines()
    told = [line for line in lines if "node4: /var/lib/rancher/k3s (2 local-path volumes)" in line]
    assert len(told) == 1
    assert any("to do it, add --data confirm=home" in line for line in lines)
    assert "Traceback" not in found.text


def test_half_of_the_cluster_is_refused(tmp_path: Path) -> None:
    found = plan(tmp_path, cluster(), RESET, "--limit", "servers", confirm="home")
    assert found.code == 1
    assert "node4 is reached but not part of this run" in found.text


def test_one_node_leaves_before_it_is_cleaned_and_others_are_not_touched(
    tmp_path: Path, api: FakeApi
) -> None:
    found = plan(tmp_path, cluster(api), RESET, confirm="home", node="node2")
    assert found.code == 0, found.text
    assert found.order[:3] == [
        "Leave the cluster | Drain node2",
        "Leave the cluster | Remove node2",
        "Leave the cluster | node2 has left",
    ]
    assert all(hosts == ["node2"] for hosts in found.changed.values())
    assert len(found.changed) == 2 + len(TOUCHED)


def test_a_node_that_left_in_an_earlier_run_is_only_cleaned(tmp_path: Path, api: FakeApi) -> None:
    api.remove("nodes", "node4")
    found = plan(tmp_path, cluster(api), RESET, confirm="home", node="node4")
    assert found.code == 0, found.text
    assert "Leave the cluster | Drain node4" not in found.changed
    assert f"Clean | {TOPICS['data'].title}" in found.changed


def test_a_node_of_a_cluster_that_is_gone_is_cleaned_without_asking_it(tmp_path: Path) -> None:
    nodes = cluster()
    for server in nodes[:3]:
        server.facts = {K3S: k3s(version=""), LEFTOVERS: CLEAN}
    found = plan(tmp_path, nodes, RESET, confirm="home", node="node4")
    assert found.code == 0, found.text
    assert not any(name.startswith("Leave") for name in found.order)
    assert found.changed[f"Clean | {TOPICS['data'].title}"] == ["node4"]


def test_a_lost_node_is_forgotten_from_this_computer(tmp_path: Path, api: FakeApi) -> None:
    api.put("nodes", "node3", status={"conditions": [{"type": "Ready", "status": "Unknown"}]})
    nodes = cluster(api)
    nodes[2].facts[K3S] = k3s(version="")
    found = plan(tmp_path, nodes, RESET, forget="node3")
    assert found.code == 0, found.text
    assert found.changed == {"Forget | Forget node3": ["@local"]}


def test_a_misspelt_option_is_refused(tmp_path: Path) -> None:
    found = plan(tmp_path, cluster(), RESET, confirm="home", wipe_dat="node4")
    assert found.code == 1
    assert "wipe_data" in found.text
