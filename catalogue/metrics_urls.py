"""Where Prometheus and Grafana are, for pages of others that show their figures."""

from __future__ import annotations

from catalogue import grafana, web
from catalogue import kube_prometheus_stack as stack
from cluster.model import Cluster


def prometheus(cluster: Cluster) -> str:
    """URL of Prometheus inside the cluster."""
    domain = cluster.network.cluster_domain
    return f"http://{stack.PROMETHEUS}.{stack.NAMESPACE}.svc.{domain}:{stack.PROMETHEUS_PORT}"


def grafana_service(cluster: Cluster) -> str:
    """URL of Grafana inside the cluster."""
    domain = cluster.network.cluster_domain
    return f"http://{grafana.component.release_name}.{grafana.NAMESPACE}.svc.{domain}"


def grafana_page(cluster: Cluster) -> str:
    """URL of Grafana for people."""
    return web.url(cluster, grafana.HOST)
