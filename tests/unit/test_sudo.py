"""A host on which a login or sudo hangs ends a run instead of holding it up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from pyinfra.api.state import StateStage
from pyinfra.connectors.ssh import SSHConnector

from runtime import sudo


def tried(run: Any) -> list[str]:
    """What is wrong with a host on which commands do this."""
    host: Any = SimpleNamespace(
        name="node1", data={"_sudo": True}, connector_cls=SSHConnector,
        connector=SimpleNamespace(run_shell_command=run),
    )  # fmt: skip
    state: Any = SimpleNamespace(
        config=SimpleNamespace(SUDO_PASSWORD=None), current_stage=StateStage.Connect
    )
    found = sudo.Sudo()
    found.host_connect(state, host)
    return found.problems


def test_a_login_that_hangs_is_a_problem_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sudo, "LIMIT", 0.1)
    (line,) = tried(lambda *_, **__: gevent.sleep(3600))
    assert line.startswith("node1: a login with sudo does not end within 0.1 seconds")


def test_a_host_where_sudo_works_is_none() -> None:
    assert tried(lambda *_, **__: (True, SimpleNamespace(stdout_lines=[]))) == []
