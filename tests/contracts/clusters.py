"""One good cluster for each preset, of nodes of different architectures, and a light one."""

from __future__ import annotations

from typing import Any

from cluster.model import Cluster
from cluster.presets import PRESETS, fill

HOSTS = (
    ("node1", "servers", "arm64"),
    ("node2", "servers", "arm64"),
    ("node3", "servers", "arm64"),
    ("node4", "agents", "arm64"),
    ("node5", "agents", "amd64"),
)
NAMES = tuple(PRESETS)


def of_preset(preset: str, **changes: Any) -> Cluster:
    """A cluster with the stack of a preset and all that it needs; `changes` replace parts."""
    parts: dict[str, Any] = {
        "name": "pi",
        "domain": "picluster.example.com",
        "timezone": "Europe/Madrid",
        "secrets_file": "secrets/pi.sops.yaml",
        "network": {
            "lan": "10.0.0.0/24",
            "gateway": "10.0.0.1",
            "dns": ("10.0.0.1",),
            "load_balancer_pool": "10.0.0.100-10.0.0.200",
            "api": {"vip": "10.0.0.10"},
        },
        "hosts": [
            {"name": name, "role": role, "ip": f"10.0.0.{number}", "arch": arch}
            for number, (name, role, arch) in enumerate(HOSTS, start=11)
        ],
        "stack": fill({"preset": preset}),
        "backup": {"s3_endpoint": "s3.example.com:9000", "region": "eu-west-1"},
        "acme": {"email": "admin@example.com", "dns_provider": "ionos", "server": "production"},
    }
    return Cluster.model_validate(parts | changes)


# What no preset has: one server without S3 and without an account for public certificates.
LIGHT: dict[str, Any] = {
    "hosts": [{"name": "node1", "role": "servers", "ip": "10.0.0.11", "arch": "arm64"}],
    "stack": {
        "load_balancer": "metallb",
        "certificates": "cert-manager",
        "logs": "loki",
        "metrics": "kube-prometheus-stack",
    },
    "backup": {},
    "acme": {},
}

CLUSTERS = {name: of_preset(name) for name in NAMES} | {"light": of_preset("v1_5", **LIGHT)}
