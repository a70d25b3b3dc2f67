"""MetalLB: addresses for Services, announced by ARP from one node each."""

from __future__ import annotations

from catalogue import addresses, monitors
from catalogue.pods import resources
from cluster.component import Component, Object, Release, Values
from cluster.kinds import AddressRange
from cluster.model import Cluster
from cluster.readiness import Check, Rollout, Webhook
from cluster.versions import CHARTS

API = "metallb.io/v1beta1"
NAMESPACE = "metallb-system"
POOL = "lan"
INGRESS_POOL = "ingress"
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


def _pool(name: str, ranges: list[AddressRange], *, anybodys: bool) -> Object:
    return {
        "apiVersion": API,
        "kind": "IPAddressPool",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"addresses": [str(one) for one in ranges], "autoAssign": anybodys},
    }


def objects(cluster: Cluster) -> list[Object]:
    """The pools, and their announcement from any node."""
    pools = [_pool(POOL, addresses.anybodys(cluster), anybodys=True)]
    if own := cluster.ingress_address:
        pools.append(_pool(INGRESS_POOL, [AddressRange(own, own)], anybodys=False))
    announced = {
        "apiVersion": API,
        "kind": "L2Advertisement",
        "metadata": {"name": POOL, "namespace": NAMESPACE},
        "spec": {"ipAddressPools": [pool["metadata"]["name"] for pool in pools]},
    }
    return [*pools, announced]


component = Component(
    name="metallb",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.load_balancer == "metallb",
    role="load-balancer",
    needs=("cni", "metrics-crds"),
    release=Release(CHARTS["metallb"], values),
    release_ready=release_ready,
    objects=objects,
    # Its CRDs go with the release, and with them what somebody added to our pools. Not the whole
    # group: its programs keep their own state in other kinds of it.
    holds_data=tuple(f"metallb.io/{kind}" for kind in _OF_USERS),
)
