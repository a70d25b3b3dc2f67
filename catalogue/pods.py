"""What pods ask for, and where they can run."""

from __future__ import annotations

from typing import Any

from cluster.model import Cluster, Host


def resources(memory: str, limit: str, cpu: str = "10m") -> dict[str, Any]:
    """Requests, and a limit for memory only: throttling makes a busy Pi slower, not calmer.

    memory, limit, cpu: Kubernetes quantities.
    """
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": limit}}


def schedulable(cluster: Cluster) -> tuple[Host, ...]:
    """The nodes that take pods without tolerations."""
    hosts = cluster.agents if cluster.k3s.control_plane_taint else cluster.members
    return tuple(
        host for host in hosts if all(taint.effect == "PreferNoSchedule" for taint in host.taints)
    )


def replicas(cluster: Cluster, most: int) -> int:
    """So many that each has a node of its own."""
    return max(1, min(most, len(schedulable(cluster))))


def spread(labels: dict[str, str]) -> list[dict[str, Any]]:
    """Topology constraints that put pods with the labels on different nodes where it is possible."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels},
        }
    ]
