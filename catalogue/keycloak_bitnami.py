"""Keycloak by Bitnami's chart with its own PostgreSQL: what migrations start from, nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from catalogue import keycloak, monitors, realm, web
from catalogue.pods import resources
from cluster.component import Component, Object, Release, SecretObject, Values
from cluster.model import Cluster
from cluster.readiness import Check, Rollout
from cluster.versions import CHARTS

NAMESPACE = realm.NAMESPACE
RELEASE = "keycloak"
DATABASE_SECRET = "keycloak-postgresql"  # as the chart itself calls it
IMPORT = "/opt/bitnami/keycloak/data/import"


def wanted(cluster: Cluster) -> bool:
    """Whether the stack is the one before the database moved out."""
    return cluster.stack.identity == "keycloak-bitnami"


def values(cluster: Cluster) -> Values:
    """Values of the chart, with the images where they are now."""
    metrics = monitors.wanted(cluster)
    arch = _node_selector(cluster)
    return {
        "image": {"registry": "docker.io", "repository": "bitnamilegacy/keycloak"},
        "production": True,
        "proxy": "edge",
        "proxyHeaders": "xforwarded",
        "auth": {
            "adminUser": realm.USER,
            "existingSecret": realm.ADMIN_SECRET,
            "passwordSecretKey": "password",
        },
        "extraStartupArgs": "--import-realm",
        "extraEnvVars": [
            {"name": "KC_HOSTNAME_URL", "value": web.url(cluster, realm.HOST, "")},
        ],
        "extraEnvVarsSecret": realm.CONFIG,
        "extraVolumes": [{"name": "realm", "configMap": {"name": realm.CONFIG}}],
        "extraVolumeMounts": [{"name": "realm", "mountPath": IMPORT, "readOnly": True}],
        "resources": resources("700Mi", "1536Mi", "250m"),
        "nodeSelector": arch,
        "metrics": {"enabled": metrics, "serviceMonitor": {"enabled": metrics}},
        "postgresql": {
            "enabled": True,
            "image": {"registry": "docker.io", "repository": "bitnamilegacy/postgresql"},
            # Pinned: a password that the chart made up anew would not open the database.
            "auth": {"existingSecret": DATABASE_SECRET},
            "primary": {
                "resources": resources("128Mi", "512Mi", "50m"),
                "nodeSelector": arch,
            },
        },
    }


def _node_selector(cluster: Cluster) -> dict[str, str]:
    """Only amd64 is known to be left of its images; a cluster without any tries its luck."""
    archs = {host.arch for host in cluster.members}
    return {"kubernetes.io/arch": "amd64"} if "amd64" in archs else {}


def secrets(cluster: Cluster) -> Sequence[SecretObject]:
    """Administrator, realm and database."""
    names = {
        "password": "keycloak.database_password",
        "postgres-password": "keycloak.postgres_password",
    }
    return [*realm.secrets(cluster), SecretObject(DATABASE_SECRET, NAMESPACE, names)]


def release_ready(cluster: Cluster) -> Sequence[Check]:
    """It and its database run."""
    return [Rollout("StatefulSet", name, NAMESPACE) for name in (DATABASE_SECRET, RELEASE)]


def objects(cluster: Cluster) -> Sequence[Object]:
    """Its route."""
    return web.web(
        cluster,
        name="keycloak",
        namespace=NAMESPACE,
        service=RELEASE,
        port=80,
        host=realm.HOST,
        login="own",
    )


component = Component(
    name="keycloak-bitnami",
    namespace=NAMESPACE,
    role="identity",
    wanted=wanted,
    needs=("storage", "ingress", "certificates", "mesh", "metrics-crds"),
    secrets=secrets,
    before=keycloak.before,
    release=Release(CHARTS["keycloak-bitnami"], values, name=RELEASE),
    release_ready=release_ready,
    objects=objects,
    timeout=1500,
    endpoints=keycloak.endpoints,
    retired="images withdrawn; take stack.identity keycloak",
)
