"""The contracts of real charts: default values, schema, CRDs and the names of what they render.

They lie beside the repository in `../shared/contracts`, or where PICLUSTER_SHARED points to; where
neither is, they are made from the charts themselves, if the network has them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from cluster.versions import CHARTS, Chart
from tests.contracts import pulled
from tests.contracts.documents import read

REPOSITORY = Path(__file__).resolve().parents[2]
WRAPPER = "_internal_defaults_do_not_set"  # of Istio's charts: users write what is below it


@cache
def shared() -> Path | None:
    """The folder of contracts, collected or made; None where this machine can have none."""
    given = os.environ.get("PICLUSTER_SHARED")
    folder = (Path(given) if given else REPOSITORY.parent / "shared") / "contracts"
    return folder if folder.is_dir() else pulled.contracts()


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Values as Helm merges them: maps by key, anything else replaced, null removes."""
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def look_up(values: Mapping[str, Any], path: str) -> Any:
    """What is at a dotted path, None when a part of it is missing."""
    found: Any = values
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


@dataclass(frozen=True)
class Workload:
    """A workload of a chart, named for one release.

    known_as: its name in the contract.
    when: dotted path of the value that switches it on, None for what is always rendered.
    """

    kind: str
    name: str
    namespace: str
    known_as: str
    when: str | None = None


class Contract:
    """What is known about one real chart, read from its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.data: dict[str, Any] = read((folder / "contract.yaml").read_text())
        self.chart: str = self.data.get("chart_name") or ""
        self.version = str(self.data["version"])

    @property
    def repositories(self) -> tuple[str, ...]:
        """URLs that the chart can be had from."""
        text = f"{self.data.get('repository')} {self.data.get('repository_oci', '')}"
        return tuple(url.rstrip("/,)") for url in re.findall(r"\w+://[^\s)]+", text))

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Default values as a user sees them, those of subcharts merged in."""
        file = self.folder / "values.yaml"
        own: dict[str, Any] = (read(file.read_text()) if file.exists() else None) or {}
        own = own.get(WRAPPER, own)
        for child in sorted((self.folder / "subcharts").glob("*.values.yaml")):
            key = child.name.removesuffix(".values.yaml")
            own[key] = merge(read(child.read_text()) or {}, own.get(key) or {})
        return own

    @cached_property
    def schema(self) -> dict[str, Any] | None:
        """The chart's values.schema.json, None when it has none."""
        file = self.folder / "values.schema.json"
        return json.loads(file.read_text()) if file.exists() else None

    @cached_property
    def crd_texts(self) -> dict[str, str]:
        """Its CRDs by name (`volumes.longhorn.io`), unread: most are never asked for."""
        file = self.folder / "crds.yaml"
        if not file.exists():
            return {}
        documents = re.split(r"^---[^\n]*\n", file.read_text(), flags=re.M)
        return {name: text for text in documents if (name := _crd_name(text))}

    def crd(self, group: str, kind: str) -> dict[str, Any] | None:
        """The CRD of a kind, None when the chart brings none."""
        for name, text in self.crd_texts.items():
            if name.partition(".")[2] == group and re.search(rf"^ +kind: .?{kind}\b", text, re.M):
                found: dict[str, Any] = read(text)
                if found["spec"]["names"]["kind"] == kind:
                    return found
        return None

    def full_name(self, release: str, values: Mapping[str, Any]) -> str:
        """The prefix of names by Helm's convention, for a release with these (merged) values."""
        if given := values.get("fullnameOverride"):
            return str(given)
        part = values.get("nameOverride") or self.chart
        return release if part in release else f"{release}-{part}"

    def named(self, known_as: str, release: str, values: Mapping[str, Any]) -> str:
        """The name that an object of the contract gets in a release with these merged values."""
        for part, below in values.items():
            prefix = f"{self._rendered_as}-{part}"
            over = below.get("fullnameOverride") if isinstance(below, Mapping) else None
            if over and (known_as == prefix or known_as.startswith(f"{prefix}-")):
                return f"{over}{known_as.removeprefix(prefix)}"
        return self.pattern(known_as).replace("<fullname>", self.full_name(release, values))

    def workloads(
        self, release: str, namespace: str, values: Mapping[str, Any]
    ) -> Iterator[Workload]:
        """Deployments, DaemonSets and StatefulSets of a release, also those not switched on."""
        merged = merge(self.defaults, values)
        own = str(self.data.get("default_namespace") or "")
        for entry in self.data.get("workloads") or ():
            if entry["kind"] not in ("Deployment", "DaemonSet", "StatefulSet"):
                continue
            own = own or entry["namespace"]
            name = self.named(entry["name"], release, merged)
            kind = merged.get("kind") or entry["kind"]
            place = namespace if entry["namespace"] == own else entry["namespace"]
            yield Workload(kind, name, place, entry["name"])
        for entry in self.data.get("optional_workloads") or ():
            path = entry["when"].partition(":")[0]
            if " " not in path:
                name = self.named(entry["name"], release, merged)
                yield Workload(entry["kind"], name, namespace, entry["name"], path)

    @cached_property
    def _rendered_as(self) -> str:
        """The prefix of names in the contract, whose release is called like the contract."""
        return self.full_name(self.name, self.defaults)

    def pattern(self, known_as: str) -> str:
        """Its name with `<fullname>` in place of what follows the release."""
        for entry in (*(self.data.get("workloads") or ()), *(self.data.get("services") or ())):
            if entry.get("name") == known_as and "<release>" not in entry.get(
                "pattern", "<release>"
            ):
                return known_as  # fixed, whatever the release is called
        prefix = self._rendered_as
        if known_as == prefix or known_as.startswith((f"{prefix}-", f"{prefix}:")):
            return f"<fullname>{known_as.removeprefix(prefix)}"
        return known_as


_IS_CRD = re.compile(r"^kind: ['\"]?CustomResourceDefinition\b", re.M)


def _crd_name(text: str) -> str:
    found = re.search(r"^metadata:\n(?:[ ].*\n)*?  name: ['\"]?([^\s'\"]+)", text, re.M)
    return found.group(1) if found and _IS_CRD.search(text) else ""


def contracts() -> dict[str, Contract]:
    """All contracts by the name of their folder."""
    folder = shared()
    files = sorted(folder.glob("*/contract.yaml")) if folder else ()
    return {file.parent.name: Contract(file.parent) for file in files}


def of_chart(chart: Chart, known: Mapping[str, Contract]) -> Contract | None:
    """The contract of a pinned chart, whatever its version, None when there is none."""
    for contract in known.values():
        if contract.chart == chart.name and chart.repo in contract.repositories:
            return contract
    return None


KNOWN = contracts()
# Contracts by component of the catalogue.
BY_COMPONENT = {
    component: contract
    for component, chart in CHARTS.items()
    if (contract := of_chart(chart, KNOWN)) is not None
}
