"""K3s on real hosts: built, left alone, changed, upgraded, damaged; a test goes on from the last.

Simulated by the lab's stand-in for K3s: containers, images, the pod network, and the versions,
which are one build under several version strings (tests/lab/standin/README.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.living import condition, cordoned, kubectl, nodes, seen, versions, wait_for_api
from tests.lab.runs import Live, Run, command, k3s, other_record, plan, run
from tests.lab.witness import Witness

pytestmark = pytest.mark.lab(servers=3, agents=2)

SITE = "deploys/site.py"
K3S = "deploys/k3s.py"
OLD, NEW = "v1.35.7+k3s1", "v1.36.3+k3s1"
SERVERS, AGENTS = ("node1", "node2", "node3"), ("node4", "node5")
NODES = SERVERS + AGENTS
LABEL = "picluster.example.com/disk"


def unit(node: str) -> str:
    return "k3s" if node in SERVERS else "k3s-agent"


def started(lab: Lab) -> dict[str, str]:
    """Main pid and start of K3s by node: equal as long as nothing was restarted."""
    show = "systemctl show {} -p MainPID -p ActiveEnterTimestampMonotonic --value"
    return {node: lab.check(node, show.format(unit(node))) for node in NODES}


def cluster_uid(lab: Lab, server: str = "node1") -> str:
    return kubectl(lab, server, "get namespace kube-system -o jsonpath={.metadata.uid}")


def untouched(lab: Lab) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The agents' pids and all settings: what stays when a run changes nothing.

    Servers without their quorum start again by themselves, and write k3s.yaml at each start.
    """
    pids = {node: pid for node, pid in started(lab).items() if node in AGENTS}
    files = ("file /etc", "file /usr", "unit-file")
    return pids, {
        node: {
            key: value
            for key, value in lab.fingerprint(node).items()
            if key.startswith(files) and not key.endswith("/k3s.yaml")
        }
        for node in NODES
    }


@pytest.fixture(scope="module")
def built(lab: Lab) -> Iterator[tuple[Lab, Run]]:
    """The lab with a cluster of the old version, and the run that built it from bare hosts."""
    lab.clear_faults()
    lab.recreate(*NODES)
    yield lab, run(lab, SITE, data=k3s(lab, OLD))


def test_bare_hosts_become_a_highly_available_cluster(built: tuple[Lab, Run]) -> None:
    lab, done = built
    assert done.code == 0, done.text
    found = nodes(lab)
    assert sorted(found) == sorted(NODES)
    assert all(condition(node, "Ready") == "True" for node in found.values())
    for name in SERVERS:
        assert condition(found[name], "EtcdIsVoter") == "True"


def test_its_files_have_the_right_modes_and_its_units_are_enabled(built: tuple[Lab, Run]) -> None:
    lab, _ = built
    private = ["config.yaml", "kubelet.yaml", "agent-token"]
    for name in NODES:
        host = seen(lab, name)
        own = [*private, *(["server-token", "k3s.yaml"] if name in SERVERS else [])]
        for file in (host.file(f"/etc/rancher/k3s/{path}") for path in own):
            assert (file.mode, file.user, file.group) == (0o600, "root", "root"), file
        assert host.file(f"/etc/systemd/system/{unit(name)}.service").mode == 0o644
        service = host.service(unit(name))
        assert service.is_enabled and service.is_running
        assert host.file("/usr/local/bin/k3s").linked_to == f"/usr/local/lib/k3s/{OLD}/k3s"
        assert not host.file("/etc/rancher/k3s/server-token").exists or name in SERVERS


def test_a_second_run_changes_nothing_and_restarts_nothing(built: tuple[Lab, Run]) -> None:
    lab, _ = built
    before = started(lab)
    assert plan(lab, SITE, data=k3s(lab, OLD)).changed == {}
    again = run(lab, SITE, data=k3s(lab, OLD))
    assert again.code == 0, again.text
    assert again.changed == {}
    assert started(lab) == before


def test_one_edited_label_is_one_operation(built: tuple[Lab, Run]) -> None:
    lab, _ = built

    def edit(hosts: list[dict[str, Any]]) -> None:
        next(one for one in hosts if one["name"] == "node4")["labels"] = {LABEL: "ssd"}

    with other_record(lab, edit) as env:
        done = run(lab, SITE, data=k3s(lab, OLD), **env)
    assert done.code == 0, done.text
    assert done.changed == {"K3s nodes | Labels of the nodes": ["@local"]}
    assert nodes(lab)["node4"]["metadata"]["labels"][LABEL] == "ssd"


def test_a_changed_setting_restarts_one_server_after_the_other(
    built: tuple[Lab, Run], tmp_path: Path
) -> None:
    lab, _ = built
    before = started(lab)
    with Witness(lab, SERVERS, tmp_path) as witness:
        done = run(lab, K3S, data=k3s(lab, OLD, server_config={"kube-apiserver-arg": ["v=1"]}))
    assert done.code == 0, done.text
    after = started(lab)
    assert {node for node in NODES if before[node] != after[node]} == set(SERVERS)
    # As the watch of the API told it: one after the other, and no node was cordoned meanwhile.
    assert witness.reconfigured == list(SERVERS)
    assert not any(event.node["spec"].get("unschedulable") for event in witness.events)
    # Each server's API was away once, and there again before the next one's went.
    away = [witness.outages[name] for name in SERVERS]
    assert [len(spans) for spans in away] == [1, 1, 1]
    assert all(first[0][1] < second[0][0] for first, second in pairwise(away))


