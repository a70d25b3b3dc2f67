"""Cilium: CNI, replacement of kube-proxy, and load balancer."""

from __future__ import annotations

from typing import Any

from catalogue import mesh, monitors
from catalogue.pods import resources
from catalogue.pools import Pool, pools
from cluster.component import Component, Object, Release, Values
from cluster.model import Cluster
from cluster.readiness import Check, Condition, Established, Rollout
from cluster.versions import CHARTS

NAMESPACE = "kube-system"
ANNOUNCEMENT = "lan"

_SERVER = {"node-role.kubernetes.io/control-plane": "true"}  # K3s gives the label this value


def announces(cluster: Cluster) -> bool:
    """Whether Cilium hands out and announces addresses: never beside another that does."""
    return cluster.stack.load_balancer == "cilium"


def values(cluster: Cluster) -> Values:
    """One overlay that differs from Flannel's in pods' network and port.

    So both can run side by side, and a cluster that was moved over has the values of one that began
    with Cilium: neither the pool nor the port can be changed later (cilium/cilium#28266).
    """
    mesh = cluster.stack.mesh != "none"
    return {
        # K3s' own balancer on every node: no Service address is reachable before Cilium runs.
        "k8sServiceHost": "127.0.0.1",
        "k8sServicePort": 6444,
        **_kube_proxy(cluster),
        "ipam": {
            "mode": "cluster-pool",
            "operator": {
                "clusterPoolIPv4PodCIDRList": [str(cluster.network.cilium_cidr)],
                "clusterPoolIPv4MaskSize": 24,
            },
        },
        "routingMode": "tunnel",
        "tunnelProtocol": "vxlan",
        "tunnelPort": 8473,
        # A mesh's CNI plugin stands behind Cilium's in the same file.
        "cni": {"exclusive": not mesh},
        # Otherwise connections go to a pod's address before the mesh has seen the Service's.
        **({"socketLB": {"hostNamespaceOnly": True}} if mesh else {}),
        # Ambient Istio's probes come with an address that eBPF would masquerade.
        "bpf": {"masquerade": False},
        # Nothing here filters by HTTP or DNS name, and Envoy needs 48 bits of addresses.
        "l7Proxy": False,
        "envoy": {"enabled": False},
        "enableLBIPAM": announces(cluster),
        "defaultLBServiceIPAM": "lbipam" if announces(cluster) else "none",
        "l2announcements": {"enabled": announces(cluster)},
        # Each announced Service renews a lease every five seconds.
        "k8sClientRateLimit": {"qps": 50, "burst": 200},
        "rollOutCiliumPods": True,
        "resources": resources("256Mi", "1Gi", "100m"),
        "operator": {
            "replicas": min(2, len(cluster.servers)),
            "rollOutPods": True,
            "nodeSelector": {"kubernetes.io/os": "linux", **_SERVER},
            "resources": resources("64Mi", "256Mi", "20m"),
            "prometheus": {"enabled": True, "serviceMonitor": _monitor(cluster)},
            "dashboards": _dashboards(cluster),
        },
        "prometheus": {
            "enabled": monitors.wanted(cluster),
            # The CRD comes before Cilium, though Helm's look at the cluster may be older.
            "serviceMonitor": {**_monitor(cluster), "trustCRDsExist": True},
        },
        "dashboards": _dashboards(cluster),
        "hubble": _hubble(cluster),
    }


def _kube_proxy(cluster: Cluster) -> Values:
    if cluster.stack.kube_proxy != "cilium":
        return {"kubeProxyReplacement": False}
    return {
        "kubeProxyReplacement": True,
        # The port where load balancers ask kube-proxy for a node's health.
        "kubeProxyReplacementHealthzBindAddr": "0.0.0.0:10256",
    }


