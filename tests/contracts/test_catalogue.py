"""Each component of the catalogue against the real chart that it pins, for each preset.

Without `../shared/contracts` every check of a component is skipped, one line each.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from catalogue import CATALOGUE
from cluster.component import Component
from cluster.model import Cluster
from cluster.presets import fill
from cluster.readiness import Rollout
from cluster.versions import CHARTS, KEYCLOAK
from tests.contracts import contract as contracts
from tests.contracts import objects, parts, values
from tests.contracts.clusters import CLUSTERS, of_preset
from tests.contracts.contract import BY_COMPONENT, Contract
from tests.unit.catalogued import values_of

pytestmark = pytest.mark.skipif(
    contracts.shared() is None, reason="the contracts of the charts are not on this machine"
)

RELEASES = [name for name, component in sorted(CATALOGUE.items()) if component.release]
WANTED = [
    pytest.param(name, preset, id=f"{name}-{preset}")
    for name, component in sorted(CATALOGUE.items())
    for preset, cluster in CLUSTERS.items()
    if component.wanted(cluster)
]
INSTALLED = [case for case in WANTED if case.values[0] in RELEASES]

# Contracts of what K3s brings itself, by component.
BY_K3S = {"k3s-traefik": "traefik"}

# Rollouts of workloads that no chart has but a program makes, with the reason.
MADE_AT_RUNTIME: dict[tuple[str, str], str] = {
    ("longhorn", "csi-attacher"): "longhorn-driver-deployer makes it",
    ("longhorn", "csi-provisioner"): "longhorn-driver-deployer makes it",
    ("longhorn", "csi-resizer"): "longhorn-driver-deployer makes it",
    ("longhorn", "csi-snapshotter"): "longhorn-driver-deployer makes it",
    ("longhorn", "longhorn-csi-plugin"): "longhorn-driver-deployer makes it",
    ("kiali", "kiali"): "the operator makes it for a Kiali resource",
    (
        "kube-prometheus-stack",
        "prometheus-kube-prometheus-stack-prometheus",
    ): "the operator makes it for a Prometheus resource",
    (
        "kube-prometheus-stack",
        "alertmanager-kube-prometheus-stack-alertmanager",
    ): "the operator makes it for an Alertmanager resource",
}


def _contract(name: str) -> Contract:
    release = CATALOGUE[name].release
    assert release is not None
    found = contracts.of_chart(release.chart, contracts.KNOWN)
    assert found, f"{name}: no contract for chart {release.chart.name} of {release.chart.repo}"
    return found


def _selected(cluster: Cluster) -> Iterator[Component]:
    return (component for component in CATALOGUE.values() if component.wanted(cluster))


def bringing_crds(cluster: Cluster) -> list[Contract]:
    """Contracts of the charts whose CRDs a cluster has."""
    names = [one.name for one in _selected(cluster)]
    brought = [_contract(name) for name in names if CATALOGUE[name].release]
    return brought + [contracts.KNOWN[BY_K3S[name]] for name in names if name in BY_K3S]


@pytest.mark.parametrize("name", sorted(CHARTS))
def test_a_pinned_chart_has_a_contract_of_its_version(name: str) -> None:
    assert name in BY_COMPONENT, f"no contract for {CHARTS[name].repo} {CHARTS[name].name}"
    assert BY_COMPONENT[name].version == CHARTS[name].version


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_uses_the_pin_and_a_contract_exists(name: str) -> None:
    release = CATALOGUE[name].release
    assert release is not None
    assert release.chart in CHARTS.values()
    assert _contract(name).version == release.chart.version


@pytest.mark.parametrize(("name", "preset"), INSTALLED)
def test_values_have_only_keys_of_the_chart(name: str, preset: str) -> None:
    found = values.unknown_keys(_contract(name), values_of(name, CLUSTERS[preset]))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("name", "preset"), INSTALLED)
def test_values_pass_the_schema_of_the_chart(name: str, preset: str) -> None:
    contract = _contract(name)
    if contract.schema is None:
        pytest.skip(f"chart {contract.chart} has no schema")
    found = values.schema_problems(contract, values_of(name, CLUSTERS[preset]))
    assert not found, "\n".join(found)


def test_what_runs_beside_keycloak_has_the_image_of_its_chart() -> None:
    assert f"quay.io/keycloak/keycloak:{KEYCLOAK}" in _contract("keycloak").data["images"]


def test_logs_in_s3_are_values_of_the_chart_too() -> None:
    stack = fill({"preset": "v1_9", "logs": "loki"})
    cluster = of_preset("v1_9", stack=stack, platform={"logs": {"in_s3": True}})
    found = values_of("loki", cluster)
    assert values.unknown_keys(_contract("loki"), found) == []
    assert values.schema_problems(_contract("loki"), found) == []


@pytest.mark.parametrize(("name", "preset"), WANTED)
def test_objects_are_of_kinds_that_the_cluster_has(name: str, preset: str) -> None:
    cluster = CLUSTERS[preset]
    component = CATALOGUE[name]
    sent = [*component.before(cluster), *component.objects(cluster)]
    brought = bringing_crds(cluster)
    found = [line for obj in sent for line in objects.problems(obj, brought)]
    found += [
        f"{obj['metadata']['name']}: a Secret among the objects: it belongs to `secrets`"
        for obj in sent
        if obj.get("kind") == "Secret"
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("name", "preset"), INSTALLED)
def test_rollouts_waited_for_are_workloads_of_the_chart(name: str, preset: str) -> None:
    cluster = CLUSTERS[preset]
    component = CATALOGUE[name]
    contract = _contract(name)
    given = values_of(name, cluster)
    merged = contracts.merge(contract.defaults, given)
    known = {
        (one.kind, one.name, one.namespace): parts.is_on(
            merged, one.when or parts.switch(contract.name, one.known_as)
        )
        for one in contract.workloads(component.release_name, component.namespace, given)
    }
    for check in component.release_ready(cluster):
        if not isinstance(check, Rollout) or (name, check.name) in MADE_AT_RUNTIME:
            continue
        wanted = (check.kind, check.name, check.namespace)
        assert wanted in known, f"{' '.join(wanted)} is none of {sorted(known)}"
        assert known[wanted], f"{' '.join(wanted)} is switched off by the values"
