"""A disk with a small Debian, laid out as Ubuntu's image for the Raspberry Pi lays out its own.

Real: what the scripts of a first boot start (util-linux, sfdisk, sgdisk, e2fsprogs, growpart), on a
root file system of that disk. Simulated: `systemctl` and `udevadm`, which would need systemd.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.lab.program import output
from tests.vm.kernel import busybox
from tests.vm.tools import unpacked

LIMIT_S = 120
MIB = 1 << 20
SECTOR = 512
BOOT_START, BOOT_SIZE = 1, 32  # MiB
ROOT_START, ROOT_SIZE = 33, 224
PACKAGES = (
    "cloud-guest-utils", "coreutils", "dash", "e2fsprogs", "fdisk", "gdisk", "grep", "libacl1",
    "libattr1", "libblkid1", "libc6", "libcap-ng0", "libcom-err2", "libcrypt1", "libext2fs2",
    "libfdisk1", "libgcc-s1", "libgmp10", "libmount1", "libpcre2-8-0", "libpopt0", "libreadline8",
    "libselinux1", "libsmartcols1", "libss2", "libstdc++6", "libtinfo6", "libudev1", "libuuid1",
    "mawk", "mount", "sed", "util-linux",
)  # fmt: skip
_PROGRAMS = ("bin", "sbin", "lib", "lib64", "usr/bin", "usr/sbin", "usr/lib")
_FOLDERS = ("boot/firmware", "dev", "etc/cloud", "proc", "run", "sys", "tmp", "var/backups")
FSTAB = "LABEL=writable / ext4 defaults 0 1\nLABEL=system-boot /boot/firmware vfat defaults 0 1\n"


def make(image: Path, folder: Path) -> None:
    """Write the image: a table (MBR), a boot partition with FAT, root."""
    tree = folder / "root"
    for place in _FOLDERS:
        (tree / place).mkdir(parents=True)
    for root in unpacked(PACKAGES):
        for place in _PROGRAMS:
            if (root / place).is_dir():
                (tree / place).mkdir(parents=True, exist_ok=True)
                _run("cp", "-a", f"{root / place}/.", tree / place)
    (tree / "etc/fstab").write_text(FSTAB)
    for name in ("systemctl", "udevadm"):
        file = tree / "usr/bin" / name
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
    (tree / "bin" / "sh").unlink(missing_ok=True)
    (tree / "bin" / "sh").symlink_to("dash")
    (tree / "usr/bin/awk").symlink_to("mawk")
    boot = folder / "boot"
    _sparse(boot, BOOT_SIZE)
    _run(busybox(), "mkdosfs", "-n", "system-boot", boot)
    _sparse(image, ROOT_START + ROOT_SIZE)
    table = f"label: dos\n{BOOT_START}M,{BOOT_SIZE}M,c\n{ROOT_START}M,{ROOT_SIZE}M,83\n"
    fdisk, library = unpacked(("fdisk", "libfdisk1"))
    (libraries,) = library.glob("usr/lib/*")
    output(
        "sfdisk",
        [fdisk / "sbin" / "sfdisk", "-q", image],
        LIMIT_S,
        text=table,
        LD_LIBRARY_PATH=str(libraries),
    )
    _run("dd", f"if={boot}", f"of={image}", "bs=1M", f"seek={BOOT_START}", "conv=notrunc,sparse")
    options = f"offset={ROOT_START * MIB},root_owner=0:0"
    words = ("-q", "-F", "-t", "ext4", "-d", tree, "-L", "writable", "-E", options)
    _run("mke2fs", *words, image, f"{ROOT_SIZE}M")


def write(image: Path, disk: Path, gib: int) -> None:
    """Write an image over the beginning of a disk, of that many GiB when it is new."""
    if not disk.exists():
        _sparse(disk, gib * 1024)
    _run("dd", f"if={image}", f"of={disk}", "bs=1M", "conv=notrunc")


def _sparse(path: Path, mib: int) -> None:
    with path.open("wb") as file:
        file.truncate(mib * MIB)


def _run(*words: str | Path) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    output(str(words[0]), words, LIMIT_S, PATH=path)
