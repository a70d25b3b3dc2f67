"""What pods in the mesh of the stack need beside it."""

from __future__ import annotations

from collections.abc import Mapping

from catalogue import namespaces
from cluster.component import Object
from cluster.model import Cluster

PEER_API = "security.istio.io/v1"
# What comes from the host, such as the kubelet's probes, shows this address to pods of ambient
# Istio. Source: its documentation, ambient mode and NetworkPolicy; istio/istio#49277.
ISTIO_HOST = "169.254.7.127/32"


def plain_ports(
    cluster: Cluster, name: str, namespace: str, labels: Mapping[str, str], *ports: int
) -> list[Object]:
    """Lets who is in no mesh reach ports of pods in Istio's, which is strict else.

    For webhooks (the API server calls them), and for what hosts outside the cluster talk to. It
    belongs into `before` of a component that needs "mesh"; [] where nothing is strict.

    labels: of the pods; ports: their containers' numbers.
    """
    if cluster.stack.mesh != "istio" or not namespaces.in_mesh(cluster, namespace):
        return []
    return [
        peers(
            name,
            namespace,
            selector={"matchLabels": dict(labels)},
            portLevelMtls={str(port): {"mode": "PERMISSIVE"} for port in ports},
        )
    ]


def peers(name: str, namespace: str, **spec: object) -> Object:
    """A PeerAuthentication; pods it selects take what comes from the mesh, and nothing else."""
    return {
        "apiVersion": PEER_API,
        "kind": "PeerAuthentication",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"mtls": {"mode": "STRICT"}, **spec},
    }
