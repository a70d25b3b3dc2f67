"""What a reset may do, and what it says before it does anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster import reset
from cluster.answer import Answer, Present, Stopped
from cluster.k3s_plan import Seen
from cluster.model import Cluster
from cluster.node import Node
from cluster.reset import BadRequest, Request, Situation, refusals, request
from tests.unit.cluster_example import example

CLUSTER = example()
ALL = frozenset(host.name for host in CLUSTER.members)


def seen(name: str, **changes: Any) -> Seen:
    server = name in {host.name for host in CLUSTER.servers}
    alive = Seen(name, datastore="etcd" if server else None, running=True, registered=True)
    return replace(alive, **changes)


def node(name: str, **changes: Any) -> Node:
    server = name in {host.name for host in CLUSTER.servers}
    one = Node(
        name=name,
        uid=f"uid-{name}",
        created="",
        version="v1.36.2+k3s1",
        ready=True,
        schedulable=True,
        roles=(),
        internal_ip="",
        etcd_voter=True if server else None,
        labels={},
        annotations={},
        taints=(),
        conditions={},
        resource_version="1",
    )
    return replace(one, **changes)


def situation(
    cluster: Cluster = CLUSTER,
    taking_part: frozenset[str] = ALL,
    nodes: Answer[dict[str, Node]] | None = None,
    found: dict[str, dict[str, tuple[str, ...]]] | None = None,
    **changed: Seen,
) -> Situation:
    survey = {host.name: seen(host.name) for host in cluster.members} | changed
    healthy = Present({host.name: node(host.name) for host in cluster.members})
    return Situation(survey, nodes or healthy, taking_part, found or {})


def nodes(**changed: Node | None) -> Answer[dict[str, Node]]:
    named = {host.name: node(host.name) for host in CLUSTER.members} | changed
    return Present({name: one for name, one in named.items() if one is not None})


def lost(name: str) -> Seen:
    return Seen(name, reached=False, reason="timed out")


def test_without_the_name_it_says_what_it_would_remove_and_does_nothing() -> None:
    found = {
        "node1": {"units": ("k3s.service",), "links": ("cni0", "flannel.1")},
        "node4": {},
    }
    lines = refusals(CLUSTER, Request(), situation(found=found))
    assert lines[0] == "reset of cluster pi: its name is not typed; it would remove:"
    assert "node1: 1 units, 2 links" in lines
    assert "node4: nothing: it is clean" in lines
    assert lines[-1] == "to do it, add --data confirm=pi"


def test_another_name_is_no_confirmation() -> None:
    lines = refusals(CLUSTER, Request(confirm="home"), situation())
    assert lines[0] == "reset of cluster pi: 'home' is not its name; it would remove:"


def test_with_the_name_the_whole_cluster_may_go() -> None:
    assert refusals(CLUSTER, Request(confirm="pi"), situation()) == []
    assert reset.targets(CLUSTER, Request(confirm="pi")) == CLUSTER.members


def test_half_a_cluster_is_not_reset() -> None:
    part = ALL - {"node5"}
    lines = refusals(CLUSTER, Request(confirm="pi"), situation(taking_part=part))
    assert lines == [
        "node5 is reached but not part of this run: the whole cluster is reset at once "
        "(one node: --data node=NAME)"
    ]
    gone = situation(taking_part=part, node5=lost("node5"))
    assert refusals(CLUSTER, Request(confirm="pi"), gone) == []


def test_one_server_of_three_may_go() -> None:
    assert refusals(CLUSTER, Request(confirm="pi", node="node2"), situation()) == []
    assert [h.name for h in reset.targets(CLUSTER, Request(node="node2"))] == ["node2"]
    assert "2 servers bear no more losses than 1" in reset.afterwards(CLUSTER, "node2")
    assert "servers bear" not in reset.afterwards(CLUSTER, "node4")


def test_a_server_stays_when_etcd_would_lose_its_quorum() -> None:
    down = situation(node3=seen("node3", running=False))
    assert refusals(CLUSTER, Request(confirm="pi", node="node2"), down) == [
        "without node2 etcd would lose its quorum: 2 of 2 servers are needed, and node3 does not "
        "vote now"
    ]
    learner = situation(nodes=nodes(node3=node("node3", etcd_voter=False)))
    assert (
        "node3 does not vote now"
        in refusals(CLUSTER, Request(confirm="pi", node="node2"), learner)[0]
    )
    assert (
        refusals(CLUSTER, Request(confirm="pi", node="node3"), down) == []
    )  # the one that is down


def test_a_foreign_member_of_etcd_counts_too() -> None:
    five = nodes(extra=node("extra", etcd_voter=True, ready=False))
    assert refusals(CLUSTER, Request(confirm="pi", node="node2"), situation(nodes=five)) == []
    weak = situation(nodes=five, node3=seen("node3", running=False))
    assert (
        "extra, node3"
        in ", ".join(
            sorted(refusals(CLUSTER, Request(confirm="pi", node="node2"), weak)[0].split())
        )
        or "node3, extra" in refusals(CLUSTER, Request(confirm="pi", node="node2"), weak)[0]
    )


def test_the_last_server_is_the_whole_cluster() -> None:
    single = example(servers=1, agents=1)
    names = frozenset(host.name for host in single.members)
    here = situation(
        single, names, Present({}), node1=Seen("node1", datastore="sqlite", running=True)
    )
    assert refusals(single, Request(confirm="pi", node="node1"), here) == [
        "node1 is the last server: that is the whole cluster (leave node= out)"
    ]
    others_bare = situation(node2=Seen("node2"), node3=Seen("node3"))
    assert (
        "the last server" in refusals(CLUSTER, Request(confirm="pi", node="node1"), others_bare)[0]
    )


def test_a_node_is_not_taken_from_a_cluster_that_does_not_answer() -> None:
    silent = situation(nodes=Stopped("K3s is not running"))
    assert refusals(CLUSTER, Request(confirm="pi", node="node4"), silent) == [
        "the cluster's API does not answer (stopped: K3s is not running), so node4 cannot be "
        "removed from it; repair the cluster first, or reset all of it"
    ]


def test_a_node_of_a_cluster_that_no_longer_exists_is_cleaned() -> None:
    bare = {name: Seen(name) for name in ("node1", "node2", "node3")}
    gone = situation(nodes=Stopped("nobody"), **bare)
    assert refusals(CLUSTER, Request(confirm="pi", node="node4"), gone) == []


def test_an_unreached_server_may_hold_the_cluster() -> None:
    found = situation(
        nodes=Stopped("x"), node1=Seen("node1"), node2=Seen("node2"), node3=lost("node3")
    )
    assert "API does not answer" in refusals(CLUSTER, Request(confirm="pi", node="node4"), found)[0]


def test_a_node_that_is_not_reached_is_forgotten_instead() -> None:
    away = situation(taking_part=ALL - {"node4"}, node4=lost("node4"))
    assert refusals(CLUSTER, Request(confirm="pi", node="node4"), away) == [
        "node4 is not part of this run (timed out): a node that is lost for good is cleared from "
        "the cluster with --data forget=node4"
    ]


def test_an_unknown_node_is_named_with_the_nearest_one() -> None:
    assert refusals(CLUSTER, Request(confirm="pi", node="node44"), situation())[0].endswith(
        "expected one of node1, node2, node3, node4, node5; did you mean node4"
    )


def test_a_lost_node_is_forgotten_without_a_name_typed() -> None:
    gone = situation(nodes=nodes(node3=node("node3", ready=False)), node3=lost("node3"))
    assert refusals(CLUSTER, Request(forget="node3"), gone) == []
    assert reset.targets(CLUSTER, Request(forget="node3")) == ()


def test_a_flashed_node_is_forgotten_before_the_api_notices_its_death() -> None:
    assert refusals(CLUSTER, Request(forget="node3"), situation(node3=Seen("node3"))) == []


def test_a_flashed_node_is_forgotten() -> None:
    flashed = situation(nodes=nodes(node3=node("node3", ready=False)), node3=Seen("node3"))
    assert refusals(CLUSTER, Request(forget="node3"), flashed) == []


def test_a_node_that_left_the_inventory_is_forgotten_by_its_object() -> None:
    old = situation(nodes=nodes(node9=node("node9", ready=False)))
    assert refusals(CLUSTER, Request(forget="node9"), old) == []


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (situation(), "node3 is Ready: the cluster uses it; to remove it, use --data node=node3"),
        (
            situation(nodes=nodes(node3=node("node3", ready=False))),
            "node3 is not Ready, but K3s runs there",
        ),
        (
            situation(
                nodes=nodes(node3=node("node3", ready=False)),
                node3=seen("node3", running=False),
            ),
            "node3 still holds a datastore (etcd)",
        ),
        (situation(nodes=Stopped("no quorum")), "the cluster's API does not answer"),
    ],
)
def test_a_node_that_lives_is_not_forgotten(now: Situation, why: str) -> None:
    assert refusals(CLUSTER, Request(forget="node3"), now)[0].startswith(why)


def test_a_name_that_nobody_knows_is_not_forgotten() -> None:
    assert refusals(CLUSTER, Request(forget="node33"), situation()) == [
        "node33 is neither a node of the cluster nor a host of the inventory; did you mean node3"
    ]


def test_data_is_wiped_only_by_the_names_of_its_nodes() -> None:
    lines = refusals(CLUSTER, request({"confirm": "pi", "wipe_data": True}), situation())
    assert "wipe_data=node1,node2,node3,node4,node5" in lines[0]
    assert "node1: /var/lib/rancher/k3s/storage, /var/lib/longhorn" in lines
    wanted = request({"confirm": "pi", "node": "node4", "wipe_data": "node4,node5"})
    assert refusals(CLUSTER, wanted, situation()) == [
        "wipe_data: node5: expected names of nodes that are reset (node4)"
    ]
    good = request({"confirm": "pi", "node": "node4", "wipe_data": "node4"})
    assert refusals(CLUSTER, good, situation()) == []
    assert reset.options(CLUSTER, CLUSTER.host("node4"), good).wipe == (
        "/var/lib/rancher/k3s/storage",
        "/var/lib/longhorn",
    )
    assert reset.options(CLUSTER, CLUSTER.host("node5"), good).wipe == ()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"node": "a", "forget": "b"}, "exclude each other"),
        ({"node": True}, "node: True: expected a name"),
        ({"keep_snapshots": "no"}, "keep_snapshots: 'no': expected true or false"),
    ],
)
def test_options_that_make_no_sense(data: dict[str, object], why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        request(data)


def test_a_name_that_pyinfra_read_as_a_number_is_still_a_name() -> None:
    assert request({"confirm": 123}).confirm == "123"
