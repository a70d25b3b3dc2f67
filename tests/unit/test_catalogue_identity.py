"""Keycloak, its realm, and oauth2-proxy: who may log in to what, and with which checks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from catalogue import (
    keycloak,
    keycloak_bitnami,
    keycloak_clients,
    keycloak_db,
    oauth2_proxy,
    realm,
)
from cluster import secret_table
from cluster.model import Cluster
from cluster.readiness import Completed, Rollout
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
    wanted = oauth2_proxy.component.wanted
    assert wanted(cluster()) and wanted(OLD) and not wanted(example())


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


# ---- the clients of a realm that is there


KCADM = """#!/bin/bash
# Notes what it is asked, and what it reads.
echo "$*" >> "$LOG"
case "$1 $2" in
  "config credentials") [ "$KC_CLI_PASSWORD" = opens ] || exit 1 ;;
  "get clients") [[ "$*" != *clientId=grafana* ]] || echo 1234 ;;
  update*|create*) cat > "$LOG.${2//\\//-}" ;;
esac
"""
SECRETS = {  # with all that JSON and a shell care about
    "OAUTH2_PROXY_SECRET": 'a"b\\c&d$e/f',
    "GRAFANA_SECRET": "plain-secret",
    "KIALI_SECRET": "other-secret",
}


def clients_job(here: Cluster) -> tuple[dict[str, str], dict[str, Any]]:
    """The files and the container of the Job."""
    config, job = keycloak_clients.objects(here, "keycloakx-http")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return config["data"], container


def entered(here: Cluster, folder: Path, password: str) -> subprocess.CompletedProcess[str]:
    """Run the script of the Job with bash and a kcadm that only notes; simulated: Keycloak."""
    files, container = clients_job(here)
    kcadm = folder / "kcadm.sh"
    kcadm.write_text(KCADM)
    kcadm.chmod(0o755)
    for name, text in files.items():
        (folder / name).write_text(text.replace("/opt/keycloak/bin/kcadm.sh", str(kcadm)))
    env = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    env |= SECRETS | {"FOLDER": str(folder), "LOG": str(folder / "log"), "PATH": os.environ["PATH"]}
    return subprocess.run(
        ["bash", str(folder / "clients.sh")],
        env=env | {"KC_CLI_PASSWORD": password},
        capture_output=True,
        text=True,
    )


def test_clients_reach_a_realm_that_is_there(tmp_path: Path) -> None:
    here = cluster({"mesh": "none"})
    done = entered(here, tmp_path, "opens")
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "log.clients").read_text())  # oauth2-proxy, which is new there
    assert made == clients(here)["oauth2-proxy"] | {"secret": SECRETS["OAUTH2_PROXY_SECRET"]}
    known = json.loads((tmp_path / "log.clients-1234").read_text())
    assert known == {
        "secret": SECRETS["GRAFANA_SECRET"],
        "redirectUris": clients(here)["grafana"]["redirectUris"],
    }
    assert not [value for value in SECRETS.values() if value in (tmp_path / "log").read_text()]


def test_a_password_that_does_not_open_keycloak_is_said(tmp_path: Path) -> None:
    done = entered(cluster(), tmp_path, "other")
    assert done.returncode == 1
    said = "keycloak.admin_password does not open Keycloak as admin: "
    assert done.stdout.splitlines()[-1].startswith(said)
    _, container = clients_job(cluster())
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_the_job_knows_every_client_and_is_waited_for() -> None:
    files, container = clients_job(cluster())
    (names,) = (one["value"] for one in container["env"] if one["name"] == "CLIENTS")
    assert names.split() == list(clients(cluster()))
    assert set(files) == {
        "clients.sh",
        *(f"{name}{end}.json" for name in names.split() for end in ("", ".ours")),
    }
    assert keycloak.component.ready(cluster()) == [
        Completed(keycloak_clients.name(cluster()), "keycloak")
    ]
    fewer = cluster({"mesh": "linkerd"})
    assert keycloak_clients.name(fewer) != keycloak_clients.name(cluster())


def test_the_job_and_the_chart_have_the_same_image() -> None:
    _, container = clients_job(cluster())
    tag = keycloak.values(cluster())["image"]["tag"]
    assert container["image"] == f"quay.io/keycloak/keycloak:{tag}"


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
    assert "stack.identity keycloak" in keycloak_bitnami.component.retired
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
