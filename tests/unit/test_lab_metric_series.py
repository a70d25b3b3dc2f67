"""The lab's measure for series that are there twice, and for what an expression asks for."""

from __future__ import annotations

import pytest

from tests.lab.metrics import series


def one(**labels: str) -> dict[str, str]:
    return {"__name__": "m", **labels}


def test_the_same_series_of_two_endpoints_is_there_twice() -> None:
    kubelet = one(job="kubelet", instance="10.0.0.1:10250", metrics_path="/metrics", node="a")
    proxy = one(job="kube-proxy", instance="10.0.0.1:10249", service="kube-proxy")
    assert series.twice([kubelet, proxy]) == {"m": 1}


def test_two_nodes_have_series_of_their_own() -> None:
    assert not series.twice([one(instance="10.0.0.1:10250"), one(instance="10.0.0.2:10250")])


def test_labels_that_a_scrape_renamed_are_the_same_labels() -> None:
    """With honorLabels a series keeps its namespace, without it becomes exported_namespace."""
    kept = one(instance="10.0.0.1:10250", namespace="apps")
    renamed = one(instance="10.0.0.1:6443", namespace="default", exported_namespace="apps")
    assert series.twice([kept, renamed]) == {"m": 1}


def test_what_prometheus_says_about_scrapes_and_rules_does_not_count() -> None:
    again = [
        {"__name__": name, "instance": f"10.0.0.1:{port}"}
        for name in ("up", "scrape_duration_seconds", "ALERTS", "job:up:sum")
        for port in (1, 2)
    ]
    assert not series.twice(again)
    assert series.families(again) == set()


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("up == 0", ["up"]),
        (
            'sum by (job) (rate(a_total{b="}"}[5m])) / on (x) group_left (y) c',
            ['a_total{b="}"}', "c"],
        ),
        ("max(a) # of b\n  and a:b unless c offset 5m", ["a", "a:b", "c"]),
        ('{__name__=~"a|b"} > 0', ['{__name__=~"a|b"}']),
        ("count(count by (x) (a)) without (y) > bool 1e3", ["a"]),
        ("histogram_quantile(0.99, sum(rate(h_bucket[1m])) by (le))", ["h_bucket"]),
        ("absent(up{a!~`b.*`} == 1)", ["up{a!~`b.*`}"]),
    ],
)
def test_selectors_of_an_expression(expression: str, wanted: list[str]) -> None:
    assert series.selectors(expression) == wanted
