"""The Kubernetes API, drains and labels on lab hosts: real sshd, real API server and etcd.

Simulated are containers and kubelets (the stand-in's table): pods become Ready and end by rules.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from pyinfra.api import Config, Host, Inventory, State

from cluster import marks
from cluster.answer import Absent, Present, Refused, Unreachable
from cluster.drain import ref_of
from cluster.model import Taint
from cluster.probe import Done, Pending
from facts.kube import pods_on, read_node, read_nodes
from operations import gates, node_actions
from runtime.api import EVENT, NAMESPACE, NODE, POD, Api, api_of
from runtime.endpoint import ApiError
from tests.lab.by_hand import start_cluster
from tests.lab.lab import Lab
from tests.lab.living import kubectl, wait_for, web
from tests.lab.runs import ended

pytestmark = pytest.mark.lab(servers=3, agents=1)

SERVERS, AGENT = ["node1", "node2", "node3"], "node4"
BARE = """
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: default}
spec: {nodeName: node4, containers: [{name: bare, image: registry.k8s.io/pause:3.10}]}
"""


class Run:
    """A pyinfra run on the lab's hosts, as far as the API needs one."""

    def __init__(self, lab: Lab) -> None:
        names = [(name, {"ssh_hostname": str(lab.record.host(name).ip)}) for name in SERVERS]
        data = {
            "ssh_user": "ubuntu",
            "ssh_key": str(lab.names.ssh_key),
            "ssh_known_hosts_file": str(lab.names.known_hosts),
        }
        inventory = Inventory((["@local", *names], data), servers=(names, {}))
        self.lab = lab
        self.state = State(inventory, Config(CONNECT_TIMEOUT=5))
        self.said: list[str] = []
        self.host.log = lambda text, *_: self.said.append(text)  # type: ignore[method-assign]
        self.host.log_styled = lambda text, *_, **__: self.said.append(text)  # type: ignore[method-assign]

    @property
    def host(self) -> Host:
        return self.state.inventory.get_host("@local")

    @property
    def api(self) -> Api:
        return api_of(self.state)

    def drain(self, node: str, timeout: float = 60, **more: bool) -> bool:
        return node_actions.drain(self.state, self.host, node, timeout, **more)

    def uncordon(self, node: str) -> bool:
        return node_actions.uncordon(self.state, self.host, node)


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Lab:
    """K3s on three servers and an agent, started without a deploy."""
    if lab.run("node1", "k3s kubectl get node node4")[0] != 0:
        lab.recreate(*(host.name for host in lab.hosts))
        start_cluster(lab, SERVERS, [AGENT])
    return lab


@pytest.fixture
def run(cluster: Lab) -> Iterator[Run]:
    run = Run(cluster)
    yield run
    for node in [*SERVERS, AGENT]:
        run.uncordon(node)
    kubectl(cluster, "node1", "delete deploy,pdb,pod --all -n default --wait=false")
    run.api.close()


def pyinfra(lab: Lab, *arguments: str) -> str:
    """Run the command line on the control host; what it printed."""
    words = [sys.executable, "-m", "pyinfra", "inventories/lab.py", "--limit", "@local"]
    result = ended(lab, [*words, *arguments], limit=120)
    shown = result.stdout + result.stderr
    assert result.returncode == 0, shown
    return shown


def test_nodes_are_a_fact_on_the_command_line(cluster: Lab) -> None:
    shown = pyinfra(cluster, "fact", "facts.kube.Nodes")
    start = shown.index("{", shown.index("Fact data for"))
    found = json.JSONDecoder().raw_decode(shown[start:])[0]["@local"]
    assert found["answer"] == "present"
    assert set(found["value"]) == {*SERVERS, AGENT}
    assert found["value"]["node1"]["etcd_voter"] is True
    assert found["value"][AGENT]["etcd_voter"] is None


def test_no_output_mode_shows_the_admin_key(cluster: Lab) -> None:
    line = cluster.check("node1", "grep client-key-data /etc/rancher/k3s/k3s.yaml")
    secret = line.split()[1]
    shown = pyinfra(cluster, "-vvv", "--debug", "--debug-facts", "fact", "facts.kube.Nodes")
    assert "k3s.yaml" in shown
    assert secret[40:120] not in shown
    assert base64.b64decode(secret).decode().splitlines()[1] not in shown


