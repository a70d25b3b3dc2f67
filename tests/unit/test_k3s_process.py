"""The start of K3s: watched until its cause is sure, and the way back to the previous binary."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from paramiko import SSHException

from cluster.k3s_plan import Seen
from cluster.probe import Done, Failed, Pending
from operations import k3s_process
from operations.k3s_process import NO_WAY_BACK, Fallback, fallback
from tests.unit.cluster_example import example
from tests.unit.kube_world import World, put_node

LINK = "/usr/local/lib/k3s/v1.36.2+k3s1/k3s"
PATCH = ("v1.36.2+k3s1", "v1.36.3+k3s1")
MINOR = ("v1.35.7+k3s1", "v1.36.3+k3s1")


def test_a_server_goes_back_within_its_minor_only() -> None:
    assert fallback(True, LINK, PATCH) == Fallback(LINK, PATCH[0], "")
    refused = fallback(True, LINK, MINOR)
    assert refused.link == "" and "restore the snapshot" in refused.why_not


def test_an_agent_can_always_go_back() -> None:
    assert fallback(False, LINK, MINOR) == Fallback(LINK, MINOR[0], "")


def test_without_a_change_of_version_there_is_nothing_to_go_back_to() -> None:
    assert fallback(True, LINK, None) == NO_WAY_BACK
    assert fallback(True, "", PATCH) == NO_WAY_BACK


class Host:
    """A host that only has a name."""

    name = "node4"


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A watch over a unit whose answers the test sets, and its clock."""
    clock = Clock()
    monkeypatch.setattr(k3s_process.time, "monotonic", clock.monotonic)
    answers: list[list[str]] = []
    monkeypatch.setattr(k3s_process, "shell", lambda host, script: (True, answers[-1]))
    watch = k3s_process._Watch(Host(), "k3s-agent", "0", entered="7")  # type: ignore[arg-type]

    def look(state: str, *logs: str, entered: str = "9") -> Any:
        answers.append(
            [
                f"ActiveState={state}",
                "SubState=x",
                f"{k3s_process._ENTERED}={entered}",
                "---",
                *logs,
            ]
        )
        return watch.probe()

    look.clock = clock  # type: ignore[attr-defined]
    return look


REFUSED = 'level=info msg="Waiting to retrieve agent configuration: not authorized"'


def test_the_old_process_is_not_taken_for_the_new_one(watch: Any) -> None:
    assert watch("active", entered="7") == Pending("stopping")
    assert watch("active") == Done("is up")


def test_a_final_cause_must_last_before_the_wait_ends(watch: Any) -> None:
    assert isinstance(watch("activating", REFUSED), Pending)
    watch.clock.now += k3s_process.SURE_AFTER - 1
    assert isinstance(watch("activating", REFUSED), Pending)
    watch.clock.now += 1
    answer = watch("activating", REFUSED)
    assert isinstance(answer, Failed) and "the token was refused" in answer.cause


def test_a_cause_that_passes_starts_its_time_again(watch: Any) -> None:
    watch("activating", REFUSED)
    watch.clock.now += k3s_process.SURE_AFTER
    watch("activating", "level=info msg=fine")
    assert isinstance(watch("activating", REFUSED), Pending)


def test_a_node_that_hangs_under_a_look_does_not_answer(
    watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(k3s_process, "LOOK_LIMIT", 0.05)
    monkeypatch.setattr(k3s_process, "shell", lambda host, script: gevent.sleep(3600))
    with gevent.Timeout(5):
        assert watch("active") == Pending("the node does not answer")


def test_a_node_that_gives_no_session_does_not_answer(
    watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shell(*_: Any) -> Any:
        raise SSHException("Channel closed.")

    monkeypatch.setattr(k3s_process, "shell", shell)
    assert watch("active") == Pending("the node does not answer")


def test_a_failed_unit_ends_the_wait_with_its_last_error(watch: Any) -> None:
    answer = watch("failed", 'level=fatal msg="etcd disabled"')
    assert isinstance(answer, Failed) and "runs sqlite" in answer.cause


HOLDS, FRESH = {"datastore": "etcd"}, dict[str, Any]()
AWAY = {"reached": False, "reason": "timed out"}


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `before` answers for node1 of three servers, and says; those that hold data vote."""
    monkeypatch.setattr(k3s_process, "cluster", example)
    monkeypatch.setattr(k3s_process, "BEFORE_TIMEOUT", 0.0)
    monkeypatch.setattr("runtime.api.LONGEST_PAUSE", 0.01)

    def ask(node2: dict[str, Any], node3: dict[str, Any], api: bool = True) -> tuple[bool, str]:
        seen = {"node1": HOLDS, "node2": node2, "node3": node3}
        found = {name: Seen(name, **values) for name, values in seen.items()}
        monkeypatch.setattr(k3s_process, "survey", lambda *_: found)
        world = World()
        for name, one in found.items():
            if one.datastore:
                put_node(world.server, name, voter=True)
        if not api:
            world.server.stop()
        ok = k3s_process.before(world.state, world.host, "node1", False, timeout=1)
        return ok, " ".join(world.said)

    return ask


def test_a_server_is_taken_down_while_others_are_still_to_enter(before: Any) -> None:
    assert before(HOLDS, FRESH) == (True, "")


def test_a_server_is_not_taken_down_while_a_member_does_not_vote(before: Any) -> None:
    ok, said = before(HOLDS, AWAY)
    assert not ok and "1 of 2 vote in etcd; node3 is not registered" in said
    assert before(HOLDS, HOLDS, api=False)[0] is False


def test_the_only_server_that_has_entered_is_put_right_without_its_api(before: Any) -> None:
    assert before(FRESH, FRESH, api=False) == (True, "")


NODE = "@fake/server1"


@pytest.fixture
def copying(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A copy of sqlite's files while K3s is down; `looks` are what its unit is then, one a look."""
    monkeypatch.setattr("runtime.wait.time.sleep", lambda _: None)
    monkeypatch.setattr("runtime.api.LONGEST_PAUSE", 0.01)

    def keep(*looks: str, copied: bool = True, **answers: Any) -> tuple[bool, list[str]]:
        world, left = World(), list(looks)

        def shell(host: Any, script: str) -> tuple[bool, list[str]]:
            if "COPY" in script:
                return copied, ["100", *([] if copied else ["cp: no space left"])]
            return True, [f"ActiveState={left.pop(0)}", f"{k3s_process._ENTERED}=9", "---"]

        monkeypatch.setattr(k3s_process, "shell", shell)
        for pattern, status in answers.items():
            world.server.fail(f"GET /{pattern}", status, times=2)
        done = k3s_process.keep_copy(world.state, world.host, NODE, "COPY", timeout=30)
        assert left == []
        return done, world.said

    return keep


def test_after_a_copy_of_the_datastore_k3s_and_its_api_are_waited_for(copying: Any) -> None:
    done, said = copying("activating", "activating", "active", readyz=500)
    assert done and "waiting for k3s on @fake/server1: activating ()" in said[0]
    assert "the API of @fake/server1" in said[-1]


def test_a_k3s_that_does_not_come_back_after_the_copy_ends_the_wait(copying: Any) -> None:
    done, said = copying("activating", "failed")
    assert not done and said[-1] == "k3s on @fake/server1: k3s failed ()"


def test_a_datastore_that_cannot_be_copied_is_no_step_towards_another_release(copying: Any) -> None:
    done, said = copying(copied=False)
    assert not done and said == ["the datastore of @fake/server1 is not kept: cp: no space left"]
