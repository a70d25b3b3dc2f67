"""Who creates the cluster, who joins it, and when nobody may do anything."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cluster.k3s_plan import (
    Create,
    Join,
    Refuse,
    Seen,
    Stay,
    enter,
    keeper,
    other_voters,
    path,
    refusals,
)
from cluster.versions import K3S_DEFAULT, Step
from tests.unit.cluster_example import example

CLUSTER = example()
NAMES = {host.name for host in CLUSTER.hosts}


def member(name: str, **changes: object) -> Seen:
    seen = Seen(name, datastore="etcd", running=True, version=K3S_DEFAULT, ca="a", registered=True)
    return replace(seen, **changes)  # type: ignore[arg-type]


def fresh(name: str) -> Seen:
    return Seen(name)


def lost(name: str) -> Seen:
    return Seen(name, reached=False, reason="timed out")


def survey(*seen: Seen) -> dict[str, Seen]:
    return {one.name: one for one in seen}


BARE = survey(*(fresh(name) for name in sorted(NAMES)))


def test_on_bare_hosts_the_first_server_creates_and_the_rest_join_it() -> None:
    answers = [enter(CLUSTER, BARE, host) for host in CLUSTER.members]
    assert answers == [Create()] + [Join("https://10.0.0.11:6443")] * 4
    assert refusals(CLUSTER, BARE, NAMES) == []


def test_a_wiped_first_server_joins_the_others() -> None:
    found = survey(fresh("node1"), member("node2"), member("node3"))
    assert enter(CLUSTER, found, CLUSTER.servers[0]) == Join("https://10.0.0.12:6443")


def test_nobody_creates_while_another_server_is_not_reached() -> None:
    found = survey(fresh("node1"), fresh("node2"), lost("node3"))
    answer = enter(CLUSTER, found, CLUSTER.servers[0])
    assert isinstance(answer, Refuse)
    assert "node3 could not be reached (timed out)" in answer.reason
    assert any("node3" in line for line in refusals(CLUSTER, found, NAMES))


def test_nobody_creates_beside_a_stopped_datastore() -> None:
    found = survey(fresh("node1"), member("node2", running=False), fresh("node3"))
    answer = enter(CLUSTER, found, CLUSTER.servers[0])
    assert isinstance(answer, Refuse) and "node2 holds the cluster's datastore" in answer.reason


@given(st.lists(st.sampled_from(["fresh", "lost", "running", "stopped"]), min_size=3, max_size=3))
def test_creation_needs_every_other_server_reached_and_empty(kinds: list[str]) -> None:
    make = {
        "fresh": fresh,
        "lost": lost,
        "running": member,
        "stopped": lambda name: member(name, running=False),
    }
    found = survey(*(make[kind](f"node{n}") for n, kind in enumerate(kinds, start=1)))
    for server in CLUSTER.servers:
        others = [seen for name, seen in found.items() if name != server.name]
        if isinstance(enter(CLUSTER, found, server), Create):
            assert all(seen.reached and not seen.datastore for seen in others)
            assert not found[server.name].datastore


def test_with_a_virtual_ip_agents_join_through_it() -> None:
    cluster = example(
        network={
            "lan": "10.0.0.0/24",
            "gateway": "10.0.0.1",
            "dns": ("10.0.0.1",),
            "api": {"vip": "10.0.0.9"},
        }
    )
    found = survey(member("node1"), member("node2"), member("node3"), fresh("node4"))
    assert enter(cluster, found, cluster.agents[0]) == Join("https://10.0.0.9:6443")


def test_members_stay() -> None:
    found = survey(*(member(name) for name in sorted(NAMES)))
    assert all(enter(CLUSTER, found, host) == Stay() for host in CLUSTER.members)


def test_a_lost_quorum_is_refused_with_who_is_down() -> None:
    found = survey(member("node1"), member("node2", running=False), member("node3", running=False))
    assert refusals(CLUSTER, found, NAMES) == [
        "etcd has no quorum: K3s runs on node1, 2 of 3 are needed; down: node2, node3. Start K3s "
        "there (systemctl start k3s), or restore a snapshot (deploys/restore.py)"
    ]


def waiting(name: str, **changes: object) -> Seen:
    return member(name, restoring="/x/nightly", **changes)


def test_servers_that_wait_for_a_restore_are_named_and_not_to_be_started() -> None:
    down = [waiting("node2", running=False), waiting("node3", running=False)]
    joined = [member("node2"), waiting("node3", running=False)]
    foreign = [member("node2"), waiting("node3", running=False, ca="b")]
    for others, names in ((down, "node2, node3"), (joined, "node3"), (foreign, "node3")):
        assert refusals(CLUSTER, survey(member("node1"), *others), NAMES) == [
            f"a restore of /x/nightly is not finished on {names}: run deploys/restore.py again, "
            "or give it up (docs/recovery.md); do not start K3s there"
        ]


def test_one_server_down_of_three_is_not_refused() -> None:
    found = survey(member("node1"), member("node2"), member("node3", running=False))
    assert refusals(CLUSTER, found, NAMES) == []


def test_a_server_that_is_still_to_enter_has_no_vote_to_wait_for() -> None:
    grown = survey(member("node1"), fresh("node2"), fresh("node3"))
    assert other_voters(CLUSTER, grown, "node1") == []
    replaced = survey(member("node1"), member("node2"), fresh("node3"))
    assert other_voters(CLUSTER, replaced, "node1") == ["node2"]


def test_a_server_that_is_down_or_not_reached_may_have_a_vote() -> None:
    found = survey(member("node1"), member("node2", running=False), lost("node3"))
    assert other_voters(CLUSTER, found, "node1") == ["node2", "node3"]


def test_a_first_server_that_did_not_come_up_is_started_before_the_others_enter() -> None:
    found = survey(member("node1", running=False), fresh("node2"), fresh("node3"))
    assert refusals(CLUSTER, found, NAMES) == []
    left_out = refusals(CLUSTER, found, NAMES - {"node1"})
    assert "node1 holds the cluster's datastore but K3s does not run there" in left_out[0]
    unknown = refusals(CLUSTER, found | survey(lost("node3")), NAMES)
    assert any("node3 could not be reached" in line for line in unknown)
    later = survey(fresh("node1"), member("node2", running=False), fresh("node3"))
    assert len(refusals(CLUSTER, later, NAMES)) == 2


def test_two_clusters_are_named() -> None:
    found = survey(member("node1"), member("node2", ca="b"), member("node3"))
    assert refusals(CLUSTER, found, NAMES) == [
        "node1, node3 and node2 belong to different clusters (their CAs differ); reset one side "
        "first"
    ]


def test_sqlite_under_a_cluster_of_three_is_a_migration() -> None:
    found = survey(member("node1", datastore="sqlite"), fresh("node2"), fresh("node3"))
    assert any("migration" in line for line in refusals(CLUSTER, found, NAMES))


def test_agents_do_not_run_ahead_of_servers_outside_the_limit() -> None:
    old = "v1.35.7+k3s1"
    found = survey(*(member(f"node{n}", version=old) for n in (1, 2, 3)), fresh("node4"))
    lines = refusals(CLUSTER, found, {"node4"})
    assert len(lines) == 3 and "upgrade the servers first" in lines[0]


def test_the_path_starts_at_the_oldest_member() -> None:
    found = survey(
        member("node1", version="v1.35.7+k3s1"),
        member("node2"),
        member("node3", version="v1.34.10+k3s1"),
    )
    assert path(CLUSTER, found) == (
        Step("v1.35.7+k3s1", minor=True),
        Step(K3S_DEFAULT, minor=True),
    )


def test_bare_hosts_have_one_step_that_moves_nothing() -> None:
    assert path(CLUSTER, BARE) == (Step(K3S_DEFAULT, minor=False),)


def test_a_downgrade_is_refused() -> None:
    found = survey(*(member(f"node{n}", version="v1.37.1+k3s1") for n in (1, 2, 3)))
    assert any("is older than the installed" in line for line in refusals(CLUSTER, found, NAMES))


def test_the_keeper_is_a_running_server_of_this_run() -> None:
    found = survey(member("node1", running=False), member("node2"), member("node3"))
    assert keeper(CLUSTER, found, NAMES) == "node2"
    assert keeper(CLUSTER, found, {"node3", "node4"}) == "node3"
    assert keeper(CLUSTER, BARE, NAMES) is None
