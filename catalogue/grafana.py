"""Grafana: what Prometheus and the logs know, for people."""

from __future__ import annotations

from typing import Any

from catalogue import (
    certificates,
    elasticsearch,
    kube_prometheus_stack,
    loki,
    monitors,
    pods,
    realm,
    web,
)
from cluster.component import Component, Copy, Endpoint, Object, Release, SecretObject, Values
from cluster.model import Cluster
from cluster.readiness import Rollout
from cluster.versions import CHARTS

NAMESPACE = "monitoring"
HOST = realm.GRAFANA  # Keycloak sends people back to this name
ADMIN = "grafana-admin"  # Secrets
CLIENT = "grafana-oidc"
LOGS = "grafana-elasticsearch"
CA_FOLDER = "/etc/grafana/ca"


def single_sign_on(cluster: Cluster) -> bool:
    """Whether people come in through Keycloak; admin's password works besides."""
    return web.single_sign_on(cluster) and HOST in realm.clients(cluster)


def data_sources(cluster: Cluster) -> list[dict[str, Any]]:
    """What the stack has, under uids that dashboards can rely on."""
    found: list[dict[str, Any]] = []
    if monitors.wanted(cluster):
        service = kube_prometheus_stack
        found += [
            {
                "name": "Prometheus",
                "uid": "prometheus",
                "type": "prometheus",
                "access": "proxy",
                "url": f"http://{service.PROMETHEUS}.{NAMESPACE}:{service.PROMETHEUS_PORT}",
                "isDefault": True,
                "jsonData": {"httpMethod": "POST", "timeInterval": "30s"},
            },
            {
                "name": "Alertmanager",
                "uid": "alertmanager",
                "type": "alertmanager",
                "access": "proxy",
                "url": f"http://{service.ALERTMANAGER}.{NAMESPACE}:{service.ALERTMANAGER_PORT}",
                "jsonData": {"implementation": "prometheus", "handleGrafanaManagedAlerts": False},
            },
        ]
    if cluster.stack.logs == "loki":
        found.append(
            {
                "name": "Loki",
                "uid": "loki",
                "type": "loki",
                "access": "proxy",
                "url": loki.URL,
                "isDefault": not found,
                "jsonData": {"maxLines": 1000},
            }
        )
    if cluster.stack.logs == "elasticsearch":
        found.append(
            {
                "name": "Elasticsearch",
                "uid": "elasticsearch",
                "type": "elasticsearch",
                "access": "proxy",
                "url": elasticsearch.URL,
                "basicAuth": True,
                "basicAuthUser": "$__env{LOGS_USERNAME}",
                "secureJsonData": {"basicAuthPassword": "$__env{LOGS_PASSWORD}"},
                "jsonData": {
                    "index": elasticsearch.PATTERN,
                    "timeField": "@timestamp",
                    "logMessageField": "message",
                },
            }
        )
    return found


def _login(cluster: Cluster) -> dict[str, Any]:
    """OIDC by Keycloak; the realm's role says what somebody may do."""
    if not single_sign_on(cluster):
        return {}
    protocol = f"{realm.issuer_url(cluster)}/protocol/openid-connect"
    own_ca = certificates.trust(cluster, NAMESPACE)
    role = "contains(roles[*], 'admin') && 'Admin' || contains(roles[*], 'editor') && 'Editor'"
    return {
        "auth.generic_oauth": {
            "enabled": True,
            "name": "Keycloak",
            "allow_sign_up": True,
            "auto_login": False,
            "client_id": realm.GRAFANA,
            "scopes": "openid email profile",
            "use_pkce": True,
            "use_refresh_token": True,
            "auth_url": f"{protocol}/auth",
            "token_url": f"{protocol}/token",
            "api_url": f"{protocol}/userinfo",
            "signout_redirect_url": f"{protocol}/logout",
            "login_attribute_path": "preferred_username",
            "name_attribute_path": "name",
            "role_attribute_path": f"{role} || 'Viewer'",
            **({"tls_client_ca": f"{CA_FOLDER}/{certificates.TRUST_KEY}"} if own_ca else {}),
        }
    }


