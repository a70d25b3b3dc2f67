"""A node out of its cluster, a cluster off its nodes; a test goes on from the last.

Simulated by the lab's stand-in for K3s: containers, and with them the processes, mounts, links and
rules that they leave on a host (tests/lab/standin/README.md); these are real ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cluster.leftovers import KEPT
from tests.lab.fingerprint import difference
from tests.lab.lab import Lab
from tests.lab.living import kubectl, nodes, wait_for_api
from tests.lab.runs import k3s, plan, run

pytestmark = pytest.mark.lab(servers=3, agents=2)

RESET = "deploys/reset.py"
K3S = "deploys/k3s.py"
STORAGE = "/var/lib/rancher/k3s/storage"
NAME = {"confirm": "lab"}
OTHERWISE = {"server_config": {"kube-apiserver-arg": ["v=1"]}}  # a setting that restarts servers
IDENTITY = ("+ file /etc/rancher: d", "+ file /etc/rancher/node")


def members(lab: Lab, server: str = "node1") -> set[str]:
    """Nodes with a member in etcd, as that server tells."""
    info = json.loads(lab.check(server, "curl -sk https://127.0.0.1:6443/db/info"))
    return {member["name"].rpartition("-")[0] for member in info["members"]}


def pids(lab: Lab) -> dict[str, str]:
    return {
        host.name: lab.check(host.name, "systemctl show k3s k3s-agent -p MainPID --value")
        for host in lab.hosts
    }


def changed(lab: Lab, node: str, before: dict[str, str], identity: bool) -> list[str]:
    """What differs from the host before K3s; `identity`: the node's password may be there."""
    lines = difference(before, lab.fingerprint(node))
    return [line for line in lines if not (identity and line.startswith(IDENTITY))]


@pytest.fixture(scope="module")
def built(lab: Lab) -> Iterator[tuple[Lab, dict[str, dict[str, str]]]]:
    """A fresh cluster, and what each host looked like before K3s came."""
    lab.clear_faults()
    lab.recreate(*(host.name for host in lab.hosts))
    prepared = run(lab, "deploys/nodes.py")
    assert prepared.code == 0, prepared.text
    before = {host.name: lab.fingerprint(host.name) for host in lab.hosts}
    done = run(lab, K3S)
    assert done.code == 0, done.text
    yield lab, before


Built = tuple[Lab, dict[str, dict[str, str]]]


def test_without_the_clusters_name_nothing_happens(built: Built) -> None:
    lab, _ = built
    before = pids(lab)
    for data in ({}, {"confirm": "home"}, {"node": "node3"}, {"node": "node3", "confirm": "x"}):
        refused = run(lab, RESET, data=data)
        assert refused.code == 1
        assert "add --data confirm=lab" in refused.text
    assert pids(lab) == before


def test_a_server_that_etcd_needs_is_not_removed(built: Built) -> None:
    lab, _ = built
    lab.check("node2", "systemctl stop k3s")
    refused = run(lab, RESET, data=NAME | {"node": "node3"})
    lab.check("node2", "systemctl start --no-block k3s")
    assert refused.code == 1
    assert "without node3 etcd would lose its quorum: 2 of 2 servers are needed" in refused.text
    assert members(lab) == {"node1", "node2", "node3"}
    wait_for_api(lab, "node2")


def test_a_removed_server_leaves_no_trace_in_the_cluster_nor_on_its_host(built: Built) -> None:
    lab, before = built
    others = {name: pid for name, pid in pids(lab).items() if name != "node3"}
    done = run(lab, RESET, data=NAME | {"node": "node3"})
    assert done.code == 0, done.text
    assert set(nodes(lab)) == {"node1", "node2", "node4", "node5"}
    assert members(lab) == {"node1", "node2"}
    secrets = kubectl(lab, "node1", "get secrets -n kube-system -o name")
    assert "node3.node-password.k3s" not in secrets
    assert "node2.node-password.k3s" in secrets
    assert changed(lab, "node3", before["node3"], identity=True) == []
    assert {name: pid for name, pid in pids(lab).items() if name != "node3"} == others


