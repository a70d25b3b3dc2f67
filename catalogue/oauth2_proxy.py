"""oauth2-proxy: Keycloak's login for dashboards that have none."""

from __future__ import annotations

import json
from collections.abc import Sequence

from catalogue import certificates, monitors, realm, web
from catalogue.pods import replicas, resources
from cluster.component import Component, Copy, Object, Release, SecretObject, Values
from cluster.model import Cluster
from cluster.readiness import Check, Rollout
from cluster.versions import CHARTS

NAME = web.PROXY
NAMESPACE = web.PROXY
SECRET = "oauth2-proxy-client"
CA_FOLDER = "/etc/cluster-ca"


def settings(cluster: Cluster) -> dict[str, str | bool | list[str]]:
    """Its configuration file.

    Nothing in it skips a check: cookies travel by TLS only, Keycloak's certificate is verified, by
    the cluster's CA where that signed it, and an unverified e-mail address opens nothing.
    """
    own_ca = bool(certificates.trust(cluster, NAMESPACE))
    return {
        "provider": "keycloak-oidc",
        "oidc_issuer_url": realm.issuer_url(cluster),
        "redirect_url": web.url(cluster, NAME, "/oauth2/callback"),
        "code_challenge_method": "S256",
        "scope": "openid profile email",
        "email_domains": ["*"],
        # What it guards can destroy the cluster.
        "allowed_roles": ["admin"],
        **({"provider_ca_files": [f"{CA_FOLDER}/{certificates.TRUST_KEY}"]} if own_ca else {}),
        "cookie_secure": web.secure(cluster),
        "cookie_httponly": True,
        "cookie_samesite": "lax",
        "cookie_domains": [f".{cluster.domain}"],
        "whitelist_domains": [f".{cluster.domain}"],
        "cookie_expire": "12h",
        # The session lives in the cookie, which needs no Redis. Without tokens it stays small;
        # no guarded application asks for them.
        "session_store_type": "cookie",
        "session_cookie_minimal": True,
        "skip_provider_button": True,
        "reverse_proxy": True,
        "set_xauthrequest": True,
        "upstreams": ["static://200"],  # Envoy takes no other number for a yes
    }


def values(cluster: Cluster) -> Values:
    """Values of the chart."""
    own_ca = bool(certificates.trust(cluster, NAMESPACE))
    volume = {"name": "ca", "configMap": {"name": certificates.TRUST}}
    mount = {"name": "ca", "mountPath": CA_FOLDER, "readOnly": True}
    return {
        "config": {
            "existingSecret": SECRET,
            # What JSON writes of texts, lists of them and booleans is TOML too.
            "configFile": "".join(
                f"{key} = {json.dumps(value)}\n" for key, value in settings(cluster).items()
            ),
        },
        **({"extraVolumes": [volume], "extraVolumeMounts": [mount]} if own_ca else {}),
        "replicaCount": replicas(cluster, 2),
        "resources": resources("32Mi", "128Mi"),
        "metrics": {"serviceMonitor": {"enabled": monitors.wanted(cluster)}},
    }


def secrets(cluster: Cluster) -> Sequence[SecretObject]:
    """What Keycloak knows it by, and the key of its cookies."""
    return [
        SecretObject(
            SECRET,
            NAMESPACE,
            {
                "client-secret": realm.CLIENTS[realm.OAUTH2_PROXY],
                "cookie-secret": "oauth2_proxy.cookie_secret",
            },
            plain={"client-id": realm.OAUTH2_PROXY},
        )
    ]


def copies(cluster: Cluster) -> Sequence[Copy]:
    """The CA that signed Keycloak's certificate."""
    return certificates.trust(cluster, NAMESPACE)


def release_ready(cluster: Cluster) -> Sequence[Check]:
    """It runs, which it does only once it has found the realm."""
    return [Rollout("Deployment", NAME, NAMESPACE)]


def objects(cluster: Cluster) -> Sequence[Object]:
    """Its route, and the permission of guards in other namespaces to ask it."""
    route = web.web(
        cluster, name=NAME, namespace=NAMESPACE, service=NAME, port=80, host=NAME, login="own"
    )
    return [*web.grants(cluster), *route]


component = Component(
    name="oauth2-proxy",
    namespace=NAMESPACE,
    role="identity",
    wanted=web.single_sign_on,
    needs=("identity", "ingress", "certificates", "mesh", "metrics-crds"),
    secrets=secrets,
    copies=copies,
    release=Release(CHARTS["oauth2-proxy"], values),
    release_ready=release_ready,
    objects=objects,
    on_failure="rollback",
)
