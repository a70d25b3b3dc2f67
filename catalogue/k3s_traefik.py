"""What our routes need from the Traefik that K3s brings along; K3s installs it."""

from __future__ import annotations

from catalogue import certificates, web
from cluster.component import Component, Object
from cluster.model import Cluster
from cluster.readiness import Check, Established
from cluster.secret_table import guards_dashboards


def wanted(cluster: Cluster) -> bool:
    """A guard, or what routes with TLS refer to."""
    used = guards_dashboards(cluster) or web.secure(cluster)
    return cluster.stack.ingress == "k3s-traefik" and used


def release_ready(cluster: Cluster) -> list[Check]:
    """K3s' helm controller brings the CRDs some time after its start."""
    return [Established(("middlewares.traefik.io", "tlsstores.traefik.io"))]


def objects(cluster: Cluster) -> list[Object]:
    """Middlewares; the default certificate only where routes share it, it may be the user's."""
    shared = certificates.wildcard(cluster)
    return [*web.middlewares(cluster), *(web.default_certificate(cluster) if shared else [])]


component = Component(
    name="k3s-traefik",
    namespace=web.NAMESPACES["k3s-traefik"],
    wanted=wanted,
    role="ingress",
    needs=("cni", "load-balancer", "certificates"),
    secrets=web.basic_auth,
    release_ready=release_ready,
    objects=objects,
)
