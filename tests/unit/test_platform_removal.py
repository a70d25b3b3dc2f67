"""A component that goes: its objects, its release, and last the record that it was there.

Simulated: the API (tests/unit/fake_api.py) and helm, which only notes what it was asked to do.
"""

from __future__ import annotations

from typing import Any

import pytest

from cluster.answer import Present
from cluster.component import Component, Release
from cluster.helm_release import HelmRelease
from cluster.versions import CHARTS
from operations import platform_removal
from tests.unit.fake_api import FakeApi
from tests.unit.kube_world import World

LABELS = {"picluster.io/component": "velero"}
OWNED = {"manager": "picluster", "operation": "Apply", "fieldsV1": {}}
VELERO = Component(
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
