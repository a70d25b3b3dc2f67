"""The scripts of a first boot, run by a real shell with real partitioners on sparse images."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.first_boot import shell
from tests.vm.machine import GIB, SECTOR, Machine
from tests.vm.tools import Done, Tools, tools

pytestmark = pytest.mark.vm

ROOT = 50  # GiB
SIZE = str(ROOT * 1024)


@pytest.fixture(scope="module")
def programs() -> Tools:
    return tools("gdisk", "libpopt0", "fdisk", "libfdisk1")


@pytest.fixture
def pi(tmp_path: Path, programs: Tools) -> Machine:
    """A Raspberry Pi with a fresh image on a disk of 64 GiB."""
    machine = Machine(tmp_path, programs)
    machine.image()
    return machine


def divide(machine: Machine, expected: str = "sd", size: str = SIZE) -> Done:
    return machine.run(shell.DIVIDE, expected, size)


def content(path: Path, *places: tuple[int, int]) -> list[bytes]:
    """Bytes at these places."""
    with path.open("rb") as file:
        found = []
        for place, size in places:
            file.seek(place)
            found.append(file.read(size))
    return found


# ---- the disk is divided


def test_the_rest_of_the_disk_becomes_a_third_partition(pi: Machine) -> None:
    before = pi.parts()
    done = divide(pi)
    assert done.code == 0, done.output
    (boot, root), (start, size) = pi.parts()[:2], pi.parts()[2]
    assert [boot, root] == before
    assert start == ROOT * GIB // SECTOR
    assert (start + size) * SECTOR > 64 * GIB - (1 << 20)
    table = pi.sfdisk("--dump")
    assert "label: gpt" in table
    assert 'name="storage"' in table


def test_root_cannot_grow_beyond_its_part(pi: Machine) -> None:
    divide(pi)
    free = pi.sfdisk("--list-free", "--output", "Start,End").splitlines()
    ends = [int(line.split()[1]) for line in free if line.split()[:1] and line.split()[0].isdigit()]
    assert ends and max(ends) < ROOT * GIB // SECTOR


def test_twice_is_once(pi: Machine) -> None:
    divide(pi)
    table = pi.sfdisk("--dump")
    again = divide(pi)
    assert (again.code, pi.sfdisk("--dump")) == (0, table)
    assert "3 partitions: it stays as it is" in again.output


def test_a_third_partition_of_somebody_stays(pi: Machine) -> None:
    pi.sfdisk("--append", text="100000000,1000000,83\n")
    table = pi.sfdisk("--dump")
    assert divide(pi).code == 0
    assert pi.sfdisk("--dump") == table


@pytest.mark.parametrize(("disk", "expected"), [("mmcblk0", "sd"), ("sda", "nvme"), ("sdb", "vd")])
def test_another_disk_than_the_inventorys_is_not_divided(
    tmp_path: Path, programs: Tools, disk: str, expected: str
) -> None:
    machine = Machine(tmp_path, programs, disk=disk)
    machine.image()
    table = machine.sfdisk("--dump")
    done = divide(machine, expected)
    assert (done.code, machine.sfdisk("--dump")) == (1, table)
    assert f"not on {expected} as the inventory says" in done.output
    # It may have volumes of before behind a new image, over which root must not grow.
    assert (machine.folder / "etc/growroot-disabled").exists()


def test_a_disk_named_by_its_id_is_that_disk(pi: Machine) -> None:
    name = pi.folder / "dev/disk/by-id/usb-A"
    other = pi.folder / "dev/disk/by-id/usb-B"
    name.symlink_to(pi.disk)
    other.symlink_to("/dev/null")
    # Paths of /dev are compared as they are; the image's folder is not there.
    script = shell.DIVIDE.replace("/dev/*)", f"{pi.folder}/dev/*)")
    assert pi.run(script, str(other), SIZE).code == 1
    assert len(pi.parts()) == 2
    assert pi.run(script, str(name), SIZE).code == 0
    assert len(pi.parts()) == 3


def test_an_nvme_disk_is_divided_too(tmp_path: Path, programs: Tools) -> None:
    machine = Machine(tmp_path, programs, disk="nvme0n1")
    machine.image()
    assert divide(machine, "nvme").code == 0
    assert len(machine.parts()) == 3


def test_a_disk_that_is_too_small_is_roots_alone(tmp_path: Path, programs: Tools) -> None:
    machine = Machine(tmp_path, programs, gib=32)
    machine.image()
    done = divide(machine)
    assert done.code == 1
    assert "too small" in done.output
    assert len(machine.parts()) == 2
    assert not (machine.folder / "etc/growroot-disabled").exists()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("proc/cmdline", "console=tty1 root=PARTUUID=0b6f7a1c-02 rootwait\n"),
        ("etc/fstab", "PARTUUID=0b6f7a1c-02 / ext4 defaults 0 1\n"),
    ],
)
def test_a_root_that_is_found_by_partuuid_is_not_lost(pi: Machine, path: str, text: str) -> None:
    pi.put(path, text)
    table = pi.sfdisk("--dump")
    done = divide(pi)
    assert (done.code, pi.sfdisk("--dump")) == (1, table)
    assert "PARTUUID" in done.output
    assert (pi.folder / "etc/growroot-disabled").exists()


# ---- a Raspberry Pi gets a new image


def marked(machine: Machine, text: bytes = b"volumes of before") -> tuple[int, int]:
    """Something that lies where the third partition begins."""
    place = (machine.parts()[2][0] * SECTOR, len(text))
    with machine.disk.open("r+b") as file:
        file.seek(place[0])
        file.write(text)
    return place


@pytest.mark.parametrize("before", [50, 30])
def test_volumes_survive_a_new_image(pi: Machine, before: int) -> None:
    """Also where root was smaller then: it must not grow over them."""
    divide(pi, size=str(before * 1024))
    place, start = marked(pi), pi.parts()[2]
    pi.image()
    assert len(pi.parts()) == 2
    done = divide(pi)
    assert done.code == 0, done.output
    assert pi.parts()[2] == start
    assert content(pi.disk, place) == [b"volumes of before"]
    assert "its volumes begin at sector" in done.output


def test_sgdisk_alone_refuses_a_disk_that_got_a_new_image(pi: Machine) -> None:
    """Why the old table's copy at the end of the disk is read and removed first."""
    divide(pi)
    pi.image()
    done = pi.programs.run("sgdisk", pi.disk, "-g", "-e", "-n", "3:50G:0")
    assert done.code != 0
    assert len(pi.parts()) == 2


