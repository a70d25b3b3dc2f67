"""A component that goes: its objects, its release, and last the record that it was there.

Simulated: the API (tests/unit/fake_api.py) and helm, which only notes what it was asked to do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gevent
import pytest

from catalogue import CATALOGUE
from cluster.answer import Present
from cluster.component import Component, Release
from cluster.helm_release import HelmRelease
from cluster.versions import CHARTS
from operations import platform_removal
from tests.contracts.clusters import CLUSTERS
from tests.unit.cluster_example import example
from tests.unit.fake_api import FakeApi
from tests.unit.kube_world import World

LABELS = {"picluster.io/component": "velero"}
OWNED = {"manager": "picluster", "operation": "Apply", "fieldsV1": {}}
VELERO = Component(
    timeout=700,
    name="velero",
    namespace="velero",
    wanted=lambda cluster: False,
    release=Release(CHARTS["velero"]),
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """A cluster with a ConfigMap of the component, its inventory and its release."""
    server = FakeApi()
    server.put("configmaps", "schedule", "velero", labels=LABELS, managedFields=[OWNED])
    inventory = LABELS | {"picluster.io/inventory": "true"}
    server.put(
        "configmaps", "picluster-velero", "kube-system", labels=inventory, managedFields=[OWNED]
    )
    found = HelmRelease("velero", "velero", 3, "deployed", "velero", "1.0.0")
    monkeypatch.setattr(platform_removal, "CATALOGUE", {"velero": VELERO})
    monkeypatch.setattr(platform_removal, "read_release", lambda api, *_: Present(found))
    return server


def names(server: FakeApi) -> set[str]:
    return {name for plural, _, name in server.objects if plural == "configmaps"}


def removed(server: FakeApi, monkeypatch: pytest.MonkeyPatch, cause: str | None) -> list[str]:
    """Remove it with a helm that ends in `cause`; what helm was asked, and what was there then."""
    asked: list[str] = []

    def carry_out(state: Any, wanted: Any, action: Any, say: Any) -> str | None:
        asked.append(f"{action.kind} {wanted.namespace}/{wanted.name}: {sorted(names(server))}")
        return cause

    monkeypatch.setattr(platform_removal.helm_process, "carry_out", carry_out)
    world = World(server)
    assert world.run(platform_removal.remove, component="velero") is (cause is None)
    if cause:
        assert world.said[-1] == f"velero: {cause}"
    return asked


def test_a_name_to_remove_that_no_component_has_is_refused(server: FakeApi) -> None:
    typed = ["veleri", "velero"]
    found = platform_removal.refusals(World(server).api, example(), (), (), (), typed)
    assert found == ["--data remove: veleri is no component; did you mean velero"]


def test_the_objects_go_before_the_release_and_the_inventory_last(
    server: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert removed(server, monkeypatch, None) == ["uninstall velero/velero: ['picluster-velero']"]
    assert names(server) == set()


def test_a_release_that_cannot_be_removed_is_found_again_by_the_next_run(
    server: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed(server, monkeypatch, "no server can run helm")
    assert platform_removal.installed(World(server).api) == {"velero"}


def test_the_release_stays_until_the_program_in_it_has_let_the_objects_go(
    server: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = server.object("configmaps", "schedule", "velero")
    held["metadata"]["finalizers"] = ["velero.io/finalizer"]
    let_go = gevent.spawn_later(0.5, server.remove, "configmaps", "schedule", "velero")
    assert removed(server, monkeypatch, None) == ["uninstall velero/velero: ['picluster-velero']"]
    assert let_go.dead


def test_what_nobody_lets_go_is_named_and_the_release_stays(
    server: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried = {"velero": replace(VELERO, timeout=0)}
    monkeypatch.setattr(platform_removal, "CATALOGUE", hurried)
    held = server.object("configmaps", "schedule", "velero")
    held["metadata"]["finalizers"] = ["velero.io/finalizer"]
    cause = (
        "not within 0 s: ConfigMap velero/schedule is being removed, velero.io/finalizer holds it"
    )
    assert removed(server, monkeypatch, cause) == []
    assert platform_removal.installed(World(server).api) == {"velero"}


def test_the_release_has_as_long_to_go_as_its_component_says(
    server: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []
    monkeypatch.setattr(
        platform_removal.helm_process,
        "carry_out",
        lambda state, wanted, action, say: limits.append(wanted.timeout),
    )
    World(server).run(platform_removal.remove, component="velero")
    assert limits == [VELERO.timeout]


def test_what_a_product_demands_is_there_before_its_release_goes(
    server: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "confirmed", "namespace": "velero"},
        "data": {"value": "true"},
    }
    careful = {"velero": replace(VELERO, removal=(flag,))}
    monkeypatch.setattr(platform_removal, "CATALOGUE", careful)
    (asked,) = removed(server, monkeypatch, None)
    assert asked == "uninstall velero/velero: ['confirmed', 'picluster-velero']"


def test_what_a_product_demands_is_left_out_where_its_kind_has_gone_with_a_removal_before(
    server: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    (flag,) = CATALOGUE["longhorn"].removal
    careful = {"velero": replace(VELERO, removal=(flag,))}
    monkeypatch.setattr(platform_removal, "CATALOGUE", careful)
    (asked,) = removed(server, monkeypatch, None)
    assert asked == "uninstall velero/velero: ['picluster-velero']"


def test_what_we_made_holds_data_where_the_component_says_so(server: FakeApi) -> None:
    server.groups["postgresql.cnpg.io/v1"] = [
        {"kind": kind, "name": f"{kind.lower()}s", "namespaced": True}
        for kind in ("Cluster", "ScheduledBackup")
    ]
    for kind in ("Cluster", "ScheduledBackup"):
        metadata = {"name": "db", "namespace": "velero", "labels": LABELS, "uid": kind}
        head = {"apiVersion": "postgresql.cnpg.io/v1", "kind": kind}
        server.store(f"{kind.lower()}s", head | {"metadata": metadata})
    plain = replace(VELERO, holds_data=("postgresql.cnpg.io",))
    database = replace(plain, name="database", data_kinds=("Cluster",))
    held = platform_removal.held(World(server).api, [plain, database])
    assert held == {"velero": (), "database": ("1 Cluster object",)}


def test_one_kind_of_a_group_may_hold_data_while_others_do_not(server: FakeApi) -> None:
    server.groups["metallb.io/v1beta1"] = [
        {"kind": kind, "name": f"{kind.lower()}s", "namespaced": True}
        for kind in ("IPAddressPool", "ServiceL2Status")
    ]
    for kind in ("IPAddressPool", "ServiceL2Status"):
        head = {"apiVersion": "metallb.io/v1beta1", "kind": kind}
        metadata = {"name": "theirs", "namespace": "metallb-system", "uid": kind}
        server.store(f"{kind.lower()}s", head | {"metadata": metadata})
    held = platform_removal.held(World(server).api, [CATALOGUE["metallb"]])
    assert held == {"metallb": ("1 IPAddressPool object",)}


@pytest.mark.parametrize("name", ["keycloak-db", "elasticsearch"])
def test_the_catalogue_says_what_would_go_with_its_own_objects(name: str) -> None:
    component = CATALOGUE[name]
    made = {one["kind"] for one in component.objects(CLUSTERS["v1_9"])}
    assert component.data_kinds and set(component.data_kinds) <= made
