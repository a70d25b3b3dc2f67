"""/etc/hosts: every host of the inventory by name, without a name server."""

from __future__ import annotations

from cluster.model import Cluster
from cluster.text import block


def render(text: str, cluster: Cluster) -> str:
    """The file with our block; the user's lines stay.

    The block stands first, as the first line with a name wins: installers map the host's own name
    to 127.0.1.1, which must not be what a node finds when it looks for itself.
    """
    return block.put(
        text,
        [f"{host.ip} {cluster.fqdn(host)} {host.name}" for host in cluster.hosts],
        first=True,
    )
