"""Routes, TLS and logins of applications, for each ingress."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from catalogue import CATALOGUE, namespaces, web
from cluster import secret_table
from cluster.component import Object
from cluster.graph import select
from cluster.model import Cluster
from tests.unit.catalogued import named
from tests.unit.cluster_example import example

INGRESSES = ("k3s-traefik", "traefik", "nginx", "envoy")


def _cluster(ingress: str, **stack: str) -> Cluster:
    return example(stack={"ingress": ingress, "certificates": "cert-manager"} | stack)


def _web(cluster: Cluster, **more: Any) -> list[Object]:
    app: dict[str, Any] = {
        "name": "ui",
        "namespace": "longhorn-system",
        "service": "longhorn-frontend",
        "port": 80,
        "host": "longhorn",
        "login": "proxy",
    }
    return web.web(cluster, **app | more)


def _annotations(found: Object) -> dict[str, str]:
    annotations: dict[str, str] = found["metadata"]["annotations"]
    return annotations


def test_without_an_ingress_nothing_is_reachable() -> None:
    cluster = example(stack={"ingress": "none"})
    assert _web(cluster) == []
    assert web.basic_auth(cluster) == ()


@pytest.mark.parametrize("ingress", ["traefik", "nginx"])
def test_each_name_has_its_own_certificate(ingress: str) -> None:
    (found,) = _web(_cluster(ingress))
    assert found["spec"]["tls"] == [
        {"hosts": ["longhorn.picluster.example.com"], "secretName": "ui-tls"}
    ]
    assert _annotations(found)["cert-manager.io/cluster-issuer"] == "ca-issuer"


@pytest.mark.parametrize("ingress", ["k3s-traefik", "traefik", "nginx"])
def test_with_a_wildcard_all_names_share_the_default_certificate(ingress: str) -> None:
    acme = {"email": "a@example.com", "dns_provider": "ionos", "wildcard": True}
    cluster = _cluster(ingress).model_copy(update={"acme": example(acme=acme).acme})
    (found,) = [route for route in _web(cluster) if "tls" in route["spec"]]
    assert found["spec"]["tls"] == [{"hosts": ["longhorn.picluster.example.com"]}]
    assert "cert-manager.io/cluster-issuer" not in _annotations(found)


@pytest.mark.parametrize("ingress", INGRESSES)
def test_without_certificates_there_is_no_tls(ingress: str) -> None:
    cluster = _cluster(ingress, certificates="none")
    assert web.url(cluster, "longhorn") == "http://longhorn.picluster.example.com/"
    assert [found for found in _web(cluster) if "tls" in found["spec"]] == []


def test_k3s_own_traefik_redirects_route_by_route() -> None:
    secure, plain = _web(_cluster("k3s-traefik"))
    prefix = "traefik.ingress.kubernetes.io/router"
    assert _annotations(secure)[f"{prefix}.entrypoints"] == "websecure"
    assert _annotations(secure)[f"{prefix}.middlewares"] == "kube-system-login@kubernetescrd"
    assert _annotations(plain)[f"{prefix}.entrypoints"] == "web"
    assert _annotations(plain)[f"{prefix}.middlewares"] == "kube-system-redirect@kubernetescrd"


@pytest.mark.parametrize("ingress", INGRESSES)
def test_application_with_a_login_has_no_second_one(ingress: str) -> None:
    text = str(_web(_cluster(ingress), login="own", namespace="keycloak"))
    assert not any(word in text for word in ("login", "auth", "SecurityPolicy"))


@pytest.mark.parametrize("identity", ["none", "keycloak"])
@pytest.mark.parametrize("ingress", INGRESSES)
def test_application_without_a_login_is_always_guarded(ingress: str, identity: str) -> None:
    found = _web(_cluster(ingress, identity=identity))
    if ingress == "envoy":
        policy, route = found  # the guard comes first
        assert policy["kind"] == "SecurityPolicy"
        assert policy["spec"]["targetRefs"][0]["name"] == route["metadata"]["name"]
        assert {"extAuth", "basicAuth"} & policy["spec"].keys()
    elif ingress == "nginx":
        assert {key.partition("/")[2] for key in _annotations(found[0])} & {"auth-url", "auth-type"}
    else:
        assert "login@kubernetescrd" in str(_annotations(found[0]))


def test_guard_of_an_unlisted_namespace_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"keycloak is not in web\.GUARDED"):
        _web(_cluster("envoy"), namespace="keycloak")


@pytest.mark.parametrize(("identity", "target"), [("none", "Secret"), ("keycloak", "Service")])
def test_envoys_guards_may_use_what_is_in_another_namespace(identity: str, target: str) -> None:
    cluster = _cluster("envoy", identity=identity)
    (grant,) = web.grants(cluster)
    assert grant["spec"]["to"][0]["kind"] == target
    assert len(grant["spec"]["from"]) <= 16  # the limit of the CRD
    policy, _ = _web(cluster)
    assert policy["metadata"]["namespace"] in [one["namespace"] for one in grant["spec"]["from"]]


def test_oauth2_proxy_is_not_asked_with_the_applications_path() -> None:
    policy, _ = _web(_cluster("envoy", identity="keycloak"))
    http = policy["spec"]["extAuth"]["http"]
    assert http["pathOverride"] == "/"
    assert "cookie" in policy["spec"]["extAuth"]["headersToExtAuth"]


def test_password_is_hashed_the_same_way_each_time() -> None:
    """Defect 9: htpasswd with a new salt each run was never done."""
    values = {"ingress.password": "correct horse battery"}
    text = secret_table.DERIVED[web.HTPASSWD](values)
    assert text == secret_table.DERIVED[web.HTPASSWD](values)
    user, _, digest = text.partition(":{SHA}")
    assert user == web.USER
    assert base64.b64decode(digest) == hashlib.sha1(b"correct horse battery").digest()


@pytest.mark.parametrize(
    ("ingress", "key"), [("traefik", "users"), ("nginx", "auth"), ("envoy", ".htpasswd")]
)
def test_password_is_where_the_ingress_looks_for_it(ingress: str, key: str) -> None:
    (secret,) = web.basic_auth(_cluster(ingress, storage="longhorn"))
    assert (secret.namespace, dict(secret.data)) == (web.NAMESPACES[ingress], {key: web.HTPASSWD})
    assert web.basic_auth(_cluster(ingress, storage="longhorn", identity="keycloak")) == ()


@pytest.mark.parametrize("identity", ["none", "keycloak"])
def test_password_is_asked_for_when_it_is_used(identity: str) -> None:
    cluster = _cluster("traefik", storage="longhorn", identity=identity)
    names = [kind.name for kind in secret_table.wanted(cluster)]
    assert (web.PASSWORD in names) == (identity == "none")
    assert web.PASSWORD not in [kind.name for kind in secret_table.wanted(example())]


@pytest.mark.parametrize("identity", ["none", "keycloak"])
@pytest.mark.parametrize("ingress", ["k3s-traefik", "nginx"])
@pytest.mark.parametrize(
    "stack",
    [
        {},
        {"cni": "cilium"},
        {"mesh": "linkerd"},
        {"mesh": "istio"},
        {"storage": "longhorn"},
        {"metrics": "kube-prometheus-stack"},
        {"logs": "elasticsearch"},
        {"logs": "loki"},
    ],
)
def test_there_is_a_guard_and_its_password_where_something_is_guarded(
    stack: dict[str, str], ingress: str, identity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = _cluster(ingress, identity=identity, **stack)
    logins, real = [], web.web

    def noted(cluster: Cluster, **app: Any) -> list[Object]:
        logins.append(app["login"])
        return real(cluster, **app)

    monkeypatch.setattr(web, "web", noted)
    chosen = select(CATALOGUE, cluster)
    sent = [one for component in chosen for one in component.objects(cluster)]
    assert secret_table.guards_dashboards(cluster) is ("proxy" in logins)
    secrets = [secret for component in chosen for secret in component.secrets(cluster)]
    guarded = "proxy" in logins and identity == "none"
    assert (web.BASIC_AUTH in [secret.name for secret in secrets]) is guarded
    needed = {name for secret in secrets for name in secret.data.values()}
    asked = {kind.name for kind in secret_table.wanted(cluster)}
    assert (web.PASSWORD in asked) is guarded
    assert needed - secret_table.DERIVED.keys() <= asked
    if ingress == "k3s-traefik":
        text, there = str(sent), named(sent, "Middleware")
        assert {name for name in ("login", "redirect") if f"-{name}@" in text} <= there.keys()


def test_basic_auth_of_traefik_keeps_the_password_from_the_application() -> None:
    login = named(web.middlewares(_cluster("traefik")), "Middleware")["login"]
    assert login["spec"] == {"basicAuth": {"secret": "basic-auth", "removeHeader": True}}


# ---- namespaces


@pytest.mark.parametrize("mesh", ["none", "linkerd", "istio"])
def test_namespaces_join_the_mesh_of_the_stack(mesh: str) -> None:
    """Defect 18: a mesh was installed and nothing was in it."""
    cluster = example(stack={"mesh": mesh})
    for name, known in namespaces.TABLE.items():
        metadata = namespaces.namespace(cluster, name)["metadata"]
        ambient = metadata["labels"].get("istio.io/dataplane-mode") == "ambient"
        injected = metadata.get("annotations", {}).get("linkerd.io/inject") == "enabled"
        assert ambient == (mesh == "istio" and "istio" in known.meshes), name
        assert injected == (mesh == "linkerd" and "linkerd" in known.meshes), name
    assert any(known.meshes for known in namespaces.TABLE.values())


@pytest.mark.parametrize("name", ["cert-manager", "longhorn-system", "metallb-system", "velero"])
@pytest.mark.parametrize("mesh", ["linkerd", "istio"])
def test_what_a_mesh_rests_on_stays_out_of_it(mesh: str, name: str) -> None:
    assert not namespaces.in_mesh(example(stack={"mesh": mesh}), name)


def test_pods_with_linkerds_init_container_are_let_in() -> None:
    found = namespaces.namespace(example(stack={"mesh": "linkerd"}), "keycloak")
    assert found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    found = namespaces.namespace(example(), "keycloak")
    assert found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"


def test_kubernetes_own_namespaces_are_left_alone() -> None:
    with pytest.raises(ValueError, match="kube-system belongs to Kubernetes"):
        namespaces.namespace(example(), "kube-system")


def test_users_own_namespaces_join_too() -> None:
    cluster = example(stack={"mesh": "istio"}, platform={"mesh_namespaces": ["shop", "keycloak"]})
    (found,) = namespaces.of_user(cluster)
    assert found["metadata"] == {"name": "shop", "labels": {"istio.io/dataplane-mode": "ambient"}}
    assert namespaces.in_mesh(cluster, "shop")
