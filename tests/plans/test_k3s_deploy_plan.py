"""Plans of deploys/k3s.py on simulated hosts: bare, living, half-way through an upgrade."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import k3s_config
from cluster.marks import CORDONED
from cluster.model import Cluster, Host
from cluster.versions import K3S_DEFAULT
from tests.plans import simulated
from tests.plans.simulated import K3S, Node, k3s, plan
from tests.unit.cluster_example import example
from tests.unit.fake_api import FakeApi

DEPLOY = "deploys/k3s.py"
SERVERS, AGENTS = ["node1", "node2", "node3"], ["node4", "node5"]
NETWORK = {"lan": "10.0.0.0/24", "gateway": "10.0.0.1", "dns": ("10.0.0.1",)}
MODEL = example(name="home", domain="home.arpa", network=NETWORK)
OLD = "v1.35.7+k3s1"


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A simulated API with five Ready nodes."""
    server = FakeApi()
    for name in SERVERS + AGENTS:
        conditions = [{"type": "Ready", "status": "True"}]
        if name in SERVERS:
            conditions.append({"type": "EtcdIsVoter", "status": "True"})
        server.put("nodes", name, status={"conditions": conditions})
    yield server
    server.stop()


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _file(path: str, content: str, mode: str) -> str:
    return f"file\t{path}\t{mode}\t{hashlib.sha256(content.encode()).hexdigest()}"


def living(model: Cluster, host: Host, version: str = K3S_DEFAULT) -> list[str]:
    """What the K3s fact prints on a member that is as the model wants it."""
    unit = k3s_config.unit_name(host)
    files = {path: text for path, text in k3s_config.files(model, host).items() if text}
    join = k3s_config.join(f"https://{model.servers[-1 if host.name == 'node1' else 0].ip}:6443")
    return [
        f"link\t{k3s_config.binary_path(version)}",
        f"version\t{version}",
        f"release\t{version}\tsum",
        *(_file(path, text, "600") for path, text in files.items()),
        _file(k3s_config.unit_path(host), k3s_config.unit(host), "644"),
        _file(k3s_config.SERVER_TOKEN, "", "600"),
        _file(k3s_config.AGENT_TOKEN, "", "600"),
        f"text\t{k3s_config.CONFIG}\t{_encoded(files[k3s_config.CONFIG])}",
        f"text\t{k3s_config.JOIN}\t{_encoded(join)}",
        f"unit\t{unit}\tActiveState=active",
        f"unit\t{unit}\tUnitFileState=enabled",
        *([f"datastore\t{model.datastore}", "ca\tsame"] if host.is_server else []),
        "registered\tyes",
        "password\tyes",
        "revision\tr\tr",
        "end",
    ]


def nodes(lines: dict[str, list[str]], api: FakeApi | None = None) -> list[Node]:
    url = api.url if api else ""
    return [
        Node(name, "servers" if name in SERVERS else "agents", {K3S: lines[name]}, url)
        for name in SERVERS + AGENTS
    ]


def bare() -> dict[str, list[str]]:
    return {name: k3s(name in SERVERS, version="") for name in SERVERS + AGENTS}


def converged(version: str = K3S_DEFAULT) -> dict[str, list[str]]:
    return {host.name: living(MODEL, host, version) for host in MODEL.members}


def step(name: str) -> str:
    kind = "servers" if name in SERVERS else "agents"
    return f"K3s {kind} | {name}: release and configuration"


def test_on_bare_hosts_servers_enter_one_by_one_and_agents_together(tmp_path: Path) -> None:
    found = plan(tmp_path, nodes(bare()), DEPLOY)
    assert found.code == 0, found.text
    entering = [name for name in found.changed if "enter the cluster" in name.lower()]
    assert entering == [
        *(f"K3s servers | {name}: enter the cluster" for name in SERVERS),
        "K3s agents | Enter the cluster",
    ]
    assert found.changed["K3s agents | Enter the cluster"] == AGENTS
    for first, second in (("node1", "node2"), ("node2", "node3")):
        barrier = found.order.index(f"K3s servers | {first} is done")
        assert barrier < found.order.index(f"K3s servers | {second}: enter the cluster")


def test_a_converged_cluster_has_an_empty_plan(tmp_path: Path, api: FakeApi) -> None:
    found = plan(tmp_path, nodes(converged(), api), DEPLOY)
    assert found.code == 0, found.text
    assert found.changed == {}


