"""Which hosts a service runs on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.model import Cluster, Host


def placed(cluster: Cluster, names: Iterable[str], role: str) -> tuple[Host, ...]:
    """The hosts of those names in their order; without a name, every host of the role."""
    by_name = {host.name: host for host in cluster.hosts}
    wanted = tuple(dict.fromkeys(names))
    if not wanted:
        return tuple(host for host in cluster.hosts if host.role == role)
    return tuple(by_name[name] for name in wanted if name in by_name)
