"""Snapshot, damage, restore: what was there is there again; a test goes on from the last.

Simulated by the lab's stand-in for K3s: containers and the pod network. etcd, its snapshots, their
restore and the joining are real (tests/lab/standin/README.md).
"""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes.client import CoreV1Api
from kubernetes.config import new_client_from_config

from cluster.k3s_config import AGENT_TOKEN, SERVER_TOKEN, TOKENS
from cluster.k3s_token import FILES
from cluster.restore import MARK, SNAPSHOTS
from cluster.versions import K3S_DEFAULT
from tests.lab.lab import Lab
from tests.lab.living import cordoned, kubectl, versions, voters, wait_for, wait_for_api
from tests.lab.runs import Live, command, k3s, new_tokens, only, plan, run, secrets

pytestmark = pytest.mark.lab(servers=3, agents=2)

RESTORE = "deploys/restore.py"
KUBECONFIG, ENTER = "deploys/kubeconfig.py", "Kubeconfig | Enter the cluster"
K3S, TOKENS_DEPLOY = "deploys/k3s.py", "deploys/tokens.py"
SERVERS, AGENTS = ("node1", "node2", "node3"), ("node4", "node5")
SLOW = "/etc/systemd/system/k3s.service.d/lab.conf"  # a K3s that takes its time, as on a Pi


def objects(lab: Lab, server: str = "node1") -> set[str]:
    return set(kubectl(lab, server, "get configmaps -o name").replace("configmap/", "").split())


def create(lab: Lab, name: str) -> None:
    kubectl(lab, "node1", f"create configmap {name}")


def take(lab: Lab, name: str, server: str = "node1") -> str:
    """Take a snapshot and return its full name."""
    lab.check(server, f"k3s etcd-snapshot save --name {name}")
    return lab.check(server, f"ls -t {SNAPSHOTS}").split()[0]


def marks(lab: Lab) -> list[str]:
    return [name for name in SERVERS if lab.run(name, f"test -e {MARK}")[0] == 0]


@pytest.fixture(scope="module")
def built(lab: Lab) -> Iterator[Lab]:
    """A fresh cluster with one object."""
    lab.clear_faults()
    lab.recreate(*(host.name for host in lab.hosts))
    done = run(lab, K3S)
    assert done.code == 0, done.text
    create(lab, "early")
    yield lab


def test_a_snapshot_is_listed_and_nothing_else_happens(built: Lab) -> None:
    name = take(built, "listed")
    found = plan(built, RESTORE, data={"list": True})
    assert found.code == 0, found.text
    assert name[:20] in found.text.replace("\n", "") and found.changed == {}
    assert "in use" in found.text  # the token that opens it


def test_every_server_keeps_the_token_that_opens_its_snapshots(built: Lab) -> None:
    for server in SERVERS:
        kept = built.check(server, f"cd {TOKENS} && stat -c '%a %U %n' *").splitlines()
        assert len(kept) == 1 and kept[0].startswith("600 root ")
        assert built.check(server, f"cat {TOKENS}/*") == built.read(server, SERVER_TOKEN)


def test_the_operators_kubeconfig_reaches_the_api_and_shows_nothing(
    built: Lab, tmp_path: Path
) -> None:
    file = tmp_path / "config"
    data = {"kubeconfig": str(file)}
    assert plan(built, KUBECONFIG, data=data).changed == {ENTER: ["@local"]}
    assert not file.exists()
    done = run(built, KUBECONFIG, "-vvv", "--debug", data=data)
    assert done.code == 0, done.text
    assert file.stat().st_mode & 0o777 == 0o600
    user = yaml.safe_load(file.read_text())["users"][0]["user"]
    assert user["client-key-data"] not in done.text
    assert base64.b64decode(user["client-key-data"]).decode() not in done.text
    client = new_client_from_config(str(file), context="lab")
    assert {node.metadata.name for node in CoreV1Api(client).list_node().items} >= set(SERVERS)
    again = run(built, KUBECONFIG, data=data)
    assert (again.code, again.changed) == (0, {})


def test_without_the_clusters_name_it_says_what_would_be_lost(built: Lab) -> None:
    name = take(built, "unconfirmed")
    before = built.check("node1", "systemctl show k3s -p MainPID")
    refused = run(built, RESTORE, data={"snapshot": name})
    assert refused.code == 1
    assert "what was written since then is lost" in refused.text
    assert built.check("node1", "systemctl show k3s -p MainPID") == before


def test_what_was_deleted_is_there_again(built: Lab) -> None:
    uid = kubectl(built, "node1", "get namespace kube-system -o jsonpath={.metadata.uid}")
    name = take(built, "good", "node2")
    kubectl(built, "node1", "delete configmap early")
    create(built, "late")
    done = run(built, RESTORE, "-vvv", data={"snapshot": name, "confirm": "lab"})
    assert done.code == 0, done.text
    assert built.read("node1", SERVER_TOKEN).strip() not in done.text
    for server in SERVERS:
        assert "early" in objects(built, server) and "late" not in objects(built, server)
    assert kubectl(built, "node1", "get namespace kube-system -o jsonpath={.metadata.uid}") == uid
    assert voters(built) == set(SERVERS)
    assert marks(built) == []


