"""How far cloud-init got: running, done, degraded, in error, crashed and switched off apart.

The texts are constructed as cloudinit/cmd/status.py reads them.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster.doctor.catalogue import examine
from cluster.doctor.check import Verdict
from cluster.doctor.cloud import judge
from facts.doctor import parse
from tests.unit.doctor_world import healthy, seen

IDLE = "ActiveState=active  ActiveState=inactive "
BUSY = "ActiveState=active  ActiveState=activating "
QUEUED = "ActiveState=active  Job=117 ActiveState=inactive "
FAILED = "ActiveState=active  ActiveState=failed "
RESULT = json.dumps({"v1": {"datasource": "NoCloud", "errors": []}})


def status(stage: str | None = None, **of_final: Any) -> str:
    return json.dumps({"v1": {"datasource": "x", "stage": stage, "modules-final": of_final}})


@pytest.mark.parametrize(
    ("given", "state", "said"),
    [
        ((status("init"), "", BUSY), "running", "in stage init"),
        ((status(), "", QUEUED), "running", "between stages"),
        ((status("init"), "", IDLE), "crashed", "in stage init"),
        ((status("init", errors=["no space left"]), "", FAILED), "crashed", "no space left"),
        (("", "", FAILED), "crashed", "before its first stage"),
        (("", "", BUSY), "running", "before its first stage"),
        ((status(), RESULT, IDLE), "done", ""),
        ((status(errors=["no network"]), RESULT, IDLE), "error", "no network"),
        (
            (status(recoverable_errors={"WARNING": ["bad key"]}), RESULT, IDLE),
            "degraded", "bad key",
        ),
        ((status(recoverable_errors={"DEPRECATED": ["old key"]}), RESULT, IDLE), "done", ""),
        (("", json.dumps({"v1": {"errors": ["late"]}}), IDLE), "error", "late"),
        (("", "", IDLE), "", ""),
        ((status(), "", ""), "", ""),
        (("no JSON", "nor this", IDLE), "", ""),
    ],
)  # fmt: skip
def test_the_states_are_told_apart(given: tuple[str, str, str], state: str, said: str) -> None:
    assert judge(*given, off=False) == (state, said)


def test_what_went_wrong_at_this_boot_is_said_though_the_next_leaves_it_out() -> None:
    """Our own first boot ends with switching it off."""
    assert judge("", "", IDLE, off=True) == ("disabled", "")
    assert judge(status(errors=["no network"]), RESULT, IDLE, off=True)[0] == "error"


@pytest.mark.parametrize(
    ("lines", "verdict", "word"),
    [
        ([f"cloud\t\t{status('init')}\t\t{BUSY}"], Verdict.FAIL, "still runs"),
        ([f"cloud\t\t{status('init')}\t\t{FAILED}"], Verdict.WARN, "broke off"),
        ([f"cloud\t\t{status()}\t{RESULT}\t{IDLE}"], Verdict.WARN, "not switched off"),
        ([f"cloud\toff\t{status()}\t{RESULT}\t{IDLE}"], Verdict.PASS, "done"),
        (["cloud\toff\t\t\t"], Verdict.PASS, "disabled"),
        (["late\tsystemctl show did not end within 10 seconds", f"cloud\t\t{status()}\t\t"],
         Verdict.UNKNOWN, "systemctl show did not end within 10 seconds"),
    ],
)  # fmt: skip
def test_a_run_that_broke_off_is_not_waited_for(
    lines: list[str], verdict: Verdict, word: str
) -> None:
    read = parse([*lines, "end"])
    names = ("cloud_init", "cloud_errors", "cloud_off", "late")
    fleet = seen(**{name: getattr(read, name) for name in names})(healthy())
    found = next(one for one in examine(fleet) if one.check.id == "cloud-init")
    assert found.verdict is verdict and word in found.answer.seen, str(found)
    assert "--wait" not in found.remedy or verdict is Verdict.FAIL
