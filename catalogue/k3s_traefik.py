"""What our routes need from the Traefik that K3s brings along; K3s installs it."""

from __future__ import annotations

from catalogue import web
from cluster.component import Component
from cluster.model import Cluster
from cluster.readiness import Check, Established
from cluster.secret_table import guards_dashboards


def release_ready(cluster: Cluster) -> list[Check]:
    """K3s' helm controller brings the CRDs some time after its start."""
    return [Established(("middlewares.traefik.io",))]


component = Component(
    name="k3s-traefik",
    namespace=web.NAMESPACES["k3s-traefik"],
    wanted=lambda cluster: cluster.stack.ingress == "k3s-traefik" and guards_dashboards(cluster),
    role="ingress",
    needs=("cni", "load-balancer"),
    secrets=web.basic_auth,
    release_ready=release_ready,
    objects=web.middlewares,
)
