"""Prometheus, Alertmanager, exporters, and the standard rules and dashboards of Kubernetes."""

from __future__ import annotations

from typing import Any

from catalogue import certificates, host_jobs, k3s_metrics, mesh, monitors, pods, web
from cluster import dashboards, prometheus_rules
from cluster.chart_values import merged
from cluster.component import Component, Endpoint, Object, Release, Values
from cluster.managed import METRICS
from cluster.model import Cluster
from cluster.quantity import quantity
from cluster.readiness import Check, Condition, Rollout, Webhook
from cluster.services import backup, certbot
from cluster.services.telemetry import EXPORTER_PORT
from cluster.versions import CHARTS

NAME = "kube-prometheus-stack"
NAMESPACE = "monitoring"
PROMETHEUS, PROMETHEUS_PORT = f"{NAME}-prometheus", 9090
ALERTMANAGER, ALERTMANAGER_PORT = f"{NAME}-alertmanager", 9093

FOLDER = "Kubernetes"  # of the standard dashboards in Grafana

# The chart's own, which a list of ours replaces.
_EXPORTER_ARGS = (
    "--collector.filesystem.mount-points-exclude="
    "^/(dev|proc|sys|run/containerd/.+|var/lib/docker/.+|var/lib/kubelet/.+)($|/)",
    "--collector.filesystem.fs-types-exclude="
    "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660"
    "|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs"
    "|tracefs|erofs)$",
)

# A Job with a mesh's proxy beside it would never end.
_NO_PROXY = {"linkerd.io/inject": "disabled"}


def values(cluster: Cluster) -> Values:
    """The chart without Grafana, which has a chart of its own, and with K3s in mind."""
    ours: Values = {
        "crds": {"enabled": False},
        "grafana": {
            "enabled": False,
            "forceDeployDashboards": True,
            "defaultDashboardsTimezone": "browser",
            "sidecar": {"dashboards": {"annotations": {"grafana_folder": FOLDER}}},
        },
        "prometheusOperator": _operator(cluster),
        "prometheus": {"prometheusSpec": _prometheus(cluster)},
        "alertmanager": {"alertmanagerSpec": _alertmanager(cluster)},
        "kube-state-metrics": _state_metrics(cluster),
        "nodeExporter": {
            "operatingSystems": {"aix": {"enabled": False}, "darwin": {"enabled": False}}
        },
        "prometheus-node-exporter": {
            "resources": pods.resources("32Mi", "128Mi", "20m"),
            "tolerations": [{"operator": "Exists"}],
            **_textfiles(cluster),
        },
    }
    return merged(ours, k3s_metrics.values(cluster))


def _textfiles(cluster: Cluster) -> Values:
    """What jobs of the nodes tell in files; the chart has the node's root in the pod, read-only."""
    if not any(host.in_cluster for host in (*backup.hosts(cluster), *certbot.hosts(cluster))):
        return {}
    return {"extraArgs": [*_EXPORTER_ARGS, f"--collector.textfile.directory=/host/root{METRICS}"]}


def _operator(cluster: Cluster) -> Values:
    """The operator; its webhook's certificate by cert-manager, else by the chart's Job."""
    by_cert_manager = certificates.wanted(cluster)
    return {
        "resources": pods.resources("64Mi", "256Mi", "50m"),
        "prometheusConfigReloader": {"resources": pods.resources("32Mi", "64Mi")},
        "admissionWebhooks": {
            "certManager": {"enabled": by_cert_manager},
            "patch": {"enabled": not by_cert_manager, "podAnnotations": _NO_PROXY},
        },
    }


def _prometheus(cluster: Cluster) -> Values:
    wanted = cluster.platform.metrics
    # All that lies in any namespace, whoever made it.
    selects_all = {
        f"{kind}SelectorNilUsesHelmValues": False
        for kind in ("rule", "serviceMonitor", "podMonitor", "probe", "scrapeConfig")
    }
    return {
        **selects_all,
        "scrapeInterval": "30s",
        "evaluationInterval": "30s",
        "retention": f"{wanted.keep_days}d",
        # Before the volume is full, which Prometheus does not survive.
        "retentionSize": f"{(quantity(wanted.size) or 0) * 4 // 5 // 2**20}MB",
        "externalUrl": web.url(cluster, "prometheus"),
        "resources": pods.resources("768Mi", wanted.memory, "200m"),
        "storageSpec": _volume(cluster, wanted.size),
    }


def _alertmanager(cluster: Cluster) -> Values:
    return {
        "externalUrl": web.url(cluster, "alertmanager"),
        "resources": pods.resources("32Mi", "128Mi"),
        "storage": _volume(cluster, "1Gi"),
    }


def _volume(cluster: Cluster, size: str) -> dict[str, Any]:
    return {
        "volumeClaimTemplate": {
            "spec": {
                "storageClassName": cluster.stack.storage,
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": size}},
            }
        }
    }


