"""MetalLB: addresses for Services, announced by ARP from one node each."""

from __future__ import annotations

from catalogue import monitors
from catalogue.pods import resources
from catalogue.pools import Pool, pools
from cluster.component import Component, Object, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Rollout, Webhook
from cluster.versions import CHARTS

API = "metallb.io/v1beta1"
NAMESPACE = "metallb-system"
ANNOUNCEMENT = "lan"
_OF_USERS = (
    *("IPAddressPool", "L2Advertisement", "BGPAdvertisement", "BGPPeer", "BFDProfile"),
    "Community",
)


def values(cluster: Cluster) -> Values:
    """L2 only: no BGP daemon beside each speaker."""
    metrics = monitors.wanted(cluster)
    return {
        "speaker": {
            "frr": {"enabled": False},
            "resources": resources("32Mi", "128Mi", "20m"),
        },
        "controller": {"resources": resources("48Mi", "128Mi")},
        "prometheus": {
            # Prometheus may look into every namespace already.
            "rbacPrometheus": False,
            "podMonitor": {"enabled": metrics},
            "prometheusRule": {"enabled": metrics, "bgpSessionDown": {"enabled": False}},
        },
    }


def release_ready(cluster: Cluster) -> list[Check]:
    """The webhook judges pools: they are refused before it answers."""
    return [
        Rollout("Deployment", "metallb-controller", NAMESPACE),
        Rollout("DaemonSet", "metallb-speaker", NAMESPACE),
        Webhook(
            "ValidatingWebhookConfiguration",
            "metallb-webhook-configuration",
            "metallb-webhook-service",
            NAMESPACE,
        ),
    ]


def _pool(pool: Pool) -> Object:
    return {
        "apiVersion": API,
        "kind": "IPAddressPool",
        "metadata": {"name": pool.name, "namespace": NAMESPACE},
        "spec": {
            "addresses": [str(one) for one in pool.ranges],
            "autoAssign": pool.namespace is None,
        },
    }


def objects(cluster: Cluster) -> list[Object]:
    """The pools, and their announcement from any node."""
    found = pools(cluster)
    announced = {
        "apiVersion": API,
        "kind": "L2Advertisement",
        "metadata": {"name": ANNOUNCEMENT, "namespace": NAMESPACE},
        "spec": {"ipAddressPools": [pool.name for pool in found]},
    }
    return [*map(_pool, found), announced]


component = Component(
    name="metallb",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.load_balancer == "metallb",
    role="load-balancer",
    needs=("cni", "metrics-crds"),
    release=Release(CHARTS["metallb"], values),
    release_ready=release_ready,
    objects=objects,
    exclusive=("IPAddressPool",),
    # Its CRDs go with the release, and with them what somebody added to our pools. Not the whole
    # group: its programs keep their own state in other kinds of it.
    holds_data=tuple(f"metallb.io/{kind}" for kind in _OF_USERS),
)
