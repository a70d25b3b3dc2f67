"""What the services around the cluster add to the question to a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.question import Question, together
from cluster.services import api_address, backup, certbot, gateway, s3, san_units, telemetry

if TYPE_CHECKING:
    from cluster.model import Cluster


def asked(model: Cluster) -> Question:
    """Packages, units and files of all services that are ours: a line each."""
    return together(
        (
            api_address.asks(model),
            gateway.asks(model),
            certbot.asks(model),
            s3.asks(model),
            backup.asks(model),
            telemetry.asks(model),
            san_units.asks(model),
        )
    )
