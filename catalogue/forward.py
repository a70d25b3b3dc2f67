"""Where logs enter: one address, certificate and key for the nodes and for hosts outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catalogue import addresses, certificates, mesh
from cluster.component import Object, SecretObject
from cluster.model import Cluster
from cluster.readiness import Check
from cluster.services import telemetry

NAMESPACE = "fluent"
PORT = telemetry.FORWARD_PORT  # of the Forward protocol
HOST = "fluentd"  # host name of the address, whichever program listens there
TLS = "fluentd-tls"  # Certificate and Secret
KEY = "fluentd-shared-key"  # Secret
KEY_VARIABLE = "FORWARD_SHARED_KEY"
EXTERNAL = "fluentd-ext"  # Service with an address for hosts outside


def secured(cluster: Cluster) -> bool:
    """Whether logs travel encrypted: somebody must sign the certificate."""
    return telemetry.secured(cluster)


def hostname(cluster: Cluster) -> str:
    """The name that hosts outside the cluster send logs to."""
    return telemetry.forward_name(cluster)


def shared_key() -> SecretObject:
    """The Secret with the key that senders show."""
    return SecretObject(KEY, NAMESPACE, {"shared-key": "logs.shared_key"})


def key_variable() -> dict[str, Any]:
    """The key as an environment variable of a container."""
    return {
        "name": KEY_VARIABLE,
        "valueFrom": {"secretKeyRef": {"name": KEY, "key": "shared-key"}},
    }


def certificate(cluster: Cluster) -> list[Object]:
    """The receiver's certificate, for the name outside and the Service inside."""
    if not secured(cluster):
        return []
    inside = (HOST, f"{HOST}.{NAMESPACE}", f"{HOST}.{NAMESPACE}.svc")
    names = [hostname(cluster), *inside]
    return [
        certificates.certificate(
            cluster,
            TLS,
            NAMESPACE,
            names,
            issuer=certificates.CA_ISSUER,
            usages=["server auth", "digital signature"],
        )
    ]


def certificate_ready(cluster: Cluster) -> list[Check]:
    """The certificate is signed: without its Secret the receiver's pods cannot start."""
    return [certificates.issued(TLS, NAMESPACE)] if secured(cluster) else []


def external_service(cluster: Cluster, selector: Mapping[str, str]) -> list[Object]:
    """An address for hosts outside the cluster; none where nobody gives addresses."""
    if cluster.stack.load_balancer == "none":
        return []
    annotations = addresses.asked(cluster, cluster.logs_address)
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": EXTERNAL,
                "namespace": NAMESPACE,
                **({"annotations": annotations} if annotations else {}),
            },
            "spec": {
                "type": "LoadBalancer",
                "selector": dict(selector),
                "ports": [{"name": "forward", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
            },
        },
        # Hosts outside are in no mesh, nor are the senders in a node's own network.
        *mesh.plain_ports(cluster, EXTERNAL, NAMESPACE, selector, PORT),
    ]


def external_ready(cluster: Cluster) -> list[Check]:
    """The address has been given."""
    return addresses.given(cluster, EXTERNAL, NAMESPACE, cluster.logs_address)
