"""What `make doctor` prints, its exit codes, its page; the hosts behind it are given."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import groupby
from pathlib import Path

import pytest
from pyinfra.api.exceptions import PyinfraError

from cluster.answer import Present
from cluster.doctor.catalogue import CHECKS, AnyCheck, examine
from cluster.doctor.node import Fleet
from cluster.doctor.page import AREAS, page
from cluster.problem import Problem, Problems
from commands import doctor
from runtime import table
from tests.unit.doctor_world import boot, cluster, healthy, made, seen, state, together

DOCS = (Path(__file__).parents[2] / "docs" / "hardware.md").read_text()
EVIL = '<script>alert("x")</script>&'


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Fleet]:
    """The fleet that the command finds; an error in its place is raised."""
    given = [healthy()]

    def visit(path: str, *, write_test: bool) -> Fleet:
        if isinstance(given[0], Exception):
            raise given[0]
        return given[0]

    monkeypatch.setattr("commands.visit.visit", visit)
    monkeypatch.setattr("gevent.monkey.patch_all", lambda: None)
    return given


def bad() -> Fleet:
    change = together(
        seen(firewall="yes"),
        seen("node2", firewall="yes"),
        state(cgroup="v1", swaps=("/swap.img",)),
        boot("node3", temperature=Present(85.0)),
    )
    model = cluster(nodes={"ignore_preflight": ("cgroup-v2",)})
    unreachable = {"node9": "no route to host"}
    return replace(change(made(model)), unreachable=unreachable, inventory="inventories/pi.py")


def test_a_healthy_cluster_is_one_line_and_exit_0(
    found: list[Fleet], capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.main(["i.py"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"pi: 5 of 5 hosts in [\d.]+ s: 0 fail, 0 warn, 0 unknown, \d+ pass", line)


def test_fails_come_first_with_what_to_do_in_80_columns_without_colour(
    found: list[Fleet], capsys: pytest.CaptureFixture[str]
) -> None:
    found[0] = bad()
    assert doctor.main(["i.py"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= table.WIDTH and not any("\x1b" in line for line in lines)
    assert lines[0].startswith("pi: 5 of 5 hosts in")
    assert "site.py puts 1 of the fails right" in "".join(
        line.replace("  ", " ") for line in lines[:3]
    )
    start = next(n for n, line in enumerate(lines) if line.startswith("Answer"))
    rows = [line.split()[:2] for line in lines[start + 1 :] if line[:1].isalpha()]
    assert rows[:5] == [
        ["fail", "temperature"],
        ["fail", "swap"],
        ["fail", "reachable"],
        ["warn", "firewall"],
        ["ignored", "cgroup-v2"],
    ]
    text = "\n".join(lines)
    assert "node1, node2" in text and "node9" in text and "no route to host" in text
    assert "\n- swap: the kubelet" in text
    assert "    pyinfra inventories/pi.py deploys/nodes.py" in text
    assert "- cgroup-v2:" not in text  # whoever ignores it knows


def test_what_is_unknown_is_named_and_explained_with_all(
    found: list[Fleet], capsys: pytest.CaptureFixture[str]
) -> None:
    found[0] = seen(automatic_reboot=None)(healthy())
    assert doctor.main(["i.py"]) == 0
    assert "unknown (--all says why): automatic-reboot" in capsys.readouterr().out
    assert doctor.main(["i.py", "--all"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"unknown +automatic-reboot +node1 +apt-config does not say", out)
    assert re.search(r"pass +memory +node1, node2", out)


def test_json_has_every_answer_with_evidence_reason_and_remedy(
    found: list[Fleet], capsys: pytest.CaptureFixture[str]
) -> None:
    found[0] = bad()
    assert doctor.main(["i.py", "--json"]) == 2
    data = json.loads(capsys.readouterr().out)
    assert data["cluster"] == "pi" and data["unreachable"] == {"node9": "no route to host"}
    assert data["counts"]["fail"] == 3
    (hot,) = [one for one in data["findings"] if one["check"] == "temperature" and one["remedy"]]
    assert hot == {
        "check": "temperature",
        "area": "hardware",
        "hosts": ["node3"],
        "answer": "fail",
        "ignored": False,
        "mended": False,
        "seen": "85 °C",
        "what": CHECKS["temperature"].what,
        "why": CHECKS["temperature"].why,
        "remedy": CHECKS["temperature"].remedy,
    }
    (ignored,) = [one for one in data["findings"] if one["ignored"] and one["answer"] == "fail"]
    assert ignored["check"] == "cgroup-v2"


def test_hosts_that_are_all_off_and_wrong_inputs_are_exit_1(
    found: list[Fleet], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found[0] = Fleet(cluster(), {}, {"node1": "timed out"})
    assert doctor.main(["i.py"]) == 1
    assert "timed out" in capsys.readouterr().out
    found[0] = healthy()
    assert doctor.main(["i.py", "--html", str(tmp_path / "no" / "page.html")]) == 1
    assert "No such file" in capsys.readouterr().err
    for error in (Problems([Problem("a: b", "wrong")]), PyinfraError("i.py: no such file")):
        found[0] = error  # type: ignore[call-overload]
        assert doctor.main(["i.py"]) == 1
        assert capsys.readouterr().err.strip() == str(error)


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else_and_escapes_what_was_seen(
    found: list[Fleet], tmp_path: Path
) -> None:
    change = together(
        seen(failed_units=(EVIL,)), state(os="x", os_name=EVIL, reboot_required=(EVIL,))
    )
    found[0] = replace(change(healthy()), unreachable={"node9": EVIL})
    file = tmp_path / "doctor.html"
    assert doctor.main(["i.py", "--html", str(file)]) == 2
    text = file.read_text()
    assert EVIL not in text and "&lt;script&gt;" in text
    shown = Page(text)
    assert shown.open == [] and "script" not in {tag for tag, _ in shown.tags}
    attributes = {name for _, attrs in shown.tags for name in attrs}
    assert attributes <= {
        "lang", "charset", "name", "content", "http-equiv", "class", "href", "id", "title",
    }  # fmt: skip
    assert all(str(attrs["href"]).startswith("#") for _, attrs in shown.tags if "href" in attrs)
    assert "http" not in text.replace("http-equiv", "").replace("docs.k3s.io", "")
    assert "url(" not in text and "@import" not in text


def test_the_page_has_fails_first_a_row_a_host_and_every_answer() -> None:
    answers = examine(bad(), extra=True)
    text = page("pi", "today", answers, ["node1", "node2"])
    places = [text.index(f'id="{name}"') for name in ("fail", "warn", "ignored", "pass")]
    assert places == sorted(places)
    assert text.index('class="hosts"') < places[0]
    assert text.index(">cgroup-v2<") > places[2] and "site.py puts it right" in text
    for name in {one.check.id for one in answers}:
        assert f">{name}<" in text
    assert "prefers-color-scheme: dark" in text


def test_the_areas_of_the_page_are_those_of_the_catalogue() -> None:
    assert tuple(area for area, _ in groupby(check.area for check in CHECKS.values())) == AREAS


# ---- what a check says of itself


def row(check: AnyCheck) -> str:
    where = "`make doctor`" if check.extra else "site.py too"
    return f"| `{check.id}` | {check.what} | {check.worst} | {where} |"


def test_the_documentation_has_the_catalogue_in_its_order() -> None:
    table_rows = [line for line in DOCS.splitlines() if line.endswith((" site.py too |", "` |"))]
    assert [line for line in table_rows if "|---" not in line] == [
        row(one) for one in CHECKS.values()
    ]


@pytest.mark.parametrize("check", CHECKS.values(), ids=list(CHECKS))
def test_a_check_explains_itself(check: AnyCheck) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", check.id)
    for text in (check.what, check.why, check.remedy):
        assert text and "\n" not in text and not text.endswith(".") and "|" not in check.what
