"""ingress-nginx: the state that migrations start from."""

from __future__ import annotations

import json

from catalogue import addresses, certificates, mesh, monitors, web
from catalogue.pods import replicas, resources, spread
from cluster.component import Component, Object, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Rollout, Webhook
from cluster.versions import CHARTS

NAMESPACE = web.NAMESPACES["nginx"]
_CONTROLLER = "ingress-nginx-controller"
_LABELS = {"app.kubernetes.io/name": "ingress-nginx", "app.kubernetes.io/component": "controller"}

# One JSON object a request, by the names that Traefik's and Envoy's logs use for the same things.
_ACCESS_LOG = json.dumps(
    {
        "time": "$time_iso8601",
        "client": "$remote_addr",
        "host": "$host",
        "method": "$request_method",
        "path": "$request_uri",
        "protocol": "$server_protocol",
        "status": "$status",
        "bytes": "$bytes_sent",
        "duration": "$request_time",
        "upstream": "$proxy_upstream_name",
        "user_agent": "$http_user_agent",
        "request_id": "$req_id",
    }
)


def values(cluster: Cluster) -> Values:
    """All of it below `controller`, where the chart looks for it."""
    pods = replicas(cluster, 2)
    controller: Values = {
        "replicaCount": pods,
        "topologySpreadConstraints": spread(_LABELS),
        "resources": resources("128Mi", "512Mi", "50m"),
        "ingressClassResource": {"default": True},
        "service": {"annotations": addresses.asked(cluster, cluster.ingress_address)},
        "config": _config(cluster),
        "metrics": {
            "enabled": monitors.wanted(cluster),
            "serviceMonitor": {"enabled": monitors.wanted(cluster)},
        },
        "admissionWebhooks": {
            job: {"resources": resources("32Mi", "128Mi")}
            for job in ("createSecretJob", "patchWebhookJob")
        },
    }
    if web.secure(cluster):
        default = f"{NAMESPACE}/{certificates.DEFAULT_NAME}"
        controller["extraArgs"] = {"default-ssl-certificate": default}
    if cluster.stack.mesh == "linkerd":
        controller["podAnnotations"] = {"config.linkerd.io/skip-inbound-ports": "80,443,8443"}
    return {"controller": controller}


def _config(cluster: Cluster) -> dict[str, str]:
    config = {"log-format-escape-json": "true", "log-format-upstream": _ACCESS_LOG}
    if web.basic_auth(cluster):
        # One password for routes of all namespaces.
        config["allow-cross-namespace-resources"] = "true"
    if web.single_sign_on(cluster):
        config["proxy-buffer-size"] = "16k"  # headers of Keycloak's answers exceed a page
    if cluster.stack.mesh == "linkerd":
        # To a Service's address instead of its pods': Linkerd picks the pod, and knows the Service.
        config["service-upstream"] = "true"
    return config


def release_ready(cluster: Cluster) -> list[Check]:
    """Its webhook judges every Ingress."""
    return [
        Rollout("Deployment", _CONTROLLER, NAMESPACE),
        Webhook(
            "ValidatingWebhookConfiguration",
            "ingress-nginx-admission",
            f"{_CONTROLLER}-admission",
            NAMESPACE,
        ),
    ]


def before(cluster: Cluster) -> list[Object]:
    """Who comes from outside is in no mesh, and the API server, which asks the webhook, neither."""
    return mesh.plain_ports(cluster, "ingress-nginx", NAMESPACE, _LABELS, 80, 443, 8443)


def objects(cluster: Cluster) -> list[Object]:
    """The certificate for names without one."""
    return [certificates.default_certificate(cluster, NAMESPACE)] if web.secure(cluster) else []


def ready(cluster: Cluster) -> list[Check]:
    """It has its address."""
    return addresses.given(cluster, _CONTROLLER, NAMESPACE, cluster.ingress_address)


component = Component(
    name="ingress-nginx",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.ingress == "nginx",
    role="ingress",
    needs=("cni", "load-balancer", "certificates", "mesh", "metrics-crds"),
    secrets=web.basic_auth,
    before=before,
    release=Release(CHARTS["ingress-nginx"], values),
    release_ready=release_ready,
    objects=objects,
    ready=ready,
    on_failure="rollback",
    retired="ended in March 2026; take stack.ingress envoy",
)
