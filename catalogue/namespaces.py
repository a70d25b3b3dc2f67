"""Namespaces of components: how strict their pods are held, and which mesh they are part of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cluster.component import Object
from cluster.model import Cluster

Level = Literal["restricted", "baseline", "privileged"]

ISTIO = {"istio.io/dataplane-mode": "ambient"}  # label; takes effect on running pods
LINKERD = {"linkerd.io/inject": "enabled"}  # annotation; takes effect on new pods
SYSTEM = ("default", "kube-system", "kube-public", "kube-node-lease")  # Kubernetes' own


@dataclass(frozen=True)
class Namespace:
    """What is known about a namespace.

    level: Pod Security level that its pods pass. Namespaces with Linkerd's proxies are held to
        "privileged" whatever stands here: its init container sets up iptables.
    meshes: the meshes whose part it is, when the stack has one of them.
    labels, annotations: further ones.
    """

    level: Level = "baseline"
    meshes: tuple[Literal["istio", "linkerd"], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()


BOTH: tuple[Literal["istio", "linkerd"], ...] = ("istio", "linkerd")

# What is not here is held to "baseline" and in no mesh. Out of the mesh stay: what the mesh itself
# rests on (CNI, load balancer, certificates), storage (Longhorn's pods know each other by pod
# address and its Jobs would never end beside a proxy), and backup of all of it.
TABLE: dict[str, Namespace] = {
    "metallb-system": Namespace("privileged"),  # speakers: host network, NET_RAW
    "traefik": Namespace(meshes=BOTH),
    "nginx": Namespace(meshes=BOTH),
    "envoy-gateway-system": Namespace(meshes=BOTH),
    "cert-manager": Namespace(),  # the webhook for IONOS has no security context
    "linkerd": Namespace(
        "privileged",
        labels=(
            ("linkerd.io/is-control-plane", "true"),
            ("linkerd.io/control-plane-ns", "linkerd"),
            ("config.linkerd.io/admission-webhooks", "disabled"),
        ),
        annotations=(("linkerd.io/inject", "disabled"),),
    ),
    "linkerd-viz": Namespace(
        meshes=("linkerd",),
        labels=(("linkerd.io/extension", "viz"),),
        annotations=(("config.linkerd.io/proxy-await", "enabled"),),
    ),
    "istio-system": Namespace("privileged"),  # CNI agent and ztunnel change the host's network
    "istio-ingress": Namespace(),
    "kiali-operator": Namespace(meshes=("istio",)),
    "longhorn-system": Namespace("privileged"),  # host paths, mounts
    "velero": Namespace("privileged"),  # node agent: host paths
    "cnpg-system": Namespace(meshes=("istio",)),
    "keycloak": Namespace(meshes=BOTH),
    "oauth2-proxy": Namespace(meshes=BOTH),
    "elastic": Namespace(meshes=BOTH),
    "fluent": Namespace("privileged", meshes=BOTH),  # host paths with the logs
    "loki": Namespace(meshes=BOTH),
    "monitoring": Namespace("privileged", meshes=BOTH),  # node exporter: host network and PIDs
}


def in_mesh(cluster: Cluster, name: str) -> bool:
    """Whether the namespace's pods are part of the stack's mesh."""
    mesh = cluster.stack.mesh
    return mesh != "none" and (
        mesh in TABLE.get(name, Namespace()).meshes or name in cluster.platform.mesh_namespaces
    )


def namespace(cluster: Cluster, name: str) -> Object:
    """The object of a namespace; raises ValueError for Kubernetes' own."""
    if name in SYSTEM:
        raise ValueError(f"namespace {name} belongs to Kubernetes")
    known = TABLE.get(name, Namespace())
    linkerd = in_mesh(cluster, name) and cluster.stack.mesh == "linkerd"
    istio = in_mesh(cluster, name) and cluster.stack.mesh == "istio"
    labels = {
        "pod-security.kubernetes.io/enforce": "privileged" if linkerd else known.level,
        **dict(known.labels),
        **(ISTIO if istio else {}),
    }
    annotations = {**dict(known.annotations), **(LINKERD if linkerd else {})}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": labels,
            **({"annotations": annotations} if annotations else {}),
        },
    }


def of_user(cluster: Cluster) -> list[Object]:
    """The user's own namespaces that join the mesh: membership, nothing else."""
    key, membership = (
        ("labels", ISTIO) if cluster.stack.mesh == "istio" else ("annotations", LINKERD)
    )
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, key: membership}}
        for name in cluster.platform.mesh_namespaces
        if name not in TABLE
    ]
