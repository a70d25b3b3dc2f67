"""One start of a virtual machine: a real kernel in software emulation, with disks of every kind."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab import packages
from tests.lab.errors import LabError
from tests.vm.kernel import initramfs, kernel

PROGRAM, PACKAGE = "qemu-system-x86_64", "qemu-system-x86"
LIMIT_S = 600  # a start takes 8 s on a machine that does nothing else, minutes beside a build
MIB = 1 << 20
APPEND = "console=ttyS0 panic=-1 quiet loglevel=4"
# Ids of QEMU's USB disks: hw/usb/dev-uas.c, hw/usb/dev-storage.c.
UAS, USB_STORAGE = "46f4:0003", "46f4:0001"


@dataclass(frozen=True)
class Started:
    """What the machine answered, and what its kernel said."""

    answer: str
    console: str


def start(
    folder: Path,
    question: str,
    append: str = APPEND,
    *,
    modules: Sequence[str] = (),
    disk: Path | None = None,
) -> Started:
    """Start a machine with a UAS, a USB-storage and an NVMe disk, ask it, wait until it is off.

    Args:
        folder: empty, for its files.
        question: a shell text.
        append: the kernel's command line.
        modules: further ones that can be loaded.
        disk: image of the UAS disk, None for a blank one.
    """
    if platform.machine() != "x86_64":
        pytest.skip("the virtual machine is an x86 one")
    try:
        packages.ensure(PROGRAM, PACKAGE)
    except LabError as error:
        pytest.skip(f"needs QEMU: {error}")
    image = kernel().image
    initramfs(folder / "initramfs", question, folder, modules)
    command = [
        *(shutil.which("nice") or "nice", "-n", "5"),
        *(PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-cpu", "max", "-m", "256M"),
        *("-kernel", image, "-initrd", folder / "initramfs", "-append", append),
        *("-serial", f"file:{folder}/console", "-serial", f"file:{folder}/answer"),
        *("-device", "qemu-xhci,id=usb"),
        *_disk(folder, "uas", disk),
        *("-device", "usb-uas,id=bridge,bus=usb.0"),
        *("-device", "scsi-hd,bus=bridge.0,drive=uas"),
        *_disk(folder, "stick"),
        *("-device", "usb-storage,bus=usb.0,drive=stick"),
        *_disk(folder, "nvme"),
        *("-device", "nvme,serial=nvme1,drive=nvme"),
    ]
    try:
        done = subprocess.run(
            [str(word) for word in command],
            env=dict(os.environ),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"no end within {LIMIT_S} s: {_text(folder / 'console')[-2000:]}", False)
    console = _text(folder / "console")
    assert done.returncode == 0, f"{done.stderr}\n{console[-2000:]}"
    return Started(_text(folder / "answer"), console)


def _disk(folder: Path, name: str, path: Path | None = None) -> tuple[str, str]:
    if path is None:
        path = folder / f"{name}.img"
        with path.open("wb") as file:
            file.truncate(64 * MIB)
    return "-drive", f"if=none,id={name},format=raw,discard=unmap,file={path}"


def _text(path: Path) -> str:
    return path.read_text(errors="replace").replace("\r\n", "\n") if path.exists() else ""
