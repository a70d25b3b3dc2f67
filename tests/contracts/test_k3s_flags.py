"""Our table of K3s' settings against K3s' own flags."""

import re
from pathlib import Path

import pytest
import yaml

from cluster import k3s_settings, versions

CONTRACT = Path(__file__).parents[3] / "shared" / "contracts" / "k3s" / "flags.yaml"

STAND_IN = Path(__file__).parents[1] / "lab" / "standin" / "flags.yaml"


@pytest.mark.skipif(not CONTRACT.exists(), reason="the contracts of K3s are not on this machine")
def test_the_table_agrees_with_k3s_own_flags() -> None:
    contract = yaml.safe_load(CONTRACT.read_text())
    server = {flag["name"]: flag for flag in contract["server"]}
    agent = {flag["name"] for flag in contract["agent"]}
    kinds = {"bool": bool, "int": int, "slice": list}
    for key, setting in k3s_settings.SETTINGS.items():
        flag = server[key]
        assert (kinds.get(flag["type"], str) is setting.kind) or flag["repeatable"], key
        assert (key in agent) == setting.agent, key


@pytest.mark.parametrize("file", [CONTRACT, STAND_IN], ids=["K3s", "the stand-in"])
def test_every_release_gets_the_keys_that_it_knows(file: Path) -> None:
    if not file.exists():
        pytest.skip("the contracts of K3s are not on this machine")
    compared = 0
    for flag in yaml.safe_load(file.read_text())["server"]:
        # The first releases, one a minor; remarks follow, and some have a year alone.
        since = re.match(r"\d+(\.\d+)+(/\d+(\.\d+)+)*", str(flag.get("since", "")))
        if since and (setting := k3s_settings.SETTINGS.get(flag["name"])):
            for version in versions.K3S_RELEASES:
                known = versions.has(version, since.group())
                assert versions.has(version, setting.since) == known, (flag["name"], version)
                compared += 1
    assert compared
