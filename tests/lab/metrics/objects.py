"""What is sent to the lab's API for the measurement, beside what the chart renders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from catalogue import monitors
from tests.lab.metrics import programs
from tests.lab.metrics.kube import Object

NAMESPACE = "monitoring"
PROMETHEUS_VERSION = "v2.42.0"  # what the operator writes the configuration for: Debian's
SCRAPE_S = 30


def crds() -> Iterator[tuple[Object, str]]:
    """The kinds of the operator's own release, and their YAML: a bare `=` in it is a text."""
    for path in sorted(programs.definitions().glob("*.yaml")):
        text = path.read_text()
        yield yaml.load(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader)), text


def access() -> Iterator[Object]:
    """The namespace, and what the chart lets Prometheus read."""
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    meta = {"name": "prometheus", "namespace": NAMESPACE}
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
    api = "rbac.authorization.k8s.io/v1"
    watched = ["services", "endpoints", "pods", "nodes", "nodes/metrics"]
    yield {
        "apiVersion": api,
        "kind": "ClusterRole",
        "metadata": {"name": "prometheus"},
        "rules": [
            {"apiGroups": [""], "resources": watched, "verbs": ["get", "list", "watch"]},
            {"nonResourceURLs": ["/metrics", "/metrics/cadvisor"], "verbs": ["get"]},
        ],
    }
    yield {
        "apiVersion": api,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "prometheus"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "prometheus",
        },
        "subjects": [{"kind": "ServiceAccount", **meta}],
    }


def things() -> Iterator[Object]:
    """One of each kind that standard rules watch and K3s alone does not have."""
    pod = {
        "metadata": {"labels": {"app": "thing"}},
        "spec": {"containers": [{"name": "thing", "image": "registry.k8s.io/pause:3.10"}]},
    }
    match = {"matchLabels": {"app": "thing"}}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "coredns"}
    bare = {**pod, "spec": {**pod["spec"], "restartPolicy": "Never"}}
    for api, kind, spec in (
        ("apps/v1", "DaemonSet", {"selector": match, "template": pod}),
        ("apps/v1", "StatefulSet", {"serviceName": "thing", "selector": match, "template": pod}),
        ("batch/v1", "Job", {"template": bare}),
        ("policy/v1", "PodDisruptionBudget", {"maxUnavailable": 1, "selector": match}),
        ("v1", "ResourceQuota", {"hard": {"requests.cpu": "64", "requests.memory": "64Gi"}}),
        (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 2},
        ),
    ):
        # A quota on requests refuses pods without them: it stands where there are none.
        namespace = "kube-public" if kind == "ResourceQuota" else "default"
        meta = {"name": "thing", "namespace": namespace}
        yield {"apiVersion": api, "kind": kind, "metadata": meta, "spec": spec}
    # As K3s keeps one for each snapshot; the stand-in only lists them.
    yield {
        "apiVersion": "k3s.cattle.io/v1",
        "kind": "ETCDSnapshotFile",
        "metadata": {"name": "local-thing"},
        "spec": {"snapshotName": "thing", "nodeName": "node1", "location": "file:///thing"},
        "status": {"creationTime": "2026-01-01T00:00:00Z", "readyToUse": True},
    }


def static(job: str, ports: Sequence[int]) -> Object:
    """A program of this machine under the labels that it would have as a pod."""
    labels = {"job": job, "namespace": NAMESPACE}
    return {
        "apiVersion": monitors.SCRAPE_CONFIG_API,
        "kind": "ScrapeConfig",
        "metadata": {"name": f"lab-{job}", "namespace": NAMESPACE},
        "spec": {
            "honorLabels": True,
            "staticConfigs": [
                {"labels": labels, "targets": [f"127.0.0.1:{port}" for port in ports]}
            ],
        },
    }


def own(obj: Object, way: str) -> Object:
    """The object under a name and label of one Prometheus; Services are for both."""
    if obj["kind"] in ("Service", "Endpoints"):
        return obj
    meta = obj["metadata"]
    labels = {**(meta.get("labels") or {}), "scraped-by": way}
    return obj | {"metadata": {**meta, "name": f"{meta['name']}-{way}", "labels": labels}}


def prometheus(way: str) -> Object:
    mine: dict[str, Any] = {"matchLabels": {"scraped-by": way}}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "Prometheus",
        "metadata": {"name": way, "namespace": NAMESPACE},
        "spec": {
            "version": PROMETHEUS_VERSION,
            "replicas": 1,
            "scrapeInterval": f"{SCRAPE_S}s",
            "evaluationInterval": f"{SCRAPE_S}s",
            "serviceAccountName": "prometheus",
            **{
                f"{kind}{where}": mine if where == "Selector" else {}
                for kind in ("rule", "serviceMonitor", "scrapeConfig")
                for where in ("Selector", "NamespaceSelector")
            },
        },
    }
