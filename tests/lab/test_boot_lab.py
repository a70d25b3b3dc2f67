"""Reboots of a living cluster for the boot layer: drained, proved, uncordoned, one at a time.

Simulated: the Raspberry Pi (tests/lab/README.md): a model's name, a boot partition that is a mount
but no FAT, and a firmware that starts the container again with the live command line; containers
and images, by the lab's stand-in for K3s. Real: the drain, the API, systemd, SSH that goes away
and comes back, the script that edits the files. A test goes on from the last.
"""

from __future__ import annotations

import copy
import runpy
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.boot import places
from tests.lab.errors import LabError
from tests.lab.lab import Lab
from tests.lab.living import condition, cordoned, kubectl, nodes, wait_for, wait_for_api
from tests.lab.runs import ROOT, Run, plan, run

pytestmark = pytest.mark.lab(servers=1, agents=1)

SITE, BOOT = "deploys/site.py", "deploys/boot.py"
SERVER, AGENT = NAMES = ("node1", "node2")
LINE = "console=serial0,115200 root=LABEL=writable panic=10 rootwait"
CONFIG = "[all]\nos_prefix=current/\n[tryboot]\nos_prefix=new/\n[all]\ncmdline=cmdline.txt\n"
BOARD = "Raspberry Pi 4 Model B Rev 1.4"
LIVE = f"{places.FOLDER}/current/cmdline.txt"


def data(**boot: Any) -> dict[str, Any]:
    """The group_data key `nodes` of the lab with settings of the boot layer."""
    known = runpy.run_path(str(ROOT / "group_data" / "lab.py"))["nodes"]
    return {"nodes": copy.deepcopy(known) | {"boot": boot}}


def boot_ids(lab: Lab) -> dict[str, str]:
    return {name: lab.read(name, "/proc/sys/kernel/random/boot_id").strip() for name in NAMES}


def begin_as_pi(lab: Lab, name: str) -> None:
    """Start a host again as a Raspberry Pi with slots, whose files say nothing yet."""
    files = {
        "/etc/picluster-lab/board": BOARD,
        f"{places.FOLDER}/config.txt": CONFIG,
        f"{places.FOLDER}/cmdline.txt": "dead=file\n",
        LIVE: f"{LINE}\n",
        f"{places.FOLDER}/current/state": "good\n",
    }
    for path, text in files.items():
        lab.check(name, f"mkdir -p {path.rpartition('/')[0]}")
        lab.put(name, path, text)
    before = boot_ids(lab)[name]
    lab.run(name, "systemctl reboot")

    def back() -> bool:
        try:
            return boot_ids(lab)[name] != before and LINE in lab.read(name, "/proc/cmdline")
        except LabError:  # it is between two lives
            return False

    wait_for(back, f"{name} as a Raspberry Pi")


def is_whole(lab: Lab) -> bool:
    ready = all(condition(node, "Ready") == "True" for node in nodes(lab).values())
    return ready and cordoned(lab) == []


@pytest.fixture(scope="module")
def pis(lab: Lab) -> Iterator[tuple[Lab, dict[str, str], Run]]:
    """A living cluster of two Pis without our tokens, their boot ids, and the run that mends it."""
    lab.clear_faults()
    lab.recreate(*NAMES)
    built = run(lab, SITE)
    assert built.code == 0, built.text
    for name in NAMES:
        begin_as_pi(lab, name)
    wait_for_api(lab, SERVER)
    wait_for(lambda: is_whole(lab), "the cluster after both became Pis")
    kubectl(lab, SERVER, "create deployment web --image=web --replicas=3")
    before = boot_ids(lab)
    yield lab, before, run(lab, BOOT, data=data())


def test_both_nodes_get_the_token_and_are_rebooted(
    pis: tuple[Lab, dict[str, str], Run],
) -> None:
    lab, before, done = pis
    assert done.code == 0, done.text
    assert sorted(done.changed["Raspberry Pi | Command line of the kernel"]) == list(NAMES)
    after = boot_ids(lab)
    for name in NAMES:
        assert after[name] != before[name]
        assert lab.read(name, LIVE) == f"{LINE} cgroup_enable=memory\n"
        assert lab.read(name, "/proc/cmdline").endswith(f" {LINE} cgroup_enable=memory\n")
        assert "gpu_mem=16" in lab.read(name, f"{places.FOLDER}/config.txt")
        assert lab.read(name, f"{places.FOLDER}/cmdline.txt") == "dead=file\n"
        copies = lab.check(name, f"cat {places.BACKUPS}/current-cmdline.txt.*")
        assert copies == f"{LINE}\n"
    assert is_whole(lab)


