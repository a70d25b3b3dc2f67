"""The lab's surrogate charts under the real helm, with the values that the catalogue gives them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalogue import CATALOGUE
from cluster.readiness import Rollout, Webhook
from cluster.versions import CHARTS, HELM
from tests.contracts import contract as contracts
from tests.contracts import objects
from tests.contracts.clusters import CLUSTERS
from tests.contracts.contract import BY_COMPONENT
from tests.contracts.documents import read_all
from tests.contracts.test_catalogue import INSTALLED, MADE_AT_RUNTIME, RELEASES, bringing_crds
from tests.lab.cache import cache_dir
from tests.lab.charts import archive, bare, repository

KUBERNETES = "v1.36.3"
DELAYS = contracts.REPOSITORY / "tests" / "lab" / "delays.yaml"
# Workloads that are in no chart of ours.
K3S = ("kube-system/coredns", "kube-system/metrics-server", "kube-system/local-path-provisioner")
Render = Callable[[str, str], tuple[dict[str, Any], ...]]


def _helm() -> str | None:
    """The lab's own helm where it was made before, else the machine's, if it is the pinned one."""
    found = sorted((cache_dir() / "helm").glob(f"{HELM}-*/helm"))
    return str(found[0]) if found else shutil.which("helm")


needs_contracts = pytest.mark.skipif(
    contracts.shared() is None, reason="the contracts of the charts are not on this machine"
)
# Of the lab, though it needs no hosts: minutes with the helm that a lab makes.
pytestmark = [
    pytest.mark.lab(servers=0, agents=0),
    pytest.mark.skipif(_helm() is None, reason="no helm here (python -m tests.lab up makes one)"),
]


def _run(*arguments: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    given = yaml.safe_dump(values or {})
    command = [str(_helm()), *arguments, "--values", "-"]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False)


def _template(
    chart: Path, release: str, namespace: str, values: dict[str, Any]
) -> list[dict[str, Any]]:
    result = _run(
        "template",
        release,
        str(chart),
        "--namespace",
        namespace,
        "--kube-version",
        KUBERNETES,
        values=values,
    )
    assert result.returncode == 0, result.stderr
    return list(read_all(result.stdout))


@pytest.fixture(scope="session")
def charts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each surrogate unpacked, by component."""
    folder = tmp_path_factory.mktemp("charts")
    for component, chart in CHARTS.items():
        for path, text in repository.files(component, chart).items():
            file = folder / component / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return folder


def _values(name: str, preset: str) -> dict[str, Any]:
    release = CATALOGUE[name].release
    assert release is not None
    return json.loads(json.dumps(release.values(CLUSTERS[preset])))


@pytest.fixture(scope="session")
def rendered(charts: Path) -> Render:
    """What a release renders with the catalogue's values of a preset; each only once."""

    @cache
    def render(name: str, preset: str) -> tuple[dict[str, Any], ...]:
        component, place = CATALOGUE[name], charts / _pinned(name)
        values = _values(name, preset)
        return tuple(_template(place, component.release_name, component.namespace, values))

    return render


def _pinned(name: str) -> str:
    """The key of its chart among the pins."""
    release = CATALOGUE[name].release
    assert release is not None
    return next(key for key, chart in CHARTS.items() if chart == release.chart)


