"""What keeps the installer from the wrong PC, the wrong disk, and from installing again and again.

The guard is autoinstall's early-command: exit 1 ends the installation before a disk is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cluster.first_boot import shell
from tests.vm.machine import Machine
from tests.vm.tools import Done, Tools, tools

pytestmark = pytest.mark.vm

MAC = "00:00:5e:00:53:21"


@pytest.fixture(scope="module")
def programs() -> Tools:
    return tools("fdisk", "libfdisk1")


class Pc(Machine):
    """A PC that the installer was started on; disks: how each is attached, by name."""

    def __init__(self, folder: Path, programs: Tools, disks: Mapping[str, str]) -> None:
        super().__init__(folder, programs, disk=next(iter(disks)))
        for name in disks:
            (folder / "dev" / name).touch()
        rows = "\n".join(f"{folder}/dev/{name} disk {tran}" for name, tran in disks.items())
        self.put("disks", f"{rows}\n{folder}/dev/loop0 loop\n{folder}/dev/sr0 rom sata\n")
        self.answer(
            "lsblk", f'case "$*" in *TRAN*) cat {folder}/disks ;; *) echo {folder}/dev/sdz ;; esac'
        )
        self.answer("findmnt", "exit 1")
        self.put("sys/class/net/eno1/address", f"{MAC}\n")

    def path(self, name: str) -> str:
        return str(self.folder / "dev" / name)

    def guard(self, disk: str = "sda", *, mac: str = MAC, erase: str = "no") -> Done:
        """Ask the guard; disk: empty where the data name none."""
        return self.run(shell.GUARD, "pc1", mac, self.path(disk) if disk else "", erase)


@pytest.fixture
def pc(tmp_path: Path, programs: Tools) -> Pc:
    """A PC with one empty disk, and the installer's stick."""
    return Pc(tmp_path, programs, {"sda": "sata", "sdb": "usb"})


def refused(done: Done, why: str) -> None:
    assert (done.code, why in done.output, "nothing was changed" in done.output) == (
        1,
        True,
        True,
    ), done.output


@pytest.mark.parametrize("disk", ["sda", ""])
def test_an_empty_disk_of_the_right_pc_is_installed_on(pc: Pc, disk: str) -> None:
    done = pc.guard(disk)
    assert (done.code, done.output) == (0, "")


def test_the_stick_of_another_pc_does_nothing(pc: Pc) -> None:
    refused(pc.guard(mac="00:00:5e:00:53:22"), "this is not pc1: no network card has")


def test_a_finished_installation_is_never_overwritten(pc: Pc) -> None:
    """The loop: the stick was left in, or the network starts the installer again."""
    pc.sfdisk(text="label: gpt\n,1G,U\n,2G\n,\n")
    assert pc.guard(erase="yes").code == 0
    pc.answer("findmnt", f"echo {pc.part(2)}")
    pc.answer("lsblk", f"echo {pc.disk}")
    finished = pc.run(shell.FINISH, str(pc.folder / "target"))
    assert finished.code == 0, finished.output
    again = Pc(pc.folder / "again", pc.programs, {"sda": "sata"})
    again.disk.unlink()
    again.disk.hardlink_to(pc.disk)
    for erase in ("no", "yes"):
        refused(again.guard(erase=erase), "has a finished installation")


def test_a_disk_that_holds_something_is_erased_only_by_name(pc: Pc) -> None:
    pc.sfdisk(text="label: gpt\n,1G\n")
    table = pc.sfdisk("--dump")
    refused(pc.guard(), "is not empty (gpt gpt PMBR): render with ERASE=pc1")
    assert pc.guard(erase="yes").code == 0
    assert pc.sfdisk("--dump") == table


def test_a_file_system_without_a_table_is_something(pc: Pc) -> None:
    pc.programs.run("mkfs.ext4", "-q", pc.disk, "1G")
    refused(pc.guard(), "is not empty (ext4)")


def test_a_disk_that_cannot_be_read_is_not_empty(pc: Pc) -> None:
    pc.answer("wipefs", "exit 1")
    refused(pc.guard(), "cannot be read")


def test_two_disks_and_none_is_named(tmp_path: Path, programs: Tools) -> None:
    pc = Pc(tmp_path, programs, {"sda": "sata", "nvme0n1": "nvme"})
    (tmp_path / "dev/disk/by-id/ata-A").touch()
    (tmp_path / "dev/disk/by-id/ata-A-part1").touch()
    done = pc.guard("")
    refused(done, "boot_disk does not say which: one of")
    assert done.output.splitlines()[0].endswith("by-id/ata-A")
    assert "part1" not in done.output


def test_a_name_that_can_be_another_disk_tomorrow(tmp_path: Path, programs: Tools) -> None:
    pc = Pc(tmp_path, programs, {"sda": "sata", "sdb": "sata"})
    refused(pc.guard(), "can be another disk at each start")


def test_an_nvme_disk_beside_a_sata_disk_cannot_be_confused(
    tmp_path: Path, programs: Tools
) -> None:
    pc = Pc(tmp_path, programs, {"nvme0n1": "nvme", "sda": "sata"})
    assert pc.guard("nvme0n1").code == 0


@pytest.mark.parametrize("disk", ["mmcblk0", ""])
def test_the_boot_areas_of_an_emmc_are_no_disks(tmp_path: Path, programs: Tools, disk: str) -> None:
    pc = Pc(tmp_path, programs, {"mmcblk0": "mmc", "mmcblk0boot0": "mmc", "mmcblk0boot1": "mmc"})
    done = pc.guard(disk)
    assert (done.code, done.output) == (0, "")


def test_a_disk_named_by_its_id_may_have_company(tmp_path: Path, programs: Tools) -> None:
    pc = Pc(tmp_path, programs, {"sda": "sata", "sdb": "sata"})
    name = tmp_path / "dev/disk/by-id/ata-A"
    name.symlink_to(pc.path("sda"))
    script = shell.GUARD.replace("/dev/disk/*)", f"{tmp_path}/dev/disk/*)")
    assert pc.run(script, "pc1", MAC, str(name), "no").code == 0


def test_a_stick_is_no_disk_of_the_pc(pc: Pc) -> None:
    refused(pc.guard("sdb"), "is no fixed disk of pc1")


def test_a_disk_that_is_not_there(pc: Pc) -> None:
    refused(pc.guard("sdc"), "there is no disk")


def test_what_the_installer_was_started_from_is_spared(tmp_path: Path, programs: Tools) -> None:
    pc = Pc(tmp_path, programs, {"sda": "sata"})
    pc.answer("findmnt", f'case "$*" in *cdrom) echo {pc.path("sda")} ;; *) exit 1 ;; esac')
    refused(pc.guard(erase="yes"), "is what the installer was started from")
