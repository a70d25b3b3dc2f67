"""Plans of deploys/restore.py: order, resumption, refusals."""

from __future__ import annotations

from pathlib import Path

from cluster.restore import SNAPSHOTS as FOLDER
from tests.plans.simulated import K3S, SNAPSHOTS, Node, k3s, plan

RESTORE = "deploys/restore.py"
NAME = "on-demand-node1-1700000000"
PATH = f"{FOLDER}/{NAME}"
HAS_IT = [f"etcd\t4096\t1700000000\t{PATH}", "end"]


def mark(step: str) -> list[str]:
    return [f"mark\t7 {step} {PATH}"]


def cluster(running: tuple[str, ...] = (), **marks: str) -> list[Node]:
    """Three servers and an agent; `running`: where K3s runs, `marks`: steps of a restore."""
    nodes = []
    for name in ("node1", "node2", "node3"):
        lines = HAS_IT if name == "node1" else ["end"]
        lines = (mark(marks[name]) if name in marks else []) + lines
        nodes.append(Node(name, "servers", {K3S: k3s(running=name in running), SNAPSHOTS: lines}))
    return [*nodes, Node("node4", "agents", {K3S: k3s(server=False), SNAPSHOTS: ["end"]})]


def test_all_stop_one_restores_the_others_join_one_by_one(tmp_path: Path) -> None:
    found = plan(tmp_path, cluster(), RESTORE, snapshot=NAME, confirm="home")
    assert found.code == 0, found.text
    assert [name.partition(" | ")[2] for name in found.order] == [
        "Stop K3s",
        "K3s is stopped on all servers",
        "Restore the snapshot",
        "Start the restored server",
        "The restored server answers",
        "node1 is in",
        "node2: join again",
        "node2 is in",
        "node3: join again",
        "node3 is in",
        "Restart K3s",
        "Agents are back",
        "Name nodes that no longer exist",
        "Take the mark away",
        "The restore is over",
        "Take the other marks away",
    ]
    assert sorted(found.changed["Restore servers | Stop K3s"]) == ["node1", "node2", "node3"]
    assert found.changed["Restore servers | Restore the snapshot"] == ["node1"]
    assert found.changed["Restore agents | Restart K3s"] == ["node4"]


def test_a_restore_that_was_ended_goes_on_where_it_was(tmp_path: Path) -> None:
    nodes = cluster(node1="started", node2="joined", node3="stopped")
    found = plan(tmp_path, nodes, RESTORE, snapshot=NAME, confirm="home")
    assert found.code == 0, found.text
    assert "Restore servers | Stop K3s" not in found.changed
    assert "Restore servers | Restore the snapshot" not in found.changed
    assert "Restore servers | node2: join again" not in found.changed
    assert found.changed["Restore servers | node3: join again"] == ["node3"]


def test_servers_that_somebody_started_after_a_failure_are_stopped_again(tmp_path: Path) -> None:
    servers = ("node1", "node2", "node3")
    nodes = cluster(servers, node1="restoring", node2="stopped", node3="stopped")
    found = plan(tmp_path, nodes, RESTORE, snapshot=NAME, confirm="home")
    assert found.code == 0, found.text
    assert sorted(found.changed["Restore servers | Stop K3s"]) == list(servers)
    assert found.changed["Restore servers | Restore the snapshot"] == ["node1"]
    assert "will go on with the one that began 1970-01-01 00:00:07 UTC" in found.text


def test_only_the_server_that_still_has_the_former_datastore_is_stopped(tmp_path: Path) -> None:
    nodes = cluster(("node1", "node2", "node3"), node1="started", node2="joined", node3="stopped")
    found = plan(tmp_path, nodes, RESTORE, snapshot=NAME, confirm="home")
    assert found.changed["Restore servers | Stop K3s"] == ["node3"]
    assert "Restore servers | Restore the snapshot" not in found.changed
    assert found.changed["Restore servers | node3: join again"] == ["node3"]


def test_of_a_restore_that_all_servers_have_done_the_operator_says_what_is_meant(
    tmp_path: Path,
) -> None:
    nodes = cluster(("node1", "node2", "node3"), node1="started", node2="joined", node3="joined")
    found = plan(tmp_path, nodes, RESTORE, snapshot=NAME, confirm="home")
    assert (found.code, found.order) == (1, [])
    assert "--data again=false" in found.text and "--data again=true" in found.text
    anew = plan(tmp_path, nodes, RESTORE, snapshot=NAME, confirm="home", again=True)
    assert sorted(anew.changed["Restore servers | Stop K3s"]) == ["node1", "node2", "node3"]
    assert anew.changed["Restore servers | Restore the snapshot"] == ["node1"]
    assert "will begin with the first step" in anew.text
    ended = plan(tmp_path, nodes, RESTORE, snapshot=NAME, confirm="home", again=False)
    assert not any(name.startswith("Restore servers") for name in ended.changed)
    assert ended.changed["Restore agents | Restart K3s"] == ["node4"]


def test_a_server_without_k3s_is_left_alone(tmp_path: Path) -> None:
    nodes = cluster()
    nodes[2].facts[K3S] = k3s(version="")
    found = plan(tmp_path, nodes, RESTORE, snapshot=NAME, confirm="home")
    assert found.code == 0, found.text
    assert sorted(found.changed["Restore servers | Stop K3s"]) == ["node1", "node2"]
    assert "Restore servers | node3: join again" not in found.changed


def test_another_snapshot_is_another_restore(tmp_path: Path) -> None:
    nodes = cluster(node1="started", node2="joined", node3="joined")
    other = f"etcd\t1\t1700000009\t{FOLDER}/other-node1-1700000009"
    nodes[0].facts[SNAPSHOTS].insert(0, other)
    found = plan(tmp_path, nodes, RESTORE, snapshot="other-node1-1700000009", confirm="home")
    assert found.code == 0, found.text
    assert sorted(found.changed["Restore servers | Stop K3s"]) == ["node1", "node2", "node3"]


def test_a_host_left_out_is_refused(tmp_path: Path) -> None:
    limit = ("--limit", "node1", "--limit", "node2", "--limit", "node4")
    found = plan(tmp_path, cluster(), RESTORE, *limit, snapshot=NAME, confirm="home")
    assert found.code == 1
    assert "node3 is not part of this run: all servers must take part" in found.text


def test_without_the_name_it_is_a_refusal(tmp_path: Path) -> None:
    found = plan(tmp_path, cluster(), RESTORE, snapshot=NAME)
    assert (found.code, found.order) == (1, [])
    assert "what was written since then is lost" in found.text
    assert "Traceback" not in found.text


def test_the_list_is_shown_and_nothing_planned(tmp_path: Path) -> None:
    found = plan(tmp_path, cluster(), RESTORE, list=True)
    assert (found.code, found.order) == (0, [])
    assert NAME in found.text and "2023-11-14 22:13:20" in found.text
