"""How a run speaks and ends: phases, table, failures, refusals, signals.

Simulated: the nodes (`@fake`), on which every command succeeds without effect. Functions run.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from gevent.server import StreamServer

from tests.plans.command import Case, project

INVENTORY = """
servers = [
    (f"@fake/node{number}", {"ip": f"10.0.0.1{number}", "arch": "arm64", "fake_delay": 0})
    for number in (1, 2, 3)
]
control = ["@local"]
"""

DEPLOY = """
import time
from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.deploy import deploy

from operations import flow
from runtime import signals
from runtime.run import fail
from cluster.probe import Pending
from runtime.wait import until

ME = host.name.rpartition("/")[2]

@operation()
def change():
    yield StringCommand("true")

@operation()
def call(function):
    yield FunctionCommand(function, (), {})

def undoable(state, host):
    signals.push("it", "undoing what node1 did", lambda: None)
    return True

def broken(state, host):
    host.log_styled("the cause", fg="red")
    return False

def forever(state, host):
    return until(lambda: Pending("Godot"), what="him", timeout=600, interval=0.1, host=host)

@deploy("First")
def first():
    change(name="Change")
    flow.barrier(name="All are here")

@deploy("Second")
def second(function):
    if ME == "node1":
        call(name="Undoable", function=undoable)
        call(name="Decisive", function=function)
    flow.barrier(name="All are there")

@deploy("Third")
def third():
    change(name="Never")
