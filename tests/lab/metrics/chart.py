"""What kube-prometheus-stack renders, naive and with our values.

METRICS_CHART names a folder with the real chart and its subcharts. Without it, the lab's chart
repository has it: the real one where the network allows, else the surrogate, whose monitors come
from the contract (real job labels, selectors, endpoints, switches) and whose rules are simulated.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from catalogue import kube_prometheus_stack
from cluster.chart_values import merged
from cluster.model import Cluster
from cluster.versions import CHARTS
from tests.lab import helm
from tests.lab.charts import repository
from tests.lab.errors import LabError
from tests.lab.program import output

NAME = kube_prometheus_stack.NAME
NAMESPACE = kube_prometheus_stack.NAMESPACE
# What has pods in a cluster and none in the lab.
SCRAPED = ("kubelet", "apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
MONITORS = {f"{NAME}-{part}" for part in (*SCRAPED, "kube-etcd")}
HELM_LIMIT_S = 120

Object = dict[str, Any]


def is_real() -> bool:
    """Whether the chart's own templates are rendered."""
    return "METRICS_CHART" in os.environ or repository.choose().kind != "surrogate"


def naive(cluster: Cluster) -> dict[str, Any]:
    """The chart's defaults, with addresses for what it would look for in pods that K3s has not."""
    servers = [str(host.ip) for host in cluster.servers]
    nodes = [str(host.ip) for host in cluster.members]
    return {
        "crds": {"enabled": False},
        "kubeControllerManager": {"endpoints": servers},
        "kubeScheduler": {"endpoints": servers},
        "kubeEtcd": {"endpoints": servers},
        "kubeProxy": {"endpoints": nodes},
    }


def ours(cluster: Cluster) -> dict[str, Any]:
    """The values that the catalogue gives it."""
    return merged(kube_prometheus_stack.values(cluster), {})


def rendered(values: dict[str, Any], arch: str, scratch: Path) -> list[Object]:
    """All that the chart makes of the values; raises LabError."""
    program = helm.folder(arch) / "helm"
    options = f"--namespace {NAMESPACE} --kube-version 1.36.0 --skip-crds --values -".split()
    command = [str(program), "template", NAME, str(_chart(scratch)), *options]
    command += ["--api-versions", "monitoring.coreos.com/v1"]
    text = output("helm template", command, HELM_LIMIT_S, text=yaml.safe_dump(values))
    found = yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return [obj for obj in found if obj]


def scraping(objects: list[Object]) -> list[Object]:
    """Of these, the monitors of K3s and the Services with the addresses they look at."""
    return [
        obj
        for obj in objects
        if (obj["kind"] == "ServiceMonitor" and obj["metadata"]["name"] in MONITORS)
        or (obj["kind"] in ("Service", "Endpoints") and obj["metadata"]["name"] in MONITORS)
    ]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Objects of one kind."""
    return [obj for obj in objects if obj["kind"] == kind]


def _chart(scratch: Path) -> Path:
    if given := os.environ.get("METRICS_CHART"):
        return Path(given)
    folder = scratch / NAME
    if repository.choose().kind != "surrogate":
        raise LabError("METRICS_CHART must name the unpacked chart (helm pull --untar)")
    for name, text in repository.files(NAME, CHARTS[NAME]).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