def test_the_gates_hold_on_a_healthy_cluster(run: Run) -> None:
    for gate in (
        gates.nodes_registered(run.api, [*SERVERS, AGENT]),
        gates.node_ready(run.api, "node2"),
        gates.others_ready(run.api, "node2"),
        gates.etcd_voters(run.api, SERVERS),
        gates.volumes_healthy(run.api),
        *(gates.api_ready(run.api, server) for server in SERVERS),
    ):
        wait_for(lambda gate=gate: isinstance(gate(), Done), str(gate()))


def test_labels_are_set_edited_removed_and_nothing_is_sent_twice(run: Run) -> None:
    def set_labels(labels: dict[str, str]) -> None:
        assert node_actions.set_labels(run.state, run.host, {AGENT: labels})

    def live() -> dict[str, str]:
        node = read_node(run.api, AGENT)
        assert isinstance(node, Present)
        return {k: v for k, v in node.value.labels.items() if k.startswith("lab/")}

    set_labels({"lab/disk": "ssd", "lab/rack": "1"})
    assert live() == {"lab/disk": "ssd", "lab/rack": "1"}
    before = run.api.requests
    set_labels({"lab/disk": "ssd", "lab/rack": "1"})
    assert run.api.requests == before + 1
    set_labels({"lab/disk": "nvme"})
    assert live() == {"lab/disk": "nvme"}
    set_labels({})
    assert live() == {}


def test_our_taint_comes_and_goes_beside_those_of_kubernetes(run: Run) -> None:
    taint = Taint(key="lab/disk", value="slow", effect="PreferNoSchedule")
    kubectl(run.lab, "node1", f"taint node {AGENT} theirs=x:PreferNoSchedule --overwrite")

    def keys() -> set[str]:
        node = read_node(run.api, AGENT)
        assert isinstance(node, Present)
        return {entry.key for entry in node.value.taints}

    assert node_actions.set_taints(run.state, run.host, {AGENT: [taint]})
    assert keys() == {"theirs", "lab/disk"}
    assert node_actions.set_taints(run.state, run.host, {AGENT: []})
    assert keys() == {"theirs"}
    kubectl(run.lab, "node1", f"taint node {AGENT} theirs-")


def test_a_drain_waits_for_the_budget_names_it_and_then_passes(run: Run) -> None:
    node = _web(run)
    assert not run.drain(node, timeout=3)
    assert "budget default/web (2 of at least 2 healthy) keeps default/web-" in run.said[-1]
    assert _web_on(run, node)
    patch = json.dumps({"spec": {"minAvailable": 1}})
    kubectl(run.lab, "node1", f"patch pdb web -n default --type merge -p '{patch}'")
    assert run.drain(node), run.said
    assert not _web_on(run, node)
    found = read_node(run.api, node)
    assert isinstance(found, Present)
    cordon = marks.cordon_of(found.value)
    assert cordon is not None and cordon.why == "drain"
    assert not found.value.schedulable


def test_a_drain_gives_way_when_the_budget_recovers_meanwhile(run: Run) -> None:
    node = _web(run)
    gevent.spawn_later(2, kubectl, run.lab, "node1", "scale deploy web -n default --replicas=3")
    assert run.drain(node), run.said
    assert not _web_on(run, node)


def test_a_pod_that_nobody_makes_again_is_refused(run: Run) -> None:
    kubectl(run.lab, "node1", "apply -f -", BARE)
    wait_for(lambda: isinstance(run.api.get(POD, "bare", "default"), Present), "the pod")
    assert not run.drain(AGENT, timeout=5)
    assert "pod default/bare has no controller that would make it again" in run.said[-1]
    assert isinstance(run.api.get(POD, "bare", "default"), Present)
    assert run.drain(AGENT, unmanaged=True), run.said
    assert isinstance(run.api.get(POD, "bare", "default"), Absent)


