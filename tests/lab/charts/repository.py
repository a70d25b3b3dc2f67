"""The chart repository that the lab's file server offers, and whether the lab needs one."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from cluster.versions import CHARTS, Chart
from tests.contracts.contract import BY_COMPONENT, REPOSITORY, shared
from tests.contracts.pulled import ASKED
from tests.lab.binaries import Choice
from tests.lab.cache import cache_dir, digest, files_digest, made, prune
from tests.lab.charts import bare, surrogate
from tests.lab.charts.archive import index, pack
from tests.lab.errors import LabError
from tests.lab.net import reachable

KINDS = {
    "real": "real (from their own repositories)",
    "surrogate": "surrogate (real names, values and CRDs; pods do nothing)",
}


def choose() -> Choice:
    """Return what LAB_CHARTS asks for: `real`, `surrogate`, or `auto`; raises LabError.

    `auto` is real where chart repositories answer quickly.
    """
    wanted = os.environ.get("LAB_CHARTS", "auto")
    if wanted == "auto":
        wanted = "real" if all(reachable(host, 443) for host in ASKED) else "surrogate"
    if wanted not in KINDS:
        raise LabError(f"LAB_CHARTS={wanted!r}: allowed are auto, {', '.join(KINDS)}")
    text = KINDS[wanted]
    if wanted == "surrogate" and shared() is None:
        text = "surrogate, bare (no contracts here: any value and any field pass)"
    return Choice(wanted, text)


def folder() -> Path:
    """The repository of surrogates: an archive for each pinned chart, and index.yaml."""
    parts = [files_digest(Path(__file__).parent), _sources()]
    place = cache_dir() / "charts" / f"surrogate-{digest(parts)}"
    if not place.exists():
        made(place, _make)
        prune(place.parent, "surrogate-*")
    return place


def files(component: str, chart: Chart) -> dict[str, str]:
    """The files of one surrogate, from its contract where there is one."""
    contract = BY_COMPONENT.get(component)
    return surrogate.files(contract, chart) if contract else bare.files(component, chart)


def _sources() -> str:
    """Changes with what surrogates are made from."""
    pins = [f"{name} {chart}" for name, chart in sorted(CHARTS.items())]
    if shared() is not None:
        folders = [contract.folder for contract in BY_COMPONENT.values()]
    else:
        folders = [REPOSITORY / "catalogue", REPOSITORY / "cluster"]
    tables = [files_digest(REPOSITORY / "tests" / "contracts")]
    return digest([*pins, *tables, *map(files_digest, folders)])


def _make(scratch: Path) -> None:
    archives = []
    for component, chart in sorted(CHARTS.items()):
        content = files(component, chart)
        archive = scratch / f"{chart.name}-{chart.version}.tgz"
        archive.write_bytes(pack(chart.name, content))
        archives.append((yaml.safe_load(content["Chart.yaml"]), archive))
    (scratch / "index.yaml").write_text(index(archives))
