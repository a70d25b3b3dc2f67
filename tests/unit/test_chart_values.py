"""The user's chart values: merged last, and checked where a mistake can be told."""

from __future__ import annotations

from cluster.chart_values import merged, problems

CHART = {
    "persistence": {"defaultClass": True, "replicas": 3},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "annotations": {},
    "image": "longhorn",
}


def lines(given: dict[str, object]) -> list[str]:
    return [str(problem) for problem in problems("longhorn", given, CHART)]


def test_maps_are_merged_and_everything_else_is_replaced() -> None:
    ours = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merged(ours, {"a": {"c": [3]}, "d": {"e": 1}}) == {
        "a": {"b": 1, "c": [3]},
        "d": {"e": 1},
    }
    assert ours == {"a": {"b": 1, "c": [1, 2]}, "d": 1}


def test_null_stays_because_it_removes_a_default_of_the_chart() -> None:
    assert merged({"a": {"b": 1}}, {"a": {"b": None}}) == {"a": {"b": None}}


def test_known_keys_and_keys_of_free_maps_pass() -> None:
    assert lines({"persistence": {"replicas": 2}, "annotations": {"x": "y"}, "global": {}}) == []
    assert lines({"nodeSelector": {"picluster.io/storage": "true"}}) == []


def test_an_unknown_key_at_the_top_is_refused_with_what_there_is() -> None:
    assert lines({"zzz": 1}) == [
        "platform.values.longhorn: unknown key zzz: "
        "expected one of annotations, image, nodeSelector, persistence"
    ]


def test_a_mistyped_key_is_refused_at_any_depth() -> None:
    assert lines({"persistance": {}, "persistence": {"replica": 1}}) == [
        "platform.values.longhorn: unknown key persistance; did you mean persistence",
        "platform.values.longhorn.persistence: unknown key replica; did you mean replicas",
    ]
