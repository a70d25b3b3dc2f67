"""Objects of the Prometheus operator and dashboards, none when the stack has no metrics.

`rules/<component>.yaml` and `dashboards/<component>.json` beside this file belong to components;
a component with several dashboards has `dashboards/<component>.<name>.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from cluster import dashboards, prometheus_rules
from cluster.component import Object
from cluster.model import Cluster

API = "monitoring.coreos.com/v1"
SCRAPE_CONFIG_API = "monitoring.coreos.com/v1alpha1"


def wanted(cluster: Cluster) -> bool:
    """Whether the stack has a Prometheus that reads these objects."""
    return cluster.stack.metrics != "none"


def service_monitor(
    cluster: Cluster,
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    port: str,
    **more: Any,
) -> list[Object]:
    """A ServiceMonitor in its component's namespace.

    labels: what the Service carries; port: name of its port.
    more: further keys of the endpoint (`path`, `scheme`, `tlsConfig`, `metricRelabelings`, …).
    """
    endpoint = {"port": port, **more}
    return _monitor(cluster, "ServiceMonitor", "endpoints", name, namespace, labels, endpoint)


def pod_monitor(
    cluster: Cluster,
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    port: str,
    **more: Any,
) -> list[Object]:
    """A PodMonitor in its component's namespace, for what has no Service.

    labels: what the pods carry; port: name of the container's port.
    more: further keys of the endpoint.
    """
    endpoint = {"port": port, **more}
    return _monitor(cluster, "PodMonitor", "podMetricsEndpoints", name, namespace, labels, endpoint)


def _monitor(
    cluster: Cluster,
    kind: str,
    key: str,
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    endpoint: Mapping[str, Any],
) -> list[Object]:
    if not wanted(cluster):
        return []
    return [
        {
            "apiVersion": API,
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"matchLabels": dict(labels)}, key: [dict(endpoint)]},
        }
    ]


def rules(
    cluster: Cluster, name: str, namespace: str, groups: Sequence[Mapping[str, Any]]
) -> list[Object]:
    """A PrometheusRule; groups: as in a rule file of Prometheus."""
    if not wanted(cluster):
        return []
    return [
        {
            "apiVersion": API,
            "kind": "PrometheusRule",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"groups": [dict(group) for group in groups]},
        }
    ]


def dashboard(
    cluster: Cluster, name: str, namespace: str, text: str, *, folder: str = "Cluster"
) -> list[Object]:
    """A ConfigMap that Grafana's sidecar loads; text: the dashboard's JSON, folder: its folder."""
    if not wanted(cluster):
        return []
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {"grafana_dashboard": "1"},
                "annotations": {"grafana_folder": folder},
            },
            "data": {f"{name}.json": text},
        }
    ]


def scrape_config(
    cluster: Cluster, name: str, namespace: str, job: str, targets: Sequence[str], **spec: Any
) -> list[Object]:
    """A ScrapeConfig for what is outside the cluster, [] without targets.

    targets: `address:port`; spec: further keys (`scheme`, `metricsPath`, `tlsConfig`, …).
    """
    if not wanted(cluster) or not targets:
        return []
    return [
        {
            "apiVersion": SCRAPE_CONFIG_API,
            "kind": "ScrapeConfig",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "staticConfigs": [{"labels": {"job": job}, "targets": list(targets)}],
                **spec,
            },
        }
    ]


def own(cluster: Cluster, component: str, namespace: str) -> list[Object]:
    """Rules and dashboards of a component that lie beside this file."""
    found = []
    if text := _shipped("rules").get(component):
        groups = prometheus_rules.groups(text)
        found += rules(cluster, f"picluster-{component}", namespace, groups)
    for name, text in _dashboards().items():
        if name == component or name.startswith(f"{component}."):
            title = f"picluster-{name.replace('.', '-')}"
            found += dashboard(cluster, title, namespace, text)
    return found


@cache
def _shipped(folder: str) -> dict[str, str]:
    """Texts of a folder beside this file, by file name without its ending."""
    place = files("catalogue") / folder
    return {
        path.name.rpartition(".")[0]: path.read_text()
        for path in sorted(place.iterdir(), key=lambda path: path.name)
    }


@cache
def _dashboards() -> dict[str, str]:
    return dashboards.provisioned(_shipped("dashboards"))
