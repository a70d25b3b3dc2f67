"""Hubble's page, which shows the traffic that Cilium sees; its pods belong to Cilium's release."""

from __future__ import annotations

from catalogue import web
from catalogue.cilium import NAMESPACE
from cluster.component import Component, Object
from cluster.model import Cluster
from cluster.readiness import Check, Rollout

HOST = "hubble"


def objects(cluster: Cluster) -> list[Object]:
    """The route: apart from Cilium, on which the ingress waits."""
    return web.web(
        cluster,
        name="hubble-ui",
        namespace=NAMESPACE,
        service="hubble-ui",
        port=80,
        host=HOST,
        login="proxy",
    )


def ready(cluster: Cluster) -> list[Check]:
    """Nobody waits for these but the page."""
    return [Rollout("Deployment", name, NAMESPACE) for name in ("hubble-relay", "hubble-ui")]


component = Component(
    name="hubble",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.cni == "cilium",
    needs=("cilium", "ingress", "certificates"),
    objects=objects,
    ready=ready,
    endpoints=lambda cluster: web.opened(cluster, HOST),
)
