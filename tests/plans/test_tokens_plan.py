"""Plans of deploys/tokens.py, and what deploys/k3s.py says of tokens not in force."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import k3s_config, k3s_token
from tests.plans.planted import planted
from tests.plans.simulated import Planned, plan
from tests.plans.test_k3s_deploy_plan import AGENTS, MODEL, SERVERS, bare, living, nodes
from tests.unit.fake_api import FakeApi

DEPLOY = "deploys/tokens.py"
OLD = {"k3s.server_token": "the-former-server-token", "k3s.agent_token": "the-former-agent-token"}
NEW = {"k3s.server_token": "another-server-token", "k3s.agent_token": "another-agent-token"}
ROTATE = "Tokens | Rotate the server token"
REVIVE = "Tokens | Start the servers that are down with the tokens"


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A simulated API with five nodes."""
    server = FakeApi()
    for name in SERVERS + AGENTS:
        server.put("nodes", name)
    yield server
    server.stop()


def digest(token: str) -> str:
    return hashlib.sha256(f"{token}\n".encode()).hexdigest()


def held(name: str, files: dict[str, str], in_force: dict[str, str] | None = None) -> list[str]:
    """What the K3s fact prints on a member with these tokens."""
    tokens = (k3s_config.SERVER_TOKEN, k3s_config.AGENT_TOKEN)
    lines = [line for line in living(MODEL, MODEL.host(name)) if not line[5:].startswith(tokens)]
    ours = tokens if name in SERVERS else tokens[1:]
    own = [f"file\t{path}\t600\t{digest(files[k3s_token.FILES[path]])}" for path in ours]
    if name in SERVERS:
        own.append(f"token\t{digest((in_force or files)['k3s.server_token'])}")
    return [*own, *lines]


def cluster(
    folder: Path, api: FakeApi, secrets: dict[str, str], deploy: str, **hosts: list[str]
) -> Planned:
    """A plan for a cluster with the old tokens, but for some hosts, and these secrets."""
    lines = {name: held(name, OLD) for name in SERVERS + AGENTS} | hosts
    return plan(folder, nodes(lines, api), deploy, **planted(folder, secrets))


def adopt(name: str) -> str:
    return f"Tokens | {name}: start with the tokens"


def test_one_server_tells_k3s_then_servers_and_agents_start_one_by_one(
    tmp_path: Path, api: FakeApi
) -> None:
    found = cluster(tmp_path, api, NEW, DEPLOY)
    assert found.code == 0, found.text
    assert list(found.changed) == [ROTATE, *map(adopt, SERVERS + AGENTS)]
    assert found.changed[ROTATE] == ["node1"]
    for first, second in zip(SERVERS + AGENTS, [*SERVERS[1:], *AGENTS, ""], strict=True):
        if second:
            barrier = found.order.index(f"Tokens | {first} is done")
            assert found.order.index(adopt(first)) < barrier < found.order.index(adopt(second))


def test_with_the_agents_token_as_it_is_no_agent_is_touched(tmp_path: Path, api: FakeApi) -> None:
    secrets = NEW | {"k3s.agent_token": OLD["k3s.agent_token"]}
    found = cluster(tmp_path, api, secrets, DEPLOY)
    assert list(found.changed) == [ROTATE, *map(adopt, SERVERS)]


def test_tokens_in_force_are_an_empty_plan(tmp_path: Path, api: FakeApi) -> None:
    found = cluster(tmp_path, api, OLD, DEPLOY)
    assert (found.code, found.changed) == (0, {}), found.text


def test_a_rotation_that_was_broken_off_is_not_begun_again(tmp_path: Path, api: FakeApi) -> None:
    half = held("node1", NEW | {"k3s.server_token": OLD["k3s.server_token"]}, in_force=NEW)
    done = held("node2", NEW)
    found = cluster(tmp_path, api, NEW, DEPLOY, node1=half, node2=done)
    assert found.code == 0, found.text
    assert list(found.changed) == [adopt(name) for name in ("node1", "node3", *AGENTS)]


