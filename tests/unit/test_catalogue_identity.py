"""Keycloak, its realm, and oauth2-proxy: who may log in to what, and with which checks."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest

from catalogue import keycloak, keycloak_bitnami, keycloak_db, oauth2_proxy, realm
from cluster import secret_table
from cluster.model import Cluster
from cluster.readiness import Rollout
from tests.unit.cluster_example import example

STACK = {
    "storage": "longhorn",
    "database": "cloudnative-pg",
    "identity": "keycloak",
    "ingress": "envoy",
    "certificates": "cert-manager",
    "mesh": "istio",
    "metrics": "kube-prometheus-stack",
}
DOMAIN = "picluster.example.com"
PRODUCTION = {"email": "ada@example.com", "dns_provider": "ionos", "server": "production"}


def cluster(stack: dict[str, str] | None = None, **changes: Any) -> Cluster:
    return example(**{"stack": STACK | (stack or {})} | changes)


OLD = cluster({"identity": "keycloak-bitnami", "database": "none", "ingress": "nginx"})


def settings(here: Cluster) -> dict[str, Any]:
    return tomllib.loads(oauth2_proxy.values(here)["config"]["configFile"])


# ---- oauth2-proxy


def test_no_check_is_skipped() -> None:
    """Defect 25: cookies without TLS, certificates and addresses unverified."""
    found = settings(cluster())
    assert found["cookie_secure"] is True
    assert found["cookie_httponly"] is True
    weak = re.compile("skip.*verify|insecure|unverified")
    assert [key for key in found if weak.search(key)] == []
    assert "extraArgs" not in oauth2_proxy.values(cluster())


def test_an_own_ca_is_a_file_and_not_an_excuse() -> None:
    values = oauth2_proxy.values(cluster())
    (copy,) = oauth2_proxy.copies(cluster())
    (volume,) = values["extraVolumes"]
    (mount,) = values["extraVolumeMounts"]
    assert copy.target == ("oauth2-proxy", volume["configMap"]["name"], "ca.crt")
    assert settings(cluster())["provider_ca_files"] == [f"{mount['mountPath']}/ca.crt"]
    public = cluster(acme=PRODUCTION)
    assert oauth2_proxy.copies(public) == ()
    assert "provider_ca_files" not in settings(public)
    assert "extraVolumes" not in oauth2_proxy.values(public)


def test_only_administrators_pass() -> None:
    assert settings(cluster())["allowed_roles"] == ["admin"]
    assert settings(cluster())["provider"] == "keycloak-oidc"


def test_the_session_needs_no_redis() -> None:
    values = oauth2_proxy.values(cluster())
    assert settings(cluster())["session_store_type"] == "cookie"
    assert not {"redis", "redis-ha", "sessionStorage"} & values.keys()


def test_the_cookie_key_has_32_bytes() -> None:
    (secret,) = oauth2_proxy.secrets(cluster())
    assert secret.name == oauth2_proxy.values(cluster())["config"]["existingSecret"]
    assert {*secret.data, *secret.plain} == {"client-id", "client-secret", "cookie-secret"}
    (kind,) = (kind for kind in secret_table.TABLE if kind.name == secret.data["cookie-secret"])
    assert kind.make is not None
    made = kind.make()
    assert kind.fits(made)
    assert len(made) == 43  # base64 of 32 bytes without its last sign


def test_keycloak_sends_people_back_to_where_oauth2_proxy_waits() -> None:
    found = settings(cluster())
    client = clients(cluster())["oauth2-proxy"]
    assert client["redirectUris"] == [found["redirect_url"]]
    assert found["redirect_url"] == f"https://oauth2-proxy.{DOMAIN}/oauth2/callback"
    assert found["oidc_issuer_url"] == f"https://sso.{DOMAIN}/realms/{realm.NAME}"
    assert found["code_challenge_method"] == client["attributes"]["pkce.code.challenge.method"]


def test_guards_in_other_namespaces_may_ask_it() -> None:
    kinds = [item["kind"] for item in oauth2_proxy.objects(cluster())]
    assert kinds == ["ReferenceGrant", "HTTPRoute"]
    assert [item["kind"] for item in oauth2_proxy.objects(OLD)] == ["Ingress"]


def test_it_comes_after_keycloak_whichever_that_is() -> None:
    assert "identity" in oauth2_proxy.component.needs
    assert keycloak.component.role == keycloak_bitnami.component.role == "identity"
    assert oauth2_proxy.wanted(cluster()) and oauth2_proxy.wanted(OLD)
    assert not oauth2_proxy.wanted(example())


# ---- the realm


def clients(here: Cluster) -> dict[str, Any]:
    return {client["clientId"]: client for client in realm.realm(here)["clients"]}


def test_the_realm_knows_the_programs_of_the_stack() -> None:
    assert list(clients(cluster())) == ["oauth2-proxy", "grafana", "kiali"]
    assert list(clients(cluster({"metrics": "none", "mesh": "linkerd"}))) == ["oauth2-proxy"]


@pytest.mark.parametrize("here", [cluster(), OLD], ids=["keycloak", "bitnami"])
def test_its_text_has_no_secret_but_names_of_variables_that_exist(here: Cluster) -> None:
    text = realm.config_map(here)["data"]["picluster.json"]
    (variables,) = (one for one in realm.secrets(here) if one.name == realm.CONFIG)
    assert set(re.findall(r"\$\{(\w+)\}", text)) == set(variables.data)
    wanted = {kind.name: kind for kind in secret_table.wanted(here)}
    assert set(variables.data.values()) <= wanted.keys()
    assert all(wanted[name].make for name in variables.data.values())
    given = {client["clientId"]: client["secret"] for client in json.loads(text)["clients"]}
    assert all(value.startswith("${") for value in given.values())


def test_a_client_is_the_audience_of_its_own_tokens() -> None:
    for name, client in clients(cluster()).items():
        audience = [
            mapper["config"]["included.client.audience"]
            for mapper in client["protocolMappers"]
            if mapper["protocolMapper"] == "oidc-audience-mapper"
        ]
        assert audience == [name]


def test_redirects_stay_on_the_programs_own_host() -> None:
    for name, client in clients(cluster()).items():
        for uri in client["redirectUris"]:
            assert uri.startswith(f"https://{name}.{DOMAIN}/")
        assert client["implicitFlowEnabled"] is False
        assert client["publicClient"] is False


def test_the_first_user_can_log_in_at_once() -> None:
    """Without a verified address oauth2-proxy refuses, without names Keycloak asks for them."""
    (user,) = realm.realm(cluster())["users"]
    assert user["emailVerified"] is True
    assert user["email"] and user["firstName"] and user["lastName"]
    assert "admin" in user["realmRoles"]
    assert {role["name"] for role in realm.realm(cluster())["roles"]["realm"]} >= {"admin"}
    assert "temporary" not in user["credentials"][0]


# ---- Keycloak


def environment(here: Cluster) -> dict[str, Any]:
    lines = keycloak.values(here)["extraEnv"].splitlines()
    items = [json.loads(line.removeprefix("- ")) for line in lines]
    return {item["name"]: item for item in items}


def test_keycloak_stands_behind_the_ingress_under_its_root() -> None:
    values = keycloak.values(cluster())
    assert values["http"]["relativePath"] == "/"
    assert (values["proxy"]["enabled"], values["proxy"]["mode"]) == (True, "xforwarded")
    assert environment(cluster())["KC_HOSTNAME"]["value"] == f"https://sso.{DOMAIN}"
    route = keycloak.objects(cluster())[-1]
    (backend,) = route["spec"]["rules"][0]["backendRefs"]
    assert (backend["name"], backend["port"]) == ("keycloakx-http", 80)


def test_its_database_is_the_one_of_cloudnative_pg() -> None:
    database = keycloak.values(cluster())["database"]
    assert database["hostname"] == "keycloak-db-rw"
    assert database["existingSecret"] == keycloak_db.secrets(cluster())[0].name
    assert "password" not in database
    assert "keycloak-db" in keycloak.component.needs


def test_its_administrator_comes_from_the_secrets_file() -> None:
    found = environment(cluster())["KC_BOOTSTRAP_ADMIN_PASSWORD"]["valueFrom"]["secretKeyRef"]
    admin = next(one for one in realm.secrets(cluster()) if one.name == found["name"])
    assert admin.data == {"password": "keycloak.admin_password"}
    (endpoint,) = keycloak.endpoints(cluster())
    assert "keycloak.admin_password" in endpoint.login


def test_the_realm_is_mounted_where_keycloak_imports() -> None:
    values = keycloak.values(cluster())
    assert "--import-realm" in values["command"]
    assert "/opt/keycloak/data/import" in values["extraVolumeMounts"]
    assert [item["kind"] for item in keycloak.before(cluster())] == ["ConfigMap"]


# ---- what migrations start from


def test_the_old_chart_is_what_migrations_expect() -> None:
    """Names by which the migration of the database finds its source."""
    assert keycloak_bitnami.component.release_name == "keycloak"
    checks = keycloak_bitnami.release_ready(OLD)
    assert checks == [
        Rollout("StatefulSet", "keycloak-postgresql", "keycloak"),
        Rollout("StatefulSet", "keycloak", "keycloak"),
    ]
    values = keycloak_bitnami.values(OLD)
    assert values["postgresql"]["enabled"] is True
    assert "username" not in values["postgresql"]["auth"]  # the chart's own: bn_keycloak
    (database,) = (one for one in keycloak_bitnami.secrets(OLD) if "postgresql" in one.name)
    assert database.name == values["postgresql"]["auth"]["existingSecret"] == "keycloak-postgresql"
    assert set(database.data) == {"password", "postgres-password"}


def test_both_can_stand_side_by_side() -> None:
    assert keycloak.component.release_name != keycloak_bitnami.component.release_name
    assert keycloak.wanted(cluster()) and not keycloak_bitnami.wanted(cluster())
    assert keycloak_bitnami.wanted(OLD) and not keycloak.wanted(OLD)
    assert not keycloak_db.wanted(OLD)


def test_the_old_chart_says_that_it_is_retired_and_where_its_images_are() -> None:
    assert "cloudnative-pg" in keycloak_bitnami.component.retired
    values = keycloak_bitnami.values(OLD)
    images = [values["image"], values["postgresql"]["image"]]
    assert all(image["repository"].startswith("bitnamilegacy/") for image in images)


def test_the_old_images_go_where_they_exist() -> None:
    hosts = [
        {"name": f"node{n}", "role": "servers", "ip": f"10.0.0.{n}", "arch": arch}
        for n, arch in enumerate(("arm64", "arm64", "amd64"), start=11)
    ]
    mixed = example(stack=dict(OLD.stack), hosts=hosts)
    values = keycloak_bitnami.values(mixed)
    assert values["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert values["postgresql"]["primary"]["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert keycloak_bitnami.values(OLD)["nodeSelector"] == {}
