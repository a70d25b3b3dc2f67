"""Sets of products that were tried together: what a preset chooses for each role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: dict[str, dict[str, str]] = {
    "v1_5": {
        "cni": "flannel",
        "kube_proxy": "k3s",
        "load_balancer": "metallb",
        "ingress": "traefik",
        "certificates": "cert-manager",
        "mesh": "linkerd",
        "storage": "longhorn",
        "snapshots": "external-snapshotter",
        "backup": "velero",
        "database": "none",
        "identity": "none",
        "logs": "elasticsearch",
        "metrics": "kube-prometheus-stack",
        "gitops": "none",
    },
    "v1_8": {
        "cni": "flannel",
        "kube_proxy": "k3s",
        "load_balancer": "metallb",
        "ingress": "nginx",
        "certificates": "cert-manager",
        "mesh": "linkerd",
        "storage": "longhorn",
        "snapshots": "external-snapshotter",
        "backup": "velero",
        "database": "none",
        "identity": "keycloak-bitnami",
        "logs": "elasticsearch",
        "metrics": "kube-prometheus-stack",
        "gitops": "argocd",
    },
    "v1_9": {
        "cni": "cilium",
        "kube_proxy": "cilium",
        "load_balancer": "cilium",
        "ingress": "envoy",
        "certificates": "cert-manager",
        "mesh": "istio",
        "storage": "longhorn",
        "snapshots": "external-snapshotter",
        "backup": "velero",
        "database": "cloudnative-pg",
        "identity": "keycloak",
        "logs": "elasticsearch",
        "metrics": "kube-prometheus-stack",
        "gitops": "flux",
    },
}


def fill(stack: Mapping[str, Any]) -> dict[str, Any]:
    """The stack with its preset's choice for every role it does not name itself."""
    return {**PRESETS.get(str(stack.get("preset")), {}), **stack}
