"""Linkerd's control plane; cert-manager keeps its identity and its webhooks' certificates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catalogue import certificates, monitors, namespaces
from cluster.component import Component, Copy, Object, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Rollout, Webhook
from cluster.versions import CHARTS

NAMESPACE = "linkerd"
ISSUER = "linkerd-identity-issuer"  # Certificate and Secret; the chart knows this name
ANCHORS = "linkerd-identity-trust-roots"  # ConfigMap; the chart knows this name
WEBHOOKS = {  # value of the chart: Service and Certificate
    "proxyInjector": "linkerd-proxy-injector",
    "profileValidator": "linkerd-sp-validator",
    "policyValidator": "linkerd-policy-validator",
}


def webhook_values(namespace: str, webhooks: Mapping[str, str]) -> Values:
    """Values for webhooks whose certificates are ours.

    Helm would make certificates of a year, new ones in each rendering.
    """
    return {
        key: {"externalSecret": True, "injectCaFrom": f"{namespace}/{name}"}
        for key, name in webhooks.items()
    }


def webhook_certificates(
    cluster: Cluster, namespace: str, webhooks: Mapping[str, str]
) -> list[Object]:
    """Those certificates, in the Secrets that Linkerd's programs look at and read again."""
    return [
        certificates.certificate(
            cluster,
            name,
            namespace,
            [f"{name}.{namespace}.svc"],
            issuer=certificates.CA_ISSUER,
            secret=f"{name}-k8s-tls",
            usages=["server auth"],
        )
        for name in webhooks.values()
    ]


def resources(memory: str, limit: str, cpu: str = "10m") -> dict[str, Any]:
    """What a container asks for, as Linkerd's charts want it said."""
    return {"cpu": {"request": cpu}, "memory": {"request": memory, "limit": limit}}


def values(cluster: Cluster) -> Values:
    """One replica, certificates of cert-manager, iptables by an init container.

    Without Linkerd's CNI plugin: it would have to follow the directories of K3s' CNI and of Cilium.
    """
    domain = cluster.network.cluster_domain
    size = resources("48Mi", "256Mi")
    return {
        "clusterDomain": domain,
        "clusterNetworks": _networks(cluster),
        "cniEnabled": False,
        "disableHeartBeat": True,  # it reports to its makers
        "identity": {"externalCA": True, "issuer": {"scheme": "kubernetes.io/tls"}},
        **webhook_values(NAMESPACE, WEBHOOKS),
        "proxy": {"resources": resources("24Mi", "256Mi")},
        "destinationResources": size,
        "identityResources": resources("16Mi", "128Mi"),
        "proxyInjectorResources": size,
        "spValidatorResources": resources("24Mi", "128Mi"),
        "policyController": {"resources": resources("24Mi", "128Mi")},
    }


def _networks(cluster: Cluster) -> str:
    network = cluster.network
    pods = network.cilium_cidr if cluster.stack.cni == "cilium" else network.pod_cidr
    return f"{pods},{network.service_cidr},{network.lan}"


def before(cluster: Cluster) -> list[Object]:
    """The identity's issuer, which lives two days, and the webhooks' certificates."""
    name = f"identity.linkerd.{cluster.network.cluster_domain}"
    issuer = certificates.certificate(
        cluster,
        ISSUER,
        NAMESPACE,
        [name],
        issuer=certificates.CA_ISSUER,
        commonName=name,
        isCA=True,
        duration="48h0m0s",
        renewBefore="25h0m0s",
        usages=["cert sign", "crl sign", "server auth", "client auth"],
    )
    return [issuer, *webhook_certificates(cluster, NAMESPACE, WEBHOOKS)]


def copies(cluster: Cluster) -> list[Copy]:
    """The trust anchor: the certificate of the CA that signs the issuer."""
    return [Copy((NAMESPACE, ISSUER, "ca.crt"), (NAMESPACE, ANCHORS, "ca-bundle.crt"))]


