"""Bad inputs stop a run before it opens a connection: one line a problem, exit 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.problem import Problems
from runtime.inventory import load
from tests.plans.command import cold, project, pyinfra
from tests.unit.fake_ssh import FakeSsh


def test_every_problem_is_said_before_a_connection_is_opened(tmp_path: Path) -> None:
    data = tmp_path / "home.py"
    data.write_text(
        'cluster_name = "home"\n'
        'domain = "picluster.example.com"\n'
        'network = {"lan": "10.0.0.0/24", "gateway": "10.0.0.1", "dns": ["10.0.0.1"],\n'
        '           "load_balancer_pool": "10.0.0.100-10.0.0.120",\n'
        '           "api": {"vip": "10.0.0.14"}}\n'
        'stak = {"cni": "cilium"}\n'
        f'secrets_file = "{tmp_path}/home.sops.yaml"\n'
    )
    run = cold(
        *("--group-data", str(tmp_path), "--data", "repiar=true"),
        *("inventories/home.py", "deploys/site.py", "-y"),
    )
    assert run.returncode == 1
    said = [line for line in run.stderr.splitlines() if line and not line.startswith("-->")]
    assert said == [
        "--data: repiar: unknown option; did you mean repair",
        f"{data}: stak: unknown key; did you mean stack",
        f"{data}: network.api.vip: 10.0.0.14 is the address of node4: "
        "expected a free address of network.lan 10.0.0.0/24",
        f"{tmp_path}/home.sops.yaml: missing: "
        "expected the file that `make secrets INVENTORY=inventories/home.py` makes",
    ]


def test_no_connection_is_opened(tmp_path: Path) -> None:
    ssh = FakeSsh()
    host = ("node1", {"ip": "10.0.0.11", "arch": "arm", **ssh.data(tmp_path / "known")})
    run = pyinfra(project(tmp_path, f"servers = [{host!r}]\n"), "deploys/site.py", "-y")
    ssh.stop()
    assert run.returncode == 1
    wanted = f"{tmp_path}/simulated.py: node1: arch: arm: expected one of amd64, arm64"
    assert any(line.startswith(wanted) for line in run.stderr.splitlines()), run.stderr
    assert ssh.accepted == 0


@pytest.mark.parametrize("deploy", ["deploys/site.py", "deploys/services/certbot.py"])
@pytest.mark.parametrize("inventory", ["inventories/hoem.py", "inventories", "10.0.0.11"])
def test_an_inventory_that_is_none_is_refused(inventory: str, deploy: str) -> None:
    """pyinfra takes a mistyped path for the name of a host and finds nothing to do."""
    run = pyinfra(inventory, deploy, "--dry")
    assert run.returncode == 1
    assert run.stderr.splitlines()[1:] == [
        f"--> {inventory}: no such file: expected an inventory such as "
        "inventories/home.py, inventories/lab.py, inventories/small.py"
    ]


def test_an_inventory_without_hosts_of_ours_is_refused(tmp_path: Path) -> None:
    run = pyinfra(project(tmp_path, 'web = ["10.0.0.11"]\n'), "deploys/site.py", "--dry")
    assert run.returncode == 1
    assert (
        f"--> {tmp_path}/simulated.py: no inventory of a cluster: "
        "expected a file with the groups servers, agents, gateway, external"
    ) in run.stderr.splitlines()


def test_deploy_and_inventory_the_wrong_way_round_are_refused() -> None:
    run = pyinfra("deploys/site.py", "inventories/home.py", "--dry")
    assert run.returncode == 1
    said = ["--> deploys/site.py: a deploy: expected the inventory before it"]
    assert run.stderr.splitlines()[1:] == said


def test_data_without_a_value_is_refused() -> None:
    words = ("--data", "components", "--data", "a=b")
    run = pyinfra("inventories/home.py", "deploys/platform.py", "--dry", *words)
    assert run.returncode == 1
    assert run.stderr.splitlines()[1:] == ["--> --data components: expected name=value"]


@pytest.mark.parametrize(
    ("inventory", "data", "lines"),
    [
        (
            "servers = []\n",
            "network = {\n",
            ["group_data/simulated.py: line 7: not Python: '{' was never closed"],
        ),
        ("servers = [\n", "", ["simulated.py: line 1: not Python: '[' was never closed"]),
        ("\0", "", ["simulated.py: not Python: source code string cannot contain null bytes"]),
        (
            "servers = []\n",
            'nodes = {"parts": {"swap": false}}\n',
            [
                "group_data/simulated.py: line 7: NameError: name 'false' is not defined; "
                "did you mean False"
            ],
        ),
        (
            'servers = ("node1", {"ip": "10.0.0.11"})\nagents = [("node2", "10.0.0.12"), 7]\n'
            'control = ["localhost"]\n',
            "",
            [
                "simulated.py: servers: ('node1', {'ip': '10.0.0.11'}): "
                'expected a list of hosts: [("node1", {"ip": "10.0.0.11", ...})]',
                "simulated.py: agents: ('node2', '10.0.0.12'): "
                'expected ("node1", {"ip": "10.0.0.11", ...})',
                'simulated.py: agents: 7: expected ("node1", {"ip": "10.0.0.11", ...})',
                "simulated.py: control: ['localhost']: expected ['@local'], where pyinfra runs",
            ],
        ),
    ],
    ids=["data", "inventory", "nulls", "name", "shape"],
)
def test_a_file_that_cannot_be_read_is_answered_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inventory: str, data: str, lines: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # pyinfra keeps what it has read by name
    path = project(tmp_path, inventory, data)
    run = pyinfra(path, "deploys/site.py", "--dry")
    said = [line for line in run.stderr.splitlines() if line and not line.startswith("-->")]
    assert (run.returncode, said) == (1, [f"{tmp_path}/{line}" for line in lines])
    with pytest.raises(Problems) as caught:
        load(path)  # as the other commands read it; files below the folder are named from there
    assert str(caught.value).splitlines() == lines


def test_a_link_to_nowhere_among_the_data_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Editors leave some beside the file that they edit."""
    monkeypatch.chdir(tmp_path)
    path = project(tmp_path, "servers = []\n")
    (tmp_path / "group_data" / "lock.py").symlink_to("nowhere")
    with pytest.raises(Problems) as caught:
        load(path)
    said = "group_data/lock.py: No such file or directory: expected a file"
    assert str(caught.value) == said
