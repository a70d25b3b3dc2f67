"""chrony on the gateway: time for the LAN, also while the line outside is down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster import kinds
from cluster.services.gateway import section
from cluster.text import drop_ins

if TYPE_CHECKING:
    from cluster.model import Cluster


def text(cluster: Cluster) -> str:
    """chrony.conf of the time server: that of every host, and it answers the LAN.

    Stratum 10 of its own, so that the cluster keeps one time without the outside.
    """
    upstream = section(cluster).upstream_ntp
    servers = [name for name in upstream if kinds.is_address(name)]
    pools = [name for name in upstream if not kinds.is_address(name)]
    return drop_ins.chrony(servers, pools) + f"allow {cluster.network.lan}\nlocal stratum 10\n"
