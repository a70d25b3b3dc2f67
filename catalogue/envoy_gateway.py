"""Envoy Gateway, its Gateway API, and the one Gateway that all routes share."""

from __future__ import annotations

from typing import Any

from catalogue import addresses, certificates, mesh, monitors, web
from catalogue.pods import replicas, resources, spread
from cluster.component import Component, Object, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Condition, Rollout
from cluster.versions import CHARTS

NAMESPACE = web.NAMESPACES["envoy"]
CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
CLASS = "envoy"
PROXY = "envoy-public"  # Deployment and Service that the controller makes for the Gateway
LISTENERS = (10080, 10443)  # ports of its containers for 80 and 443
# What the controller puts on the pods of a Gateway.
PROXY_LABELS = {
    "app.kubernetes.io/component": "proxy",
    "gateway.envoyproxy.io/owning-gateway-name": web.GATEWAY,
}


def values(cluster: Cluster) -> Values:
    """The controller."""
    return {
        "deployment": {"envoyGateway": {"resources": resources("128Mi", "512Mi", "50m")}},
        "config": {
            "envoyGateway": {
                "gateway": {"controllerName": CONTROLLER},
                "provider": {"type": "Kubernetes"},
            }
        },
        "kubernetesClusterDomain": cluster.network.cluster_domain,
        # It tells proxies their zone, of which a cluster at home has one.
        "topologyInjector": {"enabled": False},
    }


def release_ready(cluster: Cluster) -> list[Check]:
    """The controller."""
    return [Rollout("Deployment", "envoy-gateway", NAMESPACE)]


def before(cluster: Cluster) -> list[Object]:
    """Who comes from outside is in no mesh."""
    return mesh.plain_ports(cluster, PROXY, NAMESPACE, PROXY_LABELS, *LISTENERS)


def _proxy(cluster: Cluster) -> Object:
    pods = replicas(cluster, 2)
    linkerd = cluster.stack.mesh == "linkerd"
    skipped = {"config.linkerd.io/skip-inbound-ports": ",".join(map(str, LISTENERS))}
    kubernetes: dict[str, Any] = {
        "envoyDeployment": {
            "name": PROXY,
            "replicas": pods,
            "container": {"resources": resources("128Mi", "512Mi", "100m")},
            "pod": {
                "topologySpreadConstraints": spread(PROXY_LABELS),
                **({"annotations": skipped} if linkerd else {}),
            },
        },
        "envoyService": {
            "name": PROXY,
            "type": "LoadBalancer",
            "annotations": addresses.asked(cluster, cluster.ingress_address),
            # "Local", the default, is not for addresses that a node without a proxy announces.
            "externalTrafficPolicy": "Cluster",
        },
    }
    if pods > 1:
        kubernetes["envoyPDB"] = {"minAvailable": pods - 1}
    return {
        "apiVersion": web.ENVOY_API,
        "kind": "EnvoyProxy",
        "metadata": {"name": web.GATEWAY, "namespace": NAMESPACE},
        "spec": {
            "provider": {"type": "Kubernetes", "kubernetes": kubernetes},
            "telemetry": {"accessLog": {"settings": [_access_log()]}},
        },
    }


def _access_log() -> dict[str, Any]:
    return {
        "sinks": [{"type": "File", "file": {"path": "/dev/stdout"}}],
        "format": {
            "type": "JSON",
            "json": {
                "time": "%START_TIME%",
                "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                "host": "%REQ(:AUTHORITY)%",
                "method": "%REQ(:METHOD)%",
                "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
                "protocol": "%PROTOCOL%",
                "status": "%RESPONSE_CODE%",
                "flags": "%RESPONSE_FLAGS%",
                "bytes": "%BYTES_SENT%",
                "duration": "%DURATION%",
                "upstream": "%UPSTREAM_CLUSTER%",
                "user_agent": "%REQ(USER-AGENT)%",
                "request_id": "%REQ(X-REQUEST-ID)%",
            },
        },
    }


def _class() -> Object:
    return {
        "apiVersion": web.GATEWAY_API,
        "kind": "GatewayClass",
        "metadata": {"name": CLASS},
        "spec": {
            "controllerName": CONTROLLER,
            "parametersRef": {
                "group": "gateway.envoyproxy.io",
                "kind": "EnvoyProxy",
                "name": web.GATEWAY,
                "namespace": NAMESPACE,
            },
        },
    }


