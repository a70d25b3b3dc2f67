"""How many pods, where, and how large: small enough for computers with 8 GB that do it all."""

from __future__ import annotations

from typing import Any

from cluster.model import Cluster

# A container's security context: it needs nothing of the node.
UNPRIVILEGED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}


def nodes(cluster: Cluster) -> int:
    """Number of nodes that take pods without tolerations."""
    soft = "PreferNoSchedule"
    taints = map(cluster.taints, cluster.members)
    return sum(all(taint.effect == soft for taint in of_one) for of_one in taints)


def replicas(cluster: Cluster, wanted: int = 2) -> int:
    """Number of pods of something that should survive the loss of a node."""
    return max(1, min(wanted, nodes(cluster)))


def resources(memory: str, limit: str, cpu: str = "10m") -> dict[str, Any]:
    """Requests, and a limit for memory only: throttling makes a busy Pi slower, not calmer.

    memory, limit, cpu: Kubernetes quantities.
    """
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": limit}}


def spread(labels: dict[str, str]) -> list[dict[str, Any]]:
    """Puts pods with the labels on different nodes as far as possible."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels},
        }
    ]