def test_a_table_of_others_at_the_end_of_the_disk_stays(tmp_path: Path, programs: Tools) -> None:
    machine = Machine(tmp_path, programs)
    machine.sfdisk(text="label: gpt\n,100M\n,16M\n,50G\n,1G\n")
    machine.image()
    end = (64 * GIB - 34 * SECTOR, 34 * SECTOR)
    before = content(machine.disk, end)
    done = divide(machine)
    assert done.code == 1
    assert "has a partition table of before at its end, not of ours" in done.output
    assert content(machine.disk, end) == before
    assert len(machine.parts()) == 2
    assert (machine.folder / "etc/growroot-disabled").exists()


# ---- the place for volumes


def mount(machine: Machine, place: str = "") -> Done:
    (machine.folder / "storage").mkdir(exist_ok=True)
    return machine.run(shell.MOUNT, place, f"{machine.folder}/storage")


def label(machine: Machine, place: Path) -> str:
    words = ("--noheadings", "--output", "TYPE,LABEL,UUID")
    return " ".join(machine.programs.run("wipefs", *words, place).output.split())


def test_an_empty_partition_is_formatted_and_mounted_at_each_start(pi: Machine) -> None:
    place = pi.volumes()
    done = mount(pi)
    assert done.code == 0, done.output
    assert label(pi, place).startswith("ext4 DATA ")
    line = pi.read("etc/fstab").splitlines()[-1]
    assert line == f"LABEL=DATA {pi.folder}/storage ext4 defaults,{shell.OPTIONS} 0 2"
    assert pi.read("mount.log").split() == [f"{pi.folder}/storage"]


