"""Operations of the boot layer: what they do to each kind of Raspberry Pi, and that twice is once.

Simulated: what a written file does to the state of a host; the script that writes it is run for
real in test_boot_write.py.
"""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api import FunctionCommand, StringCommand
from pyinfra.context import ctx_host, ctx_state

from cluster import versions
from cluster.answer import Present, Stopped
from cluster.boot import places, reboots, wanted
from cluster.boot.eeprom import Eeprom
from cluster.boot.state import BootState, Radio, Watchdog
from cluster.host_state import HostState
from cluster.host_state import Unit as NodeUnit
from cluster.model import Cluster
from cluster.probe import Done, Failed, Pending
from facts.k3s import K3s, Unit
from operations import boot
from tests.unit.boot_world import PI4, PI5, Profile, encoded, state
from tests.unit.cluster_example import example
from tests.unit.node_ops import Command, Host

MODEL = example(servers=1, agents=1)
SERVER, AGENT = MODEL.hosts
PC: Profile = {**PI4, "device-tree-model": ""}
JMICRON = (
    "disk\tsda\tidVendor\t152d",
    "disk\tsda\tidProduct\t0578",
    "disk\tsda\tdriver\tuas",
    "disk\tsda\tport\t2-2",
)
ASMEDIA = (
    "disk\tsda\tidVendor\t174c",
    "disk\tsda\tidProduct\t55aa",
    "disk\tsda\tdriver\tuas",
    "disk\tsda\tprovisioning_mode\tfull",
    "disk\tsda\tdiscard_max_bytes\t0",
)
LBPU = "disk\tsda\tvpd_pgb2\t00 b2 00 04 00 80 02 00"
FILES: list[Any] = [boot.cmdline, boot.usb_quirks, boot.config]

TRIMMING = HostState(units={boot.TIMER: NodeUnit("loaded", "active", "enabled")})

Run = Callable[..., list[Command]]


