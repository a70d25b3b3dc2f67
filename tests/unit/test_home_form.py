"""What group_data/home.py has in comments is allowed: taken out of them, it makes a cluster."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pyinfra_cli import util

from cluster.model import Cluster
from runtime import inventory

ROOT = Path(__file__).parents[2]


def uncommented(text: str) -> str:
    """The text with every commented setting in force, and what its comments tell to take out."""
    lines = []
    inside = False
    for line in text.replace('"s3_endpoint": "s3.picluster.example.com:9000"', "").splitlines():
        inside = bool(re.match(r"# \w+ = ", line)) or (inside and line.startswith("#"))
        lines.append(line.removeprefix("# ") if inside else line)
    return re.sub(r'^( +)# ("api": )', r"\1\2", "\n".join(lines), flags=re.MULTILINE)


def test_the_services_and_the_address_of_the_api_in_comments_make_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("inventories", "group_data"):
        (tmp_path / folder).mkdir()
        for file in (ROOT / folder).glob("*.py"):
            (tmp_path / folder / file.name).write_text(file.read_text())
    home = tmp_path / "group_data" / "home.py"
    home.write_text(uncommented(home.read_text()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(util, "PYTHON_CODES", {})  # what pyinfra has read, by name alone
    found: Cluster = inventory.cluster_of(
        inventory.load("inventories/home.py"), secrets_needed=False
    )
    assert found.services.gateway and found.services.san and found.acme.email
    assert found.network.api.vip and found.backup.s3_endpoint == "s3.picluster.example.com:9000"
    assert found.warnings == ()
