"""/etc/hosts: every host of the inventory and the S3 server by name, without a name server."""

from __future__ import annotations

from cluster.model import Cluster
from cluster.services import s3
from cluster.text import block


def render(text: str, cluster: Cluster) -> str:
    """The file with our block; the user's lines stay.

    The block stands first, as the first line with a name wins: installers map the host's own name
    to 127.0.1.1, which must not be what a node finds when it looks for itself. The S3 server is
    there because a gateway does not ask itself for names, and keeps backups too.
    """
    hosts = [f"{host.ip} {cluster.fqdn(host)} {host.name}" for host in cluster.hosts]
    services = [f"{address} {name}" for name, address in s3.address(cluster).items()]
    return block.put(text, [*hosts, *services], first=True)