def test_a_first_server_that_started_again_too_early_tells_k3s_all_the_same(
    tmp_path: Path, api: FakeApi
) -> None:
    given = held("node1", OLD | {"k3s.agent_token": NEW["k3s.agent_token"]})
    down = [line.replace("ActiveState=active", "ActiveState=activating") for line in given]
    found = cluster(tmp_path, api, NEW, DEPLOY, node1=down)
    assert found.code == 0, found.text
    assert list(found.changed) == [ROTATE, *map(adopt, SERVERS + AGENTS)]


def test_servers_that_a_power_cut_left_down_start_together(tmp_path: Path, api: FakeApi) -> None:
    told = held("node1", NEW | {"k3s.server_token": OLD["k3s.server_token"]}, in_force=NEW)
    lines = {"node1": told, "node2": held("node2", OLD), "node3": held("node3", NEW)}
    down = {
        name: [line.replace("ActiveState=active", "ActiveState=activating") for line in found]
        for name, found in lines.items()
    }
    found = cluster(tmp_path, api, NEW, DEPLOY, **down)
    assert found.code == 0, found.text
    assert list(found.changed) == [REVIVE, *map(adopt, AGENTS)]
    assert sorted(found.changed[REVIVE]) == ["node1", "node2"]


def test_a_server_that_is_no_member_yet_is_left_alone(tmp_path: Path, api: FakeApi) -> None:
    found = cluster(tmp_path, api, NEW, DEPLOY, node1=bare()["node1"])
    assert found.code == 0, found.text
    assert list(found.changed) == [ROTATE, *map(adopt, [*SERVERS[1:], *AGENTS])]
    assert found.changed[ROTATE] == ["node2"]


def test_a_server_left_out_is_refused(tmp_path: Path, api: FakeApi) -> None:
    lines = {name: held(name, OLD) for name in SERVERS + AGENTS}
    limit = ("--limit", "node1", "--limit", "node2")
    found = plan(tmp_path, nodes(lines, api), DEPLOY, *limit, **planted(tmp_path, NEW))
    assert found.code == 1
    assert "node3 is not part of this run: all servers must take part" in found.text


def test_without_the_key_it_is_refused(tmp_path: Path, api: FakeApi) -> None:
    lines = {name: held(name, OLD) for name in SERVERS + AGENTS}
    found = plan(tmp_path, nodes(lines, api), DEPLOY)
    assert found.code == 1
    assert "no age key to open" in found.text and "Traceback" not in found.text


def test_k3s_refuses_other_tokens_and_names_the_deploy(tmp_path: Path, api: FakeApi) -> None:
    found = cluster(tmp_path, api, NEW, "deploys/k3s.py")
    assert found.code == 1
    said = [line for line in found.text.splitlines() if "_token" in line]
    assert sorted(said, reverse=True) == [
        f"--> {name}: the secrets hold another one than the cluster: deploys/tokens.py puts it in "
        "force; or put the former one back"
        for name in NEW
    ]


def test_a_plan_without_the_key_says_that_tokens_are_not_compared(
    tmp_path: Path, api: FakeApi
) -> None:
    lines = {name: held(name, OLD) for name in SERVERS + AGENTS}
    found = plan(tmp_path, nodes(lines, api), "deploys/k3s.py")
    assert found.code == 0, found.text
    assert found.text.count("the join tokens cannot be compared: ") == 1


def test_a_node_that_is_no_member_yet_gets_the_token_of_today(tmp_path: Path, api: FakeApi) -> None:
    api.remove("nodes", "node5")
    lines = {name: held(name, NEW) for name in SERVERS + AGENTS}
    written = {}
    for when, secrets in (("before", OLD), ("today", NEW)):
        own = f"file\t{k3s_config.AGENT_TOKEN}\t600\t{digest(secrets['k3s.agent_token'])}"
        lines["node5"] = [own, *bare()["node5"]]
        folder = tmp_path / when
        folder.mkdir()
        found = plan(folder, nodes(lines, api), "deploys/k3s.py", **planted(folder, NEW))
        assert found.code == 0, found.text
        written[when] = found.changed.get("K3s release | Put the join tokens on the nodes")
    assert written == {"before": ["node5"], "today": None}
