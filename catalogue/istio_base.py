"""The CRDs of Istio, which stay when the release goes."""

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
                "authorizationpolicies.security.istio.io",
                "gateways.networking.istio.io",
                "peerauthentications.security.istio.io",
            )
        )
    ]


component = Component(
    name="istio-base",
    namespace="istio-system",
    wanted=lambda cluster: cluster.stack.mesh == "istio",
    role="mesh",
    release=Release(CHARTS["istio-base"]),
    release_ready=release_ready,
)
