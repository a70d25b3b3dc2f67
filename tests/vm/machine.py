"""A disk image as the scripts of a first boot see a disk: real partitioners, simulated kernel.

Simulated: what only a running system can say (`findmnt`, `lsblk`, `blockdev`, `udevadm`, `partx`,
`mountpoint`, `mount`, `systemctl`), by programs that answer for the image. Real: sfdisk, sgdisk,
wipefs, mkfs.ext4, dd, and the shell. Absolute paths of the scripts lie below a folder.
"""

from __future__ import annotations

from pathlib import Path

from tests.vm.tools import Done, Tools

GIB = 1 << 30
SECTOR = 512
ABSOLUTE = ("/etc/", "/proc/", "/var/", "/dev/disk/by-id", "/dev/console", "/sys/class/net")


class Machine:
    """One computer with the disk `sda`, of `gib` GiB, sparse."""

    def __init__(self, folder: Path, programs: Tools, *, gib: int = 64, disk: str = "sda") -> None:
        self.folder, self.programs = folder, programs
        self.disk = folder / "dev" / disk
        self.bin = folder / "bin"
        for place in ("dev/disk/by-id", "bin", "etc", "proc", "var/backups", "sys/class/net/eno1"):
            (folder / place).mkdir(parents=True)
        self.put("etc/fstab", "LABEL=writable / ext4 defaults 0 1\n")
        self.put("proc/cmdline", "console=tty1 root=LABEL=writable rootwait\n")
        with self.disk.open("wb") as file:
            file.truncate(gib * GIB)
        self.answer("findmnt", f'case "$*" in *" /") echo {self.part(2)} ;; *) exit 1 ;; esac')
        self.answer("lsblk", f"echo {self.disk}")
        self.answer("blockdev", f'[ "$1" = --getss ] && echo {SECTOR} || stat -c %s "$2"')
        for name in ("udevadm", "partx", "systemctl", "mount"):
            self.answer(name, f'echo "$*" >> {self.folder}/{name}.log')
        self.answer("mountpoint", "exit 1")

    def part(self, number: int) -> Path:
        """The path of a partition; only some have a file."""
        return Path(f"{self.disk}{'p' if self.disk.name[-1].isdigit() else ''}{number}")

    def put(self, path: str, text: str) -> None:
        """Write a file of the machine."""
        (self.folder / path).write_text(text)

    def read(self, path: str) -> str:
        """A file of the machine."""
        return (self.folder / path).read_text()

    def answer(self, program: str, script: str) -> None:
        """Let a simulated program do this."""
        file = self.bin / program
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def run(self, script: str, *words: str) -> Done:
        """Run a text of `cluster/first_boot/shell.py` with its arguments."""
        for path in ABSOLUTE:
            script = script.replace(f" {path}", f" {self.folder}{path}")
        return self.programs.run("sh", "-c", script, "script", *words, path=self.bin)

    def image(self) -> None:
        """Write an image to the disk: its table (MBR) and two partitions, as Ubuntu's has them."""
        with self.disk.open("r+b") as file:
            file.write(bytes(8 << 20))
        table = "label: dos\n2048,1048576,c\n1050624,7000000,83\n"
        self.sfdisk("--wipe", "never", text=table)

    def sfdisk(self, *words: str, text: str = "") -> str:
        """What sfdisk says of the disk; text: a table to write."""
        file = self.folder / "table"
        file.write_text(text)
        script = 'sfdisk -q "$@" < ' + str(file) if text else 'sfdisk "$@"'
        done = self.programs.run("sh", "-c", script, "sfdisk", *words, self.disk)
        assert done.code == 0, done.output
        return done.output

    def parts(self) -> list[tuple[int, int]]:
        """Start and size of each partition, in sectors."""
        lines = [line for line in self.sfdisk("--dump").splitlines() if "start=" in line]
        numbers = [[word.split("=")[1] for word in line.split(",")[:2]] for line in lines]
        return [(int(start), int(size)) for start, size in numbers]

    def volumes(self) -> Path:
        """A file in place of the third partition, which only a kernel can show."""
        place = self.part(3)
        with place.open("wb") as file:
            file.truncate(64 << 20)
        return place