def test_a_cordon_by_hand_survives(run: Run) -> None:
    kubectl(run.lab, "node1", f"cordon {AGENT}")
    assert node_actions.cordon(run.state, run.host, AGENT, "test")
    assert run.uncordon(AGENT)
    node = read_node(run.api, AGENT)
    assert isinstance(node, Present) and not node.value.schedulable
    kubectl(run.lab, "node1", f"uncordon {AGENT}")


def test_fields_of_another_manager_are_named(run: Run) -> None:
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "contested", "namespace": "default"},
        "data": {"key": "theirs"},
    }
    kubectl(run.lab, "node1", "apply --server-side --field-manager=somebody -f -", json.dumps(body))
    body["data"] = {"key": "ours"}
    with pytest.raises(ApiError) as caught:
        run.api.apply(body)
    assert caught.value.other_manager
    assert "somebody" in str(caught.value)
    assert run.api.apply(body, force=True, dry_run=True)["data"] == {"key": "ours"}
    assert run.api.apply(body, force=True)["data"] == {"key": "ours"}
    kubectl(run.lab, "node1", "delete configmap contested -n default")


def test_the_run_goes_on_through_another_server(run: Run) -> None:
    assert isinstance(run.api.state(), Present)
    used = run.api.current
    run.lab.check(used, "systemctl stop k3s")
    try:
        assert isinstance(run.api.state(), Present)
        assert run.api.current != used
        assert isinstance(gates.api_ready(run.api, used)(), Pending)
    finally:
        run.lab.check(used, "systemctl start k3s")
    wait_for(lambda: isinstance(gates.api_ready(run.api, used)(), Done), f"{used} to be back")


def test_a_watch_survives_the_end_of_its_server(run: Run) -> None:
    run.api.state()
    used = run.api.current
    events = run.api.watch(NAMESPACE, timeout=60)
    assert next(events).type == "ADDED"
    other = next(name for name in SERVERS if name != used)

    def happen() -> None:
        run.lab.check(used, "systemctl restart k3s")
        kubectl(run.lab, other, "create namespace seen-by-the-watch")

    gevent.spawn_later(1, happen)
    seen = next(e for e in events if e.object["metadata"]["name"] == "seen-by-the-watch")
    assert seen.type == "ADDED"
    events.close()
    kubectl(run.lab, other, "delete namespace seen-by-the-watch --wait=false")
    wait_for(lambda: isinstance(gates.api_ready(run.api, used)(), Done), f"{used} to be back")


def test_without_a_quorum_the_cluster_is_not_absent(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.api.TIMEOUT", (5.0, 5.0))
    for name in SERVERS[1:]:
        run.lab.check(name, "systemctl stop k3s")
    try:
        answer = run.api.state()
        assert isinstance(answer, Refused | Unreachable), answer
    finally:
        for name in SERVERS[1:]:
            run.lab.check(name, "systemctl start k3s")
    wait_for(lambda: isinstance(run.api.state(), Present), "the cluster to be back")


def test_events_and_nodes_are_read_as_they_are(run: Run) -> None:
    assert isinstance(run.api.list(EVENT, fields="involvedObject.kind=Node"), Present)
    nodes = read_nodes(run.api)
    assert isinstance(nodes, Present)
    assert nodes.value["node1"].roles == ("control-plane", "etcd")
    assert nodes.value["node1"].internal_ip == str(run.lab.record.host("node1").ip)
    assert isinstance(run.api.get(NODE, "nobody"), Absent)


def _web(run: Run) -> str:
    """Deploy two pods under a budget that allows no disruption; a node that has one."""
    kubectl(run.lab, "node1", "apply -f -", web())

    def running() -> bool:
        pods = run.api.list(POD, "default", labels="app=web")
        return (
            isinstance(pods, Present)
            and [pod["status"].get("phase") for pod in pods.value] == ["Running"] * 2
        )

    wait_for(running, "two pods to run")
    pods = run.api.list(POD, "default", labels="app=web")
    assert isinstance(pods, Present)
    return str(pods.value[0]["spec"]["nodeName"])


def _web_on(run: Run, node: str) -> list[str]:
    pods = pods_on(run.api, node)
    assert isinstance(pods, Present)
    return [str(ref_of(pod)) for pod in pods.value if pod["metadata"]["namespace"] == "default"]
