"""Other join tokens: what must not be, in which order, and what K3s is told."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import k3s_config, k3s_token
from cluster.k3s_plan import Seen
from cluster.k3s_token import Held
from tests.unit.cluster_example import example

CLUSTER = example()
SERVERS = ("node1", "node2", "node3")
ALL = {host.name for host in CLUSTER.members}
OLD, NEW = Held("old", "old-agents", "old"), Held("new", "new-agents", "new")
LIVING = {name: Seen(name, datastore="etcd", running=True) for name in SERVERS}


def refusals(
    held: dict[str, Held] | None = None,
    survey: dict[str, Seen] | None = None,
    wanted: Held = NEW,
    taking_part: set[str] | None = None,
) -> list[str]:
    held = dict.fromkeys(SERVERS, OLD) | (held or {})
    return k3s_token.refusals(CLUSTER, LIVING | (survey or {}), held, wanted, taking_part or ALL)


def test_a_whole_cluster_may_get_other_tokens() -> None:
    assert refusals() == []
    assert refusals(wanted=NEW._replace(agent=OLD.agent)) == []


def test_the_agents_token_goes_only_with_another_server_token() -> None:
    assert refusals(wanted=OLD._replace(agent="new-agents")) == [
        "k3s.agent_token is another one and k3s.server_token is not: K3s stores the agents' token "
        "only together with a new server token; make both anew"
    ]


def test_every_server_must_take_part() -> None:
    away = Seen("node2", reached=False, reason="timed out")
    found = refusals(survey={"node2": away}, taking_part=ALL - {"node3"})
    assert found == [
        "node2 was not reached (timed out): all servers must take part",
        "node3 is not part of this run: all servers must take part",
    ]


def test_a_server_that_is_down_must_be_started_before_the_rotation_begins() -> None:
    down = {"node3": replace(LIVING["node3"], running=False)}
    assert refusals(survey=down) == [
        "K3s does not run on node3: start it first (systemctl start k3s)"
    ]


def test_servers_that_wait_for_a_restore_are_not_to_be_started() -> None:
    waits = {"node3": replace(LIVING["node3"], running=False, restoring="/x/nightly")}
    (line,) = refusals(survey=waits)
    assert line.startswith("a restore of /x/nightly is not finished on node3: ")


def test_the_first_server_may_be_down_once_it_has_the_agents_token() -> None:
    """It started again before K3s stored that; the others must run all the same."""
    given = {"node1": OLD._replace(agent="new-agents")}
    down = {"node1": replace(LIVING["node1"], running=False)}
    assert refusals(given, down) == []
    assert refusals(None, down) == [
        "K3s does not run on node1: start it first (systemctl start k3s)"
    ]
    both = down | {"node2": replace(LIVING["node2"], running=False)}
    assert refusals(given, both) == [
        "K3s does not run on node2: start it first (systemctl start k3s)"
    ]


def test_a_rotation_that_was_broken_off_goes_on_with_servers_that_it_left_down() -> None:
    down = {"node3": replace(LIVING["node3"], running=False)}
    held = {"node1": Held("old", "new-agents", "new")}
    assert refusals(held, down) == []


def test_a_rotation_that_was_broken_off_is_ended_before_another_begins() -> None:
    third = {"node1": Held("old", "third-agents", "third")}
    started = {"node1": Held("third", "third-agents", "third")}
    down = {name: replace(LIVING[name], running=False) for name in SERVERS}
    for held, wanted in ((third, NEW), (third, OLD), (started, OLD)):
        assert refusals(held, wanted=wanted) == refusals(held, down, wanted)
        (line,) = refusals(held, wanted=wanted)
        assert line.startswith("node1: a rotation to another k3s.server_token was broken off")
    assert refusals(started) == []


def test_a_server_whose_files_are_new_and_whose_start_was_cut_off_goes_on() -> None:
    done, cut = NEW, Held("new", "new-agents", "old")
    assert refusals({"node1": done, "node2": cut}) == []


def test_a_member_tells_k3s_and_no_server_that_is_new() -> None:
    assert k3s_token.teller(CLUSTER, LIVING) == "node1"
    assert k3s_token.teller(CLUSTER, LIVING | {"node1": Seen("node1")}) == "node2"


def test_k3s_is_told_once() -> None:
    assert not k3s_token.begun(dict.fromkeys(SERVERS, OLD), NEW)
    assert k3s_token.begun({"node1": OLD._replace(in_force="new"), "node2": OLD}, NEW)


def test_without_a_cluster_there_is_nothing_to_rotate() -> None:
    bare = {name: Seen(name) for name in SERVERS}
    (line,) = refusals(survey=bare)
    assert line.startswith("no server has K3s' data: deploys/k3s.py")


def test_a_token_that_is_not_there_yet_does_not_differ() -> None:
    assert k3s_token.differing(Held(agent="old-agents"), NEW) == ["k3s.agent_token"]
    assert k3s_token.differing(Held(), NEW) == []


def test_a_token_that_k3s_was_given_differs_from_the_one_it_started_with() -> None:
    assert k3s_token.differing(Held("old", "old-agents", "new"), OLD) == ["k3s.server_token"]
    assert k3s_token.differing(NEW, NEW) == []


@pytest.mark.parametrize("token", ["0123456789abcdef", r"""a"b\c'd$e%f`g&h i!"""])
def test_the_request_holds_the_tokens_and_no_argument_does(tmp_path: Path, token: str) -> None:
    """Simulated: curl, which keeps its arguments and what it reads."""
    server = tmp_path / "server"
    server.mkdir()
    (server / "token").write_text(f"K10{'0' * 64}::server:former-{token}\n")
    curl = tmp_path / "curl"
    curl.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\ncat > {tmp_path}/read\n')
    curl.chmod(0o755)
    script = k3s_token.rotate_script(6443).replace(k3s_config.DATA, str(tmp_path))
    done = subprocess.run(
        ["sh", "-c", script],
        input=f"{token}\n",
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout + done.stderr == ""
    arguments = (tmp_path / "arguments").read_text()
    assert "--request PUT" in arguments and "https://127.0.0.1:6443/v1-k3s/token" in arguments
    assert token not in arguments
    user, data = (tmp_path / "read").read_text().splitlines()
    # curl takes \\ and \" inside of quotes for the characters themselves, as JSON does.
    assert json.loads(user.removeprefix("user = ")) == f"server:former-{token}"
    assert json.loads(json.loads(data.removeprefix("data = "))) == {"newToken": token}