def test_they_went_one_at_a_time_the_agent_first_each_drained(
    pis: tuple[Lab, dict[str, str], Run],
) -> None:
    said = pis[2].text
    moments = [
        said.index(f"{name}{what}")
        for name in (AGENT, SERVER)
        for what in (": cordoned (drain)", " reboots: ", ": uncordoned")
    ]
    assert moments == sorted(moments)


def test_a_second_run_changes_nothing_and_reboots_nothing(
    pis: tuple[Lab, dict[str, str], Run],
) -> None:
    lab, before = pis[0], boot_ids(pis[0])
    assert plan(lab, BOOT, data=data()).changed == {}
    again = run(lab, SITE, data=data())
    assert (again.code, again.changed) == (0, {}), again.text
    assert boot_ids(lab) == before


def test_a_staged_slot_gets_the_same_edit_and_is_waited_for(
    pis: tuple[Lab, dict[str, str], Run],
) -> None:
    lab, before = pis[0], boot_ids(pis[0])
    lab.check(AGENT, f"cp -r {places.FOLDER}/current {places.FOLDER}/new")
    lab.put(AGENT, f"{places.FOLDER}/new/cmdline.txt", f"{LINE} slot=new\n")
    lab.put(AGENT, f"{places.FOLDER}/new/state", "unknown\n")
    done = run(lab, BOOT, "--limit", AGENT, data=data(cmdline_add=["usbcore.autosuspend=-1"]))
    assert done.code == 0, done.text
    line = lab.read(AGENT, "/proc/cmdline")
    assert line.endswith(f"{LINE} slot=new cgroup_enable=memory usbcore.autosuspend=-1\n")
    assert boot_ids(lab)[AGENT] != before[AGENT] and boot_ids(lab)[SERVER] == before[SERVER]


def run_with_slot(lab: Lab, state: str, *options: str, **boot: Any) -> Run:
    """A run while the agent has a new boot slot in this state, which the doctor forgives.

    The doctor says it too; here it is the boot layer's own word.
    """
    asked = data(**boot)
    asked["nodes"]["ignore_preflight"].append("boot-slot")
    lab.check(AGENT, f"cp -r {places.FOLDER}/current {places.FOLDER}/new")
    lab.put(AGENT, f"{places.FOLDER}/new/state", f"{state}\n")
    done = run(lab, BOOT, *options, data=asked)
    lab.check(AGENT, f"rm -r {places.FOLDER}/new")
    return done


def test_a_slot_that_is_being_tried_is_refused_before_anything_is_changed(
    pis: tuple[Lab, dict[str, str], Run],
) -> None:
    lab, before = pis[0], boot_ids(pis[0])
    done = run_with_slot(lab, "trying", cmdline_add=["a=1"])
    assert done.code == 1 and done.changed == {}
    assert f"{AGENT}: its new boot slot is being tried right now" in done.text
    assert boot_ids(lab) == before and "a=1" not in lab.read(SERVER, LIVE)


def test_a_slot_that_failed_before_does_not_fail_a_reboot_for_something_else(
    pis: tuple[Lab, dict[str, str], Run],
) -> None:
    lab, before = pis[0], boot_ids(pis[0])
    done = run_with_slot(lab, "bad", "--limit", AGENT, cmdline_add=["b=1"])
    assert done.code == 0, done.text
    assert boot_ids(lab)[AGENT] != before[AGENT] and "b=1" in lab.read(AGENT, "/proc/cmdline")
    assert f"{AGENT}: it is back; the new boot slot that failed earlier" in done.text
    assert is_whole(lab)


def test_who_says_never_is_only_told(pis: tuple[Lab, dict[str, str], Run]) -> None:
    lab, before = pis[0], boot_ids(pis[0])
    done = run(lab, BOOT, "--limit", AGENT, data=data(cmdline_add=["a=1"], reboots="never"))
    assert done.code == 0, done.text
    assert boot_ids(lab) == before and "a=1" in lab.read(AGENT, LIVE)
    assert "wants a reboot: the kernel does not have a=1 yet" in done.text


def test_a_reboot_that_brings_another_command_line_fails_and_keeps_the_cordon(
    pis: tuple[Lab, dict[str, str], Run],
) -> None:
    lab = pis[0]
    # The firmware reads another file than the one that config.txt selects.
    lab.put(AGENT, "/etc/picluster-lab/cmdline", f"{LINE}\n")
    done = run(lab, BOOT, data=data(cmdline_add=["a=1"]))
    assert done.code == 1
    assert "it booted with another command line than" in done.text and "without" in done.text
    assert cordoned(lab) == [AGENT], done.text
    lab.check(AGENT, "rm /etc/picluster-lab/cmdline")
    mended = run(lab, BOOT, data=data(cmdline_add=["a=1"]))
    assert mended.code == 0, mended.text
    assert lab.read(AGENT, "/proc/cmdline").endswith(" a=1\n") and is_whole(lab)
