"""Components in order: needs by role and by name, the way back, what leads in a circle."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.component import Component
from cluster.graph import GraphError, Step, critical_path, graph, removal, select
from cluster.model import Cluster


def component(name: str, *needs: str, role: str | None = None, wanted: bool = True) -> Component:
    return Component(
        name=name, namespace=name, wanted=lambda cluster: wanted, role=role, needs=needs
    )


def catalogue(*components: Component) -> dict[str, Component]:
    return {one.name: one for one in components}


def cluster(*extra: str) -> Cluster:
    return cast(Cluster, SimpleNamespace(platform=SimpleNamespace(components=extra)))


def names(components: tuple[Component, ...]) -> list[str]:
    return [one.name for one in components]


LONGHORN = component("longhorn", "snapshots", role="storage")
SNAPSHOTTER = component("snapshotter", role="snapshots")
VELERO = component("velero", "storage", "snapshots", role="backup")
PLUGIN = component("plugin", "velero", wanted=False)
MESH = component("mesh")
ALL = catalogue(LONGHORN, SNAPSHOTTER, VELERO, PLUGIN, MESH)


def test_a_component_waits_for_all_that_play_a_role_it_needs() -> None:
    order = graph([LONGHORN, SNAPSHOTTER, VELERO]).order
    assert [str(step) for step in order] == [
        "snapshotter",
        "snapshotter objects",
        "longhorn",
        "longhorn objects",
        "velero",
        "velero objects",
    ]


def test_a_role_that_nobody_plays_is_not_waited_for() -> None:
    assert graph([VELERO]).needs[Step("velero", "release")] == frozenset()


def test_one_of_several_players_of_a_role_may_need_the_others() -> None:
    ztunnel = component("ztunnel", "mesh", role="mesh")
    needs = graph([component("istiod", role="mesh"), ztunnel]).needs
    assert needs[Step("ztunnel", "release")] == {Step("istiod", "objects")}


def test_what_the_stack_asks_for_is_selected_with_what_it_needs_by_name() -> None:
    assert names(select(ALL, cluster())) == ["longhorn", "mesh", "snapshotter", "velero"]
    assert "plugin" in names(select(ALL, cluster("plugin")))


def test_some_components_come_with_what_they_need_and_nothing_else() -> None:
    assert names(select(ALL, cluster(), ["longhorn"])) == ["longhorn", "snapshotter"]
    assert names(select(ALL, cluster(), ["plugin"])) == [
        "longhorn",
        "plugin",
        "snapshotter",
        "velero",
    ]


def test_an_unknown_component_is_named_with_what_was_meant() -> None:
    with pytest.raises(GraphError, match=r"^longhonr is no component; did you mean longhorn\?$"):
        select(ALL, cluster(), ["longhonr"])
    with pytest.raises(GraphError, match=r"^platform\.components: zzz is no component$"):
        select(ALL, cluster("zzz"))


def test_a_circle_names_its_components() -> None:
    with pytest.raises(GraphError, match="circle: ") as caught:
        graph([component("a", "b"), component("b", "c"), component("c", "a"), component("d")])
    assert set("abc") <= set(str(caught.value)) and " d" not in str(caught.value)


def test_an_unknown_need_names_who_has_it() -> None:
    with pytest.raises(GraphError, match=r"^a needs b, which is neither a role nor a component$"):
        graph([component("a", "b")])


def test_components_go_in_reverse_order() -> None:
    assert names(removal([LONGHORN, SNAPSHOTTER, VELERO])) == ["velero", "longhorn", "snapshotter"]


def test_the_critical_path_is_the_longest_chain() -> None:
    order = graph([LONGHORN, SNAPSHOTTER, MESH])
    seconds = {
        Step("snapshotter", "release"): 3.0,
        Step("longhorn", "release"): 4.0,
        Step("longhorn", "objects"): 1.0,
        Step("mesh", "release"): 6.0,
    }
    assert critical_path(order, seconds) == 8.0


@st.composite
def acyclic(draw: st.DrawFn) -> Mapping[str, Any]:
    count = draw(st.integers(1, 8))
    return {
        f"c{number}": draw(st.sets(st.integers(0, number - 1))) if number else set()
        for number in range(count)
    }


@given(acyclic())
def test_no_step_comes_before_one_it_needs(needs: Mapping[str, Any]) -> None:
    found = graph([component(name, *(f"c{one}" for one in of)) for name, of in needs.items()])
    done: set[Step] = set()
    for step in found.order:
        assert found.needs[step] <= done
        done.add(step)
    assert len(done) == 2 * len(needs)
