"""Targets of a scrape configuration, as Prometheus' own discovery of Kubernetes gives them.

Debian builds Prometheus without that discovery. So its meta labels are made here, from the same
objects, by Prometheus' documentation of `kubernetes_sd_config` (role `endpoints`), once at the
start; relabelings, the operator's included, are Prometheus' own work as ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.lab.metrics.kube import Kube

META = "__meta_kubernetes_"


def resolved(kube: Kube, config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with targets in place of discoveries."""
    jobs = [_job(kube, job) for job in config["scrape_configs"]]
    return {**config, "scrape_configs": jobs}


def _job(kube: Kube, job: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in job.items() if key != "kubernetes_sd_configs"}
    for discovery in job.get("kubernetes_sd_configs", ()):
        assert discovery["role"] == "endpoints", discovery
        for namespace in discovery["namespaces"]["names"]:
            targets = [
                {"targets": [address], "labels": labels}
                for address, labels in _endpoints(kube, namespace)
            ]
            found["static_configs"] = [*found.get("static_configs", ()), *targets]
    return found


def _endpoints(kube: Kube, namespace: str) -> Iterator[tuple[str, dict[str, str]]]:
    base = f"/api/v1/namespaces/{namespace}"
    services = {one["metadata"]["name"]: one for one in _items(kube, f"{base}/services")}
    for one in _items(kube, f"{base}/endpoints"):
        name = one["metadata"]["name"]
        common = {f"{META}namespace": namespace, f"{META}endpoints_name": name}
        common |= _labels("endpoints", one)
        if name in services:
            common |= {f"{META}service_name": name} | _labels("service", services[name])
        for subset in one.get("subsets") or ():
            for address in subset.get("addresses") or ():
                for port in subset["ports"]:
                    yield f"{address['ip']}:{port['port']}", common | _of_address(address, port)


def _of_address(address: Mapping[str, Any], port: Mapping[str, Any]) -> dict[str, str]:
    target = address.get("targetRef") or {}
    found = {
        "endpoint_port_name": port.get("name"),
        "endpoint_port_protocol": port.get("protocol"),
        "endpoint_node_name": address.get("nodeName"),
        "endpoint_hostname": address.get("hostname"),
        "endpoint_address_target_kind": target.get("kind"),
        "endpoint_address_target_name": target.get("name"),
        "endpoint_ready": "true",
    }
    return {f"{META}{key}": str(value) for key, value in found.items() if value}


def _labels(kind: str, obj: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for label, value in (obj["metadata"].get("labels") or {}).items():
        name = re.sub(r"[^a-zA-Z0-9_]", "_", label)
        found[f"{META}{kind}_label_{name}"] = value
        found[f"{META}{kind}_labelpresent_{name}"] = "true"
    return found


def _items(kube: Kube, path: str) -> list[dict[str, Any]]:
    return list((kube.get(path) or {}).get("items") or ())