def settings(**changes: Any) -> Cluster:
    return example(servers=1, agents=1, nodes={"boot": changes})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run(operation, boot state)` → commands; `run.said` and `run.noops` of the last host."""

    def call(
        operation: Any,
        found: BootState,
        model: Cluster = MODEL,
        on: str = "node1",
        node: HostState | None = None,
        k3s: K3s | None = None,
        diff: bool = False,
    ) -> list[Command]:
        state_ = SimpleNamespace(cluster=model, config=SimpleNamespace(DIFF=diff))
        host = Host(on, {}, state_)
        monkeypatch.setattr("operations.boot.boot_state", lambda _: found)
        monkeypatch.setattr("operations.boot.host_state", lambda *_: node or TRIMMING)
        monkeypatch.setattr("operations.boot.k3s_state", lambda *_: k3s or K3s())
        with ctx_state.use(state_), ctx_host.use(host):
            commands = [shown(one) for one in operation._inner()]
        call.said, call.noops = host.said, host.noops  # type: ignore[attr-defined]
        return commands

    return call


def shown(command: Any) -> Command:
    if isinstance(command, FunctionCommand):
        return Command(f"{command.function.__name__}{tuple(command.args)!r}")
    assert isinstance(command, StringCommand)
    given: Any = command.connector_arguments.get("_stdin")
    return Command(command.get_raw_value(), given)


def written(command: Command) -> tuple[str, str]:
    """Path and content that a command of the boot partition writes."""
    path = command.text.split(f" {places.FOLDER} ")[1].split()[0]
    return path, base64.b64decode(command.stdin or "").decode(errors="surrogateescape")


def after(profile: Profile, commands: list[Command], **more: Any) -> BootState:
    """The host with the files that the commands write."""
    files = {**more.pop("files", {}), **dict(map(written, commands))}
    return state(profile, files=files, **more)


# ---- the kernel's command line


def test_a_node_without_the_memory_controller_gets_its_token(run: Run) -> None:
    (command,) = run(boot.cmdline, state(PI4))
    assert written(command) == (
        "cmdline.txt",
        "console=serial0,115200 root=LABEL=writable rootwait cgroup_enable=memory\n",
    )
    assert run(boot.cmdline, after(PI4, [command])) == []


def test_what_changes_is_shown_when_it_is_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("operations.boot.logger", SimpleNamespace(info=said.append))
    run(boot.cmdline, state(PI4))
    assert said == []
    run(boot.cmdline, state(PI4), diff=True)
    assert f"{places.FOLDER}/cmdline.txt" in said[0]
    assert any(line.strip().startswith("+") and "cgroup_enable=memory" in line for line in said)


def test_on_22_04_the_older_token_goes_with_it(run: Run) -> None:
    jammy = {**PI4, "os-release": 'VERSION_ID="22.04"'}
    (command,) = run(boot.cmdline, state(jammy))
    assert written(command)[1].endswith(" cgroup_enable=memory cgroup_memory=1\n")


def test_where_the_kernel_has_it_by_itself_the_file_is_left_alone(run: Run) -> None:
    on = {**PI4, "cgroup-controllers": "cpu cpuset memory pids"}
    assert run(boot.cmdline, state(on)) == []


def test_where_it_is_on_by_a_token_the_file_must_keep_it(run: Run) -> None:
    on = {
        **PI4,
        "cgroup-controllers": "cpu cpuset memory pids",
        "proc-cmdline": "cgroup_disable=memory root=x cgroup_enable=memory",
    }
    (command,) = run(boot.cmdline, state(on))
    assert "cgroup_enable=memory" in written(command)[1]


def test_a_host_outside_the_cluster_needs_no_memory_controller(run: Run) -> None:
    hosts = [one.model_dump() for one in MODEL.hosts]
    hosts.append({"name": "gw", "role": "gateway", "ip": "10.0.0.1", "arch": "arm64"})
    model = example(hosts=hosts)
    assert run(boot.cmdline, state(PI4), model, on="gw") == []


def test_with_slots_a_failing_kernel_is_given_up(run: Run) -> None:
    without = {**PI5, "cmdline-txt": "root=x rootwait\n"}
    (command,) = run(boot.cmdline, state(without))
    assert written(command) == (
        "current/cmdline.txt",
        "root=x rootwait cgroup_enable=memory panic=10\n",
    )
    (kept,) = run(boot.cmdline, state({**PI5, "cmdline-txt": "root=x panic=30\n"}))
    assert "panic=30" in written(kept)[1] and "panic=10" not in written(kept)[1]


def test_a_staged_slot_gets_the_same_edit_and_a_dead_file_none(run: Run) -> None:
    files = {"new/state": "unknown", "new/cmdline.txt": "root=x quiet\n", "cmdline.txt": "dead\n"}
    commands = run(boot.cmdline, state(PI5, files=files))
    assert dict(map(written, commands)) == {
        "current/cmdline.txt": (
            "console=serial0,115200 root=LABEL=writable panic=10 rootwait cgroup_enable=memory\n"
        ),
        "new/cmdline.txt": "root=x quiet cgroup_enable=memory\n",
    }
    assert run(boot.cmdline, after(PI5, commands, files=files)) == []


def test_tokens_of_the_users_own_are_added_and_removed(run: Run) -> None:
    model = settings(cmdline_add=["usbcore.autosuspend=-1"], cmdline_remove=["rootdelay", "a=1"])
    odd = {**PI4, "cmdline-txt": "rootdelay=5 root=x a=1 a=2\n"}
    (command,) = run(boot.cmdline, state(odd), model)
    assert written(command)[1] == "root=x a=2 cgroup_enable=memory usbcore.autosuspend=-1\n"


@pytest.mark.parametrize("operation", FILES)
def test_a_pc_is_not_touched_and_parts_can_be_switched_off(run: Run, operation: Any) -> None:
    assert run(operation, state(PC, more=JMICRON)) == []
    off = settings(cmdline=False, config=False, usb_quirks=False)
    assert run(operation, state(PI4, more=JMICRON), off) == []


# ---- USB quirks


def test_a_bridge_that_fails_with_uas_gets_a_quirk_and_keeps_it(run: Run) -> None:
    (command,) = run(boot.usb_quirks, state(PI4, more=JMICRON))
    assert written(command)[1].endswith(" usb-storage.quirks=152d:0578:u\n")
    now = after(PI4, [command], more=(*JMICRON, "disk\tsda\tdriver\tusb-storage"))
    assert run(boot.usb_quirks, now) == []


def test_a_bridge_that_works_is_left_alone_until_the_kernel_complains(run: Run) -> None:
    assert run(boot.usb_quirks, state(PI4, more=ASMEDIA)) == []
    abort = "log\tsd 0:0:0:0: [sda] tag#28 uas_eh_abort_handler 0 uas-tag 10"
    other = abort.replace("[sda]", "[sdb]")
    assert run(boot.usb_quirks, state(PI4, more=(*ASMEDIA, other))) == []
    (command,) = run(boot.usb_quirks, state(PI4, more=(*ASMEDIA, abort)))
    assert "usb-storage.quirks=174c:55aa:u" in written(command)[1]


def test_the_users_word_on_a_bridge_wins_and_takes_a_quirk_away(run: Run) -> None:
    model = settings(quirks={"152d:0578": "", "174c:55aa": "u"})
    has = {**PI4, "cmdline-txt": "root=x usb-storage.quirks=152d:0578:u,1111:2222:g\n"}
    (command,) = run(boot.usb_quirks, state(has, more=JMICRON), model)
    assert written(command)[1] == "root=x usb-storage.quirks=1111:2222:g\n"
    assert run(boot.usb_quirks, state(PI4, more=ASMEDIA), model) != []


# ---- config.txt


def config(run: Run, found: BootState, model: Cluster = MODEL) -> list[str]:
    commands = run(boot.config, found, model)
    return [line for one in commands for line in written(one)[1].splitlines()]


def test_a_pi_4_gets_its_lines_once(run: Run) -> None:
    found = config(run, state(PI4))
    assert found[-8:-1] == [
        "[all]", "dtparam=watchdog=on", "dtoverlay=disable-wifi", "dtoverlay=disable-bt", "[pi4]",
        "gpu_mem=16", "[all]",
    ]  # fmt: skip
    again = after(PI4, run(boot.config, state(PI4)))
    assert run(boot.config, again) == []


def test_a_pi_5_gives_its_gpu_what_it_asks_for(run: Run) -> None:
    assert not any("gpu_mem" in line for line in config(run, state(PI5)))


def test_wifi_stays_where_it_carries_the_route_or_the_address(run: Run) -> None:
    routed = state(PI4, more=("route\twlan0",))
    assert "dtoverlay=disable-wifi" not in config(run, routed)
    reached = replace(state(PI4), radios=(Radio("wifi", "wlx1", ("10.0.0.11",)),))
    assert "dtoverlay=disable-wifi" not in config(run, reached)
    unused = replace(state(PI4), radios=(Radio("wifi", "wlan0"),))
    assert "dtoverlay=disable-wifi" in config(run, unused)


def test_wifi_stays_where_the_gateways_way_out_is_to_be(run: Run) -> None:
    """Before its password is entered it has neither route nor address."""
    hosts = [one.model_dump() for one in MODEL.hosts]
    hosts.append({"name": "gw", "role": "gateway", "ip": "10.0.0.1", "arch": "arm64"})
    for way_out, stays in (("wlan0", True), ("eth1", False)):
        model = example(hosts=hosts, services={"gateway": {"wan_interface": way_out}})
        (command,) = run(boot.config, state(PI4), model, on="gw")
        assert ("dtoverlay=disable-wifi" not in written(command)[1]) is stays
        (command,) = run(boot.config, state(PI4), model)
        assert "dtoverlay=disable-wifi" in written(command)[1]


def test_lines_of_the_users_own_stand_in_their_section_and_others_can_be_left_out(run: Run) -> None:
    model = settings(
        config_lines={"pi4": ["arm_boost=1", "over_voltage=2"]},
        gpu_mem=None, wifi_off=False, bluetooth_off=False, watchdog=False,
    )  # fmt: skip
    assert config(run, state(PI4), model)[-5:-1] == ["[all]", "[pi4]", "over_voltage=2", "[all]"]


def test_what_config_txt_changes_is_noted_for_the_reboot(run: Run) -> None:
    (command,) = run(boot.config, state(PI4))
    assert command.text.endswith(" config.txt")
    assert reasons(state(PI4, more=("pending\tconfig.txt",)))[-1].startswith("config.txt was")


# ---- TRIM and the watchdog


def test_trim_is_switched_on_for_a_known_bridge_that_says_it_can(run: Run) -> None:
    write, trigger = run(boot.trim, state(PI4, more=(*ASMEDIA, LBPU)))
    assert places.UDEV_RULE in write and 'ATTRS{idVendor}=="174c"' in (write.stdin or "")
    assert trigger.text.endswith(" trim sda")
    on = (
        "disk\tsda\tprovisioning_mode\tunmap",
        f"ours\t{places.UDEV_RULE}\t{encoded(write.stdin or '')}",
    )
    assert run(boot.trim, state(PI4, more=(*ASMEDIA, *on, LBPU))) == []


@pytest.mark.parametrize(
    "more",
    [ASMEDIA, (*ASMEDIA, LBPU.replace(" 80 ", " 00 ")), (*JMICRON, LBPU), (*ASMEDIA, LBPU,
     "disk\tsda\tdriver\tusb-storage")],
)  # fmt: skip
def test_trim_stays_off_where_it_is_not_sure(run: Run, more: tuple[str, ...]) -> None:
    assert run(boot.trim, state(PI4, more=more)) == []


def test_a_bridge_that_the_user_tested_may_keep_silent_but_not_say_no(run: Run) -> None:
    model = settings(trim_bridges=["152d:0578"])
    full = (*JMICRON, "disk\tsda\tprovisioning_mode\tfull")
    assert len(run(boot.trim, state(PI4, more=full), model)) == 2
    no = (*full, LBPU.replace(" 80 ", " 00 "))
    assert run(boot.trim, state(PI4, more=no), model) == []


def test_a_host_whose_bridge_trims_trims_every_week(run: Run) -> None:
    more = (*ASMEDIA, LBPU)
    *_, timer = run(boot.trim, state(PI4, more=more), node=HostState())
    assert timer.text == "systemctl enable --now fstrim.timer"
    assert run(boot.trim, state(PI4), node=HostState()) == []


def test_a_rule_that_is_no_longer_wanted_goes(run: Run) -> None:
    rule = f"ours\t{places.UDEV_RULE}\t{encoded(wanted.rule(['1111:2222']))}"
    remove, reload = run(boot.trim, state(PI4, more=(rule,)))
    assert remove.text.startswith("rm -f") and "udevadm" in reload


def test_the_watchdog_is_told_once_and_what_systemd_does_counts(run: Run) -> None:
    write, again = run(boot.watchdog, state(PI4))
    assert "RuntimeWatchdogSec=15s" in (write.stdin or "")
    assert "systemctl daemon-reexec" in again
    there = replace(state(PI4), watchdog_file=write.stdin)
    assert run(boot.watchdog, there) == []  # what systemd does was not read: it is not guessed
    assert run(boot.watchdog, replace(there, watchdog=Watchdog("x", True, "15s", "2min"))) == []
    (reexec,) = run(boot.watchdog, replace(there, watchdog=Watchdog("x", True, "0", "10min")))
    assert reexec.text == again.text


@pytest.mark.parametrize(
    ("runtime", "reboot", "code"), [("15s", "2min", 0), ("", "", 0), ("1min", "2min", 1)]
)
def test_a_watchdog_that_another_file_sets_is_a_failure_with_its_cause(
    run: Run, tmp_path: Path, runtime: str, reboot: str, code: int
) -> None:
    """Else each run would tell systemd again."""
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        f"#!/bin/sh\ncd {tmp_path}\n[ $1 = show ] || {{ touch gone; exit 0; }}\n"
        f"[ ! -e gone ] || {{ rm gone; exit 1; }}  # it does not answer yet\n"
        f"case $3 in Run*) echo {runtime} ;; *) echo {reboot} ;; esac\n"
    )
    systemctl.chmod(0o755)
    *_, again = run(boot.watchdog, state(PI4))
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", again.text], env=env, capture_output=True, text=True)
    assert done.returncode == code
    assert ("RuntimeWatchdogSec is 1min, not 15s" in done.stderr) is bool(code)


# ---- the bootloader


def with_eeprom(**values: Any) -> BootState:
    return replace(state(PI4), eeprom=Present(Eeprom(**{"built": 1_700_000_000, **values})))


def test_a_newer_bootloader_is_staged_once(run: Run) -> None:
    newer = {"latest": 1_747_000_000, "tool": True}
    (command,) = run(boot.eeprom, with_eeprom(**newer))
    assert "rpi-eeprom-update -a" in command
    assert run(boot.eeprom, with_eeprom(**newer, staged=True)) == []
    assert "a new bootloader is staged" in reasons(with_eeprom(**newer, staged=True))
    noted = replace(with_eeprom(**newer), pending=(places.BOOTLOADER,))
    assert run(boot.eeprom, noted) == []


def test_the_file_of_a_bootloader_that_is_written_waits_for_nothing(run: Run) -> None:
    """It stays there where rpi-eeprom-update.service does not clear it away."""
    done = with_eeprom(latest=1_700_000_000, tool=True, staged=True)
    assert "a new bootloader is staged" not in reasons(done)
    assert run(boot.eeprom, done) == []
    assert "is the newest" in run.noops[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"latest": 1_600_000_000, "tool": True}, "is the newest"),
        ({"latest": None, "tool": True}, "nobody knows whether"),
        ({"built": None, "latest": 1_600_000_000, "tool": True}, "nobody knows whether"),
        ({}, "rpi-eeprom is not installed"),
        ({"latest": 1_747_000_000, "tool": True, "config": {"FREEZE_VERSION": "1"}}, "forbids"),
    ],
)
def test_a_bootloader_is_never_made_older_nor_touched_without_its_tool(
    run: Run, values: dict[str, Any], said: str
) -> None:
    assert run(boot.eeprom, with_eeprom(**values)) == []
    assert said in (run.noops + run.said)[0]  # type: ignore[attr-defined]


def test_a_compute_module_4_is_left_to_rpiboot(run: Run) -> None:
    module = {**PI4, "device-tree-model": "Raspberry Pi Compute Module 4 Rev 1.0"}
    newer = Present(Eeprom(built=1, latest=2, tool=True))
    assert run(boot.eeprom, replace(state(module), eeprom=newer)) == []


@pytest.mark.parametrize(
    ("said", "code", "noted"),
    [("EEPROM updates pending.", 0, ""), ("UPDATE SUCCESSFUL", 0, "bootloader\n"), ("x", 1, "")],
)
def test_an_update_that_did_nothing_is_a_failure(
    run: Run, tmp_path: Path, said: str, code: int, noted: str
) -> None:
    (command,) = run(boot.eeprom, with_eeprom(latest=1_747_000_000, tool=True))
    tool, staged = tmp_path / "rpi-eeprom-update", tmp_path / "firmware" / "pieeprom.upd"
    tool.write_text(f"#!/bin/sh\necho '{said}'\n")
    tool.chmod(0o755)
    staged.parent.mkdir()
    if "pending" in said:
        staged.touch()
    text = command.text.replace(places.FOLDER, str(staged.parent))
    text = text.replace(places.PENDING, str(tmp_path / "note"))
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", text], env=env, capture_output=True, timeout=20)
    note = tmp_path / "note"
    assert done.returncode == code and (note.read_text() if note.exists() else "") == noted


def test_a_bootloader_that_was_not_read_is_not_updated_and_one_may_only_be_named(run: Run) -> None:
    assert run(boot.eeprom, replace(state(PI4), eeprom=Stopped("no tool"))) == []
    newer = with_eeprom(latest=1_747_000_000, tool=True)
    assert run(boot.eeprom, newer, settings(eeprom="report")) == []
    assert "2023-11-14 → 2025-05-11" in run.said[0]  # type: ignore[attr-defined]


# ---- refusals


def refused(found: BootState, model: Cluster = MODEL) -> str:
    return "\n".join(wanted.refusals(model, model.hosts[0], found))


def test_a_healthy_partition_is_not_refused_and_a_pc_never() -> None:
    assert refused(state(PI4)) == "" and refused(state(PI5)) == ""
    assert refused(state({**PC, "findmnt-boot-firmware-json": "/dev/sda1 vfat ro"})) == ""


def test_what_must_not_be_edited_is_refused_with_its_cause() -> None:
    away = {key: text for key, text in PI4.items() if key != "findmnt-boot-firmware-json"}
    assert "is not mounted" in refused(state(away))
    assert "read-only" in refused(state({**PI4, "findmnt-boot-firmware-json": "/dev/sda1 vfat ro"}))
    two = state({**PI4, "cmdline-txt": "a\nroot=x\n"})
    assert refused(two).startswith("node1: /boot/firmware/cmdline.txt: has 2 lines")
    lost = state({**PI4, "config-txt": "os_prefix=current/\n"}, files={"current/cmdline.txt": ""})
    assert "current/cmdline.txt: is empty" in refused(lost)
    broken = state(PI5, files={"new/state": "unknown", "new/cmdline.txt": "a\nb\n"})
    assert refused(broken).startswith("node1: /boot/firmware/new/cmdline.txt: has 2 lines")
    trying = state(PI5, files={"new/state": "trying", "new/cmdline.txt": "x"})
    assert "is being tried right now" in refused(trying)
    off = settings(cmdline=False, config=False, usb_quirks=False)
    assert refused(two, off) == ""


def test_the_partition_of_another_disk_is_refused_where_labels_are_double() -> None:
    twins = tuple(f'partition\tNAME="{name}" LABEL="system-boot"' for name in ("sda1", "mmcblk0p1"))
    other = "mount\t/boot/firmware\t/dev/mmcblk0p1\tvfat\trw\tmmcblk0\t"
    root = "mount\t/\t/dev/sda2\text4\trw\tsda\t"
    disk = "disk\tsda\tdevice\t/sys/devices/x"
    assert "take the other disk out" in refused(state(PI4, more=(*twins, other, root, disk)))
    assert refused(state(PI4, more=(twins[0], other, root, disk))) == ""  # from SD on purpose
    late = "late\tlsblk did not end within 10 seconds"
    assert "lsblk did not end" in refused(state(PI4, more=(other, root, disk, late)))


def test_a_kernel_that_cannot_have_the_controller_is_said_before_it_is_rebooted_for_nothing() -> (
    None
):
    asked = {**PI4, "proc-cmdline": "root=x cgroup_enable=memory"}
    assert "lacks the Raspberry Pi patch" in refused(state(asked))


def test_a_list_of_quirks_that_would_be_too_long_is_refused() -> None:
    many = ",".join(f"1111:{number:04x}:u" for number in range(10))
    full = {**PI4, "cmdline-txt": f"root=x usb-storage.quirks={many}\n"}
    assert "the kernel takes 127" in refused(state(full, more=JMICRON))


# ---- reboots

DONE = {
    "cgroup-controllers": "cpu cpuset memory pids",
    "proc-cmdline": PI4["proc-cmdline"],
    "cmdline-txt": PI4["cmdline-txt"],
}
QUIET = settings(config=False)


def reasons(found: BootState, model: Cluster = QUIET) -> list[str]:
    return [one.text for one in reboots.reasons(model, SERVER, HostState(), found)]


def test_nothing_waits_on_a_host_that_runs_what_its_files_say() -> None:
    assert reasons(state({**PI4, **DONE})) == []


def test_a_change_of_this_run_is_a_reason_before_it_is_made() -> None:
    assert reasons(state(PI4)) == ["cmdline.txt is to change"]
    assert reasons(state({**PI4, **DONE}), MODEL) == ["config.txt is to change"]


def test_tokens_that_wait_are_named() -> None:
    edited = {**PI4, **DONE, "cmdline-txt": "root=LABEL=writable rootwait a=1\n"}
    assert reasons(state(edited)) == ["the kernel does not have a=1 yet"]
    removed = {**PI4, **DONE, "cmdline-txt": "root=LABEL=writable\n"}
    assert "another command line" in reasons(state(removed))[0]


def test_packages_and_staged_kernels_are_reasons_of_others() -> None:
    staged = state({**PI5, **DONE, "proc-cmdline": PI5["cmdline-txt"],
                    "cmdline-txt": PI5["cmdline-txt"]}, files={"new/state": "unknown"})  # fmt: skip
    found = reboots.reasons(
        QUIET, SERVER, HostState(reboot_required=("linux-base", "libc6")), staged
    )
    assert [one.ours for one in found] == [False, False]
    assert "packages ask for it: linux-base, libc6" in reboots.text(found)
    assert not reboots.allowed(QUIET, found)
    assert reboots.allowed(settings(reboots="all"), found)


def test_a_user_may_say_never() -> None:
    never = settings(reboots="never")
    found = reboots.reasons(never, never.hosts[0], HostState(), state(PI4))
    assert found and not reboots.allowed(never, found)


def member(server: bool = True, active: str = "active") -> K3s:
    unit = Unit(active, "enabled")
    return K3s(
        version=versions.K3S_DEFAULT, registered=True, datastore="sqlite" if server else None,
        units={"k3s" if server else "k3s-agent": unit},
    )  # fmt: skip


def test_a_fresh_host_simply_reboots_and_a_member_is_drained(run: Run) -> None:
    (fresh,) = run(boot.reboot_if_needed, state(PI4))
    assert fresh.text.startswith("reboot('node1', 'cmdline.txt is to change")
    assert fresh.text.endswith(", '', False, False)")
    (drained,) = run(boot.reboot_if_needed, state(PI4), k3s=member())
    assert drained.text.endswith(f", '{versions.K3S_DEFAULT}', True, False)")
    (agent,) = run(boot.reboot_if_needed, state(PI4), on="node2", k3s=member(server=False))
    assert agent.text.endswith(f", '{versions.K3S_DEFAULT}', True, False)")
    (down,) = run(boot.reboot_if_needed, state(PI4), k3s=member(active="inactive"))
    assert down.text.endswith(f", '{versions.K3S_DEFAULT}', False, False)")
    (starting,) = run(boot.reboot_if_needed, state(PI4), k3s=member(active="activating"))
    assert starting.text.endswith(f", '{versions.K3S_DEFAULT}', None, False)")


def test_a_reboot_that_is_not_allowed_is_named(run: Run) -> None:
    never = settings(reboots="never")
    assert run(boot.reboot_if_needed, state(PI4), never) == []
    assert "is not made here: cmdline.txt" in run.noops[0]  # type: ignore[attr-defined]
    assert run(boot.reboot_report, state(PI4), never) == []
    assert run.said[0].startswith("wants a reboot: cmdline.txt")  # type: ignore[attr-defined]


def test_a_pc_waits_for_its_packages_only(run: Run) -> None:
    asked = HostState(reboot_required=())
    assert run(boot.reboot_if_needed, state(PC), node=asked) == []
    (command,) = run(boot.reboot_if_needed, state(PC), settings(reboots="all"), node=asked)
    assert "/run/reboot-required" in command


@pytest.mark.parametrize(
    ("profile", "files", "verdict", "words"),
    [
        ({**PI4, **DONE}, {}, Done, "is back"),
        (PC, {}, Done, "is back"),
        ({**PI4, **DONE, "cmdline-txt": "root=x a=1\n"}, {}, Failed, "without root=x, a=1"),
        (PI4, {}, Failed, "no memory controller"),
        (PI5, {"new/state": "unknown"}, Pending, "boots twice"),
        (PI5, {"new/state": "trying"}, Pending, "being tried"),
        (PI5, {"new/state": "bad"}, Failed, "runs the old one"),
    ],
)
def test_a_reboot_is_over_when_what_asked_for_it_is_in_force(
    profile: Profile, files: dict[str, str], verdict: type, words: str
) -> None:
    found = reboots.after(SERVER, state(profile, files=files), tried=True)
    assert isinstance(found, verdict) and words in str(found)


def test_a_slot_that_had_failed_before_does_not_fail_another_reboot() -> None:
    """An operator who overrides `boot-slot` reboots for something else."""
    on = {**PI5, "proc-cmdline": PI5["cmdline-txt"], "cgroup-controllers": "cpu memory"}
    bad = {"new/state": "bad", "new/cmdline.txt": "x"}
    found = reboots.after(SERVER, state(on, files=bad), tried=False)
    assert isinstance(found, Done) and "piboot-try --reset-new" in found.text
    # What it was rebooted for still counts.
    without = {**on, "proc-cmdline": "root=x"}
    assert isinstance(reboots.after(SERVER, state(without, files=bad), tried=False), Failed)


def test_a_reboot_knows_whether_a_slot_is_to_be_tried(run: Run) -> None:
    staged = state(PI5, files={"new/state": "unknown", "new/cmdline.txt": PI5["cmdline-txt"]})
    bad = state(PI5, files={"new/state": "bad", "new/cmdline.txt": PI5["cmdline-txt"]})
    for found, tried in ((staged, True), (bad, False)):
        (command,) = run(boot.reboot_if_needed, found)
        assert command.text.endswith(f", {tried})")
