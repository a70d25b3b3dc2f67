"""Planted secrets are searched for in everything pyinfra can be asked to print."""

from __future__ import annotations

import getpass
import grp
import os
import stat
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.plans.command import Ended, pyinfra
from tests.plans.planted import planted

PLANTED = {
    "k3s.server_token": "planted-server-token-4711",
    "k3s.agent_token": "planted-agent-token-4712",
    "etcd_s3.access_key": "planted-access-key-4713",
    "etcd_s3.secret_key": "planted-secret-key-4714",
}

INVENTORY = """
servers = [("@fake/node1", {"ip": "10.0.0.11", "arch": "arm64", "fake_delay": 0})]
control = ["@local"]
"""

GROUP_DATA = """
from runtime.secrets import secret

cluster_name = "leaks"
domain = "home.arpa"
network = {"lan": "10.0.0.0/24", "gateway": "10.0.0.1", "dns": ["10.0.0.1"]}
k3s = {
    "datastore": "etcd",
    "snapshots": {"s3": {"endpoint": "s3.example.com", "bucket": "etcd"}},
    "registries": {"configs": {"r.example.com": {"auth": {"password": secret("k3s.agent_token")}}}},
}
secrets_file = "FOLDER/planted.sops.yaml"
age_key_file = "FOLDER/age.txt"
_sudo = False
"""

# Every way in which operations use secrets: a file, standard input, an argument, the environment.
DEPLOY = """
from pyinfra import host
from pyinfra.api import StringCommand
from pyinfra.operations import server

from operations import secret
from runtime.secrets import secret as named

secret.file(
    name="Put the token in place",
    path="FOLDER/" + host.name.replace("/", "-") + "/token",
    content=named("k3s.server_token"),
    user="USER",
    group="GROUP",
)
secret.file(path="FOLDER/unnamed", content=named("etcd_s3.config"), user="USER", group="GROUP")
server.shell(
    commands=[StringCommand("test", "$ACCESS_KEY", "!=", named("k3s.agent_token"))],
    _env={"ACCESS_KEY": named("etcd_s3.access_key")},
)
"""


class Project(NamedTuple):
    """A folder with an inventory of one fake and one local host, and planted secrets."""

    folder: Path

    def run(self, *arguments: str, deploy: bool = True) -> Ended:
        """Run pyinfra in the project's root."""
        deploys = [str(self.folder / "deploy.py")] if deploy else []
        return pyinfra(str(self.folder / "leaks.py"), *arguments, *deploys)

    @property
    def token(self) -> Path:
        """The file that the deploy really writes, on this machine."""
        return self.folder / "@local" / "token"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose secrets are planted."""
    names = {
        "FOLDER": str(tmp_path),
        "USER": getpass.getuser(),
        "GROUP": grp.getgrgid(os.getgid()).gr_name,
    }
    (tmp_path / "group_data").mkdir()
    for name, text in (
        ("leaks.py", INVENTORY),
        ("group_data/leaks.py", GROUP_DATA),
        ("deploy.py", DEPLOY),
    ):
        for key, value in names.items():
            text = text.replace(key, value)
        (tmp_path / name).write_text(text)
    planted(tmp_path, PLANTED)
    return Project(tmp_path)


def _leaks(run: Ended) -> list[str]:
    shown = run.stdout + run.stderr
    return [name for name, value in PLANTED.items() if value in shown]


@pytest.mark.parametrize(
    "options",
    [
        ["-vv", "--diff", "-y"],
        ["-vvv", "--debug", "-y"],
        ["-vvv", "--diff", "--debug-operations"],  # ends before it executes
        ["--json", "-vvv", "-y"],
        ["--json", "-vvv", "--diff"],
    ],
    ids=" ".join,
)
def test_no_output_shows_a_secret(project: Project, options: list[str]) -> None:
    run = project.run(*options)
    assert run.returncode == 0, run.stderr
    assert _leaks(run) == []
    assert project.token.exists() == ("-y" in options)


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_debug_inventory_shows_no_secret(project: Project, options: list[str]) -> None:
    run = project.run(*options, "debug-inventory", deploy=False)
    assert run.returncode == 0, run.stderr
    assert "*MASKED*" in run.stdout + run.stderr
    assert _leaks(run) == []


def test_file_is_written_once_for_its_owner_only(project: Project) -> None:
    run = project.run("-v", "-y")
    assert run.returncode == 0, run.stderr
    assert _leaks(run) == []
    assert project.token.read_text() == PLANTED["k3s.server_token"] + "\n"
    assert stat.S_IMODE(project.token.stat().st_mode) == 0o600
    assert list(project.token.parent.iterdir()) == [project.token]
    before = project.token.stat()
    run = project.run("-v", "-y")
    assert "holds k3s.server_token" in run.stderr
    assert project.token.stat() == before


def test_plan_without_the_key_says_what_it_cannot_compare(project: Project) -> None:
    project.run("-y")
    (project.folder / "age.txt").unlink()
    plan = project.run("--dry")
    assert plan.returncode == 0, plan.stderr
    assert f"{project.token} cannot be compared without the key" in plan.stderr


def test_run_without_the_key_changes_nothing(project: Project) -> None:
    (project.folder / "age.txt").unlink()
    run = project.run("-y")
    assert run.returncode == 1
    said = run.stderr.splitlines()
    (line,) = [line for line in said if "no age key" in line]
    assert line.startswith(f"--> no age key to open {project.folder}/planted.sops.yaml: ")
    assert "--> refused; nothing was changed" in said
    assert "Traceback" not in run.stderr
    assert not project.token.exists()
    assert not (project.folder / "unnamed").exists()
