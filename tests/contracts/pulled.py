"""Contracts made from the charts themselves, where the collected ones are missing.

Each chart is pulled from its own repository with the lab's helm, once, into the lab's cache; what
it has and what it renders with default values is laid out like a collected contract.
"""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import Any

import yaml

from cluster.versions import CHARTS, Chart
from tests.contracts.documents import read_all, write_all
from tests.lab import helm
from tests.lab.cache import cache_dir, digest, made
from tests.lab.errors import LabError
from tests.lab.net import reachable
from tests.lab.program import output

PULL_LIMIT_S = 120
# Repositories that stand for all: where they answer, the others do.
ASKED = ("charts.longhorn.io", "helm.cilium.io")
# Folders of collected contracts that are not called like the component.
FOLDERS = {
    "barman-plugin": "plugin-barman-cloud",
    "elasticsearch-exporter": "prometheus-elasticsearch-exporter",
    "istiod": "istio-istiod",
    "keycloak": "keycloakx",
    "kiali": "kiali-operator",
    "linkerd": "linkerd-control-plane",
    "loki": "loki-community",
    "ztunnel": "istio-ztunnel",
}
# Values without which a chart renders nothing.
REQUIRED = {
    "linkerd": "identity: {externalCA: true, issuer: {scheme: kubernetes.io/tls}}",
}
_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
_LISTED = ("Deployment", "DaemonSet", "StatefulSet", "Service", "Job")


def contracts() -> Path | None:
    """The folder of contracts of all pinned charts, None where the network has none."""
    if not all(reachable(host, 443) for host in ASKED):
        return None
    parts = [f"{name} {chart}" for name, chart in sorted(CHARTS.items())]
    place = cache_dir() / "contracts" / digest([*parts, Path(__file__).read_text()])
    try:
        return made(place, _pull_all)
    except LabError as error:
        print(f"contracts: {error}", flush=True)
        return None


def _pull_all(scratch: Path) -> None:
    program = helm.folder(_ARCH[platform.machine()]) / "helm"
    for name, chart in CHARTS.items():
        pull(program, name, chart, scratch / FOLDERS.get(name, name))


def pull(program: Path, name: str, chart: Chart, folder: Path) -> None:
    """Make `folder` with the contract of one chart, by the program helm; raises LabError."""
    folder.mkdir()
    source = [chart.repo] if chart.repo.startswith("oci://") else [chart.name, "--repo", chart.repo]
    where = folder / "pulled"
    _helm(program, "pull", *source, "--version", chart.version, "--untar", "--untardir", str(where))
    unpacked = where / chart.name
    for found, kept in (
        ("Chart.yaml", "chart.yaml"),
        ("values.yaml", "values.yaml"),
        ("values.schema.json", "values.schema.json"),
    ):
        if (unpacked / found).exists():
            shutil.copy(unpacked / found, folder / kept)
    _children(unpacked, folder)
    values = REQUIRED.get(name, "{}")
    command = ("template", folder.name, str(unpacked), "--include-crds", "--values", "-")
    _describe(chart, list(read_all(_helm(program, *command, values=values))), folder)
    shutil.rmtree(where)


def _children(unpacked: Path, folder: Path) -> None:
    for file in sorted(unpacked.glob("charts/*/values.yaml")):
        (folder / "subcharts").mkdir(exist_ok=True)
        shutil.copy(file, folder / "subcharts" / f"{file.parent.name}.values.yaml")


def _describe(chart: Chart, rendered: list[dict[str, Any]], folder: Path) -> None:
    about = yaml.safe_load((folder / "chart.yaml").read_text())
    crds = {
        one["metadata"]["name"]: one
        for one in rendered
        if one["kind"] == "CustomResourceDefinition"
    }
    contract = {
        "component": folder.name,
        "chart_name": chart.name,
        "repository": chart.repo,
        "version": chart.version,
        "app_version": about.get("appVersion"),
        "workloads": [_entry(one) for one in rendered if one["kind"] in _LISTED],
        "crds": sorted(crds),
    }
    (folder / "contract.yaml").write_text(yaml.safe_dump(contract, sort_keys=False))
    if crds:
        (folder / "crds.yaml").write_text(write_all(crds.values()))


def _entry(one: dict[str, Any]) -> dict[str, Any]:
    metadata = one["metadata"]
    hook = (metadata.get("annotations") or {}).get("helm.sh/hook")
    return {
        "kind": one["kind"],
        "name": metadata["name"],
        "namespace": metadata.get("namespace", "default"),
        **({"replicas": one["spec"]["replicas"]} if "replicas" in one.get("spec", {}) else {}),
        **({"hook": hook} if hook else {}),
    }


def _helm(program: Path, *arguments: str, values: str = "") -> str:
    what = f"helm {' '.join(arguments[:3])}"
    return output(what, [program, *arguments], PULL_LIMIT_S, text=values)
