"""What the services around the cluster add to the question to a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.question import Question, together
from cluster.services import backup, certbot, s3

if TYPE_CHECKING:
    from cluster.model import Cluster


def asked(model: Cluster) -> Question:
    """Packages, units and files of all services that are ours: a line each."""
    return together((certbot.asks(model), s3.asks(model), backup.asks(model)))
