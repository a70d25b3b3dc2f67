"""The plugin by which PostgreSQL clusters back up to S3."""

from __future__ import annotations

from collections.abc import Sequence

from catalogue import certificates, cloudnative_pg
from catalogue.pods import resources
from cluster.component import Component, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Established, Rollout
from cluster.versions import CHARTS

PLUGIN = "barman-cloud.cloudnative-pg.io"
API = "barmancloud.cnpg.io/v1"
DEPLOYMENT = "plugin-barman-cloud"


def wanted(cluster: Cluster) -> bool:
    """Whether the operator leaves backups to it."""
    by_plugin = cloudnative_pg.backs_up_by_plugin(cloudnative_pg.OPERATOR)
    return cloudnative_pg.wanted(cluster) and by_plugin


def values(cluster: Cluster) -> Values:
    """Values of the chart."""
    return {"crds": {"create": True}, "resources": resources("32Mi", "128Mi")}


def release_ready(cluster: Cluster) -> Sequence[Check]:
    """It runs, with the certificates by which the operator knows it, and its kind is served."""
    names = ("barman-cloud-client", "barman-cloud-server")
    return [
        *(certificates.issued(name, cloudnative_pg.NAMESPACE) for name in names),
        Rollout("Deployment", DEPLOYMENT, cloudnative_pg.NAMESPACE),
        Established(("objectstores.barmancloud.cnpg.io",)),
    ]


component = Component(
    name="barman-plugin",
    namespace=cloudnative_pg.NAMESPACE,
    role="database",
    wanted=wanted,
    needs=("cloudnative-pg", "cert-manager"),
    # Its objects are named after the chart, whatever the component is called.
    release=Release(CHARTS["barman-plugin"], values, name=DEPLOYMENT),
    release_ready=release_ready,
    holds_data=("barmancloud.cnpg.io",),
)
