"""The table at the end of a run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from runtime import summary
from runtime.summary import Summary


class Meta:
    """What pyinfra keeps of an operation on a host."""

    def __init__(self, ended: bool = True, changed: bool = False) -> None:
        self.ended, self.changed = ended, changed

    def is_complete(self) -> bool:
        return self.ended

    def did_change(self) -> bool:
        assert self.ended, "pyinfra raises here"
        return self.changed


class Fake:
    """A host of a run."""

    def __init__(self, name: str, *groups: str) -> None:
        self.name, self.groups = name, groups
        self.executing_op_hash = None


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(summary.logger, "info", lines.append)
    return lines


SERVER, AGENT = Fake("node1", "servers", "home"), Fake("node4", "agents", "home")
CONTROL = Fake("@local", "control", "home")


def run(*outcomes: tuple[Fake, dict[str, Meta]], failed: tuple[Fake, ...] = ()) -> Any:
    hosts = [host for host, _ in outcomes]
    names = {name for _, ops in outcomes for name in ops}
    return SimpleNamespace(
        inventory=hosts,
        activated_hosts=set(hosts),
        failed_hosts=set(failed),
        is_executing=True,
        ops={
            host: {name: SimpleNamespace(operation_meta=meta) for name, meta in ops.items()}
            for host, ops in outcomes
        },
        op_meta={name: SimpleNamespace(names={f"K3s | {name}"}) for name in names},
    )


def table(state: Any, said: list[str], broken_off: bool = False, start: str = "") -> list[str]:
    found = Summary(lambda _: {"node1": "v1.36.3+k3s1"})
    for host in state.inventory:
        found.operation_host_start(state, host, start)
        if host in state.failed_hosts:
            found.operation_host_error(state, host, start)
    found.print_once(state, broken_off)
    found.print_once(state, broken_off)
    return said


def test_a_run_that_went_well(said: list[str]) -> None:
    state = run(
        (SERVER, {"a": Meta(changed=True), "b": Meta(changed=True)}),
        (AGENT, {"a": Meta()}),
        (CONTROL, {}),
    )
    assert table(state, said) == [
        "Node    Role     Version       Changed  Result",
        "node1   server   v1.36.3+k3s1  2        ok",
        "node4   agent    -             0        ok",
        "@local  control  -             0        ok",
    ]


def test_a_failed_host_is_named_with_its_operation(said: list[str]) -> None:
    state = run(
        (SERVER, {"a": Meta(changed=True), "b": Meta()}),
        (AGENT, {"c": Meta(ended=False)}),
        failed=(SERVER,),
    )
    assert table(state, said, start="b")[1:] == [
        "node1  server  v1.36.3+k3s1  1        failed in K3s | b",
        "node4  agent   -             0        untouched",
    ]


def test_a_run_that_was_broken_off(said: list[str]) -> None:
    state = run(
        (SERVER, {"a": Meta(changed=True), "b": Meta(ended=False)}),
        (AGENT, {"a": Meta(changed=True)}),
        (CONTROL, {"c": Meta(ended=False)}),
    )
    assert table(state, said, broken_off=True, start="b")[1:] == [
        "node1   server   v1.36.3+k3s1  1        interrupted in K3s | b",
        "node4   agent    -             1        incomplete",
        "@local  control  -             0        untouched",
    ]


def test_a_run_that_executed_nothing_has_no_table(said: list[str]) -> None:
    state = run((SERVER, {}))
    state.is_executing = False
    assert table(state, said) == []


def test_long_results_stay_within_80_columns(said: list[str]) -> None:
    state = run((SERVER, {"x" * 90: Meta()}), failed=(SERVER,))
    lines = table(state, said, start="x" * 90)
    assert max(map(len, lines)) <= 80 - summary.INDENT
    assert len(lines) > 2
