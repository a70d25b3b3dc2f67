"""Pools of addresses for Services of type LoadBalancer: which are for any, and which are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from typing import NamedTuple

from catalogue import forward, web
from cluster.kinds import AddressRange
from cluster.model import Cluster


class Pool(NamedTuple):
    """Addresses; namespace: of the only Service that asks for them, None when any may have them."""

    name: str
    ranges: list[AddressRange]
    namespace: str | None = None


def pools(cluster: Cluster) -> list[Pool]:
    """The pool of any Service, and one for each address of a Service that asks for it.

    In one pool with others the first Service to come would take it.
    """
    given = cluster.network.load_balancer_pool
    ranges, kept = [given] if given else [], list(_kept(cluster))
    for pool in kept:
        ranges = list(_without(ranges, pool.ranges[0].first))
    return [*([Pool("lan", ranges)] if ranges else []), *kept]


def _kept(cluster: Cluster) -> Iterator[Pool]:
    for name, address, namespace in (
        ("ingress", cluster.ingress_address, web.NAMESPACES.get(cluster.stack.ingress)),
        ("logs", cluster.logs_address, forward.NAMESPACE),
    ):
        if address:
            # With another address it is another pool: no pool may overlap one that is there.
            yield Pool(f"{name}-{address}", [AddressRange(address, address)], namespace)


def _without(ranges: Iterable[AddressRange], address: IPv4Address) -> Iterator[AddressRange]:
    for one in ranges:
        if not one.holds(address):
            yield one
            continue
        if one.first < address:
            yield AddressRange(one.first, address - 1)
        if address < one.last:
            yield AddressRange(address + 1, one.last)
