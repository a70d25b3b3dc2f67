"""A small system for QEMU: Debian's kernel, its modules for disks, busybox, one question."""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.lab.errors import LabError
from tests.lab.program import output
from tests.vm.tools import unpacked

LIMIT_S = 120
PACKAGE = "linux-image-amd64"  # depends on the package with the kernel itself
# A PC's disks over USB (with and without UAS) and NVMe. Of a Raspberry Pi they are built in.
MODULES = ("xhci-pci", "usb-storage", "uas", "sd_mod", "nvme")
_DEPENDS = re.compile(rb"\0depends=([\w,-]*)\0")

# What is asked gets a serial port of its own, so that no line of the kernel falls into it.
_INIT = r"""#!/bin/busybox sh
PATH=/bin; export PATH
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /run /tmp
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec < /dev/null > /dev/ttyS0 2>&1
# kmod hands them on, and the kernel where the module is built in; busybox stumbles over the dash.
quirks=$(sed -n 's/.*\(usb-storage\.\)\(quirks=[^ ]*\).*/\2/p' /proc/cmdline)
modprobe usb_storage $quirks
for module in @MODULES@; do modprobe "$module" || echo "no module $module"; done
# The kernel looks for disks in the background: until none has come for a second.
seen= same=0
while [ $same -lt 10 ]; do
  now=$(ls /sys/block /sys/bus/usb/devices | tr '\n' ' ')
  if [ "$now" = "$seen" ]; then same=$((same + 1)); else same=0 seen=$now; fi
  sleep 0.1
done
stty -F /dev/ttyS1 raw 2> /dev/null
sh /question > /dev/ttyS1 2> /dev/ttyS0
sync; poweroff -f
"""


class Kernel(NamedTuple):
    """The kernel's image, its modules' folder below /, and the version."""

    image: Path
    root: Path
    version: str


def kernel() -> Kernel:
    """Debian's kernel for this machine; skips the test where it cannot be had."""
    try:
        said = output(PACKAGE, ["apt-cache", "depends", PACKAGE], LIMIT_S)
    except (LabError, OSError) as error:
        pytest.skip(f"needs Debian's kernel: {error}")
    found = re.search(r"Depends: (linux-image-\S+)", said)
    if not found:
        pytest.skip(f"needs Debian's kernel: apt knows no {PACKAGE}")
    (root,) = unpacked([found[1]])
    (image,) = (root / "boot").glob("vmlinuz-*")
    return Kernel(image, root, image.name.removeprefix("vmlinuz-"))


def busybox() -> Path:
    """A busybox that needs no library."""
    (root,) = unpacked(["busybox-static"])
    return root / "bin" / "busybox"


def initramfs(file: Path, question: str, folder: Path, more: Sequence[str] = ()) -> None:
    """Write an initramfs that answers a question on the second serial port.

    Args:
        question: a shell text.
        folder: for what it is made of.
        more: modules that are there besides those of disks, and not loaded.
    """
    source, program = kernel(), busybox()
    tree = folder / "tree"
    (tree / "bin").mkdir(parents=True)
    shutil.copy(program, tree / "bin" / "busybox")
    _put(tree / "init", _INIT.replace("@MODULES@", " ".join(MODULES)))
    _put(tree / "question", question)
    place = tree / "lib" / "modules" / source.version
    place.mkdir(parents=True)
    index = {_name(path): path for path in source.root.rglob("*.ko*")}
    with (place / "modules.dep").open("w") as dependencies:
        for name in _with_needed((*MODULES, *more), index):
            data = _content(index[name])
            (place / f"{name}.ko").write_bytes(data)
            dependencies.write(f"{name}.ko: {' '.join(f'{n}.ko' for n in _needed(name, index))}\n")
    shutil.copy(next(source.root.rglob("modules.builtin")), place)
    names = "\n".join(sorted(str(path.relative_to(tree)) for path in tree.rglob("*")))
    archive = folder / "archive"
    script = f"{program} cpio -o -H newc > {archive}"
    output("cpio", ["sh", "-c", script], LIMIT_S, folder=tree, text=f".\n{names}\n")
    file.write_bytes(gzip.compress(archive.read_bytes(), 1))


def _put(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")


def _content(path: Path) -> bytes:
    """The module itself, which newer releases compress."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix != ".ko":
        pytest.skip(f"cannot read {path.name}")
    return data


def _depends(name: str, index: dict[str, Path]) -> list[str]:
    """Modules that a module names; those of which there is no file are built in."""
    found = _DEPENDS.search(_content(index[name]))
    names = found[1].decode().split(",") if found else []
    return [one for one in (name.replace("-", "_") for name in names) if one in index]


def _needed(name: str, index: dict[str, Path]) -> list[str]:
    """All that must be there before a module, the nearest first, as modules.dep has it."""
    found: list[str] = []
    todo = _depends(name, index)
    while todo:
        one = todo.pop(0)
        found = [*(other for other in found if other != one), one]
        todo += _depends(one, index)
    return found


def _with_needed(names: Iterable[str], index: dict[str, Path]) -> Iterator[str]:
    wanted: dict[str, None] = {}
    for name in (one.replace("-", "_") for one in names):
        if name in index:  # else it is built in
            wanted |= dict.fromkeys([name, *_needed(name, index)])
    yield from wanted