def test_a_second_removal_changes_nothing(built: Built) -> None:
    lab, _ = built
    assert plan(lab, RESET, data=NAME | {"node": "node3"}).changed == {}
    again = run(lab, RESET, data=NAME | {"node": "node3"})
    assert again.code == 0, again.text
    assert again.changed == {}


def test_it_joins_again_under_its_old_name_in_a_run_that_first_restarts_the_others(
    built: Built,
) -> None:
    lab, _ = built
    done = run(lab, K3S, data=k3s(lab, **OTHERWISE))
    assert done.code == 0, done.text
    assert members(lab) == {"node1", "node2", "node3"}
    assert [name for name in done.changed if name.startswith("K3s servers | node")] == [
        "K3s servers | node1: release and configuration",
        "K3s servers | node2: release and configuration",
        "K3s servers | node3: enter the cluster",
    ]


def test_a_node_that_lives_is_not_forgotten(built: Built) -> None:
    lab, _ = built
    refused = run(lab, RESET, data={"forget": "node4"})
    assert refused.code == 1
    assert "node4 is Ready: the cluster uses it" in refused.text
    assert "node4" in nodes(lab)


def test_disks_and_volumes_of_users_survive_the_removal_of_an_agent(built: Built) -> None:
    lab, before = built
    pod = "/var/lib/kubelet/pods/lab/volumes/nfs"
    lab.check(
        "node4",
        f"mount -t tmpfs none {STORAGE}; mkdir {STORAGE}/pvc-1; echo precious > {STORAGE}/pvc-1/f; "
        f"mkdir -p /srv/nfs {pod}; echo precious > /srv/nfs/f; mount --bind /srv/nfs {pod}",
    )
    done = run(lab, RESET, data=NAME | {"node": "node4", "forget_password": True})
    assert done.code == 0, done.text
    assert "node4" not in nodes(lab)
    assert lab.read("node4", f"{STORAGE}/pvc-1/f") == "precious\n"
    assert lab.read("node4", "/srv/nfs/f") == "precious\n"
    assert lab.run("node4", "ls /var/lib/kubelet")[0] != 0
    wiped = run(lab, RESET, data=NAME | {"node": "node4", "wipe_data": "node4"})
    assert wiped.code == 0, wiped.text
    assert lab.check("node4", f"ls -A {STORAGE}") == ""
    assert lab.read("node4", "/srv/nfs/f") == "precious\n"
    lab.check("node4", f"umount {STORAGE}; rmdir -p {STORAGE} 2> /dev/null; rm -r /srv/nfs; true")
    assert changed(lab, "node4", before["node4"], identity=False) == []


def test_the_whole_cluster_goes_and_its_snapshots_stay(built: Built) -> None:
    lab, before = built
    assert run(lab, K3S, data=k3s(lab, **OTHERWISE)).code == 0
    lab.check("node1", "k3s etcd-snapshot save --name keep")
    taken = lab.check("node1", "ls /var/lib/rancher/k3s/server/db/snapshots").split()
    done = run(lab, RESET, data=NAME | {"forget_password": True})
    assert done.code == 0, done.text
    for host in lab.hosts:
        assert changed(lab, host.name, before[host.name], identity=False) == []
    assert set(taken) < set(lab.check("node1", f"ls {KEPT}/lab").split())
    modes = lab.check("node1", f"stat -c %a {KEPT}/lab {KEPT}/lab/tokens/*").split()
    assert modes[0] == "700" and set(modes[1:]) == {"600"}


def test_a_second_reset_changes_nothing(built: Built) -> None:
    lab, _ = built
    data = NAME | {"forget_password": True}
    assert plan(lab, RESET, data=data).changed == {}
    again = run(lab, RESET, data=data)
    assert again.code == 0, again.text
    assert again.changed == {}
