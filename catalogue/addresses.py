"""Addresses of Services of type LoadBalancer: how one is asked for, and that it is given."""

from __future__ import annotations

from ipaddress import IPv4Address

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
