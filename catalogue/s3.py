"""The S3 service outside the cluster, as its users need it."""

from __future__ import annotations

from cluster.model import Cluster


def wanted(cluster: Cluster) -> bool:
    """Whether there is one."""
    return cluster.backup.s3_endpoint is not None


def url(cluster: Cluster) -> str:
    """Its URL; TLS always."""
    return f"https://{cluster.backup.s3_endpoint}"
