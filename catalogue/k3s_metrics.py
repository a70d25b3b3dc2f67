"""What Prometheus scrapes of K3s: each series once, under jobs that the standard rules know.

K3s runs all of Kubernetes in one process, and each of its endpoints (kubelet 10250, kube-proxy
10249, controller manager 10257, scheduler 10259, API server 6443) has the series of the whole
process. So only the kubelet's is scraped, on every node, as the operator keeps a list of them; the
chart writes the rules and dashboards of the other four for that job (`jobNameOverride`).
"""

from __future__ import annotations

from typing import Any

from cluster.component import Values
from cluster.model import Cluster

JOB = "kubelet"
ETCD_PORT = 2381

# Series of etcd's own endpoint that are etcd's. The rest of it (Go runtime, process) is that of the
# K3s process once more. `etcd_request*` is the API server's view of etcd.
ETCD_SERIES = (
    "(etcd_(cluster|debugging|disk|grpc_proxy|mvcc|network|server|snap|snapshot)|grpc_server|os_fd)"
    "_.+"
)

# Buckets that no standard rule or dashboard reads, as the chart leaves them out where it scrapes
# the API server by itself.
API_BUCKETS = (
    "(etcd_request|apiserver_request_slo|apiserver_request_sli|apiserver_request)"
    "_duration_seconds_bucket;"
    r"(0\.15|0\.2|0\.3|0\.35|0\.4|0\.45|0\.6|0\.7|0\.8|0\.9|1\.25|1\.5|1\.75|2|3|3\.5|4|4\.5|6|7|8"
    r"|9|15|20|40|45|50)(\.0)?"
)
# The same for volumes: the chart's own default of the kubelet.
VOLUME_BUCKETS = (
    r"(csi_operations|storage_operation_duration)_seconds_bucket;(0.25|2.5|15|25|120|600)(\.0)?"
)


def _drop(regex: str, *labels: str) -> dict[str, Any]:
    return {"action": "drop", "sourceLabels": ["__name__", *labels], "regex": regex}


def values(cluster: Cluster) -> Values:
    """The part of kube-prometheus-stack's values that is about K3s."""
    elsewhere = {
        "jobNameOverride": JOB,
        "serviceMonitor": {"enabled": False},
    }
    no_service = elsewhere | {"service": {"enabled": False}}
    proxy = cluster.stack.kube_proxy == "k3s"
    return {
        "kubelet": {
            "jobNameOverride": JOB,
            "serviceMonitor": {
                "interval": "30s",
                "cAdvisorInterval": "30s",
                "probes": True,
                "metricRelabelings": [
                    _drop(VOLUME_BUCKETS, "le"),
                    _drop(API_BUCKETS, "le"),
                    *([_drop(ETCD_SERIES)] if cluster.datastore == "etcd" else []),
                ],
            },
        },
        "kubeApiServer": elsewhere,
        "kubeControllerManager": no_service,
        "kubeScheduler": no_service,
        # Where the CNI takes its place there is none: no series, rules or dashboard.
        "kubeProxy": no_service if proxy else {"enabled": False},
        "kubeEtcd": _etcd(cluster),
        "defaultRules": {"disabled": dict.fromkeys(_disabled(), True)},
    }


def _etcd(cluster: Cluster) -> Values:
    """K3s' etcd, which no pod's label leads to."""
    if cluster.datastore != "etcd":
        return {"enabled": False}
    return {
        "endpoints": [str(server.ip) for server in cluster.servers],
        "service": {"port": ETCD_PORT, "targetPort": ETCD_PORT},
        "serviceMonitor": {
            "bearerTokenFile": None,  # etcd asks for none, and plain HTTP would show it to the LAN
            "metricRelabelings": [
                {"action": "keep", "sourceLabels": ["__name__"], "regex": ETCD_SERIES}
            ],
        },
    }


def _disabled() -> tuple[str, ...]:
    """Standard alerts that say nothing here."""
    # All ask for the same process on the same port as KubeletDown and KubeletInstanceUnreachable.
    again = tuple(
        f"Kube{part}{what}"
        for part in ("API", "ControllerManager", "Proxy", "Scheduler")
        for what in ("Down", "InstanceUnreachable")
    )
    # The kubelet does not renew its certificates, K3s does: see K3sCertificateExpires.
    certificates = tuple(
        f"Kubelet{side}Certificate{what}"
        for side in ("Client", "Server")
        for what in ("Expiration", "RenewalErrors")
    )
    # etcd has these figures with `metrics: extensive` only, the node exporter with access to D-Bus.
    unseen = ("etcdGRPCRequestsSlow", "NodeSystemdServiceFailed", "NodeSystemdServiceCrashlooping")
    return (*again, *certificates, *unseen)


def rules(cluster: Cluster) -> list[dict[str, Any]]:
    """Groups that follow from the model: every node of it is scraped."""
    return [
        {
            "name": "picluster-nodes-of-the-model",
            "rules": [
                {
                    "alert": "NodeNotScraped",
                    "expr": f'absent(up{{job="{JOB}",metrics_path="/metrics",node="{host.name}"}})',
                    "for": "15m",
                    "labels": {"severity": "warning", "node": host.name},
                    "annotations": {
                        "summary": f"Nothing is known about {host.name}: "
                        "Prometheus has no target for it."
                    },
                }
                for host in cluster.members
            ],
        }
    ]
