"""Which hosts a service runs on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.model import Cluster, Host


def placed(cluster: Cluster, names: Iterable[str], role: str) -> tuple[Host, ...]:
    """The hosts of those names in inventory order; without a name, every host of the role."""
    wanted = set(names)
    return tuple(
        host for host in cluster.hosts if (host.name in wanted if wanted else host.role == role)
    )