def test_a_fixed_setting_is_refused_and_nothing_is_touched(built: tuple[Lab, Run]) -> None:
    lab, _ = built
    before = started(lab)
    network = {
        "lan": str(lab.names.subnet),
        "gateway": lab.names.gateway,
        "dns": [lab.names.gateway],
        "pod_cidr": "10.99.0.0/16",
    }
    done = run(lab, K3S, data=k3s(lab, OLD) | {"network": network})
    assert done.code == 1
    assert "cluster-cidr: '10.42.0.0/16' → '10.99.0.0/16' (fixed at first start)" in done.text
    assert started(lab) == before


@contextmanager
def refusing(lab: Lab, node: str, version: str) -> Iterator[None]:
    """A node on which K3s of this version does not come up, whatever it needs; others do.

    Simulated: the unit ends before K3s, with the line of a K3s that lacks something.
    """
    script, folder = "/usr/local/lib/lab-refuse", f"/etc/systemd/system/{unit(node)}.service.d"
    line = 'level=fatal msg="Error: failed to find memory cgroup (v2)"'
    case = f"case $(readlink /usr/local/bin/k3s) in */{version}/*) echo '{line}'; exit 1 ;; esac\n"
    lab.put(node, script, case)
    lab.check(node, f"mkdir -p {folder}")
    lab.put(node, f"{folder}/lab.conf", f"[Service]\nExecStartPre=/bin/sh {script}\n")
    lab.check(node, "systemctl daemon-reload")
    try:
        yield
    finally:
        lab.check(node, f"rm -r {folder} {script} && systemctl daemon-reload")


def test_a_server_lost_in_an_upgrade_stops_it(built: tuple[Lab, Run]) -> None:
    lab, _ = built
    data = k3s(lab, NEW, server_config={"kube-apiserver-arg": ["v=1"]}, start_timeout=40)
    going = Live(lab, command(K3S, "-y", data=data))
    going.until("waiting for k3s on node2")
    lab.kill("node2")
    assert going.end(within=200) == 1, going.text
    found = versions(lab)
    assert found["node1"] == NEW
    assert {found[name] for name in ("node3", *AGENTS)} == {OLD}
    lab.start("node2")


def test_the_next_run_goes_on_and_an_agent_that_does_not_come_up_gets_its_binary_back(
    built: tuple[Lab, Run],
) -> None:
    lab, _ = built
    data = k3s(lab, NEW, server_config={"kube-apiserver-arg": ["v=1"]})
    with refusing(lab, "node5", NEW):
        done = run(lab, K3S, data=data)
        assert done.code == 1 and "the kernel's memory cgroup is off" in done.text, done.text
        assert f"K3s {NEW} did not come up; putting {OLD} back" in done.text
        assert f"the node runs {OLD} again; nothing else was touched" in done.text
        assert versions(lab) == dict.fromkeys(NODES, NEW) | {"node5": OLD}
        assert condition(nodes(lab)["node5"], "Ready") == "True"
        assert cordoned(lab) == ["node5"]
    done = run(lab, K3S, data=data)
    assert done.code == 0, done.text
    assert set(versions(lab).values()) == {NEW}
    assert cordoned(lab) == []


def test_the_snapshot_taken_before_the_upgrade_is_there(built: tuple[Lab, Run]) -> None:
    lab, _ = built
    listed = "".join(lab.run(name, "k3s etcd-snapshot ls")[1] for name in SERVERS)
    assert f"before-{NEW.replace('+', '-')}" in listed


def test_a_downgrade_is_refused(built: tuple[Lab, Run]) -> None:
    lab, _ = built
    before = started(lab)
    done = run(lab, K3S, data=k3s(lab, OLD))
    assert done.code == 1
    assert f"K3s {OLD} is older than the installed {NEW}" in done.text
    assert started(lab) == before


def test_without_quorum_the_run_is_refused_with_who_is_down(built: tuple[Lab, Run]) -> None:
    lab, _ = built
    before = untouched(lab)
    for name in ("node2", "node3"):
        lab.check(name, "systemctl stop k3s")
    try:
        done = run(lab, K3S, data=k3s(lab, NEW))
        assert done.code == 1
        assert "etcd has no quorum: K3s runs on " in done.text
        assert re.search(r"2 of 3 are needed; down: (node1, )?node2, node3\.", done.text), done.text
        assert untouched(lab) == before
    finally:
        for name in ("node2", "node3"):
            lab.check(name, "systemctl start --no-block k3s")
    wait_for_api(lab, *SERVERS)


def test_a_wiped_first_server_is_named_cleared_and_joins_its_own_cluster(
    built: tuple[Lab, Run],
) -> None:
    lab, _ = built
    uid = cluster_uid(lab, "node2")
    lab.recreate("node1")
    refused = run(lab, SITE, data=k3s(lab, NEW))
    assert refused.code == 1
    found = re.search(r"deploys/reset.py --data forget=node1", refused.text)
    assert found, refused.text
    cleared = run(lab, "deploys/reset.py", data={"forget": "node1"} | k3s(lab, NEW))
    assert cleared.code == 0, cleared.text
    done = run(lab, SITE, data=k3s(lab, NEW))
    assert done.code == 0, done.text
    assert cluster_uid(lab, "node1") == uid
    assert condition(nodes(lab)["node1"], "EtcdIsVoter") == "True"
    assert plan(lab, SITE, data=k3s(lab, NEW)).changed == {}
