"""Inventory files and group_data as a person writes them, read through pyinfra."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pyinfra.api.exceptions import PyinfraError

from cluster.model import Cluster
from cluster.problem import Problems
from runtime.inventory import cluster_of, is_project, load, prepare_hosts

ROOT = Path(__file__).parents[2]
LAB = {
    "subnet": "198.18.10.0/24",
    "gateway": "198.18.10.1",
    "mirror": "http://198.18.10.1:8480",
    "charts": "http://198.18.10.1:8480/charts",
    "k3s_kind": "release",
    "ssh_user": "ubuntu",
    "ssh_key": "build/lab/id_ed25519",
    "ssh_known_hosts": "build/lab/known_hosts",
    "arch": "amd64",
    "hosts": [
        {"name": "node1", "role": "server", "ip": "198.18.10.11"},
        {"name": "node2", "role": "agent", "ip": "198.18.10.12"},
        {"name": "node3", "role": "spare", "ip": "198.18.10.13"},
    ],
}


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["pyinfra"])


Project = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project in a folder of its own: `project(hosts="...", group_data={"file": "..."})`."""

    def make(hosts: str, **group_data: str) -> Path:
        inventory = tmp_path / "inventories" / f"{tmp_path.name.rstrip('0123456789')}.py"
        folder = inventory.parent / "group_data"
        folder.mkdir(parents=True)
        inventory.write_text(hosts)
        for name, text in group_data.items():
            (folder / f"{name.replace('own', inventory.stem)}.py").write_text(text)
        return inventory

    return make


OWN = """
cluster_name = "small"
domain = "home.arpa"
network = {"lan": "192.168.1.0/24", "gateway": "192.168.1.1", "dns": ["192.168.1.1"]}
"""


def _read(path: Path | str) -> Cluster:
    return cluster_of(load(str(path)), secrets_needed=False)


def _lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["pyinfra", str(path)])
    with pytest.raises(Problems) as refused:
        _read(path)
    return [str(problem).replace(f"{path.parent}/", "") for problem in refused.value.problems]


def test_reference_cluster_is_the_one_of_the_book() -> None:
    cluster = _read("inventories/home.py")
    assert [host.name for host in cluster.servers] == ["node2", "node3", "node4"]
    assert [host.name for host in cluster.agents] == [
        "node5",
        "node6",
        "node-hp-1",
        "node-hp-2",
        "node-hp-3",
    ]
    assert {host.name: str(host.ip) for host in cluster.hosts if not host.in_cluster} == {
        "gateway": "10.0.0.1",
        "node1": "10.0.0.11",
    }
    assert cluster.datastore == "etcd"
    assert cluster.secrets_file == "secrets/home.sops.yaml"


def test_small_cluster_is_one_host_with_sqlite() -> None:
    cluster = _read("inventories/small.py")
    assert [host.name for host in cluster.members] == ["pi"]
    assert cluster.datastore == "sqlite"


def test_lab_follows_from_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "lab.json"
    record.write_text(json.dumps(LAB))
    monkeypatch.setenv("LAB_STATE", str(record))
    inventory = load("inventories/lab.py")
    cluster = cluster_of(inventory, secrets_needed=False)
    assert [(host.name, host.role) for host in cluster.hosts] == [
        ("node1", "servers"),
        ("node2", "agents"),
    ]
    assert cluster.k3s.source.mirror == LAB["mirror"]
    assert cluster.k3s.source.checksums == "beside"
    assert cluster.secrets_file == str(tmp_path / "secrets.sops.yaml")
    assert inventory.get_host("node1").data.ssh_key == "build/lab/id_ed25519"


