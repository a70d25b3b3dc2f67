"""Linkerd's figures and page, on the cluster's Prometheus."""

from __future__ import annotations

import re

from catalogue import linkerd, metrics_urls, monitors, web
from cluster.component import Component, Object, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Rollout
from cluster.versions import CHARTS

NAMESPACE = "linkerd-viz"
HOST = "linkerd"
WEBHOOKS = {"tap": "tap", "tapInjector": "tap-injector"}


def values(cluster: Cluster) -> Values:
    """Its own Prometheus only where the cluster has none."""
    size = linkerd.resources("32Mi", "256Mi")
    webhooks = linkerd.webhook_values(NAMESPACE, WEBHOOKS)
    return {
        "clusterDomain": cluster.network.cluster_domain,
        **{key: {**value, "resources": size} for key, value in webhooks.items()},
        "metricsAPI": {"resources": size},
        "dashboard": {"resources": size, "enforcedHostRegexp": _hosts(cluster)},
        # The namespace's labels are ours.
        "createNamespaceMetadataJob": False,
        **_prometheus(cluster),
    }


def _prometheus(cluster: Cluster) -> Values:
    if not monitors.wanted(cluster):
        return {"prometheus": {"resources": linkerd.resources("128Mi", "512Mi", "50m")}}
    return {
        "prometheus": {"enabled": False},
        "prometheusUrl": metrics_urls.prometheus(cluster),
        "grafana": {"externalUrl": metrics_urls.grafana_page(cluster)},
    }


def _hosts(cluster: Cluster) -> str:
    """The names under which the page answers: others are attempts to read it by DNS."""
    inside = rf"web(\.{NAMESPACE}(\.svc(\.{re.escape(cluster.network.cluster_domain)})?)?)?"
    outside = re.escape(web.hostname(cluster, HOST))
    return rf"^(localhost|127\.0\.0\.1|{inside}|{outside})(:\d+)?$"


def release_ready(cluster: Cluster) -> list[Check]:
    """All its programs."""
    names = ("metrics-api", "tap", "tap-injector", "web")
    return [Rollout("Deployment", name, NAMESPACE) for name in names]


def objects(cluster: Cluster) -> list[Object]:
    """Its page."""
    return web.web(
        cluster,
        name="linkerd-viz",
        namespace=NAMESPACE,
        service="web",
        port=8084,
        host=HOST,
        login="proxy",
    )


component = Component(
    name="linkerd-viz",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.mesh == "linkerd",
    needs=("linkerd", "metrics", "ingress", "certificates"),
    before=lambda cluster: linkerd.webhook_certificates(cluster, NAMESPACE, WEBHOOKS),
    release=Release(CHARTS["linkerd-viz"], values),
    release_ready=release_ready,
    objects=objects,
    on_failure="rollback",
    endpoints=lambda cluster: web.opened(cluster, HOST),
)
