"""The boot fact's own command on a real kernel with real drivers, without and with a quirk.

A virtual machine: QEMU emulates the disks and their USB bridges, Debian's kernel and its drivers
are real. QEMU's UAS bridge knows nothing else, so its disk is gone when the driver lets go of it; a
real bridge then goes on by usb-storage.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.boot import bridges, cmdline, wanted
from cluster.boot.disk import Disk, Usb
from cluster.boot.state import BootState
from cluster.text import cmdline as cmdline_text
from facts.boot import parse
from facts.boot_script import script
from tests.unit.cluster_example import example
from tests.vm import qemu

pytestmark = pytest.mark.vm

DRIVERS = """
for driver in uas usb-storage; do
  for port in /sys/bus/usb/drivers/$driver/*:*; do
    [ -e "$port" ] && echo "bound $driver ${port##*/}"
  done
done
"""
MODE = "for f in /sys/bus/usb/drivers/uas/*/host*/target*/*/scsi_disk/*/provisioning_mode; do\n"
SWITCHED = ("full", "unmap")


class Seen:
    """What the fact said, each time that it was asked in one start of the machine."""

    def __init__(self, started: qemu.Started) -> None:
        self.states: list[BootState] = []
        lines: list[str] = []
        for line in started.answer.split("\n"):
            lines.append(line)
            if line.rstrip() == "end":
                self.states.append(parse(lines))
                lines = []
        assert self.states, started.console[-2000:]
        self.bound = [line.split()[1:] for line in lines if line.startswith("bound ")]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Seen]:
    def start(question: str, append: str) -> Seen:
        return Seen(qemu.start(tmp_path_factory.mktemp("machine"), question, append))

    return start


@pytest.fixture(scope="module")
def plain(started: Callable[[str, str], Seen]) -> Seen:
    """A start without a quirk; then TRIM is switched as the udev rule does it."""
    asked = [script(), *(f"{MODE}echo {mode} > $f; done\n{script()}" for mode in SWITCHED)]
    return started("\n".join([*asked, DRIVERS]), qemu.APPEND)


@pytest.fixture(scope="module")
def quirk(started: Callable[[str, str], Seen], plain: Seen) -> Seen:
    """A start with the command line that `boot.usb_quirks` makes for that bridge."""
    return started(script() + DRIVERS, with_quirk(plain.states[0]))


def with_quirk(state: BootState, flags: str = "u") -> str:
    model = example(nodes={"boot": {"quirks": {qemu.UAS: flags}}})
    return cmdline_text.with_quirks(qemu.APPEND, wanted.quirk_flags(model, state)).strip()


def disk(state: BootState, vid_pid: str) -> Disk | None:
    found = [one for one in state.disks.values() if one.usb and one.usb.vid_pid == vid_pid]
    assert len(found) < 2
    return found[0] if found else None


def usb(state: BootState, vid_pid: str) -> Disk:
    found = disk(state, vid_pid)
    assert found
    return found


def bridge(state: BootState, vid_pid: str) -> Usb:
    found = usb(state, vid_pid).usb
    assert found
    return found


def test_each_disk_is_known_by_its_transport(plain: Seen) -> None:
    state = plain.states[0]
    assert sorted(one.transport for one in state.disks.values()) == ["nvme", "uas", "usb-storage"]
    assert usb(state, qemu.UAS).transport == "uas"
    assert usb(state, qemu.USB_STORAGE).transport == "usb-storage"
    assert state.disks["nvme0n1"].usb is None
    assert {one.size for one in state.disks.values()} == {64 * qemu.MIB}


def test_the_kernel_says_the_same_of_its_drivers(plain: Seen) -> None:
    state = plain.states[-1]
    assert sorted(plain.bound) == sorted(
        [one.transport, f"{one.usb.port}:1.0"] for one in state.disks.values() if one.usb
    )


def test_bridges_are_named_with_port_and_speed(plain: Seen) -> None:
    for vid_pid in (qemu.UAS, qemu.USB_STORAGE):
        found = bridge(plain.states[0], vid_pid)
        assert found.speed == 5000
        assert found.port.startswith("2-")
    assert bridge(plain.states[0], qemu.USB_STORAGE).product == "QEMU USB HARDDRIVE"


def test_trim_is_on_where_the_kernel_does_it(plain: Seen) -> None:
    state = plain.states[0]
    able, unable = usb(state, qemu.UAS).trim, usb(state, qemu.USB_STORAGE).trim
    assert (able.on, able.mode, able.unmap) == (True, "unmap", True)
    assert (unable.on, unable.mode) == (False, "full")
    assert state.disks["nvme0n1"].trim.on is True


def test_trim_follows_the_mode_that_the_udev_rule_sets(plain: Seen) -> None:
    off, on = (usb(state, qemu.UAS).trim for state in plain.states[1:])
    assert (off.on, off.mode, off.unmap) == (False, "full", True)
    assert (on.on, on.mode) == (True, "unmap")


def test_what_else_a_kernel_says_of_itself(plain: Seen) -> None:
    state = plain.states[0]
    assert state.pi is None
    assert state.running == qemu.APPEND
    assert state.page_size == 4096
    assert state.memory_controller is True
    assert len(state.boot_id) == 36
    assert not bridges.uas_failures(state.log)


def test_a_bridge_that_works_gets_no_quirk(plain: Seen) -> None:
    assert wanted.quirk_flags(example(), plain.states[0]) == {}


def test_with_the_quirk_the_uas_driver_lets_go(quirk: Seen, plain: Seen) -> None:
    state = quirk.states[0]
    port = bridge(plain.states[0], qemu.UAS).port
    assert f"usb-storage.quirks={qemu.UAS}:u" in state.running
    assert not [one for one in quirk.bound if one[0] == "uas"]
    assert disk(state, qemu.UAS) is None
    line = f"usb {port}: UAS is ignored for this device, using usb-storage instead"
    assert line in state.log


def test_with_the_quirk_other_disks_are_as_before(quirk: Seen, plain: Seen) -> None:
    before, after = plain.states[0], quirk.states[0]
    for name in ("transport", "usb", "trim", "size"):
        assert getattr(usb(after, qemu.USB_STORAGE), name) == getattr(
            usb(before, qemu.USB_STORAGE), name
        )
    assert after.disks["nvme0n1"] == before.disks["nvme0n1"]


def test_the_running_kernel_has_the_quirk_of_the_file(quirk: Seen, plain: Seen) -> None:
    """What a reboot is verified by: the wanted command line is the active one."""
    wanted_line = with_quirk(plain.states[0])
    assert cmdline.is_active(wanted_line, quirk.states[0].running)
    assert not cmdline.is_active(wanted_line, plain.states[0].running)


def test_a_quirk_that_is_taken_back_leaves_the_line_as_it_was(plain: Seen) -> None:
    model = example(nodes={"boot": {"quirks": {qemu.UAS: ""}}})
    flags = wanted.quirk_flags(model, plain.states[0])
    line = cmdline_text.with_quirks(f"{with_quirk(plain.states[0])}\n", flags)
    assert line.strip() == qemu.APPEND
