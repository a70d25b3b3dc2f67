"""The kinds of the Prometheus operator, for all that wants to be scraped."""

from __future__ import annotations

from catalogue import monitors
from cluster.component import Component, Release, Values
from cluster.model import Cluster
from cluster.readiness import Established
from cluster.versions import CHARTS

GROUP = "monitoring.coreos.com"
KINDS = (
    "alertmanagerconfigs",
    "alertmanagers",
    "podmonitors",
    "probes",
    "prometheusagents",
    "prometheuses",
    "prometheusrules",
    "scrapeconfigs",
    "servicemonitors",
    "thanosrulers",
)


def values(cluster: Cluster) -> Values:
    """Uninstalling the chart leaves the kinds, and with them everybody's monitors."""
    return {"crds": {"annotations": {"helm.sh/resource-policy": "keep"}}}


component = Component(
    name="prometheus-operator-crds",
    namespace="monitoring",
    wanted=monitors.wanted,
    role="metrics-crds",
    release=Release(CHARTS["prometheus-operator-crds"], values),
    release_ready=lambda cluster: [Established(tuple(f"{kind}.{GROUP}" for kind in KINDS))],
    holds_data=(GROUP,),
)
