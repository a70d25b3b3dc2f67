"""Contracts made from charts say what the collected ones say: tried on the lab's own charts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cluster.versions import CHARTS, HELM
from tests.contracts import contract as contracts
from tests.contracts import pulled
from tests.contracts.contract import BY_COMPONENT, Contract
from tests.lab.cache import cache_dir
from tests.lab.charts import repository

PROGRAM = next(iter(sorted((cache_dir() / "helm").glob(f"{HELM}-*/helm"))), None)
pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no helm here (a lab makes one)"),
    pytest.mark.skipif(contracts.shared() is None, reason="no contracts on this machine"),
]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The lab's chart repository over HTTP."""
    handler = partial(_Quiet, directory=str(repository.folder()))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", ["longhorn", "kube-prometheus-stack", "envoy-gateway", "linkerd"])
def test_a_pulled_chart_has_the_same_contract(name: str, url: str, tmp_path: Path) -> None:
    known = BY_COMPONENT[name]
    folder = tmp_path / pulled.FOLDERS.get(name, name)
    assert PROGRAM is not None
    pulled.pull(PROGRAM, name, CHARTS[name]._replace(repo=url), folder)
    found = Contract(folder)
    assert found.name == known.name
    assert (found.chart, found.version) == (known.chart, known.version)
    assert found.defaults == known.defaults
    assert found.schema == known.schema
    assert set(found.crd_texts) == set(known.crd_texts)
    place = str(known.data.get("default_namespace") or "any")
    names = {one.name for one in found.workloads(known.name, place, {})}
    assert names == {one.name for one in known.workloads(known.name, place, {}) if one.when is None}


@pytest.mark.parametrize("name", sorted(CHARTS))
def test_a_pulled_contract_gets_the_name_that_the_tables_use(name: str) -> None:
    assert BY_COMPONENT[name].name == pulled.FOLDERS.get(name, name)
