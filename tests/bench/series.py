"""What K3s costs Prometheus: both ways of scraping, in a lab that is there only for this."""

from __future__ import annotations

from tests.lab.lab import Lab
from tests.lab.metrics import measure


def figures(name: str) -> dict[str, float]:
    """Active series, samples a second and memory of both ways, in a new lab of this name."""
    lab = Lab(name)
    try:
        lab.up(servers=3, agents=2)
        with measure.measured(lab) as found:
            return measure.figures(found)
    finally:
        lab.down()