def _keys(objects: Iterable[dict[str, Any]]) -> list[tuple[str, str | None, str]]:
    return [
        (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects
    ]


@pytest.mark.parametrize(("name", "preset"), INSTALLED)
def test_a_chart_renders_what_its_component_waits_for(
    rendered: Render, name: str, preset: str
) -> None:
    keys = _keys(rendered(name, preset))
    assert len(keys) == len(set(keys)), sorted({key for key in keys if keys.count(key) > 1})
    for check in CATALOGUE[name].release_ready(CLUSTERS[preset]):
        if isinstance(check, Rollout) and (name, check.name) not in MADE_AT_RUNTIME:
            assert (check.kind, check.namespace, check.name) in keys


@pytest.mark.parametrize(("name", "preset"), INSTALLED)
@needs_contracts
def test_what_a_chart_renders_is_accepted(rendered: Render, name: str, preset: str) -> None:
    brought = bringing_crds(CLUSTERS[preset])
    found = []
    for one in rendered(name, preset):
        if one["kind"] == "CustomResourceDefinition":
            continue  # the real ones, as they are
        found += objects.problems(one, brought)
    assert not found, "\n".join(found)


@needs_contracts
@pytest.mark.parametrize("preset", CLUSTERS)
def test_webhooks_waited_for_are_in_some_chart(rendered: Render, preset: str) -> None:
    installed = [case.values[0] for case in INSTALLED if case.values[1] == preset]
    keys = {key for name in installed for key in _keys(rendered(str(name), preset))}
    for name in installed:
        for check in CATALOGUE[str(name)].release_ready(CLUSTERS[preset]):
            # Longhorn's manager makes its own.
            if isinstance(check, Webhook) and not check.name.startswith("longhorn-"):
                assert ("Service", check.namespace, check.service) in keys
                assert (check.kind, None, check.name) in keys


@pytest.mark.parametrize("name", sorted(CHARTS))
def test_a_chart_passes_lint(charts: Path, name: str) -> None:
    values: dict[str, Any] = {}
    if name == "linkerd":  # it fails without its certificates, as the real one does
        values = {"identity": {"externalCA": True, "issuer": {"scheme": "kubernetes.io/tls"}}}
    result = _run("lint", str(charts / name), "--quiet", values=values)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", RELEASES)
@needs_contracts
def test_a_chart_refuses_a_value_it_does_not_have(charts: Path, name: str) -> None:
    place = charts / _pinned(name)
    result = _run("template", "x", str(place), values={"nosuchvalue": True})
    assert result.returncode != 0
    assert "nosuchvalue" in result.stderr


@pytest.mark.parametrize(("name", "preset"), INSTALLED[:1])
def test_a_changed_value_changes_the_manifest(charts: Path, name: str, preset: str) -> None:
    place, values = charts / _pinned(name), _values(name, preset)
    before = _template(place, name, "any", values)
    assert before == _template(place, name, "any", values)
    assert before != _template(place, name, "any", {**values, "global": {"changed": True}})


@needs_contracts
def test_a_chart_has_the_workloads_of_its_contract(charts: Path) -> None:
    for name, contract in BY_COMPONENT.items():
        values = {}
        if name == "linkerd":
            values = {"identity": {"externalCA": True, "issuer": {"scheme": "kubernetes.io/tls"}}}
        rendered = _template(charts / name, name, "any", values)
        found = {(one["kind"], one["metadata"]["name"]) for one in rendered}
        for entry in contract.data.get("workloads") or ():
            if entry["kind"] in ("Deployment", "DaemonSet", "StatefulSet"):
                known = contract.named(entry["name"], name, contract.defaults)
                assert (entry["kind"], known) in found, name


def test_an_archive_is_the_same_each_time() -> None:
    files = {"Chart.yaml": "name: x\n", "templates/a.yaml": "a: 1\n"}
    assert archive.pack("x", files) == archive.pack("x", dict(reversed(files.items())))


@pytest.mark.parametrize("name", sorted(CHARTS))
def test_a_chart_without_a_contract_renders_what_is_waited_for(name: str, tmp_path: Path) -> None:
    for path, text in bare.files(name, CHARTS[name]).items():
        file = tmp_path / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    component = CATALOGUE.get(name)
    release = component.release_name if component else name
    rendered = _template(tmp_path / name, release, "any", {"anything": True})
    found = {(one["kind"], one["metadata"]["name"]) for one in rendered}
    checks = [
        check
        for cluster in CLUSTERS.values()
        if component and component.wanted(cluster)
        for check in component.release_ready(cluster)
        if isinstance(check, Rollout | Webhook)
    ]
    assert {(check.kind, check.name) for check in checks} <= found


def test_every_kind_that_is_sent_is_brought_by_a_chart_without_contracts_too() -> None:
    assert bare.missing_groups() == set()


@needs_contracts
def test_fixed_delays_are_of_workloads_that_there_are(rendered: Render) -> None:
    delays = yaml.safe_load(DELAYS.read_text())["rollout"]
    known = {"default", *K3S}
    for case in INSTALLED:
        name, preset = map(str, case.values)
        component = CATALOGUE[name]
        known |= {
            f"{place or component.namespace}/{workload}"
            for kind, place, workload in _keys(rendered(name, preset))
            if kind in ("Deployment", "DaemonSet", "StatefulSet")
        }
        known |= {f"{component.namespace}/{made}" for by, made in MADE_AT_RUNTIME if by == name}
    assert sorted(set(delays) - known) == []
