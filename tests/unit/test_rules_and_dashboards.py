"""Rule files and dashboards: what is refused, at which line, and what Grafana is given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from catalogue import monitors
from cluster import dashboards, prometheus_rules
from cluster.dashboards import DashboardError
from cluster.problem import Problems
from runtime import user_files
from tests.contracts.clusters import of_preset

RULES = Path(monitors.__file__).parent / "rules"
GOOD = "groups:\n  - name: g\n    rules:\n      - alert: A\n        expr: up == 0\n"


def alerts(path: Path) -> list[str]:
    groups = prometheus_rules.groups(path.read_text())
    return [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]


def board(**more: object) -> str:
    return json.dumps({"title": "T", "panels": [], **more})


@pytest.mark.parametrize("path", sorted(RULES.glob("*.yaml")), ids=lambda path: path.stem)
def test_our_own_rules_have_no_flaws(path: Path) -> None:
    assert prometheus_rules.flaws(path.read_text()) == []
    assert alerts(path)


def test_no_alert_of_ours_has_the_name_of_another() -> None:
    names = [name for path in RULES.glob("*.yaml") for name in alerts(path)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("groups:\n  - name: g\n    rules:\n      - alert: A\n       expr: 1\n", 5, "expected"),
        ("rules: []\n", 1, "groups"),
        (GOOD.replace("expr", "exprs"), 5, "unknown key exprs"),
        (GOOD + "        for: 5x\n", 6, "5x is no duration"),
        (GOOD.replace("alert: A", "record: a-b"), 4, "no name of a metric"),
        (GOOD + "        record: a\n", 4, "either record or alert"),
        (GOOD + "  - name: g\n    rules: []\n", 6, "stands twice"),
        (GOOD.replace("up == 0", ""), 5, "without expr"),
    ],
)
def test_a_broken_rule_file_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    first = prometheus_rules.flaws(text)[0]
    assert first.line == line
    assert words in first.text


def folder(tmp_path: Path, name: str, text: str) -> str:
    place = tmp_path / "mine"
    place.mkdir()
    (place / name).write_text(text)
    return str(place)


def test_rules_are_refused_before_anything_is_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    place = folder(tmp_path, "bad.yaml", GOOD + "        for: soon\n")
    cluster = of_preset("v1_9", platform={"metrics": {"rules": place}})
    with pytest.raises(Problems, match=r"bad\.yaml:6: for: soon is no duration"):
        user_files.with_files(cluster)


def test_promtool_speaks_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in with promtool's output, as version 2.42 has it."""
    place = folder(tmp_path, "bad.yaml", GOOD.replace("up == 0", "sum("))
    words = 'group "g", rule 1, "A": could not parse expression: 1:5: unclosed left parenthesis'
    said = f"Checking {place}/bad.yaml\n  FAILED:\n{place}/bad.yaml: 5:15: {words}\n"
    program = tmp_path / "promtool"
    program.write_text(f"#!/bin/sh\ncat >&2 <<'EOF'\n{said}EOF\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    cluster = of_preset("v1_9", platform={"metrics": {"rules": place}})
    with pytest.raises(Problems) as caught:
        user_files.with_files(cluster)
    assert str(caught.value) == f"{place}/bad.yaml:5: {words}"


def test_without_promtool_it_is_said_that_expressions_are_not_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = of_preset("v1_9", platform={"metrics": {"rules": folder(tmp_path, "a.yaml", GOOD)}})
    monkeypatch.setattr(shutil, "which", lambda name: None)
    user_files.with_files(cluster)
    assert caplog.messages == [user_files.UNCHECKED]
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/true")
    user_files.with_files(cluster)
    user_files.with_files(of_preset("v1_9"))
    assert len(caplog.messages) == 1


def test_good_files_are_part_of_the_cluster(tmp_path: Path) -> None:
    place = folder(tmp_path, "mine.yaml", GOOD)
    (Path(place) / "mine.json").write_text(board())
    wanted = {"rules": place, "dashboards": place}
    cluster = user_files.with_files(of_preset("v1_9", platform={"metrics": wanted}))
    assert list(cluster.user_rules) == ["mine"]
    assert list(cluster.user_dashboards) == ["mine"]


@pytest.mark.parametrize("key", ["rules", "dashboards"])
def test_a_folder_that_is_not_there_is_named(key: str) -> None:
    cluster = of_preset("v1_9", platform={"metrics": {key: "no/where"}})
    with pytest.raises(Problems, match=f"platform.metrics.{key}: no/where: expected an existing"):
        user_files.with_files(cluster)


def test_inputs_of_an_export_become_our_data_sources() -> None:
    """Issue 10786 of Grafana: provisioning does not ask for them."""
    inputs = [{"name": "DS_PROMETHEUS", "type": "datasource", "pluginId": "prometheus"}]
    panel = {"datasource": {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}}
    text = board(__inputs=inputs, __requires=[], panels=[panel])
    made = json.loads(dashboards.provisioned({"a": text})["a"])
    assert made["panels"][0]["datasource"]["uid"] == "prometheus"
    assert "__inputs" not in made


def test_an_input_that_nobody_can_answer_is_refused() -> None:
    inputs = [{"name": "DS_X", "type": "datasource", "pluginId": "tempo"}]
    with pytest.raises(DashboardError, match="type tempo"):
        dashboards.provisioned({"a": board(__inputs=inputs)})


def test_each_dashboard_has_a_uid_of_its_own_that_stays() -> None:
    given = {
        "b": board(uid="same"),
        "a": board(uid="same"),
        "c": board(),
        "D d": board(uid="x" * 41),
    }
    first, again = (
        dashboards.provisioned(given),
        dashboards.provisioned(dict(reversed(given.items()))),
    )
    assert first == again
    uids = {name: json.loads(text)["uid"] for name, text in first.items()}
    assert uids == {"a": "same", "b": "b", "c": "c", "D d": "d-d"}


def test_a_text_that_is_no_dashboard_is_refused_with_its_line() -> None:
    with pytest.raises(DashboardError) as caught:
        dashboards.provisioned({"a": '{\n "title": "x",\n}'})
    assert caught.value.line == 3
    with pytest.raises(DashboardError, match="no title"):
        dashboards.provisioned({"a": "{}"})


def test_a_dashboard_too_large_for_a_configmap_is_refused() -> None:
    with pytest.raises(DashboardError, match="larger than"):
        dashboards.provisioned({"a": board(description="x" * 1_000_001)})
