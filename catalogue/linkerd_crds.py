"""The CRDs of Linkerd, a chart of their own."""

from __future__ import annotations

from cluster.component import Component, Release
from cluster.model import Cluster
from cluster.readiness import Check, Established
from cluster.versions import CHARTS


def release_ready(cluster: Cluster) -> list[Check]:
    """They are part of the release, not of the chart's folder `crds`."""
    return [
        Established(
            (
                "authorizationpolicies.policy.linkerd.io",
                "servers.policy.linkerd.io",
                "serviceprofiles.linkerd.io",
            )
        )
    ]


component = Component(
    name="linkerd-crds",
    namespace="linkerd",
    wanted=lambda cluster: cluster.stack.mesh == "linkerd",
    # Not those of the Gateway API, which it has in a release of its own years: Linkerd does without
    # them, and an upgrade that leaves them out again would take everybody's routes along.
    release=Release(CHARTS["linkerd-crds"], lambda cluster: {"installGatewayAPI": False}),
    release_ready=release_ready,
    # The CRDs go with the release, and with them everybody's policies and profiles.
    holds_data=("linkerd.io", "policy.linkerd.io", "workload.linkerd.io"),
)
