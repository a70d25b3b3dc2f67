"""Kiali, which shows the mesh; its operator makes the server from our Kiali object."""

from __future__ import annotations

from typing import Any

from catalogue import certificates, metrics_urls, monitors, realm, web
from catalogue.pods import resources
from cluster.component import Component, Copy, Object, Release, SecretObject, Values
from cluster.model import Cluster
from cluster.readiness import Check, Rollout
from cluster.versions import CHARTS

NAMESPACE = "kiali-operator"
NAME = "kiali"  # of the server: Deployment, Service, and the Secret it reads
HOST = "kiali"
GRAFANA = "kiali-grafana"  # Secret


def values(cluster: Cluster) -> Values:
    """The operator alone; the server is an object of ours."""
    return {
        "image": {"pullPolicy": "IfNotPresent"},
        "debug": {"enabled": False},
        "resources": resources("96Mi", "384Mi"),
        "cr": {"create": False},
    }


def release_ready(cluster: Cluster) -> list[Check]:
    """The operator."""
    return [Rollout("Deployment", "kiali-operator", NAMESPACE)]


def secrets(cluster: Cluster) -> list[SecretObject]:
    """The client's secret under the name and key that Kiali reads, and Grafana's password."""
    found = []
    if web.single_sign_on(cluster):
        found.append(SecretObject(NAME, NAMESPACE, {"oidc-secret": realm.CLIENTS[realm.KIALI]}))
    if monitors.wanted(cluster):
        found.append(SecretObject(GRAFANA, NAMESPACE, {"password": "grafana.admin_password"}))
    return found


def copies(cluster: Cluster) -> list[Copy]:
    """The CA that signed Keycloak's certificate, where the world does not know it."""
    target = (NAMESPACE, f"{NAME}-cabundle", "additional-ca-bundle.pem")  # as Kiali has it
    return [Copy(one.source, target) for one in certificates.trust(cluster, NAMESPACE)]


def _login(cluster: Cluster) -> dict[str, Any]:
    """Keycloak asks for it; without it everybody may look, behind the guard."""
    if not web.single_sign_on(cluster):
        return {"strategy": "anonymous"}
    return {
        "strategy": "openid",
        "openid": {
            "client_id": realm.KIALI,
            "issuer_uri": realm.issuer_url(cluster),
            "username_claim": "preferred_username",
            "scopes": ["openid", "email"],
            # The API server does not know Keycloak: who is let in sees all, and changes nothing.
            "disable_rbac": True,
        },
    }


def _services(cluster: Cluster) -> dict[str, Any]:
    if not monitors.wanted(cluster):
        return {"grafana": {"enabled": False}, "tracing": {"enabled": False}}
    return {
        "prometheus": {"url": metrics_urls.prometheus(cluster)},
        "grafana": {
            "enabled": True,
            "internal_url": metrics_urls.grafana_service(cluster),
            "external_url": metrics_urls.grafana_page(cluster),
            "auth": {
                "type": "basic",
                "username": "admin",
                "password": f"secret:{GRAFANA}:password",
            },
        },
        "tracing": {"enabled": False},
    }


def objects(cluster: Cluster) -> list[Object]:
    """The server and its page."""
    secure = web.secure(cluster)
    server: Object = {
        "apiVersion": "kiali.io/v1alpha1",
        "kind": "Kiali",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "istio_namespace": "istio-system",
            "auth": _login(cluster),
            "deployment": {
                "cluster_wide_access": True,
                "view_only_mode": True,
                "ingress": {"enabled": False},
                "resources": resources("128Mi", "512Mi"),
            },
            "external_services": _services(cluster),
            # How people reach it: Keycloak sends them back there.
            "server": {
                "web_root": "/",
                "web_fqdn": web.hostname(cluster, HOST),
                "web_schema": "https" if secure else "http",
                "web_port": "443" if secure else "80",
            },
        },
    }
    route = web.web(
        cluster,
        name=NAME,
        namespace=NAMESPACE,
        service=NAME,
        port=20001,
        host=HOST,
        login="own" if web.single_sign_on(cluster) else "proxy",
    )
    return [server, *route]


def ready(cluster: Cluster) -> list[Check]:
    """The server that the operator makes."""
    return [Rollout("Deployment", NAME, NAMESPACE)]


component = Component(
    name="kiali",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.mesh == "istio",
    needs=("istiod", "metrics", "ingress", "certificates"),
    secrets=secrets,
    copies=copies,
    release=Release(CHARTS["kiali"], values, name="kiali-operator"),
    release_ready=release_ready,
    objects=objects,
    ready=ready,
    endpoints=lambda cluster: web.opened(cluster, HOST),
)
