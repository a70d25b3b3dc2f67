"""Where Prometheus and Grafana are, for pages of others that show their figures."""

from __future__ import annotations

from catalogue import web
from cluster.model import Cluster


def prometheus(cluster: Cluster) -> str:
    """URL of Prometheus inside the cluster."""
    domain = cluster.network.cluster_domain
    return f"http://kube-prometheus-stack-prometheus.monitoring.svc.{domain}:9090"


def grafana(cluster: Cluster) -> str:
    """URL of Grafana inside the cluster."""
    return f"http://grafana.monitoring.svc.{cluster.network.cluster_domain}"


def grafana_page(cluster: Cluster) -> str:
    """URL of Grafana for people."""
    return web.url(cluster, "grafana")
