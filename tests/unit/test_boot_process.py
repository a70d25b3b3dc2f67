"""A reboot from the drain to the last gate, on a simulated host that goes away and comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.exceptions import ConnectError

from cluster.answer import Present, Unreachable
from cluster.boot.state import BootState
from cluster.k3s_plan import Seen
from cluster.model import Cluster
from cluster.probe import Done, Failed, Pending
from operations import boot_process, gates, k3s_process
from tests.unit.boot_world import PI4, PI5, lines, state
from tests.unit.cluster_example import example

MODEL = example(servers=3, agents=1)
UP = {**PI4, "cgroup-controllers": "cpu cpuset memory pids"}


def boot(number: str, profile: Any = UP, **more: Any) -> BootState:
    """What the fact says in the boot of that id."""
    return state(profile, more=(f"boot_id\t{number}",), **more)


@dataclass
class Host:
    """Simulated: each attempt to reach it finds the next of its days; an exception is none."""

    days: list[Any]
    connected: bool = True
    data: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    name: str = "node1"

    def connect(self, show_errors: bool = True) -> None:
        self.connected = self.days[0] is not None
        if not self.connected:
            self.days.pop(0)

    def disconnect(self) -> None:
        self.connected = False

    def get_fact(self, *_: Any, **__: Any) -> BootState:
        day = self.days.pop(0)
        if isinstance(day, Exception):
            raise day
        found: BootState = day
        return found

    def log(self, text: str) -> None:
        self.said.append(text)

    def log_styled(self, text: str, **_: Any) -> None:
        self.said.append(text)


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.cache.forget", lambda _: None)
    monkeypatch.setattr(boot_process, "cluster", lambda: MODEL)
    monkeypatch.setattr(boot_process, "INTERVAL", 0.0)


def looks(*days: Any, model: Cluster = MODEL) -> list[Any]:
    host: Any = Host(list(days))
    back = boot_process.Return(model, host, "node1", "first")
    return [back.probe() for _ in days]


def test_a_host_is_back_when_another_boot_answers() -> None:
    going, away, back = looks(boot("first"), None, boot("second"))
    assert going == Pending("it is going down") and away == Pending("it does not answer")
    assert back == Done("it is back")


@pytest.mark.parametrize("error", [ConnectError("no"), OSError("gone"), EOFError()])
def test_a_connection_that_breaks_is_a_host_that_does_not_answer(error: Exception) -> None:
    broken, back = looks(error, boot("second"))
    assert isinstance(broken, Pending) and back == Done("it is back")


def test_a_host_whose_state_cannot_be_read_is_not_back() -> None:
    host: Any = Host([0])
    host.get_fact = lambda *_, **__: None
    back = boot_process.Return(MODEL, host, "node1", "first")
    assert back.probe() == Pending("it is not up yet")


def test_with_slots_the_first_boot_is_not_the_last() -> None:
    on = {**PI5, "cgroup-controllers": "memory", "proc-cmdline": PI5["cmdline-txt"]}
    new = {"new/state": "unknown", "new/cmdline.txt": "x"}
    staged, trying, kept = looks(
        boot("second", on, files=new),
        boot("third", on, files={**new, "new/state": "trying"}),
        boot("third", on),
    )
    assert isinstance(staged, Pending) and isinstance(trying, Pending)
    assert kept == Done("it is back")


def test_a_boot_without_what_it_was_for_fails_with_the_tokens() -> None:
    (found,) = looks(boot("second", {**UP, "cmdline-txt": "root=LABEL=writable a=1\n"}))
    assert isinstance(found, Failed) and found.cause.endswith("without a=1")


# ---- before and after


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done, in order."""
    done: list[str] = []

    def step(name: str, answer: Any = True) -> Callable[..., Any]:
        def act(*words: Any, **_: Any) -> Any:
            done.append(name)
            return answer

        return act

    monkeypatch.setattr(k3s_process, "before", step("drain"))
    monkeypatch.setattr(k3s_process, "after", step("gates"))
    monkeypatch.setattr(k3s_process, "shell", step("reboot", (True, ["first"])))
    monkeypatch.setattr(gates, "others_vote", lambda *_: step("votes", Done("")))
    monkeypatch.setattr(boot_process, "api_of", lambda _: None)
    holders = {server.name: Seen(server.name, datastore="etcd") for server in MODEL.servers}
    monkeypatch.setattr(k3s_process, "cluster", lambda: MODEL)
    monkeypatch.setattr(k3s_process, "survey", lambda *_: holders)
    return done


def reboot(
    version: str, drain: bool | None, *days: Any, node: str = "node1"
) -> tuple[bool, list[str]]:
    host: Any = Host(list(days), name=node)
    arguments: Any = (SimpleNamespace(inventory=()), host, node, "a=1 waits", version, drain, False)
    return boot_process.reboot(*arguments), host.said


def test_a_member_is_drained_before_and_uncordoned_after(steps: list[str]) -> None:
    done, said = reboot("v1.36.3+k3s1", True, None, boot("second"))
    assert done and steps == ["drain", "reboot", "gates"]
    assert said[0] == "node1 reboots: a=1 waits" and "node1: it is back" in said


def test_a_host_in_no_cluster_simply_reboots(steps: list[str]) -> None:
    assert reboot("", False, boot("second"))[0] and steps == ["reboot"]


def test_a_member_whose_k3s_is_down_asks_for_the_others_votes_only(steps: list[str]) -> None:
    assert reboot("v1.36.3+k3s1", False, boot("second"))[0]
    assert steps == ["votes", "reboot", "gates"]
    steps.clear()
    assert reboot("v1.36.3+k3s1", False, boot("second"), node="node4")[0]
    assert steps == ["reboot", "gates"]


@pytest.mark.parametrize(
    ("answer", "first"),
    [
        (Present({"node1": SimpleNamespace(ready=True)}), "drain"),
        (Present({"node1": SimpleNamespace(ready=False)}), "votes"),
        (Present({}), "votes"),
        (Unreachable("no route"), "votes"),
    ],
)
def test_a_member_whose_k3s_was_starting_is_drained_when_the_api_counts_on_it(
    steps: list[str], monkeypatch: pytest.MonkeyPatch, answer: Any, first: str
) -> None:
    monkeypatch.setattr(boot_process, "read_nodes", lambda _: answer)
    assert reboot("v1.36.3+k3s1", None, boot("second"))[0]
    assert steps == [first, "reboot", "gates"]


def test_a_node_that_cannot_be_drained_is_not_rebooted(
    steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(k3s_process, "before", lambda *_, **__: False)
    assert not reboot("v1.36.3+k3s1", True)[0] and steps == []


def test_a_node_that_does_not_come_back_right_keeps_its_cordon(steps: list[str]) -> None:
    wrong = boot("second", {**UP, "cmdline-txt": "root=LABEL=writable a=1\n"})
    done, said = reboot("v1.36.3+k3s1", True, wrong)
    assert not done and steps == ["drain", "reboot"]
    assert said[-1].startswith("node1 after its reboot: it booted with another command line")


def test_the_wait_has_a_limit_and_ends_with_the_cause(
    steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hurried:
        nodes = type("N", (), {"boot": type("B", (), {"reboot_timeout": 0})})
        host = staticmethod(MODEL.host)

    monkeypatch.setattr(boot_process, "cluster", lambda: Hurried)
    done, said = reboot("", False, boot("first"))
    assert not done and said[-1] == "node1 after its reboot: not within 0 s: it is going down"


def test_the_fact_reads_the_boot_id() -> None:
    assert "boot_id\tfirst" in lines(PI4) and boot("second").boot_id == "second"
