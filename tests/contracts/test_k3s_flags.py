"""Our table of K3s' settings against K3s' own flags."""

from pathlib import Path

import pytest
import yaml

from cluster import k3s_settings

CONTRACT = Path(__file__).parents[3] / "shared" / "contracts" / "k3s" / "flags.yaml"


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
