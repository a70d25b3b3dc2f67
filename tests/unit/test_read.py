"""Inputs become a Cluster, or one line for each thing wrong with them."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import rules
from cluster.kinds import AddressRange
from cluster.model import Cluster, K3s, Network, Nodes, Stack
from cluster.problem import Given
from cluster.read import CLUSTER_KEYS, HOST_KEYS, HostEntry, Problem, Problems, Source, read
from tests.unit.inputs import FOLDER, cluster_of, fixture

GOOD = sorted((FOLDER / "good").glob("*.yaml"))
BAD = sorted((FOLDER / "bad").glob("*.yaml"))
ALL_RULES = set(rules.RULES)


def _get(cluster: Cluster, path: str) -> Any:
    return reduce(getattr, path.split("."), cluster)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_inputs_become_a_cluster(path: Path) -> None:
    data = fixture(path)
    cluster = cluster_of(data)
    expected = {"warnings": [], **data["expected"]}
    found = {key: _get(cluster, key) for key in expected}
    found["warnings"] = list(found["warnings"])
    assert found == expected


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_inputs_are_refused_with_these_lines(path: Path) -> None:
    data = fixture(path)
    with pytest.raises(Problems) as refused:
        cluster_of(data)
    assert [str(problem) for problem in refused.value.problems] == data["expected"]
    assert not any("\n" in line for line in data["expected"])


def test_there_are_enough_fixtures() -> None:
    assert len(BAD) >= 25
    assert len(GOOD) >= 5


def test_every_rule_refuses_some_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = set()

    def watched(rule: rules.Rule) -> rules.Rule:
        def run(cluster: Cluster, about: Given) -> list[Problem]:
            found = list(rule(cluster, about))
            if found:
                refusing.add(rule)
            return found

        return run

    monkeypatch.setattr(rules, "RULES", tuple(map(watched, rules.RULES)))
    for path in BAD:
        with pytest.raises(Problems):
            cluster_of(fixture(path))
    assert {rule.__name__ for rule in ALL_RULES - refusing} == set()


def test_later_source_replaces_a_whole_key() -> None:
    data = fixture(FOLDER / "good" / "single.yaml")
    first = Source("group_data/all.py", {"nodes": {"packages": ["htop"], "journal_max_use": "1G"}})
    second = Source("group_data/small.py", {**data["group_data"], "nodes": {"packages": ["vim"]}})
    host = HostEntry("pi", ("servers",), {"ip": "192.168.1.50", "arch": "arm64"})
    cluster = read([first, second], [host], Given(inventory="small"))
    assert cluster.nodes.packages == ("vim",)
    assert cluster.nodes.journal_max_use == Nodes().journal_max_use


def test_problem_names_the_file_that_set_the_key() -> None:
    data = fixture(FOLDER / "good" / "single.yaml")
    first = Source("group_data/all.py", {"timezone": "Nowhere"})
    second = Source("group_data/small.py", data["group_data"])
    with pytest.raises(Problems) as refused:
        read([first, second], [HostEntry("pi", ("servers",), {})], Given(inventory="small"))
    places = [problem.where for problem in refused.value.problems]
    assert "group_data/all.py: timezone" in places


_scalars = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.floats(allow_nan=False)
)
_keys = st.sampled_from(
    [*Network.model_fields, *K3s.model_fields, *Stack.model_fields, *Nodes.model_fields, "x"]
)
_anything = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4)
)


@settings(max_examples=100, deadline=None)
@given(
    values=st.dictionaries(st.sampled_from([*CLUSTER_KEYS, "odd"]), _anything),
    host=st.dictionaries(st.sampled_from([*HOST_KEYS, "odd"]), _anything),
)
def test_any_garbage_is_answered_with_lines(values: dict[str, Any], host: dict[str, Any]) -> None:
    good = fixture(FOLDER / "good" / "single.yaml")["group_data"]
    pi = {"ip": "192.168.1.50", "arch": "arm64", **host}
    try:
        read([Source("all.py", {**good, **values})], [HostEntry("pi", ("servers",), pi)], Given())
    except Problems as refused:
        assert all("\n" not in str(problem) for problem in refused.problems)


def test_range_of_addresses_knows_what_it_holds() -> None:
    network = cluster_of(fixture(FOLDER / "good" / "ha.yaml")).network
    pool = network.load_balancer_pool
    assert isinstance(pool, AddressRange)
    assert str(pool) == "10.0.0.100-10.0.0.200"
    assert pool.holds(pool.first)
    assert pool.holds(pool.last)
    assert not pool.holds(network.gateway)