def _gateway(cluster: Cluster) -> Object:
    everybody = {"namespaces": {"from": "All"}}
    secure = web.secure(cluster)
    listeners: list[dict[str, Any]] = [
        {
            "name": web.HTTP,
            "protocol": "HTTP",
            "port": 80,
            # With TLS only our own redirect is here.
            "allowedRoutes": {"namespaces": {"from": "Same"}} if secure else everybody,
        }
    ]
    if secure:
        certificate = {"kind": "Secret", "name": certificates.DEFAULT_NAME}
        listeners.append(
            {
                "name": web.HTTPS,
                "protocol": "HTTPS",
                "port": 443,
                "tls": {"mode": "Terminate", "certificateRefs": [certificate]},
                "allowedRoutes": everybody,
            }
        )
    return {
        "apiVersion": web.GATEWAY_API,
        "kind": "Gateway",
        "metadata": {"name": web.GATEWAY, "namespace": NAMESPACE},
        "spec": {"gatewayClassName": CLASS, "listeners": listeners},
    }


def _redirect() -> Object:
    to = {"scheme": "https", "statusCode": 301}
    return {
        "apiVersion": web.GATEWAY_API,
        "kind": "HTTPRoute",
        "metadata": {"name": web.REDIRECT, "namespace": NAMESPACE},
        "spec": {
            "parentRefs": [{"name": web.GATEWAY, "sectionName": web.HTTP}],
            "rules": [{"filters": [{"type": "RequestRedirect", "requestRedirect": to}]}],
        },
    }


def _clients(cluster: Cluster) -> Object:
    """What holds for all who come.

    oauth2-proxy is told where somebody wanted to go by a header that nobody else can set; it gets
    the host and not the path of a request that is to be judged, see `web`.
    """
    scheme = "https" if web.secure(cluster) else "http"
    wanted = {
        "name": "X-Auth-Request-Redirect",
        "value": f"{scheme}://%REQ(:AUTHORITY)%%REQ(:PATH)%",
    }
    return {
        "apiVersion": web.ENVOY_API,
        "kind": "ClientTrafficPolicy",
        "metadata": {"name": web.GATEWAY, "namespace": NAMESPACE},
        "spec": {
            "targetRefs": [
                {
                    "group": "gateway.networking.k8s.io",
                    "kind": "Gateway",
                    "name": web.GATEWAY,
                }
            ],
            "headers": {"earlyRequestHeaders": {"set": [wanted]}},
            **({"tls": {"minVersion": "1.2"}} if web.secure(cluster) else {}),
        },
    }


def objects(cluster: Cluster) -> list[Object]:
    """The Gateway, all that it refers to, and what measures it."""
    secure = web.secure(cluster)
    return [
        _proxy(cluster),
        _class(),
        *([certificates.default_certificate(cluster, NAMESPACE)] if secure else []),
        _gateway(cluster),
        _clients(cluster),
        *([_redirect()] if secure else []),
        *([] if web.single_sign_on(cluster) else web.grants(cluster)),
        *monitors.service_monitor(
            cluster, "envoy-gateway", NAMESPACE, {"control-plane": "envoy-gateway"}, "metrics"
        ),
        *monitors.pod_monitor(
            cluster, PROXY, NAMESPACE, PROXY_LABELS, "metrics", path="/stats/prometheus"
        ),
    ]


def ready(cluster: Cluster) -> list[Check]:
    """Programmed: its proxies run, and their Service has its address."""
    if cluster.stack.load_balancer == "none":
        return []
    return [Condition(web.GATEWAY_API, "Gateway", web.GATEWAY, NAMESPACE, type="Programmed")]


component = Component(
    name="envoy-gateway",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.ingress == "envoy",
    role="ingress",
    needs=("cni", "load-balancer", "certificates", "mesh", "metrics-crds"),
    secrets=web.basic_auth,
    before=before,
    release=Release(CHARTS["envoy-gateway"], values),
    release_ready=release_ready,
    objects=objects,
    ready=ready,
)
