"""The script that replaces a file of the boot partition, run for real in a folder.

Simulated: the mount (a `mountpoint` that says yes), and the power cut: the script is killed at one
of its steps, in front of the program that would make it. What the kernel had not yet flushed is
not lost that way; that every step is flushed is seen from the order of the programs.
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.boot import places
from operations.boot_write import script

OLD, NEW = "root=LABEL=writable rootwait \udcff\n", "root=LABEL=writable rootwait \udcff a=1\n"
STEPS = ("sha256sum", "cp", "sync", "base64", "mv")
Write = Callable[..., subprocess.CompletedProcess[str]]

# Stands in front of a program: counts, and cuts the power before the given step.
_SHIM = """#!/bin/sh
echo {name} >> {log}
n=$(wc -l < {log})
if [ "$n" = "$CUT" ]; then
  [ {name} != base64 ] || printf half  # of the new file
  kill -9 0
fi
exec {real} "$@"
"""


def raw(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def digest(text: str) -> str:
    return hashlib.sha256(raw(text)).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    boot = tmp_path / "firmware"
    boot.mkdir()
    (boot / "cmdline.txt").write_bytes(raw(OLD))
    return boot


@pytest.fixture
def write(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.setattr(places, "BACKUPS", str(tmp_path / "backups"))
    monkeypatch.setattr(places, "PENDING", str(tmp_path / "pending"))
    shims = tmp_path / "bin"
    shims.mkdir()
    for name in STEPS:
        real = subprocess.check_output(["sh", "-c", f"command -v {name}"], text=True).strip()
        text = _SHIM.format(name=name, log=tmp_path / "log", real=real)
        (shims / name).write_text(text)
        (shims / name).chmod(0o755)

    def run(
        new: str = NEW, *, old: str = OLD, cut: int = 0, mounted: bool = True, note: str = ""
    ) -> subprocess.CompletedProcess[str]:
        (shims / "mountpoint").write_text(f"#!/bin/sh\nexit {0 if mounted else 32}\n")
        (shims / "mountpoint").chmod(0o755)
        (tmp_path / "log").write_text("")
        words = [str(folder), "cmdline.txt", digest(old), digest(new), note]
        return subprocess.run(
            ["sh", "-c", script(), "boot", *words],
            input=base64.b64encode(raw(new)).decode() + "\n",
            env={"PATH": f"{shims}:{os.environ['PATH']}", "CUT": str(cut)},
            capture_output=True,
            text=True,
            timeout=20,
            start_new_session=True,  # what is killed is the script with all that it started
        )

    return run


def live(folder: Path) -> bytes:
    return (folder / "cmdline.txt").read_bytes()


def steps(folder: Path) -> list[str]:
    return (folder.parent / "log").read_text().split()


def copies(folder: Path) -> list[bytes]:
    kept = folder.parent / "backups"
    return [file.read_bytes() for file in kept.iterdir()] if kept.exists() else []


def test_a_file_is_replaced_and_a_copy_is_kept(write: Write, folder: Path) -> None:
    done = write()
    assert (done.returncode, done.stderr) == (0, "")
    assert live(folder) == raw(NEW) and copies(folder) == [raw(OLD)]
    assert [file.name for file in folder.iterdir()] == ["cmdline.txt"]
    assert not (folder.parent / "pending").exists()


def test_the_time_of_the_file_stays_that_of_its_last_author(write: Write, folder: Path) -> None:
    """FAT has local times: ours would be in the future, and be taken for an edit after the boot."""
    os.utime(folder / "cmdline.txt", (1_700_000_000, 1_700_000_000))
    assert write().returncode == 0
    assert (folder / "cmdline.txt").stat().st_mtime == 1_700_000_000


def test_the_new_file_is_flushed_before_it_takes_the_name_and_its_folder_after(
    write: Write, folder: Path
) -> None:
    write()
    order = steps(folder)
    assert order[order.index("base64") :] == [
        "base64", "sha256sum", "sync", "mv", "sync", "sync", "sha256sum",
    ]  # fmt: skip
    assert order.index("cp") < order.index("sync") < order.index("base64")


def test_when_the_power_fails_the_file_is_old_or_new_and_never_half(
    write: Write, folder: Path
) -> None:
    write()
    whole = len(steps(folder))
    seen = set()
    for step in range(1, whole + 1):
        (folder / "cmdline.txt").write_bytes(raw(OLD))
        done = write(cut=step)
        assert done.returncode == -9
        assert live(folder) in (raw(OLD), raw(NEW))
        seen.add(live(folder))
    assert seen == {raw(OLD), raw(NEW)}
    assert raw(OLD) in copies(folder)


def test_the_next_run_clears_what_a_power_cut_left(write: Write, folder: Path) -> None:
    write(cut=4)
    assert (live(folder), len(list(folder.iterdir()))) == (raw(OLD), 2)
    assert write().returncode == 0
    assert live(folder) == raw(NEW)
    assert [file.name for file in folder.iterdir()] == ["cmdline.txt"]


def test_an_old_copy_of_the_same_name_elsewhere_is_not_counted(write: Write, folder: Path) -> None:
    kept = folder.parent / "backups"
    kept.mkdir()
    for number in range(8):
        (kept / f"current-cmdline.txt.2026010{number}T000000Z").write_text("slot")
        (kept / f"cmdline.txt.2026010{number}T000000Z").write_text("flat")
    assert write().returncode == 0
    names = sorted(file.name for file in kept.iterdir())
    assert sum(name.startswith("current-") for name in names) == 8
    assert sum(name.startswith("cmdline") for name in names) == places.KEPT
    assert raw(OLD) in copies(folder)  # the newest stays


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({"mounted": False}, "is not mounted"),
        ({"old": "something else\n"}, "was changed by somebody else just now"),
    ],
)
def test_what_does_not_fit_is_refused_untouched(
    write: Write, folder: Path, given: dict[str, object], cause: str
) -> None:
    done = write(**given)
    assert done.returncode == 1 and cause in done.stderr
    assert live(folder) == raw(OLD) and copies(folder) == []


def test_a_slot_that_is_being_tried_is_left_alone(write: Write, folder: Path) -> None:
    (folder / "new").mkdir()
    (folder / "new" / "state").write_text("trying\n")
    done = write()
    assert done.returncode == 1 and "is being tried" in done.stderr
    assert live(folder) == raw(OLD)


def test_what_waits_for_a_reboot_is_noted_until_the_next_boot(write: Write, folder: Path) -> None:
    assert write(note="config.txt").returncode == 0
    assert (folder.parent / "pending").read_text() == "config.txt\n"
