"""The operator of PostgreSQL clusters."""

from __future__ import annotations

from collections.abc import Sequence

from catalogue import mesh, monitors
from catalogue.pods import resources
from cluster import versions
from cluster.component import Component, Object, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Rollout, Webhook
from cluster.versions import CHARTS

NAME = "cloudnative-pg"
NAMESPACE = "cnpg-system"
OPERATOR = "1.30.0"  # of the pinned chart


def wanted(cluster: Cluster) -> bool:
    """Whether the stack's databases are CloudNativePG's."""
    return cluster.stack.database == "cloudnative-pg"


def backs_up_by_plugin(operator: str) -> bool:
    """Whether the Barman plugin makes backups, instead of the operator itself.

    The operator's own way goes away with 1.31; 1.30 is the last that knows both.

    Args:
        operator: version of the operator, as `1.30.0`.
    """
    return versions.minor(operator) >= (1, 30)


def values(cluster: Cluster) -> Values:
    """Values of the chart."""
    return {
        "crds": {"create": True},
        "resources": resources("64Mi", "256Mi"),
        "monitoring": {"podMonitorEnabled": monitors.wanted(cluster)},
    }


def release_ready(cluster: Cluster) -> Sequence[Check]:
    """It runs, and its webhook admits objects."""
    return [
        Rollout("Deployment", NAME, NAMESPACE),
        *(
            Webhook(
                f"{kind}WebhookConfiguration",
                f"cnpg-{kind.lower()}-webhook-configuration",
                "cnpg-webhook-service",
                NAMESPACE,
            )
            for kind in ("Mutating", "Validating")
        ),
    ]


def before(cluster: Cluster) -> Sequence[Object]:
    """The API server, which is in no mesh, asks the webhook."""
    return mesh.plain_ports(
        cluster, "cnpg-webhook", NAMESPACE, {"app.kubernetes.io/name": NAME}, 9443
    )


component = Component(
    name=NAME,
    namespace=NAMESPACE,
    role="database",
    wanted=wanted,
    needs=("cni", "mesh", "metrics-crds"),
    before=before,
    release=Release(CHARTS[NAME], values),
    release_ready=release_ready,
    holds_data=("postgresql.cnpg.io",),
)