def _relabel(action: str, regex: str, *labels: str, **more: str) -> dict[str, Any]:
    meta = [f"__meta_kubernetes_pod_{label}" for label in labels]
    return {"action": action, "regex": regex, **({"sourceLabels": meta} if meta else {}), **more}


def _monitor(name: str, namespaces: dict[str, Any], relabelings: list[dict[str, Any]]) -> Object:
    # Three points in the minute over which Linkerd's page takes its rates. The label `job` is the
    # one that dashboards ask for; by itself it would be the PodMonitor's name.
    endpoint = {
        "interval": "20s",
        "relabelings": [*relabelings, {"targetLabel": "job", "replacement": name}],
    }
    return {
        "apiVersion": monitors.API,
        "kind": "PodMonitor",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "namespaceSelector": namespaces,
            "selector": {},
            "podMetricsEndpoints": [endpoint],
        },
    }


def pod_monitors(cluster: Cluster) -> list[Object]:
    """Figures of the control plane's programs, and of every proxy with its pod's labels."""
    if not monitors.wanted(cluster):
        return []
    container, port = "container_name", "container_port_name"
    pod = "__meta_kubernetes_pod_label_"
    controller = [
        _relabel("keep", "admin-http|.+-admin", port),
        _relabel("drop", "linkerd-admin", port),  # the proxies' own
        _relabel("replace", "(.+)", container, targetLabel="component"),
    ]
    proxy = [
        _relabel(
            "keep",
            f"linkerd-proxy;linkerd-admin;{NAMESPACE}",
            container,
            port,
            "label_linkerd_io_control_plane_ns",
        ),
        _relabel("replace", "(.+)", "name", targetLabel="pod"),
        {"sourceLabels": ["__meta_kubernetes_namespace"], "targetLabel": "namespace"},
        _relabel("replace", "(.+)", "label_linkerd_io_proxy_job", targetLabel="k8s_job"),
        _relabel("labeldrop", f"{pod}linkerd_io_proxy_job"),
        _relabel("labelmap", f"{pod}linkerd_io_proxy_(.+)"),
        _relabel("labeldrop", f"{pod}linkerd_io_proxy_(.+)"),
        _relabel("labelmap", f"{pod}linkerd_io_(.+)"),
        _relabel("labelmap", f"{pod}(.+)", replacement="__tmp_pod_label_$1"),
        _relabel("labelmap", "__tmp_pod_label_linkerd_io_(.+)", replacement="__tmp_pod_label_$1"),
        _relabel("labeldrop", "__tmp_pod_label_linkerd_io_(.+)"),
        _relabel("labelmap", "__tmp_pod_label_(.+)"),
    ]
    own = {"matchNames": [NAMESPACE, "linkerd-viz"]}
    return [
        _monitor("linkerd-controller", own, controller),
        _monitor("linkerd-proxy", {"any": True}, proxy),
    ]


def objects(cluster: Cluster) -> list[Object]:
    """The user's namespaces in the mesh, and what measures it."""
    return [*namespaces.of_user(cluster), *pod_monitors(cluster)]


def release_ready(cluster: Cluster) -> list[Check]:
    """The injector answers: pods that come before it stay outside the mesh."""
    names = ("linkerd-destination", "linkerd-identity", "linkerd-proxy-injector")
    return [
        *(Rollout("Deployment", name, NAMESPACE) for name in names),
        Webhook(
            "MutatingWebhookConfiguration",
            "linkerd-proxy-injector-webhook-config",
            "linkerd-proxy-injector",
            NAMESPACE,
        ),
    ]


component = Component(
    name="linkerd",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.mesh == "linkerd",
    role="mesh",
    needs=("cni", "certificates", "metrics-crds", "linkerd-crds"),
    before=before,
    copies=copies,
    release=Release(CHARTS["linkerd"], values),
    release_ready=release_ready,
    objects=objects,
    retired="stable releases ended in 2024; take stack.mesh istio",
)
