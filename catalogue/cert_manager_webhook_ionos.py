"""The webhook with which cert-manager proves domains that IONOS hosts."""

from __future__ import annotations

from collections.abc import Sequence

from catalogue import acme, certificates
from catalogue.pods import resources
from cluster.component import Component, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Condition, Rollout
from cluster.versions import CHARTS, IMAGES

NAME = "cert-manager-webhook-ionos"


def wanted(cluster: Cluster) -> bool:
    """Whether IONOS hosts the domain."""
    return certificates.acme(cluster) and cluster.acme.dns_provider == "ionos"


def values(cluster: Cluster) -> Values:
    """Values of the chart; its own tag is `latest`."""
    repository, _, tag = IMAGES[NAME].partition(":")
    servers = [str(address) for address in cluster.acme.name_servers]
    # Its programs ask the same servers as cert-manager does for the proof.
    dns = {"dnsPolicy": "None", "dnsConfig": {"nameservers": servers}}
    return {
        "groupName": acme.ionos_group(cluster),
        "certManager": {
            "namespace": certificates.NAMESPACE,
            "serviceAccountName": "cert-manager",
        },
        "image": {"repository": repository, "tag": tag},
        "resources": resources("32Mi", "128Mi"),
        **(dns if servers else {}),
    }


def release_ready(cluster: Cluster) -> Sequence[Check]:
    """It runs, and the API server reaches it."""
    group = f"v1alpha1.{acme.ionos_group(cluster)}"
    return [
        Rollout("Deployment", NAME, certificates.NAMESPACE),
        Condition("apiregistration.k8s.io/v1", "APIService", group, type="Available"),
    ]


component = Component(
    name=NAME,
    namespace=certificates.NAMESPACE,
    role="certificates",
    wanted=wanted,
    needs=("cert-manager",),
    release=Release(CHARTS[NAME], values),
    release_ready=release_ready,
    on_failure="rollback",
)
