"""A small cluster for tests: three servers and two agents."""

from __future__ import annotations

from typing import Any

from cluster import versions
from cluster.model import Cluster


def example(servers: int = 3, agents: int = 2, **changes: Any) -> Cluster:
    """A valid cluster; `changes` replace top-level parts."""
    hosts = [
        {"name": f"node{n}", "role": role, "ip": f"10.0.0.{10 + n}", "arch": "arm64"}
        for n, role in enumerate(["servers"] * servers + ["agents"] * agents, start=1)
    ]
    parts: dict[str, Any] = {
        "name": "pi",
        "domain": "picluster.example.com",
        "secrets_file": "secrets/pi.sops.yaml",
        "network": {"lan": "10.0.0.0/24", "gateway": "10.0.0.1", "dns": ("10.0.0.1",)},
        "hosts": hosts,
        "k3s": {"version": versions.K3S_DEFAULT},
    }
    return Cluster.model_validate(parts | changes)