def _state_metrics(cluster: Cluster) -> Values:
    """kube-state-metrics, which also tells when K3s last took a snapshot of etcd.

    Source: K3s keeps an ETCDSnapshotFile for each; creation times become seconds since 1970.
    """
    plain: Values = {
        "resources": pods.resources("64Mi", "256Mi", "20m"),
        "selfMonitor": {"enabled": True},  # the standard alerts about it ask for that
    }
    if cluster.datastore != "etcd":
        return plain
    snapshots = {
        "groupVersionKind": {"group": "k3s.cattle.io", "version": "v1", "kind": "ETCDSnapshotFile"},
        "metricNamePrefix": "k3s",
        "labelsFromPath": {"node": ["spec", "nodeName"]},
        "metrics": [
            {
                "name": "etcd_snapshot_created",
                "help": "When a snapshot of etcd was taken.",
                "each": {
                    "type": "Gauge",
                    "gauge": {"path": ["status", "creationTime"]},
                },
            }
        ],
    }
    verbs = ["list", "watch"]
    return plain | {
        "customResourceState": {
            "enabled": True,
            "config": {"kind": "CustomResourceStateMetrics", "spec": {"resources": [snapshots]}},
        },
        "rbac": {
            "extraRules": [
                {
                    "apiGroups": ["k3s.cattle.io"],
                    "resources": ["etcdsnapshotfiles"],
                    "verbs": verbs,
                },
                {
                    "apiGroups": ["apiextensions.k8s.io"],
                    "resources": ["customresourcedefinitions"],
                    "verbs": verbs,
                },
            ]
        },
    }


def release_ready(cluster: Cluster) -> list[Check]:
    """The operator runs and its webhook answers: it judges our rules."""
    return [
        Rollout("Deployment", f"{NAME}-operator", NAMESPACE),
        Rollout("Deployment", f"{NAME}-kube-state-metrics", NAMESPACE),
        Rollout("DaemonSet", f"{NAME}-prometheus-node-exporter", NAMESPACE),
        Webhook(
            "ValidatingWebhookConfiguration",
            f"{NAME}-admission",
            f"{NAME}-operator",
            NAMESPACE,
        ),
    ]


def external_hosts(cluster: Cluster) -> list[Object]:
    """Node exporters of hosts outside the cluster, each a target of its own address."""
    found: list[Object] = []
    for host in cluster.hosts:
        if not host.in_cluster:
            found += monitors.scrape_config(
                cluster,
                f"host-{host.name}",
                NAMESPACE,
                "node-exporter",
                [f"{host.ip}:{EXPORTER_PORT}"],
                relabelings=[
                    {"action": "replace", "targetLabel": "picluster_host", "replacement": host.name}
                ],
            )
    return found


def of_user(cluster: Cluster) -> list[Object]:
    """Rules and dashboards of the user's own folders."""
    found: list[Object] = []
    for name, text in cluster.user_rules.items():
        found += monitors.rules(cluster, f"user-{name}", NAMESPACE, prometheus_rules.groups(text))
    for name, text in dashboards.provisioned(cluster.user_dashboards).items():
        found += monitors.dashboard(cluster, f"user-{name}", NAMESPACE, text, folder="User")
    return found


def objects(cluster: Cluster) -> list[Object]:
    """Targets outside the cluster, rules, dashboards, and the routes of both programs."""
    return [
        *external_hosts(cluster),
        *monitors.rules(
            cluster,
            "picluster-model",
            NAMESPACE,
            [*k3s_metrics.rules(cluster), *host_jobs.rules(cluster)],
        ),
        *monitors.own(cluster, NAME, NAMESPACE),
        *of_user(cluster),
        *(
            route
            for host, service, port in (
                ("prometheus", PROMETHEUS, PROMETHEUS_PORT),
                ("alertmanager", ALERTMANAGER, ALERTMANAGER_PORT),
            )
            for route in web.web(
                cluster,
                name=host,
                namespace=NAMESPACE,
                service=service,
                port=port,
                host=host,
                login="proxy",
            )
        ),
    ]


def before(cluster: Cluster) -> list[Object]:
    """The API server, which is in no mesh, asks the operator's webhook."""
    labels = {"app": f"{NAME}-operator"}
    return mesh.plain_ports(cluster, f"{NAME}-webhook", NAMESPACE, labels, 10250)


def ready(cluster: Cluster) -> list[Check]:
    """Both programs run, as the operator says."""
    api = monitors.API
    return [
        Condition(api, "Prometheus", PROMETHEUS, NAMESPACE, type="Available"),
        Condition(api, "Alertmanager", ALERTMANAGER, NAMESPACE, type="Available"),
    ]


def endpoints(cluster: Cluster) -> list[Endpoint]:
    """Prometheus and Alertmanager; nothing where no ingress leads to them."""
    return web.opened(cluster, "prometheus", "alertmanager")


component = Component(
    name=NAME,
    namespace=NAMESPACE,
    wanted=monitors.wanted,
    role="metrics",
    needs=("metrics-crds", "storage", "ingress", "certificates", "mesh"),
    before=before,
    release=Release(CHARTS[NAME], values),
    release_ready=release_ready,
    objects=objects,
    ready=ready,
    endpoints=endpoints,
)