def values(cluster: Cluster) -> Values:
    """One pod; dashboards come from ConfigMaps of all namespaces, people's own from its volume."""
    env: dict[str, Any] = {}
    if single_sign_on(cluster):
        env["GF_AUTH_GENERIC_OAUTH_CLIENT_SECRET"] = _of_secret(CLIENT, "client-secret")
    if cluster.stack.logs == "elasticsearch":
        env["LOGS_USERNAME"] = _of_secret(LOGS, "username")
        env["LOGS_PASSWORD"] = _of_secret(LOGS, "password")
    own_ca = single_sign_on(cluster) and certificates.trust(cluster, NAMESPACE)
    ca = {"name": "ca", "mountPath": CA_FOLDER, "configMap": certificates.TRUST, "readOnly": True}
    return {
        "admin": {
            "existingSecret": ADMIN,
            "userKey": "admin-user",
            "passwordKey": "admin-password",
        },
        "testFramework": {"enabled": False},
        # The volume is one pod's: the old one goes before the new one comes.
        "deploymentStrategy": {"type": "Recreate", "rollingUpdate": None},
        "persistence": {
            "enabled": True,
            "size": "1Gi",  # of the default class
            # Helm removes a claim of its own otherwise.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "initChownData": {"enabled": False},  # fsGroup does the same without a root container
        "resources": pods.resources("192Mi", "512Mi", "50m"),
        "envValueFrom": env,
        **({"extraConfigmapMounts": [ca]} if own_ca else {}),
        "grafana.ini": {
            "server": {"root_url": web.url(cluster, HOST)},
            "analytics": {
                "check_for_updates": False,
                "check_for_plugin_updates": False,
                "reporting_enabled": False,
            },
            "users": {"default_theme": "system"},
            **_login(cluster),
        },
        "datasources": {
            "datasources.yaml": {
                "apiVersion": 1,
                "prune": True,
                "datasources": data_sources(cluster),
            }
        },
        "sidecar": {
            "resources": pods.resources("64Mi", "192Mi"),
            "dashboards": {
                "enabled": True,
                "label": "grafana_dashboard",
                "labelValue": "1",
                "searchNamespace": "ALL",
                "folderAnnotation": "grafana_folder",
                "provider": {"foldersFromFilesStructure": True},
            },
            "datasources": {"enabled": False},
        },
        "serviceMonitor": {"enabled": monitors.wanted(cluster)},
    }


def _of_secret(name: str, key: str) -> dict[str, Any]:
    return {"secretKeyRef": {"name": name, "key": key}}


def secrets(cluster: Cluster) -> list[SecretObject]:
    """Its administrator, its secret for Keycloak, and its account in Elasticsearch."""
    found = [
        SecretObject(
            ADMIN,
            NAMESPACE,
            {"admin-password": "grafana.admin_password"},
            plain={"admin-user": "admin"},
        )
    ]
    if single_sign_on(cluster):
        found.append(SecretObject(CLIENT, NAMESPACE, {"client-secret": "oidc.grafana"}))
    if cluster.stack.logs == "elasticsearch":
        found.append(
            SecretObject(
                LOGS,
                NAMESPACE,
                {"password": "elasticsearch.grafana_password"},
                plain={"username": "grafana"},
            )
        )
    return found


def copies(cluster: Cluster) -> tuple[Copy, ...]:
    """The CA that signed Keycloak's certificate, where nobody else trusts it."""
    return certificates.trust(cluster, NAMESPACE) if single_sign_on(cluster) else ()


def objects(cluster: Cluster) -> list[Object]:
    """Its route."""
    return web.web(
        cluster,
        name="grafana",
        namespace=NAMESPACE,
        service="grafana",
        port=80,
        host=HOST,
        login="own",
    )


def endpoints(cluster: Cluster) -> list[Endpoint]:
    """Grafana; nothing where no ingress leads to it."""
    other = "single sign-on, or " if single_sign_on(cluster) else ""
    return web.opened(cluster, HOST, login=f"{other}admin, grafana.admin_password")


component = Component(
    name="grafana",
    namespace=NAMESPACE,
    wanted=lambda cluster: monitors.wanted(cluster) or cluster.stack.logs == "loki",
    needs=("storage", "ingress", "certificates", "mesh", "metrics-crds"),
    secrets=secrets,
    copies=copies,
    release=Release(CHARTS["grafana"], values),
    release_ready=lambda cluster: [Rollout("Deployment", "grafana", NAMESPACE)],
    objects=objects,
    endpoints=endpoints,
)
