"""Parts of the real charts that a value switches off, by the names in their contracts.

Read from the templates' conditions; a part without an entry is always rendered. `!path` means
that it is there while the value is false. Names are patterns, the longest that matches counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from tests.contracts.contract import look_up

PARTS: dict[str, dict[str, str]] = {
    "cert-manager": {
        "cert-manager-cainjector*": "cainjector.enabled",
        "cert-manager-startupapicheck*": "startupapicheck.enabled",
    },
    "cilium": {"cilium-operator": "operator.enabled", "cilium": "agent"},
    "eck-operator": {"elastic-operator*webhook*": "webhook.enabled"},
    "ingress-nginx": {"ingress-nginx-*admission*": "controller.admissionWebhooks.enabled"},
    "keycloak-bitnami": {"keycloak-bitnami-postgresql*": "postgresql.enabled"},
    "kube-prometheus-stack": {
        "kube-prometheus-stack-alertmanager*": "alertmanager.enabled",
        "alertmanager-kube-prometheus-stack-alertmanager": "alertmanager.enabled",
        "kube-prometheus-stack-grafana*": "grafana.enabled",
        "kube-prometheus-stack-kube-state-metrics*": "kubeStateMetrics.enabled",
        "kube-prometheus-stack-prometheus-node-exporter*": "nodeExporter.enabled",
        "kube-prometheus-stack-operator*": "prometheusOperator.enabled",
        "kube-prometheus-stack-admission*": "prometheusOperator.admissionWebhooks.enabled",
        "kube-prometheus-stack-prometheus": "prometheus.enabled",
        "kube-prometheus-stack-kube-controller-manager": "kubeControllerManager.enabled",
        "kube-prometheus-stack-kube-etcd": "kubeEtcd.enabled",
        "kube-prometheus-stack-kube-proxy": "kubeProxy.enabled",
        "kube-prometheus-stack-kube-scheduler": "kubeScheduler.enabled",
        "kube-prometheus-stack-coredns": "coreDns.enabled",
        "kube-prometheus-stack-apiserver": "kubeApiServer.enabled",
        "kube-prometheus-stack-kubelet": "kubelet.enabled",
    },
    "linkerd-control-plane": {"linkerd-heartbeat": "!disableHeartBeat"},
    "linkerd-viz": {
        "prometheus*": "prometheus.enabled",
        "namespace-metadata*": "createNamespaceMetadataJob",
    },
    "loki-community": {
        "loki-community-gateway*": "gateway.enabled",
        "loki-community-canary*": "lokiCanary.enabled",
        "loki-community-chunks-cache*": "chunksCache.enabled",
        "loki-community-results-cache*": "resultsCache.enabled",
    },
    "metallb": {"metallb-speaker*": "speaker.enabled", "metallb-controller*": "controller.enabled"},
    "snapshot-controller": {"snapshot-controller": "controller.enabled"},
    "velero": {"node-agent": "deployNodeAgent", "velero-upgrade-crds": "upgradeCRDs"},
}


def switch(contract: str, known_as: str) -> str | None:
    """The value that switches a part of a chart on, None when it is always there."""
    fitting = [
        (len(pattern), path)
        for pattern, path in PARTS.get(contract, {}).items()
        if fnmatchcase(known_as, pattern)
    ]
    return max(fitting)[1] if fitting else None


def is_on(values: Mapping[str, Any], path: str | None) -> bool:
    """Whether a switch is on in merged values; a condition without a value is not."""
    if path is None:
        return True
    negated, path = path.startswith("!"), path.removeprefix("!")
    return bool(look_up(values, path)) != negated
