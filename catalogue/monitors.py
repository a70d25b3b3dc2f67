"""Objects of the Prometheus operator and dashboards, none when the stack has no metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.component import Object
from cluster.model import Cluster

API = "monitoring.coreos.com/v1"


def wanted(cluster: Cluster) -> bool:
    """Whether the stack has a Prometheus that reads these objects."""
    return cluster.stack.metrics != "none"


def service_monitor(
    cluster: Cluster,
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    port: str,
    *,
    spec: Mapping[str, Any] | None = None,
    **more: Any,
) -> list[Object]:
    """A ServiceMonitor in its component's namespace.

    labels: what the Service carries; port: name of its port.
    more: further keys of the endpoint (`path`, `scheme`, `tlsConfig`, `metricRelabelings`, …);
    spec: further keys of the spec (`jobLabel`, `namespaceSelector`, …).
    """
    endpoint = {"port": port, **more}
    return _monitor(cluster, "ServiceMonitor", "endpoints", name, namespace, labels, endpoint, spec)


def pod_monitor(
    cluster: Cluster,
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    port: str,
    *,
    spec: Mapping[str, Any] | None = None,
    **more: Any,
) -> list[Object]:
    """A PodMonitor in its component's namespace, for what has no Service.

    labels: what the pods carry; port: name of the container's port.
    more: further keys of the endpoint; spec: further keys of the spec.
    """
    endpoint = {"port": port, **more}
    return _monitor(
        cluster, "PodMonitor", "podMetricsEndpoints", name, namespace, labels, endpoint, spec
    )


def _monitor(
    cluster: Cluster,
    kind: str,
    key: str,
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    endpoint: Mapping[str, Any],
    spec: Mapping[str, Any] | None,
) -> list[Object]:
    if not wanted(cluster):
        return []
    return [
        {
            "apiVersion": API,
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "selector": {"matchLabels": dict(labels)},
                key: [dict(endpoint)],
                **(spec or {}),
            },
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
