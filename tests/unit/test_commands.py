"""What plan, drift and status print, and their exit codes; the runs behind them are given."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.answer import Forbidden, Present, Unreachable
from cluster.node import Node, parse_node
from commands import drift, plan, status
from commands.look import Report
from facts.certificates import Certificate, Certificates
from facts.k3s import K3s
from tests.unit import certificates
from tests.unit.cluster_example import example

NOISE = """--> Loading config...
    [node1] Connected
    Loading: deploys/site.py
    inventories/home.py: an even number of servers
"""


def operation(name: str, *hosts: str, maybe: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "names": [name],
        "hosts_with_change": list(hosts),
        "hosts_with_conditional_change": list(maybe),
    }


@pytest.fixture
def pyinfra(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The run behind a command: what it was called with, and what it answers."""
    found = SimpleNamespace(code=0, operations=[], words=[])

    def run(words: list[str], **_: Any) -> SimpleNamespace:
        found.words = words
        output = json.dumps({"plan": found.operations, "results": None})
        return SimpleNamespace(returncode=found.code, stdout=output, stderr=NOISE)

    monkeypatch.setattr(subprocess, "run", run)
    return found


def test_plan_lists_changes_by_phase(
    pyinfra: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    pyinfra.operations = [
        operation("System | Packages", "node1", "node2"),
        operation("System | Journal"),
        operation("K3s servers | node1: restart", "node1", maybe=("node3",)),
    ]
    assert plan.main(["inventories/home.py"]) == 0
    said = capsys.readouterr()
    assert [line.rstrip() for line in said.out.splitlines()] == [
        "Operation         Hosts",
        "System",
        "  Packages        node1, node2",
        "K3s servers",
        "  node1: restart  node1; perhaps node3",
        "2 operations would change 3 hosts",
    ]
    assert said.err == "inventories/home.py: an even number of servers\n"


@pytest.mark.parametrize(
    ("operations", "code", "exit_code"),
    [
        ([operation("a | b")], 0, 0),
        ([operation("a | b", maybe=("node1",))], 0, 0),
        ([operation("a | b", "node1")], 0, 2),
        ([operation("a | b", "node1")], 1, 1),
    ],
)
def test_drift_says_by_its_exit_code(
    pyinfra: SimpleNamespace, operations: list[dict[str, Any]], code: int, exit_code: int
) -> None:
    pyinfra.operations, pyinfra.code = operations, code
    assert drift.main(["inventories/home.py"]) == exit_code


def test_what_a_failed_dry_run_said_is_shown_without_its_stages(
    pyinfra: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    pyinfra.code = 1
    assert plan.main(["inventories/home.py"]) == 1
    assert capsys.readouterr().err.splitlines() == NOISE.splitlines()[1:]


@pytest.mark.parametrize(
    ("given", "deploy", "more"),
    [
        (["i.py"], "deploys/site.py", []),
        (["i.py", "--limit", "node4"], "deploys/site.py", ["--limit", "node4"]),
        (["i.py", "deploys/k3s.py", "-v"], "deploys/k3s.py", ["-v"]),
    ],
)
def test_options_go_to_pyinfra(
    pyinfra: SimpleNamespace, given: list[str], deploy: str, more: list[str]
) -> None:
    plan.main(given)
    assert pyinfra.words[3:] == ["i.py", deploy, "--dry", "--json", *more]


def node(name: str, ready: bool = True, **changes: Any) -> Node:
    condition = {"type": "Ready", "status": str(ready), "message": "no network"}
    found = parse_node(
        {
            "metadata": {"name": name, "uid": name, "resourceVersion": "1"},
            "status": {
                "conditions": [condition],
                "nodeInfo": {"kubeletVersion": "v1.36.3+k3s1"},
            },
        }
    )
    return replace(found, **changes)


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def report(**changes: Any) -> Report:
    model = example(servers=1, agents=1)
    nodes = {"node1": node("node1", etcd_voter=True), "node2": node("node2", schedulable=False)}
    values: dict[str, Any] = {
        "cluster": model,
        "nodes": Present(nodes),
        "migrations": Present([]),
        "server": "node1",
        "k3s": {name: K3s(version="v1.36.3+k3s1") for name in nodes},
        "certificates": {
            "node1": (Certificate("server/tls/a.crt", "2026-12-01T00:00:00+00:00"),),
        },
    }
    return Report(**values | changes)


def test_status_of_a_cluster_that_is_well() -> None:
    version = report().cluster.k3s.version
    assert list(status.lines(report(), NOW)) == [
        f"pi: K3s {version} wanted; the API of node1 answers",
        "",
        "Node   Role    Installed     Kubelet       Ready  Pods      etcd",
        "node1  server  v1.36.3+k3s1  v1.36.3+k3s1  yes    yes       votes",
        "node2  agent   v1.36.3+k3s1  v1.36.3+k3s1  yes    cordoned  -",
        "",
        "certificates: none of 1 expires within 120 days",
        "migrations: none",
    ]


def test_status_names_what_is_not_well() -> None:
    found = report(
        nodes=Present({"node1": node("node1", ready=False, etcd_voter=False), "old": node("old")}),
        k3s={"node1": None},
        unreachable={"node2": "Could not connect"},
        certificates={
            "node1": (
                Certificate("server/tls/a.crt", "2026-01-31T00:00:00+00:00"),
                Certificate("server/tls/c.crt", "2026-01-31T12:00:00+00:00"),
                Certificate("server/tls/b.crt", "2025-12-31T00:00:00+00:00"),
                Certificate("server/tls/later.crt", "2026-08-31T00:00:00+00:00"),
            )
        },
        migrations=Present([{"metadata": {"name": "migration-7"}}]),
    )
    said = "\n".join(status.lines(found, NOW))
    assert max(map(len, said.splitlines())) <= 80
    for part in (
        "no: no network",
        "no vote",
        "no node",
        "not in the inventory: old",
        "unreachable: node2: Could not connect",
        "node1            2025-12-31  1 ago    server/tls/b.crt",
        "node1            2026-01-31  30       server/tls/a.crt, server/tls/c.crt",
        "migrations: migration-7",
    ):
        assert part in said
    assert "later.crt" not in said


def test_status_without_an_api_says_why() -> None:
    away = Unreachable("; ".join(f"node{number}: SSH error (no banner)" for number in (1, 2, 3)))
    said = list(status.lines(report(nodes=away, migrations=away), NOW))
    assert max(map(len, said)) <= 80
    end = said.index("")
    whole = " ".join(line.strip() for line in said[:end])
    assert whole.endswith(f"no API: unreachable: {away.reason}")
    assert said[-1] == "migrations: not known"
    assert ["node1", "server", "v1.36.3+k3s1", "?", "-", "-", "-"] in [
        line.split() for line in said
    ]


def test_migrations_that_may_not_be_read_are_said_with_the_reason() -> None:
    said = list(status.lines(report(migrations=Forbidden("configmaps")), NOW))
    assert said[-1] == "migrations: not known (forbidden: configmaps)"


def test_certificates_are_read_from_the_files() -> None:
    pem = certificates.make("node1").pem.decode()
    lines = ["# server/tls/a.crt", *pem.splitlines(), "# server/tls/broken.crt", "nonsense"]
    (found,) = Certificates().process(lines)
    assert found.path == "server/tls/a.crt"
    assert datetime.fromisoformat(found.expires).tzinfo is not None