def test_the_lab_leaves_out_exactly_what_a_container_shares_with_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "lab.json"
    record.write_text(json.dumps(LAB))
    monkeypatch.setenv("LAB_STATE", str(record))
    nodes = cluster_of(load("inventories/lab.py"), secrets_needed=False).nodes
    usual = type(nodes)().parts
    off = {part for part in type(usual).model_fields if not getattr(nodes.parts, part)}
    usually_off = {part for part in type(usual).model_fields if not getattr(usual, part)}
    assert off - usually_off == {"kernel_modules", "sysctl_machine", "swap"}
    assert set(nodes.ignore_preflight) == {
        "cgroup-v2", "dns-servers", "dns-answers",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("variable", "value"),
    [("LAB_STATE", "build/no-such-lab/lab.json"), ("LAB_NAME", "no-such-lab")],
)
def test_lab_that_is_not_up_is_one_line(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAB_STATE", raising=False)
    monkeypatch.setenv(variable, value)
    run = subprocess.run(
        [sys.executable, "-m", "pyinfra", "inventories/lab.py", "debug-inventory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    said = [line for line in run.stderr.splitlines() if not line.startswith("--> Loading")]
    assert said == ["no lab is up (build/no-such-lab/lab.json does not exist): run `make lab`"]


def test_inventory_that_is_missing_is_one_line() -> None:
    with pytest.raises(PyinfraError) as refused:
        load("inventories/hoem.py")
    known = "inventories/home.py, inventories/lab.py, inventories/small.py"
    expected = f"inventories/hoem.py: no such file: expected an inventory such as {known}"
    assert str(refused.value) == expected


@pytest.mark.parametrize("name", ["home", "small"])
def test_only_role_groups_use_sudo(name: str) -> None:
    inventory = load(f"inventories/{name}.py")
    for host in inventory:
        assert host.data.get("_sudo", False) == ("control" not in host.groups), host.name


def test_hosts_are_reached_by_address_unless_told_otherwise(project: Project) -> None:
    hosts = """
servers = [("pi", {"ip": "192.168.1.50", "arch": "arm64"})]
agents = [("pc", {"ip": "192.168.1.51", "arch": "amd64", "ssh_hostname": "pc.example.com"})]
control = ["@local"]
"""
    inventory = load(str(project(hosts, own=OWN)))
    prepare_hosts(inventory)
    found = {host.name: host.data.get("ssh_hostname") for host in inventory}
    assert found == {"pi": "192.168.1.50", "pc": "pc.example.com", "@local": None}


def test_host_of_another_connector_keeps_its_name(project: Project) -> None:
    hosts = 'servers = [("@fake/node1", {"ip": "192.168.1.50", "arch": "arm64"})]\n'
    cluster = _read(project(hosts, own=OWN))
    assert cluster.hosts[0].name == "node1"
    assert cluster.host("@fake/node1") is cluster.hosts[0]


def test_problems_name_the_file_that_is_wrong(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = """
servers = [
    ("pi", {"ip": "192.168.1.50", "arch": "arm64"}),
    ("pi", {"ip": "192.168.1.52", "arch": "arm64"}),
]
agents = [("pc", {"ip": "192.168.1.51", "arch": "amd46", "labell": {}})]
other = [("stray", {"ip": "192.168.1.53", "arch": "arm64"})]
"""
    path = project(hosts, own=f"{OWN}timezone = 'Mars'\n", agents="k3s = {}\nssh_user = 'ada'\n")
    name = path.stem
    assert _lines(path, monkeypatch) == [
        f"group_data/agents.py: k3s: belongs to the whole cluster: "
        f"expected it in group_data/all.py or group_data/{name}.py",
        f"{name}.py: pc: labell: unknown key; did you mean labels",
        f"{name}.py: pi: stands twice: expected every name once",
        f"{name}.py: pc: arch: amd46: expected one of amd64, arm64; did you mean amd64",
        f"{name}.py: stray: is in no group: "
        "expected one of the groups servers, agents, gateway, external",
        f"group_data/{name}.py: timezone: Mars: expected a time zone such as Europe/Madrid",
    ]


def test_secrets_that_are_none_are_problems(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "s.sops.yaml"
    hosts = 'servers = [("pi", {"ip": "192.168.1.50", "arch": "arm64"})]\n'
    inventory = load(str(project(hosts, own=f"{OWN}secrets_file = {str(file)!r}\n")))
    with pytest.raises(Problems, match=f"{file}: missing: expected the file that `make secrets"):
        cluster_of(inventory)
    file.write_text("k3s: {}\n")
    with pytest.raises(Problems, match=f"{file}: not encrypted: expected"):
        cluster_of(inventory)
    file.write_text("<<<<<<< mine\nk3s: ENC[AES256_GCM,data:x]\nsops: {}\n")
    with pytest.raises(Problems, match=f"{file}: damaged: expected it as sops wrote it"):
        cluster_of(inventory)


def test_inventory_without_our_groups_is_not_a_project(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.py"
    hosts.write_text('others = ["@local"]\n')
    assert not is_project(load(str(hosts)))
    assert is_project(load("inventories/small.py"))