"""


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path, INVENTORY, DEPLOY)


def table(text: str) -> list[list[str]]:
    """The rows of the summary, by column, without the version; it must be there once."""
    lines = [line.rstrip() for line in text.splitlines()]
    (start,) = [number for number, line in enumerate(lines) if line.startswith("    Node ")]
    rows = [line.split(maxsplit=4) for line in lines[start + 1 : start + 5]]
    assert max(map(len, lines[start : start + 5])) <= 80
    return [[row[0], row[1], *row[3:]] for row in rows]


def test_a_run_says_its_phases_and_ends_with_one_table(case: Case) -> None:
    done = case.run("first()\nsecond(lambda state, host: True)\nthird()\n", "-y")
    assert done.returncode == 0, done.stderr
    phases = re.findall(r"^--> (\d/3 \w+) \(\d:\d\d\)$", done.stderr, re.MULTILINE)
    assert phases == ["1/3 First", "2/3 Second", "3/3 Third"]
    assert table(done.stderr) == [
        ["node1", "server", "4", "ok"],
        ["node2", "server", "2", "ok"],
        ["node3", "server", "2", "ok"],
        ["@local", "control", "2", "ok"],
    ]
    assert "\x1b" not in done.stderr + done.stdout
    assert "Skipped" not in done.stderr
    assert "No changes" not in done.stderr


def test_a_dry_run_shows_what_would_change_on_80_columns(case: Case) -> None:
    quiet = "@operation()\ndef quiet():\n    host.noop('as it is')\n    return\n    yield\n"
    done = case.run(f"{quiet}first()\nquiet(name='Quiet')\nthird()\n", "--dry")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    start = lines.index("--> Detected changes:") + 1
    table = [line.strip() for line in lines[start : start + 6]]
    assert [" ".join(line.split()) for line in table] == [
        "Operation Hosts",
        "First",
        "Change @local, node1, node2, node3",
        "Third",
        "Never @local, node1, node2, node3",
        "2 operations would change 4 hosts",
    ]
    assert max(map(len, lines[start:])) <= 80
    assert "\x1b" not in done.stderr
    assert "Quiet" not in done.stderr


def test_v_also_says_where_nothing_happened(case: Case) -> None:
    done = case.run("first()\nsecond(lambda state, host: True)\n", "-y", "-v")
    assert "[@fake/node2] Skipped" in done.stderr
    assert "[@fake/node2] No changes" in done.stderr


def test_a_failure_names_host_and_operation_and_undoes(case: Case) -> None:
    done = case.run("first()\nsecond(broken)\nthird()\n", "-y")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert "    undoing what node1 did" in lines
    assert "--> node1: failed in Second | Decisive; nothing was begun after it" in lines
    assert table(done.stderr) == [
        ["node1", "server", "2", "failed in Second | Decisive"],
        ["node2", "server", "1", "incomplete"],
        ["node3", "server", "1", "incomplete"],
        ["@local", "control", "1", "incomplete"],
    ]
    for unwanted in ("Never", "All are there", "hosts failed", "Traceback", "pyinfra error"):
        assert unwanted not in done.stderr


def test_an_error_in_our_own_code_undoes_too(case: Case) -> None:
    bug = (
        "@operation()\n"
        "def bug():\n"
        "    yield FunctionCommand(undoable, (), {})\n"
        "    raise ValueError('ours')\n"
        "if ME == 'node1':\n"
        "    bug(name='Bug')\n"
    )
    done = case.run(bug, "-y")
    assert done.returncode == 1
    assert "ValueError: ours" in done.stderr
    assert "    undoing what node1 did" in done.stderr.splitlines()


def test_an_operation_that_cannot_read_its_host_fails_with_the_cause_in_one_line(
    case: Case,
) -> None:
    unread = (
        "from pyinfra.api.exceptions import PyinfraError\n"
        "@operation()\n"
        "def unread():\n"
        "    yield FunctionCommand(undoable, (), {})\n"
        "    if host.state.is_executing:\n"
        "        raise PyinfraError(f'{host.name}: no answer to Fact')\n"
        "if ME == 'node1':\n"
        "    unread(name='Unread')\n"
    )
    done = case.run(unread, "-y")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert "    [@fake/node1] no answer to Fact" in lines and "    undoing what node1 did" in lines
    assert "--> node1: failed in Unread; nothing was begun after it" in lines
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--serial", "--no-wait"])
def test_options_without_order_among_hosts_are_refused(case: Case, option: str) -> None:
    done = case.run("first()\n", "-y", option)
    assert done.returncode == 1
    assert f"--> {option} breaks the order among hosts: leave it out" in done.stderr.splitlines()


@pytest.mark.parametrize("options", [["-y"], ["--dry"], ["--dry", "--json"]])
def test_a_refusal_collects_the_problems_of_all_hosts(case: Case, options: list[str]) -> None:
    done = case.run(
        "first()\n"
        "if ME != 'node3':\n"
        "    time.sleep(0.3 if ME == 'node2' else 0)\n"
        "    fail(['all: one for all', f'{ME}: one of its own'])\n",
        *options,
    )
    assert done.returncode == 1
    said = [line.removeprefix("--> ") for line in done.stderr.splitlines() if ": one " in line]
    assert sorted(said) == [
        "@local: one of its own",
        "all: one for all",
        "node1: one of its own",
        "node2: one of its own",
    ]
    assert "--> refused; nothing was changed" in done.stderr.splitlines()
    for unwanted in ("Traceback", "pyinfra error", "deploy.py line", "First"):
        assert unwanted not in done.stderr


@pytest.fixture
def hangs_up() -> Iterator[int]:
    """A port where the connection ends at once, as an overloaded sshd does."""
    server = StreamServer(("127.0.0.1", 0), lambda sock, _: sock.close())
    server.start()
    yield server.server_port
    server.stop(timeout=0)


@pytest.mark.parametrize("listens", [False, True])
def test_a_host_that_cannot_be_reached_is_named(case: Case, hangs_up: int, listens: bool) -> None:
    port = hangs_up if listens else 1
    away = {"ip": "10.0.0.14", "arch": "amd64", "ssh_hostname": "127.0.0.1", "ssh_port": port}
    project(case.folder, f'{INVENTORY}agents = [("node4", {away})]\n')
    done = case.run("first()\n", "-y")
    assert done.returncode == 1
    assert "--> node4: cannot be reached; nothing was changed on any host" in done.stderr
    assert "Traceback" not in done.stderr
    assert "First" not in done.stderr


def test_without_a_terminal_the_question_is_not_asked(case: Case) -> None:
    done = case.run("first()\n")
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "terminal" in line]
    assert said == ["--> no terminal to ask at: -y applies the changes, --dry only shows them"]
    assert "exception" not in done.stderr


def test_a_limit_that_matches_nothing_is_an_error(case: Case) -> None:
    done = case.run("first()\n", "-y", "--limit", "node9")
    assert done.returncode == 1
    assert (
        "--> --limit node9: no host is left; groups: servers; hosts: node1, node2, node3, @local"
        in done.stderr.splitlines()
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_undoes_and_ends_the_run(case: Case, number: int, code: int) -> None:
    calls = "first()\nsecond(forever)\nthird()\n"
    ended, text = case.signalled(calls, "waiting for him: Godot", number)
    assert ended == code, text
    assert "    undoing what node1 did" in text.splitlines()
    assert table(text)[0][-1] == "interrupted in Second | Decisive"
    for unwanted in ("Never", "All are there", "Traceback", "hosts failed"):
        assert unwanted not in text


def test_a_second_signal_ends_it_at_once(case: Case) -> None:
    calls = "signals.UNDO_LIMIT = 600\n" + "first()\nsecond(slow)\n"
    slow = (
        "def slow(state, host):\n"
        "    signals.push('slow', 'undoing slowly', lambda: time.sleep(600))\n"
        "    return forever(state, host)\n"
    )
    ended, text = case.signalled(slow + calls, "waiting for him", signal.SIGINT, signal.SIGINT)
    assert ended == 130, text
    assert "Node " not in text