def test_afterwards_the_deploy_finds_nothing_to_change(built: Lab) -> None:
    assert plan(built, K3S).changed == {}


def tokens(lab: Lab) -> list[str]:
    """The join tokens of the secrets, as their files on nodes hold them."""
    values = secrets(lab)
    return [f"{values[name]}\n" for name in FILES.values()]


def in_force(lab: Lab, wanted: list[str]) -> bool:
    """Whether every node is given these tokens, and every server works with the first of them."""
    server, agent = wanted
    works = "cut -d: -f4 /var/lib/rancher/k3s/server/token"
    return all(
        (lab.read(name, SERVER_TOKEN), lab.read(name, AGENT_TOKEN), lab.check(name, works))
        == (server, agent, server)
        for name in SERVERS
    ) and all(lab.read(name, AGENT_TOKEN) == agent for name in AGENTS)


@pytest.fixture(scope="module")
def rotated(built: Lab) -> tuple[str, list[str]]:
    """A snapshot and the tokens of its time, before the secrets get others."""
    former = take(built, "former", "node2"), tokens(built)
    new_tokens(built)
    return former


def test_other_tokens_are_put_in_force_also_after_a_run_that_was_killed(
    built: Lab, rotated: tuple[str, list[str]]
) -> None:
    _, former = rotated
    assert tokens(built) != former
    refused = run(built, K3S)
    assert refused.code == 1 and "deploys/tokens.py puts it in force" in refused.text
    assert in_force(built, former)
    # The first server has the agents' token, and starts again before K3s is told the other one.
    built.put("node1", AGENT_TOKEN, tokens(built)[1], 0o600)
    built.check("node1", "systemctl restart k3s")
    assert built.run("node1", "systemctl restart k3s")[0], "it starts again by itself"
    killed_at(built, TOKENS_DEPLOY, {}, "waiting for k3s on node2")
    done = run(built, TOKENS_DEPLOY, "-vvv")
    assert done.code == 0, done.text
    assert "Tokens | Rotate the server token" not in done.changed
    assert in_force(built, tokens(built))
    assert not [token for token in (*former, *tokens(built)) if token.strip() in done.text]
    assert voters(built) == set(SERVERS)
    for server in SERVERS:  # what is stored is what K3s has: it starts again
        built.check(server, "systemctl restart k3s")
        wait_for_api(built, server)
    assert plan(built, TOKENS_DEPLOY).changed == {}
    again = plan(built, K3S)
    assert (again.code, again.changed) == (0, {}), again.text


def test_a_snapshot_from_before_a_rotation_comes_back_with_its_token(
    built: Lab, rotated: tuple[str, list[str]]
) -> None:
    name, former = rotated
    create(built, "after-it")
    data = {"snapshot": name}
    warned = run(built, RESTORE, data=data)
    assert warned.code == 1 and "put the server token of that time in force" in warned.text
    done = run(built, RESTORE, "-vvv", data=data | {"confirm": "lab"})
    assert done.code == 0, done.text
    assert "now rotate it with deploys/tokens.py" in done.text
    assert not [token for token in (*former, *tokens(built)) if token.strip() in done.text]
    for server in SERVERS:
        assert "after-it" not in objects(built, server)
        assert built.read(server, SERVER_TOKEN) == former[0]
        assert tokens(built)[0] in built.check(server, f"cat {TOKENS}/*")
    assert voters(built) == set(SERVERS)
    assert run(built, TOKENS_DEPLOY).code == 0
    assert in_force(built, tokens(built))
    again = plan(built, K3S)
    assert (again.code, again.changed) == (0, {}), again.text


def test_a_server_that_is_not_reached_forbids_it(built: Lab) -> None:
    name = take(built, "away")
    built.disconnect("node3")
    try:
        limited = ("--limit", "node1", "--limit", "node2")
        refused = run(built, RESTORE, *limited, data={"snapshot": name, "confirm": "lab"})
    finally:
        built.connect("node3")
    assert refused.code == 1
    assert "node3 was not reached" in refused.text and "all must take part" in refused.text
    wait_for(lambda: voters(built) == set(SERVERS), "the server to take part again")


def killed_at(lab: Lab, deploy: str, data: dict[str, str], text: str) -> None:
    """Start a deploy and kill it, as a power cut would, when it prints the text."""
    going = Live(lab, command(deploy, "-y", data=data))
    going.until(text)
    assert going.end(signal.SIGKILL) == -signal.SIGKILL, going.text


