"""The checks of the contracts find what they are there for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contracts import contract as contracts
from tests.contracts import objects, parts, values
from tests.contracts.contract import BY_COMPONENT, KNOWN

pytestmark = pytest.mark.skipif(
    contracts.shared() is None, reason="the contracts of the charts are not on this machine"
)

UNKNOWN = [
    ("longhorn", {"defaultSetting": {}}, "defaultSetting"),
    ("longhorn", {"persistence": {"defaultClas": True}}, "persistence.defaultClas"),
    ("kube-prometheus-stack", {"grafana": {"sidecars": {}}}, "grafana.sidecars"),
    ("kube-prometheus-stack", {"kube-state-metrics": {"collector": []}}, "kube-state-metrics."),
    ("istiod", {"autoscale": False}, "autoscale"),
    ("istiod", {"_internal_defaults_do_not_set": {}}, "_internal_defaults_do_not_set"),
    ("traefik", {"logs": {}}, "logs"),
    ("fluent-bit", {"kind": {"a": 1}}, "kind: a map"),
]
KNOWN_KEYS: list[tuple[str, dict[str, Any]]] = [
    ("longhorn", {"defaultSettings": {"defaultDataPath": "/storage"}}),
    ("kube-prometheus-stack", {"grafana": {"grafana.ini": {"server": {"root_url": "x"}}}}),
    ("kube-prometheus-stack", {"prometheus-node-exporter": {"tolerations": []}}),
    ("istiod", {"profile": "ambient", "autoscaleEnabled": False}),
    ("cilium", {"nodeSelector": {"kubernetes.io/arch": "arm64"}}),
    ("fluent-bit", {"resources": {"limits": {"memory": "100Mi"}}}),
]


@pytest.mark.parametrize(("component", "given", "problem"), UNKNOWN)
def test_an_unknown_key_is_found(component: str, given: dict[str, Any], problem: str) -> None:
    (found,) = values.unknown_keys(BY_COMPONENT[component], given)
    assert found.startswith(problem)


@pytest.mark.parametrize(("component", "given"), KNOWN_KEYS)
def test_a_known_key_is_not_refused(component: str, given: dict[str, Any]) -> None:
    assert values.unknown_keys(BY_COMPONENT[component], given) == []


@pytest.mark.parametrize("component", sorted(BY_COMPONENT))
def test_a_chart_accepts_its_own_defaults(component: str) -> None:
    contract = BY_COMPONENT[component]
    assert values.unknown_keys(contract, contract.defaults) == []
    assert values.schema_problems(contract, contract.defaults) == []


def test_a_wrong_type_is_found_by_the_schema_of_the_chart() -> None:
    found = values.schema_problems(BY_COMPONENT["cilium"], {"operator": {"replicas": "two"}})
    assert found and found[0].startswith("operator.replicas: ")


POOL = {
    "apiVersion": "metallb.io/v1beta1",
    "kind": "IPAddressPool",
    "metadata": {"name": "lan", "namespace": "metallb-system"},
    "spec": {"addresses": ["10.0.0.100-10.0.0.200"]},
}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "web"},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "web"}]},
        },
    },
}
WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (POOL, {"spec": {"addresses": "10.0.0.1"}}, "spec.addresses"),
    (POOL, {"spec": {"addreses": []}}, "addreses"),
    (POOL, {"spec": {}}, "'addresses' is a required property"),
    (POOL, {"apiVersion": "metallb.io/v1"}, "version v1 is not served"),
    (POOL, {"kind": "AddressPool"}, "no chart of this cluster brings metallb.io/v1beta1"),
    (POOL, {"metadata": {"name": "lan"}}, "metadata.namespace is missing"),
    (POOL, {"metadata": {"name": "La_n", "namespace": "x"}}, "is not a DNS name"),
    (DEPLOYMENT, {"spec": {**DEPLOYMENT["spec"], "replica": 2}}, "spec.replica"),
    (DEPLOYMENT, {"spec": {"template": DEPLOYMENT["spec"]["template"]}}, "spec.selector"),
    (DEPLOYMENT, {"apiVersion": "apps/v1beta1"}, "no chart of this cluster brings apps/v1beta1"),
]


@pytest.mark.parametrize("obj", [POOL, DEPLOYMENT])
def test_a_good_object_passes(obj: dict[str, Any]) -> None:
    assert objects.problems(obj, [KNOWN["metallb"]]) == []


@pytest.mark.parametrize(("obj", "change", "problem"), WRONG)
def test_a_wrong_object_is_found(obj: dict[str, Any], change: dict[str, Any], problem: str) -> None:
    found = objects.problems({**obj, **change}, [KNOWN["metallb"]])
    assert any(problem in line for line in found), found


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_crd_can_be_read(name: str) -> None:
    listed = KNOWN[name].data.get("crds") or ()
    wanted = [crd if isinstance(crd, str) else crd["name"] for crd in listed]
    assert sorted(KNOWN[name].crd_texts) == sorted(wanted)


@pytest.mark.parametrize("component", sorted(BY_COMPONENT))
def test_each_switch_names_a_part_and_a_value_of_the_chart(component: str) -> None:
    contract = BY_COMPONENT[component]
    for path in parts.PARTS.get(contract.name, {}).values():
        found = contracts.look_up(contract.defaults, path.removeprefix("!"))
        assert isinstance(found, bool), path


def test_names_follow_the_release_as_in_the_templates() -> None:
    def names(component: str, release: str, given: dict[str, Any]) -> list[str]:
        found = BY_COMPONENT[component].workloads(release, "any", given)
        return [workload.name for workload in found]

    assert names("metallb", "metallb", {}) == ["metallb-speaker", "metallb-controller"]
    assert names("metallb", "lb", {})[0] == "lb-metallb-speaker"
    assert names("keycloak", "keycloak", {}) == ["keycloak-keycloakx"]
    assert names("keycloak", "keycloak", {"fullnameOverride": "keycloak"}) == ["keycloak"]
    assert names("eck-operator", "any", {}) == ["elastic-operator"]
    grafana = {"grafana": {"fullnameOverride": "grafana"}}
    assert names("kube-prometheus-stack", "kube-prometheus-stack", grafana)[0] == "grafana"
