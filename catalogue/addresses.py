"""Addresses of Services of type LoadBalancer: which are handed out, and how one is asked for."""

from __future__ import annotations

from ipaddress import IPv4Address

from cluster.kinds import AddressRange
from cluster.model import Cluster
from cluster.readiness import Address, Check

# The annotation by which a Service asks for an address. The field `loadBalancerIP` is deprecated.
ANNOTATION = {"metallb": "metallb.io/loadBalancerIPs", "cilium": "lbipam.cilium.io/ips"}


def asked(cluster: Cluster, address: IPv4Address | None) -> dict[str, str]:
    """Annotations of a Service that shall have the address; none when nobody looks at them."""
    key = ANNOTATION.get(cluster.stack.load_balancer)
    return {key: str(address)} if key and address else {}


def given(
    cluster: Cluster, service: str, namespace: str, address: IPv4Address | None = None
) -> list[Check]:
    """The Service has an address, the one it asked for if it did; [] where nobody gives any."""
    if cluster.stack.load_balancer == "none":
        return []
    return [Address(service, namespace, str(address) if asked(cluster, address) else None)]


def anybodys(cluster: Cluster) -> list[AddressRange]:
    """What is handed out to any Service: the pool without the ingress' address.

    Otherwise the first Service to come would take it.
    """
    pool, own = cluster.network.load_balancer_pool, cluster.ingress_address
    if pool is None:
        return []
    if own is None or not pool.holds(own):
        return [pool]
    parts = (AddressRange(pool.first, own - 1), AddressRange(own + 1, pool.last))
    return [part for part in parts if part.first <= part.last]
