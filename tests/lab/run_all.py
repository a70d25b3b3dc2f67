"""Every file of tests that need hosts in a session of its own: `python -m tests.lab.run_all`.

Those of tests/lab get a lab of their own, those of tests/vm a virtual machine.

LAB_WORKERS files run at the same time (default 2), and LAB_SMALL more (default 1) of those with at
most two hosts or without K3s: these mostly wait, while a cluster takes half a core all the time.
What labs are made of is built meanwhile with the CPU time that is left over, so files without K3s
come first. A file that fails is run again as often as LAB_TRIES allows (default 1: not at all),
from bare hosts; the table at the end says so. Real processes on few cores can be late, and a late
answer must not hide what the other files say.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Condition, Thread
from typing import NamedTuple

from tests.lab import prepare
from tests.lab.conftest import DEFAULTS

FOLDER = Path(__file__).parent
FOLDERS = (FOLDER, FOLDER.with_name("vm"))
NO_TESTS = 5  # pytest's exit code
# The longest first, as they were seen to take: one that began last would run alone at the end.
LONGEST = (
    "test_platform_lab.py",
    "test_presets_lab.py",
    "test_restore_lab.py",
    "test_k3s_lab.py",
    "test_standin_rows.py",
    "test_backup_lab.py",
    "test_metrics_lab.py",
    "test_nodes_lab.py",
    "test_services_lab.py",
    "test_api_address_lab.py",
    "test_reset_lab.py",
    "test_standin_platform.py",
    "test_bad_days_lab.py",
    "test_run_lab.py",
    "test_boot_lab.py",
    "test_gateway_lab.py",
    "test_platform_api_lab.py",
    "test_certbot_lab.py",
    "test_api_lab.py",
    "test_doctor_lab.py",
)
# What a file's marks say of its lab (conftest.py).
MARK = re.compile(r"mark\.lab\b(?:\((?P<asked>[^)]*)\))?")
NUMBER = re.compile(r"(\w+)=(\d+)")
NO_K3S = "k3s=False"
SMALL = 2  # hosts


class Row(NamedTuple):
    """How a file went."""

    name: str
    code: int
    tries: int
    seconds: float

    @property
    def passed(self) -> bool:
        return self.code in (0, NO_TESTS)


@dataclass(frozen=True)
class File:
    """A file of tests; small: its lab takes little CPU time."""

    path: Path
    k3s: bool
    small: bool

    @classmethod
    def read(cls, path: Path) -> File:
        marks = [found["asked"] or "" for found in MARK.finditer(path.read_text())]
        k3s = any(NO_K3S not in asked for asked in marks)  # none in tests/vm
        return cls(path, k3s, not k3s or max(map(_hosts, marks)) <= SMALL)

    @property
    def rank(self) -> int:
        return LONGEST.index(self.path.name) if self.path.name in LONGEST else len(LONGEST)


def _hosts(asked: str) -> int:
    numbers = {name: int(number) for name, number in NUMBER.findall(asked)}
    return sum((DEFAULTS | numbers).values())


class Queue:
    """Files that wait for their turn; those that need K3s until it is built."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = sorted(map(File.read, sorted(files)), key=lambda file: file.rank)
        self._changed = Condition()
        self._k3s = False

    def built(self) -> None:
        """K3s is there, or cannot be had: then its tests say why."""
        with self._changed:
            self._k3s = True
            self._changed.notify_all()

    def next(self, only_small: bool) -> Path | None:
        """The next file, large ones first; None at the end."""
        with self._changed:
            while wanted := [file for file in self._files if file.small or not only_small]:
                ready = [file for file in wanted if self._k3s or not file.k3s]
                if ready:
                    chosen = min(ready, key=lambda file: file.small)  # the first of these
                    self._files.remove(chosen)
                    return chosen.path
                self._changed.wait()
        return None


def main(names: list[str]) -> int:
    """Run the files, or those of these names; the number of files that failed."""
    tries = int(os.environ.get("LAB_TRIES", "1"))
    workers = int(os.environ.get("LAB_WORKERS", "2"))
    small = int(os.environ.get("LAB_SMALL", "1"))
    files = [one for some in FOLDERS for one in some.glob("test_*.py")]
    queue = Queue(file for file in files if not names or file.name in names)

    def work(number: int) -> list[Row]:
        rows = []
        while file := queue.next(only_small=number >= workers):
            rows.append(_tried(file, tries, f"test{number or ''}"))
        return rows

    with _prepared(queue), ThreadPoolExecutor(workers + small) as pool:
        rows = [row for part in pool.map(work, range(workers + small)) for row in part]
    print("\nfile                        result   tries  seconds")
    for row in sorted(rows, key=lambda row: -row.seconds):
        result = "ok" if row.passed else "FAILED"
        print(f"{row.name:27} {result:8} {row.tries:5} {row.seconds:8.0f}")
    failed = sum(not row.passed for row in rows)
    print(f"{len(rows) - failed} passed, {failed} failed")
    return failed


@contextmanager
def _prepared(queue: Queue) -> Iterator[None]:
    """With the engine and the hosts' image; all else is being built."""
    with prepare.begun("hosts") as hosts, prepare.begun("k3s", "others", out=PIPE) as rest:
        Thread(target=_follow, args=(rest, queue), daemon=True).start()
        hosts.wait()
        yield


def _follow(rest: Popen[str], queue: Queue) -> None:
    """Show what is built, and tell the queue of K3s."""
    assert rest.stdout
    for line in rest.stdout:
        print(line, end="", flush=True)
        if line.rstrip() == prepare.DONE.format("k3s"):
            queue.built()
    queue.built()


def _tried(file: Path, tries: int, lab: str) -> Row:
    began = time.monotonic()
    code = tried = 0
    words = [sys.executable, "-m", "pytest", "-q", "-m", "lab or vm", str(file)]
    for tried in range(1, tries + 1):
        done = subprocess.run(
            words,
            check=False,
            env={**os.environ, "LAB_NAME": lab},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        code = done.returncode
        print(f"\n--- {file.name} (try {tried} of {tries})\n{done.stdout}", flush=True)
        if code in (0, NO_TESTS):
            break
    return Row(file.name, code, tried, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