def _hubble(cluster: Cluster) -> Values:
    metrics = monitors.wanted(cluster)
    kinds = ["drop", "tcp", "flow", "port-distribution", "icmp"]  # dns and http need Envoy
    return {
        "enabled": True,
        "peerService": {"clusterDomain": cluster.network.cluster_domain},
        # Helm's own certificates end after a year, and differ in each rendering.
        "tls": {"auto": {"method": "cronJob"}},
        "metrics": {
            **({"enabled": kinds} if metrics else {}),
            "serviceMonitor": _monitor(cluster),
            "dashboards": _dashboards(cluster),
        },
        "relay": {
            "enabled": True,
            "rollOutPods": True,
            "resources": resources("48Mi", "128Mi"),
            "prometheus": {"enabled": metrics, "serviceMonitor": _monitor(cluster)},
        },
        "ui": {
            "enabled": True,
            "rollOutPods": True,
            "backend": {"resources": resources("32Mi", "128Mi")},
            "frontend": {
                "resources": resources("32Mi", "64Mi"),
                "server": {"ipv6": {"enabled": False}},  # the cluster has none
            },
        },
    }


def _monitor(cluster: Cluster) -> dict[str, Any]:
    return {"enabled": monitors.wanted(cluster), "interval": "30s"}


def _dashboards(cluster: Cluster) -> dict[str, Any]:
    annotations = {"grafana_folder": "Cilium"}
    return {"enabled": monitors.wanted(cluster), "annotations": annotations}


def release_ready(cluster: Cluster) -> list[Check]:
    """Agents on every node, which makes the nodes Ready; the operator registers the CRDs."""
    return [
        Rollout("Deployment", "cilium-operator", NAMESPACE),
        Rollout("DaemonSet", "cilium", NAMESPACE),
        *(Condition("v1", "Node", member.name) for member in cluster.members),
        Established(
            (
                "ciliumclusterwidenetworkpolicies.cilium.io",
                "ciliuml2announcementpolicies.cilium.io",
                "ciliumloadbalancerippools.cilium.io",
            )
        ),
    ]


def _pool(pool: Pool) -> Object:
    spec: dict[str, Any] = {
        "blocks": [{"start": str(one.first), "stop": str(one.last)} for one in pool.ranges]
    }
    if pool.namespace:
        place = {"io.kubernetes.service.namespace": pool.namespace}
        spec["serviceSelector"] = {"matchLabels": place}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumLoadBalancerIPPool",
        "metadata": {"name": pool.name},
        "spec": spec,
    }


def _announced(cluster: Cluster) -> list[Object]:
    policy: Object = {
        "apiVersion": "cilium.io/v2alpha1",
        "kind": "CiliumL2AnnouncementPolicy",
        "metadata": {"name": ANNOUNCEMENT},
        # No selector: any node may answer, servers too, on all its interfaces.
        "spec": {"externalIPs": True, "loadBalancerIPs": True},
    }
    return [*map(_pool, pools(cluster)), policy]


def _probes_allowed() -> Object:
    """Lets probes pass every policy of a namespace, and forbids nothing itself."""
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "allow-ambient-hostprobes"},
        "spec": {
            "description": "The kubelet's probes of pods in Istio's ambient mesh.",
            "enableDefaultDeny": {"egress": False, "ingress": False},
            "endpointSelector": {},
            "ingress": [{"fromCIDR": [mesh.ISTIO_HOST]}],
        },
    }


def objects(cluster: Cluster) -> list[Object]:
    """Pools and their announcement, and what a mesh needs to pass policies."""
    return [
        *(_announced(cluster) if announces(cluster) else []),
        *([_probes_allowed()] if cluster.stack.mesh == "istio" else []),
    ]


component = Component(
    name="cilium",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.cni == "cilium",
    role="cni",
    needs=("metrics-crds",),
    release=Release(CHARTS["cilium"], values),
    release_ready=release_ready,
    objects=objects,
    exclusive=("CiliumLoadBalancerIPPool",),
)