def test_what_it_holds_stays_the_second_time(pi: Machine) -> None:
    place = pi.volumes()
    mount(pi)
    before, table = label(pi, place), pi.read("etc/fstab")
    again = mount(pi)
    assert again.code == 0
    assert "keeps what it holds" in again.output
    assert (label(pi, place), pi.read("etc/fstab")) == (before, table)


@pytest.mark.parametrize(
    "make",
    [
        "mkfs.ext4 -q -L ROOT {}",
        "mkfs.ext4 -q {}",
        "mkswap -L DATA {}",
        "printf 'label: gpt\\n' | sfdisk -q {}",
    ],
)
def test_what_somebody_else_put_there_is_not_formatted(pi: Machine, make: str) -> None:
    place = pi.volumes()
    pi.programs.run("sh", "-c", make.format(place))
    before, table = label(pi, place), pi.read("etc/fstab")
    assert before
    done = mount(pi)
    assert done.code == 1
    assert "holds something else: it is not formatted" in done.output
    assert (label(pi, place), pi.read("etc/fstab")) == (before, table)


def test_a_place_that_cannot_be_read_is_not_formatted(pi: Machine) -> None:
    pi.volumes()
    pi.answer("wipefs", "exit 1")
    pi.answer("mkfs.ext4", f"touch {pi.folder}/formatted")
    assert mount(pi).code == 1
    assert not (pi.folder / "formatted").exists()


def test_the_systems_own_disk_is_never_the_other_disk(pi: Machine) -> None:
    before = pi.sfdisk("--dump")
    done = mount(pi, str(pi.disk))
    assert done.code == 1
    assert "holds the system" in done.output
    assert pi.sfdisk("--dump") == before


def test_a_disk_that_is_not_there_is_said(pi: Machine) -> None:
    done = mount(pi, f"{pi.folder}/dev/sdb")
    assert (done.code, "there is no" in done.output) == (1, True)


# ---- the kernel's command line


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("root=LABEL=writable rootwait\n", "root=LABEL=writable rootwait a=1 b\n"),
        ("rootwait b quiet", "rootwait b quiet a=1\n"),
        ("rootwait  \r\n", "rootwait a=1 b\n"),
        ("a=10 bb\n", "a=10 bb a=1 b\n"),
    ],
)
def test_words_are_added_once_at_the_end_of_the_only_line(
    pi: Machine, before: str, after: str
) -> None:
    file = pi.folder / "cmdline.txt"
    file.write_bytes(before.encode())
    for _ in range(2):
        assert pi.run(shell.CMDLINE, str(file), "a=1", "b").code == 0
        assert file.read_bytes() == after.encode()
    assert (pi.folder / "var/backups/cmdline.txt.first-boot").read_bytes() == before.encode()


def test_a_command_line_that_needs_nothing_is_not_written(pi: Machine) -> None:
    file = pi.folder / "cmdline.txt"
    file.write_text("rootwait a=1")
    before = file.stat().st_ino
    assert pi.run(shell.CMDLINE, str(file), "a=1").code == 0
    assert (file.read_text(), file.stat().st_ino) == ("rootwait a=1", before)


@pytest.mark.parametrize("text", ["", "one\ntwo\n"])
def test_a_command_line_of_no_or_many_lines_stays(pi: Machine, text: str) -> None:
    file = pi.folder / "cmdline.txt"
    file.write_text(text)
    assert pi.run(shell.CMDLINE, str(file), "a=1").code == 1
    assert file.read_text() == text


def test_a_release_with_another_layout_is_said(pi: Machine) -> None:
    done = pi.run(shell.CMDLINE, f"{pi.folder}/current/cmdline.txt", "a=1")
    assert (done.code, "there is no" in done.output) == (1, True)
