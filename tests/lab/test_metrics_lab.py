"""Release v1.5's headline: K3s has every series on every endpoint, and is to be scraped once.

Real: Prometheus, its operator, kube-state-metrics, a node exporter, the API, and the registry of
one process behind every endpoint. Simulated: containers and kubelets (no cadvisor figures), and
the chart's templates where `tests.lab.metrics.chart` says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.problem import Problems
from runtime import user_files
from tests.contracts.clusters import of_preset
from tests.lab.lab import Lab
from tests.lab.metrics import chart, programs, series
from tests.lab.metrics.measure import PUBLISHED_CUT, Measurement, figures, measured

pytestmark = [pytest.mark.lab(servers=3, agents=2), pytest.mark.usefixtures("simulated")]

REASONS: dict[str, dict[str, str]] = yaml.safe_load(
    (Path(__file__).parent / "metrics" / "reasons.yaml").read_text()
)


Scraped = tuple[list[series.Labels], list[series.Labels]]


@pytest.fixture(scope="module")
def both(lab: Lab) -> Iterator[Measurement]:
    """Both ways of scraping, at work."""
    with measured(lab) as found:
        yield found


@pytest.fixture(scope="module")
def scraped(both: Measurement) -> Scraped:
    """The series of hosts that the defaults and ours have; there are very many."""
    return series.of_hosts(both.naive.series()), series.of_hosts(both.ours.series())


def reason(kind: str, name: str) -> str | None:
    """Why something is missing, by the list of reasons."""
    fitting = (
        why for pattern, why in REASONS[kind].items() if re.fullmatch(pattern, name, re.DOTALL)
    )
    return next(fitting, None)


def test_the_cut_is_at_least_the_published_one(both: Measurement) -> None:
    found = figures(both)
    print({name: round(value, 1) for name, value in found.items()})
    assert found["series_naive"] / found["series_ours"] >= PUBLISHED_CUT
    assert found["prometheus_mb_ours"] < found["prometheus_mb_naive"]


def test_the_defaults_take_series_more_than_once(scraped: Scraped) -> None:
    """Otherwise the lab would prove nothing."""
    naive, _ = scraped
    assert series.twice(naive).total() > 10_000


def test_no_series_is_taken_twice(scraped: Scraped) -> None:
    _, ours = scraped
    assert series.twice(ours) == {}


def test_no_family_of_metrics_is_lost(scraped: Scraped) -> None:
    naive, ours = map(series.families, scraped)
    lost = naive - ours
    assert [name for name in sorted(lost) if not reason("families", name)] == []


def test_every_node_of_the_model_is_scraped_and_etcd_on_every_server(both: Measurement) -> None:
    def nodes(expression: str) -> set[str]:
        return {one["metric"]["instance"] for one in both.ours.query(expression)}

    members, servers = both.cluster.members, both.cluster.servers
    kubelets = nodes('up{job="kubelet",metrics_path="/metrics"} == 1')
    assert kubelets == {f"{host.ip}:10250" for host in members}
    assert nodes('up{job="kube-etcd"} == 1') == {f"{host.ip}:2381" for host in servers}
    paths = {one["metric"]["metrics_path"] for one in both.ours.query('up{job="kubelet"} == 1')}
    assert paths == {"/metrics", "/metrics/cadvisor", "/metrics/probes"}


def test_no_other_endpoint_of_k3s_is_scraped(both: Measurement) -> None:
    jobs = {one["metric"]["job"] for one in both.ours.query("up")}
    assert not jobs & {"apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"}


def test_jobs_that_the_standard_rules_look_at_exist(both: Measurement) -> None:
    """By the chart's own list of selectors, for whichever rules were rendered."""
    missing = [
        f"{where}: {found}"
        for where, found in _selectors(both)
        if "job=" in found or "job=~" in found
        if not both.ours.query(f"up{{{_job(found)}}}") and not reason("jobs", _job(found))
    ]
    assert missing == []


def test_the_rules_are_the_charts_own(both: Measurement) -> None:
    """Otherwise the next test knows our rules and simulated ones."""
    if not chart.is_real():
        pytest.skip("the surrogate's rules are simulated: METRICS_CHART names the real chart")
    alerts = {where for where, rule in _rules(both) if "alert" in rule}
    assert alerts >= {"KubePodCrashLooping", "NodeFilesystemSpaceFillingUp", "TargetDown"}


def test_every_expression_of_every_rule_finds_series(both: Measurement) -> None:
    records = {rule["record"] for _, rule in _rules(both) if "record" in rule}
    empty = []
    for where, selector in _selectors(both):
        name = selector.partition("{")[0]
        if name in records or reason("selectors", selector):
            continue
        # A collector of the node exporter may fail once: links of labs come and go.
        if not both.ours.query(f"count(count_over_time({selector}[10m]))"):
            empty.append(f"{where}: {selector}")
    assert empty == []


def test_prometheus_can_evaluate_every_rule(both: Measurement) -> None:
    assert both.ours.query("prometheus_rule_evaluation_failures_total > 0") == []


def _rules(both: Measurement) -> Iterator[tuple[str, dict[str, Any]]]:
    for obj in chart.of_kind(both.chart, "PrometheusRule"):
        for group in obj["spec"]["groups"]:
            for rule in group["rules"]:
                yield rule.get("alert") or rule["record"], rule


def _selectors(both: Measurement) -> Iterator[tuple[str, str]]:
    for where, rule in _rules(both):
        for selector in series.selectors(str(rule["expr"])):
            yield where, selector


def _job(selector: str) -> str:
    found = re.search(r'job=~?"[^"]*"', selector)
    return found[0] if found else 'job=""'


def test_the_age_of_etcds_snapshots_is_known(both: Measurement) -> None:
    """kube-state-metrics reads K3s' ETCDSnapshotFile as our values tell it."""
    (found,) = both.ours.query("k3s_etcd_snapshot_created")
    assert found["metric"]["node"] == "node1"
    assert float(found["value"][1]) == 1767225600  # the creationTime of the lab's object


def test_a_broken_rule_file_of_the_users_is_refused_in_promtools_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{programs.prometheus().parent}:{os.environ['PATH']}")
    rule = {"alert": "A", "expr": "sum(up"}
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [rule]}]}))
    given = {"metrics": {"rules": str(tmp_path)}}
    with pytest.raises(Problems, match=rf"{file}:\d+: .*unclosed left parenthesis"):
        user_files.with_files(of_preset("v1_9", platform=given))
    file.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [rule | {"expr": "up"}]}]}))
    assert user_files.with_files(of_preset("v1_9", platform=given)).user_rules.keys() == {"bad"}
