"""Traefik of our own, beside which K3s' own is switched off."""

from __future__ import annotations

from typing import Any

from catalogue import addresses, certificates, mesh, monitors, web
from catalogue.pods import replicas, resources, spread
from cluster.component import Component, Object, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Rollout
from cluster.versions import CHARTS

NAMESPACE = web.NAMESPACES["traefik"]
HOST = "traefik"
_DASHBOARD = "traefik-dashboard"
_LABELS = {"app.kubernetes.io/name": "traefik"}


def values(cluster: Cluster) -> Values:
    """Traefik as a Deployment with one address, TLS for all, and JSON logs to stdout."""
    pods = replicas(cluster, 2)
    linkerd = cluster.stack.mesh == "linkerd"
    # To a Service's address instead of its pods': Linkerd picks the pod, and knows the Service.
    native = {"nativeLBByDefault": linkerd}
    return {
        "deployment": {
            "replicas": pods,
            "podAnnotations": _linkerd() if linkerd else {},
        },
        "podDisruptionBudget": {"enabled": pods > 1, **({"maxUnavailable": 1} if pods > 1 else {})},
        "topologySpreadConstraints": spread(_LABELS),
        "resources": resources("64Mi", "256Mi", "50m"),
        "service": {"annotations": addresses.asked(cluster, cluster.ingress_address)},
        "ports": {"web": _redirected() if web.secure(cluster) else {}},
        "providers": {"kubernetesCRD": native, "kubernetesIngress": native},
        "log": {"format": "json"},
        "accessLog": {"enabled": True, "format": "json"},
        "metrics": {
            "prometheus": {
                # The kind comes first, but helm also renders the chart without the cluster.
                "disableAPICheck": True,
                "service": {"enabled": monitors.wanted(cluster)},
                "serviceMonitor": {"enabled": monitors.wanted(cluster)},
            }
        },
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
    }


def _redirected() -> dict[str, Any]:
    to = {"to": "websecure", "scheme": "https", "permanent": True}
    return {"http": {"redirections": {"entryPoint": to}}}


def _linkerd() -> dict[str, str]:
    """What comes from outside is not the mesh's, so that clients keep their addresses."""
    return {
        "config.linkerd.io/skip-inbound-ports": "8000,8443",
        "config.linkerd.io/skip-outbound-ports": "443",
    }


def release_ready(cluster: Cluster) -> list[Check]:
    """Routes may come."""
    return [Rollout("Deployment", "traefik", NAMESPACE)]


def before(cluster: Cluster) -> list[Object]:
    """Who comes from outside is in no mesh."""
    return mesh.plain_ports(cluster, "traefik", NAMESPACE, _LABELS, 8000, 8443)


def _dashboard(cluster: Cluster) -> list[Object]:
    """The dashboard is part of Traefik, not a Service: only a route of its own leads there."""
    host = web.hostname(cluster, HOST)
    secure = web.secure(cluster)
    own = secure and not certificates.wildcard(cluster)
    route: Object = {
        "apiVersion": web.TRAEFIK_API,
        "kind": "IngressRoute",
        "metadata": {"name": _DASHBOARD, "namespace": NAMESPACE},
        "spec": {
            "entryPoints": ["websecure" if secure else "web"],
            "routes": [
                {
                    "kind": "Rule",
                    "match": f"Host(`{host}`)",
                    "middlewares": [{"name": web.LOGIN}],
                    "services": [{"name": "api@internal", "kind": "TraefikService"}],
                }
            ],
            **({"tls": {"secretName": _DASHBOARD} if own else {}} if secure else {}),
        },
    }
    needed = [certificates.certificate(cluster, _DASHBOARD, NAMESPACE, [host])] if own else []
    return [*needed, route]


def objects(cluster: Cluster) -> list[Object]:
    """Middlewares before the routes that name them."""
    return [
        *web.middlewares(cluster),
        *(web.default_certificate(cluster) if web.secure(cluster) else []),
        *_dashboard(cluster),
    ]


def ready(cluster: Cluster) -> list[Check]:
    """It has its address; the certificate may take its time (DNS), and nobody waits for it."""
    return addresses.given(cluster, "traefik", NAMESPACE, cluster.ingress_address)


component = Component(
    name="traefik",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.ingress == "traefik",
    role="ingress",
    needs=("cni", "load-balancer", "certificates", "mesh", "metrics-crds"),
    secrets=web.basic_auth,
    before=before,
    release=Release(CHARTS["traefik"], values),
    release_ready=release_ready,
    objects=objects,
    ready=ready,
    endpoints=lambda cluster: web.opened(cluster, HOST, path="/dashboard/"),
)
