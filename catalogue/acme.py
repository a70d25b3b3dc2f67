"""Let's Encrypt: its ClusterIssuers, and how each DNS provider proves that a domain is ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from catalogue import certificates
from cluster.component import Object, SecretObject
from cluster.model import Cluster

SERVERS = {
    "staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
    "production": "https://acme-v02.api.letsencrypt.org/directory",
}
TRIAL = "letsencrypt-trial"  # Certificate that shows whether everything is set up
SECRET = "dns-provider"  # in cert-manager's namespace
IONOS_API = "https://api.hosting.ionos.com/dns/v1"

Solver = dict[str, Any]


def ionos_group(cluster: Cluster) -> str:
    """API group under which the IONOS webhook serves."""
    return f"acme.{cluster.domain}"


def _key(key: str) -> dict[str, str]:
    return {"name": SECRET, "key": key}


def _ionos(cluster: Cluster) -> Solver:
    return {
        "webhook": {
            "groupName": ionos_group(cluster),
            "solverName": "ionos",
            "config": {
                "apiUrl": IONOS_API,
                "publicKeySecretRef": _key("public-prefix"),
                "secretKeySecretRef": _key("secret"),
            },
        }
    }


def _cloudflare(cluster: Cluster) -> Solver:
    return {"cloudflare": {"apiTokenSecretRef": _key("token")}}


def _route53(cluster: Cluster) -> Solver:
    wanted = cluster.acme.route53
    return {
        "route53": {
            "region": wanted.region,
            **({"hostedZoneID": wanted.hosted_zone} if wanted.hosted_zone else {}),
            "accessKeyIDSecretRef": _key("access-key"),
            "secretAccessKeySecretRef": _key("secret-key"),
        }
    }


def _rfc2136(cluster: Cluster) -> Solver:
    wanted = cluster.acme.rfc2136
    assert wanted is not None, "a rule demands it of the inputs"
    return {
        "rfc2136": {
            "nameserver": wanted.server,
            "tsigKeyName": wanted.key_name,
            "tsigAlgorithm": wanted.algorithm,
            "tsigSecretSecretRef": _key("secret"),
        }
    }


# By provider: its solver, and its names in the secrets file by key of SECRET.
PROVIDERS: dict[str, tuple[Callable[[Cluster], Solver], dict[str, str]]] = {
    "ionos": (
        _ionos,
        {"public-prefix": "acme.ionos.public_prefix", "secret": "acme.ionos.secret"},
    ),
    "cloudflare": (_cloudflare, {"token": "acme.cloudflare.token"}),
    "route53": (
        _route53,
        {"access-key": "acme.route53.access_key", "secret-key": "acme.route53.secret_key"},
    ),
    "rfc2136": (_rfc2136, {"secret": "acme.rfc2136.secret"}),
}


def secrets(cluster: Cluster) -> list[SecretObject]:
    """The account at the DNS provider."""
    if not certificates.acme(cluster):
        return []
    _, names = PROVIDERS[str(cluster.acme.dns_provider)]
    return [SecretObject(SECRET, certificates.NAMESPACE, names)]


def objects(cluster: Cluster) -> list[Object]:
    """The ClusterIssuers of both servers, and a certificate of the staging one as a trial."""
    if not certificates.acme(cluster):
        return []
    issuers = [_issuer(cluster, server) for server in SERVERS]
    if cluster.acme.server == "production":
        return issuers
    trial = certificates.certificate(
        cluster,
        TRIAL,
        certificates.NAMESPACE,
        [f"*.{cluster.domain}"],
        issuer=certificates.LETS_ENCRYPT["staging"],
    )
    return [*issuers, trial]


def _issuer(cluster: Cluster, server: str) -> Object:
    solver, _ = PROVIDERS[str(cluster.acme.dns_provider)]
    name = certificates.LETS_ENCRYPT[server]
    return {
        "apiVersion": certificates.API,
        "kind": "ClusterIssuer",
        "metadata": {"name": name},
        "spec": {
            "acme": {
                "server": SERVERS[server],
                "email": cluster.acme.email,
                "privateKeySecretRef": {"name": f"{name}-account"},
                "solvers": [{"dns01": solver(cluster)}],
            }
        },
    }
