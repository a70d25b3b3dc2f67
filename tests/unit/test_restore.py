"""Which snapshot is restored where, what is refused, and how a killed run goes on."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import restore
from cluster.k3s_config import DATA, JOIN, KEEP_TOKEN, SERVER_TOKEN, TOKENS
from cluster.k3s_plan import Seen
from cluster.leftovers import RESTORE_UNIT
from cluster.model import Cluster
from cluster.restore import BadRequest, Mark, Plan, Request, Server, Snapshot
from facts import snapshots
from facts.k3s import K3s
from facts.snapshots import parse
from operations import restore as operations
from tests.unit.cluster_example import example

CLUSTER = example()
ALL = frozenset(host.name for host in CLUSTER.members)
PATH = "/var/lib/rancher/k3s/server/db/snapshots/on-demand-node2-1700000000"
TAKEN = Snapshot("on-demand-node2-1700000000", "node2", 4096, 1700000000, PATH)
OTHER = Snapshot("on-demand-node1-1700000001", "node1", 4096, 1700000001, "/x/on-demand-node1")
IN_S3 = Snapshot("nightly-node1-5", "node1", 10, 5, "s3://etcd/home/nightly-node1-5")
SERVERS = {"node1": Server((OTHER,)), "node2": Server((TAKEN,)), "node3": Server()}
PLAN = Plan("7", "node2", PATH)


def ask(
    name: str = TAKEN.name, server: str = "", confirm: str = "pi", again: bool | None = None
) -> Request:
    return Request(False, name, server, confirm, again)


def survey(cluster: Cluster = CLUSTER, **changes: Seen) -> dict[str, Seen]:
    seen = {
        host.name: Seen(host.name, datastore="etcd", version="v1.36.2+k3s1")
        for host in cluster.members
    }
    return seen | changes


def refusals(
    wanted: Request | None = None,
    snapshot: Snapshot = TAKEN,
    seen: dict[str, Seen] | None = None,
    servers: dict[str, Server] | None = None,
    active: frozenset[str] = ALL,
    cluster: Cluster = CLUSTER,
) -> list[str]:
    wanted, servers = wanted or ask(), servers or SERVERS
    plan = restore.plan(cluster, wanted, snapshot, servers, "7")
    return restore.refusals(cluster, wanted, snapshot, plan, seen or survey(), servers, active)


def test_by_name_or_path_the_server_that_has_it_restores() -> None:
    for given in (TAKEN.name, TAKEN.location):
        chosen = restore.choose(ask(given), SERVERS)
        assert restore.plan(CLUSTER, ask(given), chosen, SERVERS, "7") == PLAN
    assert refusals() == []


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadRequest, match=r"did you mean on-demand-node2-1700000000 "):
        restore.choose(ask("on-demand-node2-170000000"), SERVERS)


def test_a_snapshot_of_another_server_is_not_looked_for_elsewhere() -> None:
    with pytest.raises(BadRequest, match="lies on node2, not on node1: leave from= out"):
        restore.choose(ask(server="node1"), SERVERS)


def test_the_same_name_in_two_places_needs_the_path() -> None:
    kept = TAKEN._replace(location=f"/var/backups/picluster/pi/{TAKEN.name}")
    servers = SERVERS | {"node2": Server((TAKEN, kept))}
    with pytest.raises(BadRequest, match="there are 2, name the path"):
        restore.choose(ask(), servers)
    assert restore.choose(ask(kept.location), servers) == kept


def test_from_a_bucket_any_server_restores() -> None:
    s3 = example(k3s={"snapshots": {"s3": {"endpoint": "s3.example.com", "bucket": "etcd"}}})
    wanted = ask(IN_S3.location, "node3")
    assert restore.choose(wanted, SERVERS, [IN_S3]) == IN_S3
    unknown = restore.choose(wanted, SERVERS)
    assert unknown.name == IN_S3.name and unknown.in_s3
    assert restore.plan(s3, wanted, IN_S3, SERVERS, "7").server == "node3"
    assert refusals(wanted, IN_S3, cluster=s3) == []
    assert refusals(wanted, IN_S3) == [
        "k3s.snapshots.s3 is not set, so K3s cannot read from a bucket"
    ]


def test_every_server_must_be_reached_and_take_part() -> None:
    away = survey(node3=Seen("node3", reached=False, reason="timed out"))
    assert refusals(seen=away) == [
        "node3 was not reached (timed out): a server that is left out would go on with the old "
        "state; all must take part"
    ]
    assert refusals(active=ALL - {"node3"}) == [
        "node3 is not part of this run: all servers must take part"
    ]
    assert refusals(active=ALL - {"node5"}) == []  # an agent may be away


def test_without_the_name_it_says_what_would_be_lost() -> None:
    lines = refusals(ask(confirm=""))
    assert lines[0].startswith(
        "restore of cluster pi from on-demand-node2-1700000000, taken 2023-11-14 22:13:20 UTC: "
        "its name is not typed"
    )
    assert "delete the datastore of node1, node3 and let them join again" in lines
    assert lines[-1] == "to do it, add --data confirm=pi"


def test_a_snapshot_that_does_not_fit_is_refused() -> None:
    assert refusals(snapshot=TAKEN._replace(size=0)) == [f"{TAKEN.name} is empty"]
    assert (
        "the cluster's datastore is etcd"
        in refusals(snapshot=TAKEN._replace(datastore="sqlite"))[0]
    )
    bare = survey(node2=Seen("node2"))
    assert refusals(seen=bare) == ["node2 has no K3s; run deploys/k3s.py first"]
    assert (
        refusals(ask(server="node4"))[0] == "from: node4: expected a server (node1, node2, node3)"
    )


OLD, NEW = f"{TOKENS}/0-aaaaaaaaaaaa", f"{TOKENS}/1700000050-bbbbbbbbbbbb"
ROTATED = Server((), None, {OLD: "aaaaaaaaaaaaa", NEW: "bbbbbbbbbbbbb"}, "bbbbbbbbbbbbb")
ALL_ROTATED = {
    "node1": ROTATED,
    "node2": replace(ROTATED, snapshots=(TAKEN,)),
    "node3": ROTATED,
}


@pytest.mark.parametrize(
    ("name", "time", "path"),
    [
        ("nightly-node2-1700000049", 1700000049, OLD),
        ("nightly-node2-1700000050", 1700000050, NEW),
        ("nightly-node2-1700000049.zip", 1800000000, OLD),  # the file was copied later
        ("by-hand", 1700000060, NEW),
        ("nightly-node2-1700000049", 0, OLD),  # in a bucket, known by its name only
    ],
)
def test_the_token_of_a_snapshot_is_the_one_in_force_when_it_was_taken(
    name: str, time: int, path: str
) -> None:
    taken = Snapshot(name, "node2", 1, time, f"/x/{name}")
    assert restore.token_of(taken, ROTATED.tokens) == path


def test_without_a_token_of_its_time_none_is_chosen() -> None:
    assert restore.token_of(TAKEN, {}) == ""
    assert restore.token_of(TAKEN, {f"{TOKENS}/1700000001-bbbbbbbbbbbb": "b"}) == ""
    plan = restore.plan(CLUSTER, ask(), TAKEN, SERVERS, "7")
    assert (plan.token, plan.token_file) == ("", "")


def test_a_snapshot_from_before_a_rotation_is_restored_with_its_token() -> None:
    plan = restore.plan(CLUSTER, ask(), TAKEN, ALL_ROTATED, "7")
    assert (plan.token, plan.token_file) == ("aaaaaaaaaaaaa", OLD)
    assert f"--token-file={OLD}" in restore.restore_script(plan)
    assert restore.token_file(plan, ROTATED) == OLD
    assert restore.token_file(plan, replace(ROTATED, token=plan.token)) == SERVER_TOKEN
    assert refusals(servers=ALL_ROTATED) == []
    warned = refusals(ask(confirm=""), servers=ALL_ROTATED)
    assert any(OLD in line and "k3s.server_token" in line for line in warned)


def test_a_run_that_goes_on_still_gives_the_token_to_the_other_servers() -> None:
    begun = ALL_ROTATED | {"node2": replace(ALL_ROTATED["node2"], token="aaaaaaaaaaaaa")}
    plan = restore.plan(CLUSTER, ask(), TAKEN, begun, "7")
    assert (plan.token, plan.token_file) == ("aaaaaaaaaaaaa", "")
    assert restore.token_file(plan, ROTATED) == OLD


def test_a_server_without_the_snapshots_token_is_named_with_what_to_copy() -> None:
    late = Server((), None, {NEW: "bbbbbbbbbbbbb"}, "bbbbbbbbbbbbb")
    lines = refusals(servers=ALL_ROTATED | {"node3": late})
    assert len(lines) == 1
    assert f"copy node2:{OLD} to node3:{TOKENS}/1700000000-node3 (0600) first" in lines[0]


def kept(folder: Any, token: str) -> list[str]:
    """Run the script that keeps the token in force, below a folder; the files there then."""
    file = folder / "server-token"
    file.write_text(token)
    script = KEEP_TOKEN.replace(TOKENS, f"{folder}/server/tokens").replace(SERVER_TOKEN, str(file))
    subprocess.run(["sh", "-e", "-c", script], check=True)
    return sorted(p.name for p in (folder / "server/tokens").iterdir())


def test_every_token_that_was_in_force_is_kept_once_and_only_root_reads_it(tmp_path: Any) -> None:
    (first,) = kept(tmp_path, "one\n")
    since, _, digest = first.partition("-")
    assert int(since) > 1700000000 and digest == hashlib.sha256(b"one\n").hexdigest()[:12]
    assert kept(tmp_path, "one\n") == [first]
    assert len(kept(tmp_path, "two\n")) == 2
    for file in (tmp_path / "server/tokens").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "server").stat().st_mode & 0o777 == 0o700


def test_the_first_kept_token_of_an_older_cluster_counts_from_its_beginning(tmp_path: Any) -> None:
    (tmp_path / "server/db").mkdir(parents=True)
    assert kept(tmp_path, "one\n")[0].startswith("0-")


def test_the_list_says_which_token_opens_a_snapshot() -> None:
    assert restore.token_word(TAKEN, ALL_ROTATED["node2"]) == "aaaaaaaaaaaa"
    newer = TAKEN._replace(name="x-node2-1700000099")
    assert restore.token_word(newer, ALL_ROTATED["node2"]) == "in use"
    assert restore.token_word(TAKEN, Server()) == "?"


def marked(location: str = PATH, id: str = "3", **steps: str) -> dict[str, Server]:
    """The servers with the steps that they have reached in a restore."""
    return {
        name: replace(server, mark=Mark(id, steps[name], location) if name in steps else None)
        for name, server in SERVERS.items()
    }


def test_the_same_restore_goes_on_and_another_one_begins_anew() -> None:
    found = restore.plan(CLUSTER, ask(), TAKEN, marked(node2="restored"), "7")
    assert (found.id, found.goes_on) == ("3", True)
    found = restore.plan(CLUSTER, ask(), TAKEN, marked("/other", node2="restored"), "7")
    assert (found.id, found.goes_on) == ("7", False)
    found = restore.plan(CLUSTER, ask(again=True), TAKEN, marked(node2="restored"), "7")
    assert (found.id, found.goes_on) == ("7", False)


def test_a_restore_goes_on_only_on_the_server_that_it_began_on() -> None:
    servers = marked(IN_S3.location, node1="stopped", node2="stopped", node3="restoring")
    found = restore.plan(CLUSTER, ask(IN_S3.location), IN_S3._replace(node=""), servers, "7")
    assert (found.server, found.id) == ("node3", "3")
    found = restore.plan(CLUSTER, ask(IN_S3.location, "node1"), IN_S3, servers, "7")
    assert (found.server, found.id) == ("node1", "7")


def test_what_an_older_restore_has_left_does_not_go_on() -> None:
    older = marked(node2="started", node3="joined", id="3")
    newer = marked(node1="stopped", id="10")
    found = restore.plan(CLUSTER, ask(), TAKEN, older | {"node1": newer["node1"]}, "99")
    assert (found.id, found.goes_on) == ("99", False)


DONE = {"node1": "joined", "node2": "started", "node3": "joined"}


def test_a_restore_that_all_servers_have_done_is_neither_ended_nor_repeated_unasked() -> None:
    (line,) = refusals(servers=marked(id="1700000100", **DONE))
    assert line == (
        f"{TAKEN.name} is back on all servers since the restore that began 2023-11-14 22:15:00 UTC "
        "and did not end: --data again=false restarts the agents and ends it; --data again=true "
        "puts the snapshot back once more, and what was written since then is lost"
    )
    for again in (True, False):
        assert refusals(ask(again=again), servers=marked(**DONE)) == []
    bare = {"node3": Seen("node3")}  # K3s has never run there
    assert refusals(servers=marked(node1="joined", node2="started"), seen=survey(**bare)) == [
        line.replace("2023-11-14 22:15:00", "1970-01-01 00:00:03")
    ]


@pytest.mark.parametrize("step", ["stopped", "cleared"])
def test_a_restore_that_a_server_waits_for_goes_on_unasked(step: str) -> None:
    cleared = survey(node3=Seen("node3", version="v1.36.2+k3s1"))
    assert refusals(servers=marked(**(DONE | {"node3": step})), seen=cleared) == []


def test_none_is_ended_where_none_is_under_way() -> None:
    assert refusals(ask(again=False)) == [
        f"again: false: no restore of {TAKEN.name} is under way; leave it out"
    ]


def test_who_is_to_confirm_reads_whether_the_restore_begins_or_goes_on() -> None:
    assert "begin with the first step" in refusals(ask(confirm=""))
    assert (
        "go on with the one that began 1970-01-01 00:00:03 UTC, without the steps that are done"
        in refusals(ask(confirm=""), servers=marked(node2="restored"))
    )


@pytest.mark.parametrize(
    ("mark", "step", "done"),
    [
        (None, "stopped", False),
        (Mark("7", "stopped", PATH), "stopped", True),
        (Mark("6", "started", PATH), "stopped", False),
        (Mark("7", "restoring", PATH), "restored", False),
        (Mark("7", "started", PATH), "restored", True),
        (Mark("7", "joined", PATH), "stopped", True),
        (Mark("7", "joined", PATH), "cleared", True),
        (Mark("7", "stopped", PATH), "cleared", False),
        (Mark("7", "joined", PATH), "restored", False),
    ],
)
def test_a_step_counts_as_done_from_its_mark_on(mark: Mark | None, step: str, done: bool) -> None:
    assert restore.reached(PLAN, mark, step) is done


@pytest.mark.parametrize(
    ("mark", "down", "stopped"),
    [
        (None, True, False),
        (Mark("6", "stopped", PATH), True, False),
        (Mark("7", "stopped", PATH), True, True),
        (Mark("7", "restoring", PATH), True, True),
        # Somebody has started K3s again, with the datastore from before.
        (Mark("7", "stopped", PATH), False, False),
        (Mark("7", "restoring", PATH), False, False),
        # K3s has been started by the restore itself, with the datastore of the snapshot.
        (Mark("7", "restored", PATH), False, True),
        (Mark("7", "started", PATH), False, True),
        (Mark("7", "cleared", PATH), False, True),
        (Mark("7", "joined", PATH), False, True),
    ],
)
def test_a_server_with_its_former_datastore_is_stopped_whatever_its_mark_says(
    mark: Mark | None, down: bool, stopped: bool
) -> None:
    assert restore.is_stopped(PLAN, mark, down) is stopped


def test_a_server_has_done_its_part_when_it_runs_again() -> None:
    for step in ("stopped", "restoring", "restored", "cleared"):
        assert restore.unfinished(f"7 {step} {PATH}") == PATH
    for line in (f"7 started {PATH}", f"7 joined {PATH}", "", "x stopped /y"):
        assert restore.unfinished(line) == ""


def test_marks_survive_writing_and_reading() -> None:
    command = restore.mark_command(PLAN, "restored")
    line = subprocess.run(
        ["sh", "-c", command[command.index("printf") : command.index(">")]],
        capture_output=True,
        text=True,
    ).stdout
    assert restore.read_mark(line.strip()) == Mark("7", "restored", PATH)
    assert restore.read_mark("7 dancing /x") is None
    assert restore.read_mark("") is None


def test_no_token_is_on_a_command_line_and_the_path_is_quoted() -> None:
    script = restore.restore_script(replace(PLAN, location="/a b/$(reboot)"))
    assert "token" not in script
    assert "--cluster-reset-restore-path='/a b/$(reboot)'" in script
    assert "--etcd-s3=false" in script
    bucket = restore.restore_script(replace(PLAN, location=IN_S3.location))
    assert "--cluster-reset-restore-path=nightly-node1-5 --etcd-s3=true" in bucket


def test_the_server_to_join_is_overridden_and_stays_for_a_start_after_a_failure() -> None:
    script = restore.restore_script(PLAN)
    assert " server --cluster-reset --server= " in script
    assert JOIN not in script


@pytest.mark.parametrize("join", [{}, {"cluster-init": True}, {"server": "https://x:6443"}])
def test_before_the_restore_its_server_knows_where_to_join(
    join: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "cluster", lambda: CLUSTER)
    monkeypatch.setattr(operations, "k3s_state", lambda _: K3s(join=join))
    monkeypatch.setattr(operations, "on_server", lambda *_: SERVERS["node2"])
    commands = [str(one) for one in operations.rebuild._inner(plan=PLAN, timeout=1)]
    writes = [JOIN in one for one in commands]
    assert writes == ([False] if "server" in join else [True, False])


def test_a_restore_that_still_runs_ends_with_k3s(tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    (tmp_path / "systemctl").chmod(0o755)
    script = restore.stop_script(replace(PLAN, location="/x")).replace(DATA, str(tmp_path))
    subprocess.run(["sh", "-c", f"PATH={tmp_path}:$PATH\n{script}"], check=True)
    stopped = [line for line in log.read_text().splitlines() if line.startswith("stop ")]
    assert stopped == [f"stop {RESTORE_UNIT}", "stop k3s.service"]
    assert (tmp_path / "restore").read_text() == "7 stopped /x\n"


@pytest.mark.parametrize(
    "make",
    [
        restore.stop_script,
        restore.restore_script,
        restore.copy_script,
        lambda plan: restore.token_script(plan.location),
    ],
)
def test_the_scripts_are_posix_shell(make: Any) -> None:
    checked = subprocess.run(["sh", "-n"], input=make(PLAN), capture_output=True, text=True)
    assert checked.stderr == ""


def test_snapshots_survive_when_a_server_is_cleared() -> None:
    words = restore.clear_script(PLAN).replace(";", " ").split()
    assert "/var/lib/rancher/k3s/server/db/etcd" in words
    assert not any(word in ("/var/lib/rancher/k3s/server/db", restore.SNAPSHOTS) for word in words)


def test_nodes_that_are_no_longer_there_are_named() -> None:
    lines = restore.strangers(CLUSTER, {"node1": None, "old": None})
    assert len(lines) == 1 and lines[0].endswith("deploys/reset.py --data forget=old")


def test_the_table_is_sorted_and_fits_80_columns() -> None:
    lines = restore.table([OTHER, TAKEN, IN_S3], ALL_ROTATED, 80).splitlines()
    assert lines[0].split() == ["SNAPSHOT", "NODE", "SIZE", "TAKEN", "(UTC)", "TOKEN", "WHERE"]
    assert [line.split()[0][:9] for line in lines if line.strip()][1] == "nightly-n"
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({}, "which snapshot"),
        ({"list": "yes"}, "list: 'yes': expected true or false"),
        ({"snapshot": "x", "again": 1}, "again: 1: expected true or false"),
    ],
)
def test_options_that_make_no_sense(data: dict[str, object], why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        restore.request(data)


def test_the_fact_reads_snapshots_copies_tokens_and_the_mark() -> None:
    found = parse(
        [
            f"etcd\t4096\t1700000000\t{PATH}",
            "sqlite\t10\t5\t/var/lib/rancher/k3s/server/db-before-v1.36.2-k3s1-5",
            f"kept\t{OLD}\tabc",
            "token\tdef",
            f"mark\t7 restored {PATH}",
            "end",
        ]
    ).of("node2")
    assert found.snapshots[0] == TAKEN
    assert found.snapshots[1].datastore == "sqlite"
    assert found.tokens == {OLD: "abc"} and found.token == "def"
    assert found.mark == Mark("7", "restored", PATH)
    with pytest.raises(ValueError, match="ended early"):
        parse(["token\tdef"])


def test_the_fact_s_script_runs_on_a_bare_host() -> None:
    script = restore.find_script("/nonexistent/snapshots")
    result = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == "end"


def test_objects_of_snapshots_in_a_bucket() -> None:
    item = {
        "metadata": {"name": "s3-x"},
        "spec": {"snapshotName": "x", "nodeName": "node1", "location": "s3://b/x"},
        "status": {"size": "5592Ki", "creationTime": "2026-01-02T03:04:05Z"},
    }
    assert snapshots.snapshot(item) == Snapshot("x", "node1", 5592 * 1024, 1767323045, "s3://b/x")
