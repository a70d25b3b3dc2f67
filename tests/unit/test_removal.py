"""Components that are no longer wanted."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

from cluster.component import Component
from cluster.model import Cluster, Stack
from cluster.removal import product_changes, refusals, unwanted


def component(name: str, *needs: str, role: str | None = None) -> Component:
    return Component(name=name, namespace=name, wanted=lambda cluster: True, role=role, needs=needs)


METALLB = component("metallb", role="load-balancer")
CILIUM_LB = component("cilium-lb", role="load-balancer")
LONGHORN = replace(component("longhorn", role="storage"), driver="driver.longhorn.io")
VELERO = component("velero", "storage")
CATALOGUE = {one.name: one for one in (METALLB, CILIUM_LB, LONGHORN, VELERO)}
CLUSTER = cast(Cluster, SimpleNamespace(stack=Stack(load_balancer="metallb")))


def test_those_that_need_others_go_first() -> None:
    gone = unwanted(CATALOGUE, [METALLB], {"longhorn", "velero", "metallb"})
    assert [one.name for one in gone] == ["velero", "longhorn"]


def test_what_the_catalogue_does_not_know_is_left_alone() -> None:
    assert unwanted(CATALOGUE, [METALLB], {"somebody-elses"}) == ()


def test_what_holds_data_stays_until_its_name_is_typed() -> None:
    data = {"longhorn": ["3 volumes"], "velero": []}
    assert list(refusals([VELERO, LONGHORN], data, [])) == [
        "longhorn is not wanted any more and holds 3 volumes: it stays; "
        "--data remove=longhorn removes it with all it holds"
    ]
    assert list(refusals([VELERO, LONGHORN], data, ["longhorn"])) == []


def test_a_network_that_k3s_brings_is_another_product_too() -> None:
    cilium = component("cilium", role="cni")
    cluster = cast(Cluster, SimpleNamespace(stack=Stack(cni="flannel")))
    (found,) = product_changes(cluster, {"cilium": cilium}, [], {"cilium"})
    assert found.startswith("stack.cni flannel: cilium plays the role cni on this cluster: ")


def test_what_two_products_of_a_role_share_makes_them_no_one_product() -> None:
    names = ("keycloak", "keycloak-bitnami", "oauth2-proxy")
    found = {name: component(name, role="identity") for name in names}
    cluster = cast(Cluster, SimpleNamespace(stack=Stack(identity="keycloak")))
    wanted = [found["keycloak"], found["oauth2-proxy"]]
    (line,) = product_changes(cluster, found, wanted, {"keycloak-bitnami", "oauth2-proxy"})
    assert line.startswith("stack.identity keycloak: keycloak-bitnami plays the role identity")


def test_a_role_that_nobody_shall_play_any_more_is_no_change_of_its_product() -> None:
    istio = component("istiod", role="mesh")
    cluster = cast(Cluster, SimpleNamespace(stack=Stack(mesh="none")))
    assert list(product_changes(cluster, {"istiod": istio}, [], {"istiod"})) == []


def test_storage_with_data_has_a_refusal_of_its_own() -> None:

    cluster = cast(Cluster, SimpleNamespace(stack=Stack(storage="local-path")))
    assert list(product_changes(cluster, {"longhorn": LONGHORN}, [], {"longhorn"})) == []


def test_another_product_may_take_the_logs() -> None:
    logs = {one.name: one for one in (component("old", role="logs"), component("new", role="logs"))}
    assert list(product_changes(CLUSTER, logs, [logs["new"]], {"old"})) == []


def test_a_living_cluster_keeps_the_product_of_a_role() -> None:
    changes = product_changes(CLUSTER, CATALOGUE, [METALLB], {"cilium-lb", "longhorn"})
    assert list(changes) == [
        "stack.load_balancer metallb: cilium-lb plays the role load-balancer on this cluster: "
        "a living cluster changes it by a migration, not here"
    ]
    assert list(product_changes(CLUSTER, CATALOGUE, [METALLB], {"metallb"})) == []
    assert list(product_changes(CLUSTER, CATALOGUE, [METALLB], set())) == []
