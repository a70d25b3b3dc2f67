"""The combined fact of a host: three scripts as one, none of which waits for a program for ever."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.exceptions import FactProcessError, PyinfraError

from cluster.boot.state import BootState
from cluster.doctor.catalogue import examine
from cluster.doctor.check import Verdict
from cluster.doctor.node import Fleet, Node
from cluster.host_state import HostState
from commands import visit
from facts import boot_script, doctor_script, node_script, tagged
from facts.boot import boot_state
from facts.doctor_script import NetworkQuestion
from facts.node import host_state
from facts.survey import Survey, Surveyed, survey
from tests.unit.doctor_world import cluster, look
from tests.unit.node_world import lines
from tests.unit.test_cache import World

MODEL = cluster()
SOON = 0.4  # seconds that a program may take in these tests
HANG = 60  # seconds after which it counts as waiting for ever


def run(script: str, folder: Path) -> list[str]:
    """What a script prints where the programs of a folder come first."""
    text = script.replace(f"-k 1 {tagged.SECONDS} ", f"-k {SOON} {SOON} ")
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-c", text], env=os.environ | {"PATH": path},
        capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    assert done.returncode == 0
    return done.stdout.splitlines()


def put(folder: Path, name: str, text: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


def read(folder: Path) -> Surveyed:
    fact = Survey()
    return fact.process(run(fact.command(), folder))


def test_one_script_reads_what_three_facts_read(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert found.state.kernel == found.boot.kernel == os.uname().release
    assert found.state.boot_id == found.boot.boot_id and found.seen.space
    assert not (found.state.late or found.seen.late or found.boot.late)


def test_how_long_it_takes_says_nothing_of_the_clock(tmp_path: Path) -> None:
    put(tmp_path, "lsblk", "sleep 1")
    fact = Survey()
    found = fact.process(run(fact.command(), tmp_path))
    assert found.state.clock.error < 0.5 and abs(found.state.clock.ahead) < 0.5


def test_scripts_that_run_at_the_same_time_do_not_mix_what_they_print(tmp_path: Path) -> None:
    many = "n=0; while [ $n -lt 30000 ]; do echo {0}$n; n=$((n + 1)); done"
    script = tagged.together(**{name: many.format(name) for name in ("a", "b", "c")})
    parts, ended = tagged.apart(run(script, tmp_path))
    assert ended is not None and list(parts) == ["a", "b", "c"]
    for name, own in parts.items():
        assert own == [f"{name}{n}" for n in range(30000)]


@pytest.mark.parametrize("gone", ["node", "doctor", "boot"])
def test_a_part_that_is_missing_or_ends_early_is_an_error(gone: str) -> None:
    fact = Survey()
    fact.command()
    parts = {"node": lines(HostState()), "doctor": ["end"], "boot": ["end"]}
    for broken in ({gone: []}, {gone: None}):
        given = [
            line
            for name, own in {**parts, **broken}.items()
            if own is not None
            for line in (f"part\t{name}", *own)
        ]
        with pytest.raises(FactProcessError):
            fact.process(given)


# ---- programs that hang


# Cannot be killed with its group, and holds on to what it writes to: as one in the kernel's hands.
UNKILLABLE = "setsid sleep 90"
HANGS = {
    "hangs": "exec sleep 90",
    "ignores signals": "trap '' TERM; for one in $(seq 60); do sleep 1; done",
    "cannot be killed": UNKILLABLE,
}


@pytest.mark.parametrize("how", HANGS)
def test_a_disk_that_does_not_answer_is_unknown_with_the_cause(how: str, tmp_path: Path) -> None:
    put(tmp_path, "df", f'case $* in *" /") exec /bin/df "$@";; esac\n{HANGS[how]}')
    script = doctor_script.local().replace("/storage", str(tmp_path))
    done = run(script, tmp_path)
    assert f"late\tdf {tmp_path} did not end within {tagged.SECONDS} seconds" in done
    assert any(line.startswith("space\t/\t") for line in done) and done[-1].split("\t")[0] == "end"


@pytest.mark.parametrize(
    ("program", "script", "kept"),
    [
        ("df", node_script.script, "package"),
        ("chronyc", node_script.script, "package"),
        ("snap", node_script.script, "package"),
        ("lsblk", boot_script.script, "kernel"),
        ("systemctl", boot_script.script, "kernel"),
        ("systemctl", doctor_script.local, "there"),
        ("timedatectl", doctor_script.local, "addr"),
    ],
)
def test_every_program_that_waits_for_something_has_a_limit(
    program: str, script: Callable[[], str], kept: str, tmp_path: Path
) -> None:
    put(tmp_path, program, "exec sleep 90")
    done = run(script(), tmp_path)
    assert any(line.startswith(f"late\t{program}") for line in done), done
    assert done[-1].split("\t")[0] == "end"


def late(*texts: str, part: str = "seen", **more: Any) -> list[Any]:
    """What the doctor says of a host of which something did not end in time."""
    me = MODEL.servers[0]
    node = Node(MODEL, me, HostState(), look(MODEL, me), BootState())
    node = replace(node, **{part: replace(getattr(node, part), late=texts, **more)})
    return examine(Fleet(MODEL, {me.name: node}), extra=True)


@pytest.mark.parametrize(
    ("check", "text", "part", "more"),
    [
        ("disk-space", "df /storage did not end", "seen", {}),
        ("inodes", "df /storage did not end", "seen", {}),
        ("clock-synchronised", "chronyc did not end", "seen", {"clock": {}}),
        ("failed-units", "systemctl --failed did not end", "seen", {"failed_units": None}),
        ("automatic-reboot", "apt-config did not end", "seen", {"automatic_reboot": None}),
        ("shutdown-delay", "busctl did not end", "state", {}),
        ("other-kubernetes", "systemctl is-active did not end", "seen", {}),
        ("disk-labels", "lsblk did not end", "boot", {}),
    ],
)
def test_what_did_not_end_is_unknown_with_the_cause(
    check: str, text: str, part: str, more: dict[str, Any]
) -> None:
    found = [one for one in late(text, part=part, **more) if one.check.id == check]
    assert [(one.verdict, one.answer.seen) for one in found] == [(Verdict.UNKNOWN, text)]


def test_a_disk_that_smartctl_hangs_on_is_unknown(tmp_path: Path) -> None:
    put(tmp_path, "smartctl", f'case $* in *sdb*) {UNKILLABLE};; esac; echo "{{}}"')
    done = run(doctor_script.probe(NetworkQuestion(smart=("sda:", "sdb:"))), tmp_path)
    assert {"asked\tsda", "asked\tsdb", "smart\tsda\t{}"} <= set(done)
    assert not any(line.startswith("smart\tsdb") for line in done)


# ---- in a run


class Host:
    """A host that answers with what is given, and counts what it is asked."""

    def __init__(self, answer: Surveyed | None) -> None:
        self.world = World("node1")
        self.real: Any = self.world.hosts["node1"]
        self.asked: list[type] = []

        def get_fact(fact: type, **_: Any) -> Any:
            self.asked.append(fact)
            return answer

        self.real.get_fact = get_fact


def surveyed(**changes: Any) -> Surveyed:
    state = replace(HostState(), **changes)
    return Surveyed(state, look(MODEL, MODEL.servers[0]), BootState(kernel="6.8"))


def test_a_run_asks_once_for_what_several_deploys_want() -> None:
    host = Host(surveyed(kernel="6.8"))
    node = survey(host.real, MODEL)
    assert host_state(host.real, MODEL) is node.state and boot_state(host.real) is node.boot
    assert host.asked == [Survey]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (None, "cannot be read"),
        (surveyed(late=("systemctl show did not end within 10 seconds",)), "systemctl show did"),
        (surveyed(late=("getent passwd did not end within 10 seconds",)), "getent passwd did"),
    ],
)
def test_a_host_that_seems_to_lack_everything_is_not_changed(
    answer: Surveyed | None, cause: str
) -> None:
    with pytest.raises(PyinfraError, match=f"node1: its state cannot be read.*|{cause}"):
        survey(Host(answer).real, MODEL)


def test_the_doctor_asks_a_host_once_and_names_one_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [surveyed(), None, surveyed(late=("getent passwd did not end",))]
    asked: list[type] = []

    def fact(host: Any, wanted: type, **_: Any) -> Any:
        asked.append(wanted)
        return answers[len(asked) - 1]

    monkeypatch.setattr(visit, "fact_of", fact)
    host: Any = World("node1").hosts["node1"]
    found = [visit._read(host, MODEL) for _ in answers]
    assert isinstance(found[0], Node) and asked == [Survey] * 3
    assert found[1:] == [visit.UNREAD, "getent passwd did not end"]