def test_a_restore_that_servers_wait_for_is_refused_and_one_they_have_done_is_not(
    tmp_path: Path, api: FakeApi
) -> None:
    def after(**steps: str) -> list[Node]:
        found = converged()
        for name, step in steps.items():
            found[name] = [f"restoring\t7 {step} /x/nightly", *found[name]]
        return nodes(found, api)

    found = plan(tmp_path, after(node1="started", node2="joined", node3="stopped"), DEPLOY)
    assert (found.code, found.order) == (1, [])
    assert "a restore of /x/nightly is not finished on node3: run deploys/restore.py" in found.text
    found = plan(tmp_path, after(node1="started", node2="joined", node3="joined"), DEPLOY)
    assert (found.code, found.changed) == (0, {}), found.text


def test_a_file_edited_by_hand_is_one_rolling_step_of_that_node(
    tmp_path: Path, api: FakeApi
) -> None:
    lines = converged()
    lines["node2"] = [
        line.rsplit("\t", 1)[0] + "\t" + "0" * 64 if k3s_config.KUBELET in line else line
        for line in lines["node2"]
    ]
    found = plan(tmp_path, nodes(lines, api), DEPLOY)
    assert found.changed == {step("node2"): ["node2"]}


def test_a_file_changed_since_the_start_of_k3s_is_a_restart(tmp_path: Path, api: FakeApi) -> None:
    lines = converged()
    lines["node5"] = [
        "revision\tnew\told" if line.startswith("revision") else line for line in lines["node5"]
    ]
    assert plan(tmp_path, nodes(lines, api), DEPLOY).changed == {step("node5"): ["node5"]}


def test_an_upgrade_keeps_the_datastore_then_goes_servers_before_agents(
    tmp_path: Path, api: FakeApi
) -> None:
    found = plan(tmp_path, nodes(converged(OLD), api), DEPLOY)
    assert found.code == 0, found.text
    keep = "K3s servers | Keep the datastore before a move"
    assert found.changed[keep] == ["node1"]
    steps = [step(name) for name in SERVERS + AGENTS]
    assert [name for name in found.order if name in (keep, *steps)] == [keep, *steps]
    assert all(name in found.changed for name in steps)


def test_an_upgrade_that_was_broken_off_goes_on_with_the_rest(tmp_path: Path, api: FakeApi) -> None:
    lines = converged(OLD)
    for host in MODEL.servers[:2]:
        lines[host.name] = living(MODEL, host)
    found = plan(tmp_path, nodes(lines, api), DEPLOY)
    changed = [name for name in found.changed if "release and configuration" in name]
    assert changed == [step("node3"), step("node4"), step("node5")]


def test_a_jump_over_minors_walks_every_rung(tmp_path: Path, api: FakeApi) -> None:
    found = plan(tmp_path, nodes(converged("v1.34.10+k3s1"), api), DEPLOY)
    assert found.code == 0, found.text
    puts = [name for name in found.changed if "on the nodes" in name and "Put K3s" in name]
    assert puts == [
        f"K3s release | Put K3s {version} on the nodes" for version in (OLD, K3S_DEFAULT)
    ]


def test_a_downgrade_is_refused_with_one_line(tmp_path: Path, api: FakeApi) -> None:
    found = plan(tmp_path, nodes(converged(), api), DEPLOY, k3s={"version": OLD})
    assert found.code == 1
    assert f"K3s {OLD} is older than the installed {K3S_DEFAULT}" in found.text
    assert "Traceback" not in found.text


def test_a_reflashed_server_is_refused_with_the_command_that_clears_it(
    tmp_path: Path, api: FakeApi
) -> None:
    lines = converged() | {"node1": k3s(version="")}
    found = plan(tmp_path, nodes(lines, api), DEPLOY)
    assert found.code == 1
    assert "deploys/reset.py --data forget=node1" in found.text


def test_a_stopped_majority_is_refused(tmp_path: Path) -> None:
    lines = converged()
    for name in ("node2", "node3"):
        lines[name] = [line.replace("=active", "=inactive") for line in lines[name]]
    found = plan(tmp_path, nodes(lines), DEPLOY)
    assert found.code == 1
    assert "etcd has no quorum: K3s runs on node1, 2 of 3 are needed" in found.text


