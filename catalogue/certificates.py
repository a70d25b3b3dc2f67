"""Certificates by cert-manager, and which of its issuers signs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.component import Copy, Object
from cluster.model import Cluster
from cluster.readiness import Condition

API = "cert-manager.io/v1"
NAMESPACE = "cert-manager"  # where a ClusterIssuer looks for its Secrets

SELF_SIGNED = "self-signed-issuer"
CA_ISSUER = "ca-issuer"  # the cluster's own CA, for names that only the cluster knows
CA_SECRET = "root-secret"  # in NAMESPACE: certificate and key of that CA
LETS_ENCRYPT = {"staging": "letsencrypt-staging", "production": "letsencrypt-production"}

# Linkerd's identity accepts no other kind.
ECDSA: dict[str, Any] = {"algorithm": "ECDSA", "size": 256}

DEFAULT_NAME = "default-certificate"  # the ingress' Certificate and its Secret
TRUST = "cluster-ca"  # ConfigMap with the CA, in namespaces of programs that check certificates
TRUST_KEY = "ca.crt"


def wanted(cluster: Cluster) -> bool:
    """Whether the stack has cert-manager."""
    return cluster.stack.certificates == "cert-manager"


def acme(cluster: Cluster) -> bool:
    """Whether Let's Encrypt is set up, proved by records in the domain's DNS."""
    return wanted(cluster) and cluster.acme.dns_provider is not None


def issuer(cluster: Cluster) -> str:
    """Name of the ClusterIssuer for names that people open.

    Nobody trusts certificates of Let's Encrypt's staging server, the cluster's own programs
    included: with it only a trial certificate is asked for.
    """
    if acme(cluster) and cluster.acme.server == "production":
        return LETS_ENCRYPT["production"]
    return CA_ISSUER


def trust(cluster: Cluster, namespace: str) -> tuple[Copy, ...]:
    """The CA for a program that opens what people open: ConfigMap TRUST, key TRUST_KEY.

    Empty when every system trusts the issuer anyway.
    """
    if issuer(cluster) != CA_ISSUER or not wanted(cluster):
        return ()
    return (Copy((NAMESPACE, CA_SECRET, "tls.crt"), (namespace, TRUST, TRUST_KEY)),)


def certificate(
    cluster: Cluster,
    name: str,
    namespace: str,
    names: Sequence[str],
    *,
    issuer: str | None = None,
    secret: str | None = None,
    **spec: Any,
) -> Object:
    """A Certificate with an ECDSA key.

    names: DNS names; issuer: a ClusterIssuer, None for the one of names that people open.
    secret: name of the Secret with `tls.crt`, `tls.key` and `ca.crt`, None for `name`.
    spec: further keys of its spec (`isCA`, `duration`, `usages`, …).
    """
    return {
        "apiVersion": API,
        "kind": "Certificate",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "secretName": secret or name,
            **({"dnsNames": list(names)} if names else {}),
            "privateKey": ECDSA | {"rotationPolicy": "Always"},
            "issuerRef": {
                "group": "cert-manager.io",
                "kind": "ClusterIssuer",
                "name": issuer or _issuer(cluster),
            },
            **spec,
        },
    }


_issuer = issuer  # under a name that the argument `issuer` does not hide


def issued(name: str, namespace: str) -> Condition:
    """The Certificate has been signed and its Secret is there."""
    return Condition(API, "Certificate", name, namespace)


def default_certificate(cluster: Cluster, namespace: str) -> Object:
    """The certificate an ingress shows for names without one of their own, see `wildcard`."""
    return certificate(
        cluster,
        DEFAULT_NAME,
        namespace,
        [cluster.domain, f"*.{cluster.domain}"],
        issuer=None if wildcard(cluster) else CA_ISSUER,
    )


def wildcard(cluster: Cluster) -> bool:
    """Whether routes share the ingress' default certificate instead of having their own.

    Envoy's one listener for HTTPS has one certificate.
    """
    return wanted(cluster) and (cluster.acme.wildcard or cluster.stack.ingress == "envoy")
