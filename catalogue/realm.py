"""The realm of the cluster in Keycloak: who may log in to what.

Keycloak reads it when it has no such realm yet; what is changed there later is kept, and of changes
here only those of clients reach it, by `keycloak_clients`.
"""

from __future__ import annotations

import json
from typing import Any

from catalogue import web
from cluster.component import Object, SecretObject
from cluster.model import Cluster

NAME = "picluster"
NAMESPACE = "keycloak"
HOST = "sso"
USER = "admin"  # of the realm; Keycloak's own administrator is called so too
USER_PASSWORD = "keycloak.user_password"
ADMIN_SECRET = "keycloak-admin"
ADMIN_PASSWORD = "keycloak.admin_password"
CONFIG = "keycloak-realm"  # ConfigMap and Secret
ROLES = ("admin", "editor", "viewer")

OAUTH2_PROXY = "oauth2-proxy"
GRAFANA = "grafana"
KIALI = "kiali"
# By client: its name in the secrets file.
CLIENTS = {OAUTH2_PROXY: "oidc.oauth2_proxy", GRAFANA: "oidc.grafana", KIALI: "oidc.kiali"}


def clients(cluster: Cluster) -> list[str]:
    """The clients that the cluster has."""
    stack = cluster.stack
    found = [OAUTH2_PROXY]
    found += [GRAFANA] if stack.metrics != "none" else []
    return found + ([KIALI] if stack.mesh == "istio" else [])


def issuer_url(cluster: Cluster) -> str:
    """What tokens of the realm name as their issuer."""
    return web.url(cluster, HOST, f"/realms/{NAME}")


def secrets(cluster: Cluster) -> list[SecretObject]:
    """Keycloak's administrator, and what the realm's text takes from the environment."""
    names = {_variable(client): CLIENTS[client] for client in clients(cluster)}
    return [
        SecretObject(
            ADMIN_SECRET,
            NAMESPACE,
            {"password": ADMIN_PASSWORD},
            plain={"username": USER},
        ),
        SecretObject(CONFIG, NAMESPACE, {"USER_PASSWORD": USER_PASSWORD, **names}),
    ]


def config_map(cluster: Cluster) -> Object:
    """The realm as the file that Keycloak imports."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG, "namespace": NAMESPACE},
        "data": {f"{NAME}.json": json.dumps(realm(cluster), indent=2)},
    }


def realm(cluster: Cluster) -> dict[str, Any]:
    """The realm; `${NAME}` stands for a variable of the environment."""
    return {
        "realm": NAME,
        "enabled": True,
        "sslRequired": "external",
        "registrationAllowed": False,
        "rememberMe": True,
        "resetPasswordAllowed": True,
        "bruteForceProtected": True,
        "roles": {"realm": [{"name": name} for name in ROLES]},
        "clients": [_client(cluster, name) for name in clients(cluster)],
        "users": [
            {
                "username": USER,
                "enabled": True,
                # oauth2-proxy lets nobody in whose address was not verified.
                "email": cluster.acme.email or f"{USER}@{cluster.domain}",
                "emailVerified": True,
                "firstName": "Cluster",
                "lastName": "Administrator",
                "credentials": [{"type": "password", "value": "${USER_PASSWORD}"}],
                "realmRoles": ["admin", f"default-roles-{NAME}"],
            }
        ],
    }


def _variable(client: str) -> str:
    return f"{client.upper().replace('-', '_')}_SECRET"


def _client(cluster: Cluster, name: str) -> dict[str, Any]:
    return {
        "clientId": name,
        "enabled": True,
        "protocol": "openid-connect",
        "publicClient": False,
        "secret": f"${{{_variable(name)}}}",
        "standardFlowEnabled": True,
        "implicitFlowEnabled": False,
        "directAccessGrantsEnabled": False,
        "redirectUris": [_redirect(cluster, name)],
        "webOrigins": ["+"],
        "protocolMappers": [_roles_mapper(), _audience_mapper(name)],
        # The two that offer a proof key must.
        **({} if name == KIALI else {"attributes": {"pkce.code.challenge.method": "S256"}}),
    }


def _redirect(cluster: Cluster, name: str) -> str:
    paths = {OAUTH2_PROXY: "/oauth2/callback", GRAFANA: "/login/generic_oauth", KIALI: "/*"}
    return web.url(cluster, name, paths[name])


def _roles_mapper() -> dict[str, Any]:
    """Roles as the claim `roles`, by which Grafana tells administrators from viewers."""
    return {
        "name": "roles",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-usermodel-realm-role-mapper",
        "config": {
            "claim.name": "roles",
            "jsonType.label": "String",
            "multivalued": "true",
            "id.token.claim": "true",
            "access.token.claim": "true",
            "userinfo.token.claim": "true",
        },
    }


def _audience_mapper(client: str) -> dict[str, Any]:
    """The client as audience of its tokens, without which oauth2-proxy refuses them."""
    return {
        "name": "audience",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": {
            "included.client.audience": client,
            "id.token.claim": "false",
            "access.token.claim": "true",
        },
    }