def test_a_first_start_that_failed_is_put_right_before_the_others_enter(tmp_path: Path) -> None:
    lines = bare()
    lines["node1"] = [
        line.replace("=active", "=activating")
        for line in living(MODEL, MODEL.host("node1"))
        if not line.startswith("registered")
    ]
    found = plan(tmp_path, nodes(lines), DEPLOY, k3s={"server_config": {"v": 2}})
    assert found.code == 0, found.text
    assert found.changed[step("node1")] == ["node1"]
    enter = "K3s servers | node2: enter the cluster"
    assert found.order.index(step("node1")) < found.order.index(enter)


def test_servers_that_take_no_ordinary_pods_get_the_taint_that_says_so(
    tmp_path: Path, api: FakeApi
) -> None:
    wanted = {"control_plane_taint": True}
    found = plan(tmp_path, nodes(converged(), api), DEPLOY, k3s=wanted)
    assert found.code == 0, found.text
    assert list(found.changed) == ["K3s nodes | Taints of the nodes"]
    model = example(k3s=wanted)
    taints = {one.name: [str(taint) for taint in model.taints(one)] for one in model.members}
    ours = ["node-role.kubernetes.io/control-plane:NoSchedule"]
    assert taints == {name: ours if name in SERVERS else [] for name in taints}


def test_a_limited_run_plans_only_its_hosts(tmp_path: Path, api: FakeApi) -> None:
    lines = converged()
    for name in ("node4", "node5"):
        lines[name] = [line.replace("revision\tr\tr", "revision\tn\to") for line in lines[name]]
    found = plan(tmp_path, nodes(lines, api), DEPLOY, "--limit", "node4")
    assert found.code == 0, found.text
    assert found.changed == {step("node4"): ["node4"]}


def test_a_token_on_a_node_is_never_replaced_in_passing(tmp_path: Path, api: FakeApi) -> None:
    lines = converged()
    lines["node4"] = [line for line in lines["node4"] if k3s_config.AGENT_TOKEN not in line]
    found = plan(tmp_path, nodes(lines, api), DEPLOY)
    assert found.changed == {"K3s release | Put the join tokens on the nodes": ["node4"]}


def test_a_token_that_others_can_read_is_closed(tmp_path: Path, api: FakeApi) -> None:
    lines = converged()
    lines["node5"] = [
        line.replace("\t600\t", "\t644\t") if k3s_config.AGENT_TOKEN in line else line
        for line in lines["node5"]
    ]
    found = plan(tmp_path, nodes(lines, api), DEPLOY)
    assert found.changed == {"K3s release | Put the join tokens on the nodes": ["node5"]}


def test_a_cordon_that_a_broken_run_left_behind_is_undone_in_the_nodes_turn(
    tmp_path: Path, api: FakeApi
) -> None:
    ours = json.dumps({"by": "ada", "when": "now", "why": "its K3s is being changed"})
    for name, marks in (("node2", {CORDONED: ours}), ("node4", {})):
        node = api.object("nodes", name)
        node["spec"] = {"unschedulable": True}
        node["metadata"]["annotations"] = marks
    found = plan(tmp_path, nodes(converged(), api), DEPLOY)
    assert found.changed == {step("node2"): ["node2"]}
    limit = ("--limit", "node4", "--limit", "@local")
    limited = plan(tmp_path, nodes(converged(), api), DEPLOY, *limit)
    assert limited.changed == {"K3s nodes | All members are in": ["@local"]}


def test_an_inventory_without_the_control_group_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = simulated.inventory
    monkeypatch.setattr(
        simulated, "inventory", lambda hosts: text(hosts).replace('control = ["@local"]', "")
    )
    found = plan(tmp_path, nodes(bare()), DEPLOY)
    assert found.code == 1
    line = '--> the inventory has no group control: expected control = ["@local"]'
    assert line in found.text.splitlines()


def test_a_folder_without_the_releases_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "releases"
    (folder / K3S_DEFAULT).mkdir(parents=True)
    (folder / K3S_DEFAULT / "k3s-arm64").touch()
    source = {"folder": str(folder), "airgap_images": True}
    found = plan(tmp_path, nodes(bare()), DEPLOY, k3s={"source": source})
    assert found.code == 1
    said = [line for line in found.text.splitlines() if "k3s.source.folder" in line]
    assert said == [
        f"--> k3s.source.folder: {folder}/{K3S_DEFAULT}/{name}: no such file: "
        "expected what the release has under that name"
        for name in ("k3s-airgap-images-arm64.tar.zst", "sha256sum-arm64.txt")
    ]
