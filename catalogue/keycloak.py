"""Keycloak: single sign-on for everything that people open."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from catalogue import keycloak_clients, keycloak_db, monitors, realm, web
from catalogue.pods import resources
from cluster.component import Component, Endpoint, Object, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Rollout
from cluster.versions import CHARTS, KEYCLOAK

NAMESPACE = realm.NAMESPACE
# Not the name that the old chart's release has: during a move both are there.
RELEASE = "keycloakx"
IMPORT = "/opt/keycloak/data/import"


def wanted(cluster: Cluster) -> bool:
    """Whether the stack logs in by Keycloak with a database outside of its chart."""
    return cluster.stack.identity == "keycloak"


def values(cluster: Cluster) -> Values:
    """Values of the chart; those that it reads as text of a template are lists in YAML."""
    return {
        "image": {"tag": KEYCLOAK},
        "command": ["/opt/keycloak/bin/kc.sh", "start", "--import-realm"],
        "http": {"relativePath": "/"},  # the chart's own is /auth
        "proxy": {"enabled": True, "mode": "xforwarded", "http": {"enabled": True}},
        "cache": {"stack": "default"},  # instances find each other through the database
        "database": {
            "vendor": "postgres",
            "hostname": keycloak_db.HOST,
            "port": 5432,
            "database": keycloak_db.DATABASE,
            "username": keycloak_db.DATABASE,
            "existingSecret": keycloak_db.SECRET,
            "existingSecretKey": "password",
        },
        "extraEnv": _template(_environment(cluster)),
        "extraEnvFrom": _template([{"secretRef": {"name": realm.CONFIG}}]),
        "extraVolumes": _template([{"name": "realm", "configMap": {"name": realm.CONFIG}}]),
        "extraVolumeMounts": _template([{"name": "realm", "mountPath": IMPORT, "readOnly": True}]),
        "startupProbe": json.dumps(_startup_probe()),
        "resources": resources("700Mi", "1536Mi", "250m"),
        "metrics": {"enabled": True},
        "serviceMonitor": {"enabled": monitors.wanted(cluster), "interval": "30s"},
    }


def _template(items: Iterable[dict[str, Any]]) -> str:
    """A list in YAML, one item a line."""
    return "\n".join(f"- {json.dumps(item)}" for item in items)


def _environment(cluster: Cluster) -> list[dict[str, Any]]:
    def of_secret(key: str) -> dict[str, Any]:
        return {"secretKeyRef": {"name": realm.ADMIN_SECRET, "key": key}}

    return [
        {"name": "KC_HOSTNAME", "value": web.url(cluster, realm.HOST, "")},
        {"name": "KC_BOOTSTRAP_ADMIN_USERNAME", "valueFrom": of_secret("username")},
        {"name": "KC_BOOTSTRAP_ADMIN_PASSWORD", "valueFrom": of_secret("password")},
        # The rest of the container's memory is for what Java keeps outside of its heap.
        {"name": "JAVA_OPTS_KC_HEAP", "value": "-XX:MaxRAMPercentage=55"},
    ]


def _startup_probe() -> dict[str, Any]:
    """Twenty minutes: it builds itself at each start, and the first one makes its tables."""
    return {
        "httpGet": {"path": "/health/started", "port": "http-internal"},
        "initialDelaySeconds": 15,
        "timeoutSeconds": 2,
        "periodSeconds": 10,
        "failureThreshold": 120,
    }


def before(cluster: Cluster) -> Sequence[Object]:
    """The realm's file, which its pods mount."""
    return [realm.config_map(cluster)]


def release_ready(cluster: Cluster) -> Sequence[Check]:
    """It runs: database opened, tables and realm made."""
    return [Rollout("StatefulSet", RELEASE, NAMESPACE)]


def objects(cluster: Cluster) -> Sequence[Object]:
    """Its route, and what keeps the clients of the realm."""
    service = f"{RELEASE}-http"
    route = web.web(
        cluster,
        name="keycloak",
        namespace=NAMESPACE,
        service=service,
        port=80,
        host=realm.HOST,
        login="own",
    )
    return [*keycloak_clients.objects(cluster, service), *route]


def endpoints(cluster: Cluster) -> Sequence[Endpoint]:
    """Where one manages users, and who may."""
    login = f"{realm.USER}, {realm.ADMIN_PASSWORD}"
    return [Endpoint(web.url(cluster, realm.HOST, "/admin/"), login)]


component = Component(
    name="keycloak",
    namespace=NAMESPACE,
    role="identity",
    wanted=wanted,
    needs=("keycloak-db", "ingress", "certificates", "mesh", "metrics-crds"),
    secrets=realm.secrets,
    before=before,
    release=Release(CHARTS["keycloak"], values, name=RELEASE),
    release_ready=release_ready,
    objects=objects,
    ready=keycloak_clients.ready,
    timeout=1500,
    endpoints=endpoints,
)