def test_a_run_that_was_killed_twice_is_completed_by_the_next(built: Lab) -> None:
    built.check("node1", "systemctl is-active k3s")
    name = take(built, "killed")
    create(built, "late")
    data = {"snapshot": name, "confirm": "lab"}
    killed_at(built, RESTORE, data, "waiting for the restore on node1")
    killed_at(built, RESTORE, data, "waiting for k3s on node2")
    refused = plan(built, K3S)
    assert refused.code == 1 and "is not finished on node2, node3: run" in refused.text
    done = run(built, RESTORE, data=data)
    assert done.code == 0, done.text
    assert "Restore servers | Restore the snapshot" not in done.changed
    assert objects(built) >= {"early"} and "late" not in objects(built)
    assert voters(built) == set(SERVERS)
    assert marks(built) == []
    assert plan(built, K3S).changed == {}


def test_a_file_that_is_no_snapshot_ends_with_the_cause_and_loses_nothing(built: Lab) -> None:
    built.check("node1", f"echo no snapshot > {SNAPSHOTS}/broken-node1-1")
    failed = run(built, RESTORE, data={"snapshot": "broken-node1-1", "confirm": "lab"})
    assert failed.code == 1
    assert "the restore on node1: K3s: " in failed.text, failed.text
    for server in SERVERS:
        built.check(server, "systemctl start --no-block k3s")
    wait_for_api(built, "node1")
    assert "early" in objects(built) and voters(built) == set(SERVERS)


def test_one_that_fails_half_way_leaves_a_server_that_starts_no_cluster_of_its_own(
    built: Lab,
) -> None:
    """It is the restore that failed before, of which all servers were started again since."""
    file, db = f"{SNAPSHOTS}/broken-node1-1", "/var/lib/rancher/k3s/server/db"
    whole = f"{SNAPSHOTS}/{take(built, 'whole')}"
    # The sum at the end is looked at last, when the datastore of before is away already.
    sum_ = f"truncate -s -32 {file} && head -c 32 /dev/zero >> {file}"
    built.check("node1", f"cp {whole} {file} && {sum_}")
    failed = run(built, RESTORE, data={"snapshot": "broken-node1-1", "confirm": "lab"})
    assert failed.code == 1 and "the restore on node1: K3s: " in failed.text, failed.text
    for server in SERVERS:
        assert built.run(server, "systemctl is-active k3s")[0], "it is stopped everywhere"
    assert built.run("node1", f"test -e {db}/etcd/member/wal")[0], "the datastore is away"
    built.check("node1", "systemctl start --no-block k3s")
    restarts = "systemctl show k3s -p NRestarts --value"
    wait_for(lambda: int(built.check("node1", restarts)) > 0, "K3s to find nobody to join")
    made = f"cd {db} && [ -e state.db -o -e etcd/member/wal ]"
    assert built.run("node1", made)[0], "a second cluster"
    back = "rm -rf etcd && mv $(ls -d etcd-old-* | tail -n 1) etcd"
    built.check("node1", f"systemctl stop k3s; cd {db} && {back}")
    for server in SERVERS:
        built.check(server, f"rm {MARK} && systemctl enable -q k3s")
        built.check(server, "systemctl start --no-block k3s")
    wait_for_api(built, "node1")
    assert "early" in objects(built) and voters(built) == set(SERVERS)
    assert plan(built, K3S).changed == {}


def test_it_works_with_k3s_stopped_everywhere_and_names_nodes_that_are_gone(built: Lab) -> None:
    ghost = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ghost"}}
    kubectl(built, "node1", "create -f -", json.dumps(ghost))
    name = take(built, "ghost")
    for server in SERVERS:
        built.check(server, "systemctl stop k3s")
    done = run(built, RESTORE, data={"snapshot": name, "confirm": "lab"})
    assert done.code == 0, done.text
    assert "ghost is in the snapshot but not in the inventory" in done.text
    assert voters(built) == set(SERVERS)
    kubectl(built, "node1", "delete node ghost")


def test_a_lone_server_moves_to_the_next_minor_and_its_copied_files_are_put_back(lab: Lab) -> None:
    lab.recreate("node1")
    with only(lab, "node1") as alone:
        done = run(lab, K3S, data=k3s(lab, "v1.35.7+k3s1"), **alone)
        assert done.code == 0, done.text
        create(lab, "early")
        lab.check("node1", f"mkdir -p {SLOW.rpartition('/')[0]}")
        lab.put("node1", SLOW, "[Service]\nExecStartPre=/bin/sleep 3\n")
        lab.check("node1", "systemctl daemon-reload")
        done = run(lab, K3S, **alone)
        assert done.code == 0, done.text
        assert versions(lab) == {"node1": K3S_DEFAULT} and cordoned(lab) == []
        create(lab, "late")
        copy = lab.check("node1", "ls -d /var/lib/rancher/k3s/server/db-before-*").strip()
        done = run(lab, RESTORE, data={"snapshot": copy, "confirm": "lab"}, **alone)
        assert done.code == 0, done.text
    assert "early" in objects(lab) and "late" not in objects(lab)
    assert marks(lab) == []
