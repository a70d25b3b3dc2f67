"""Every file of tests that need hosts in a session of its own: `python -m tests.lab.run_all`.

Those of tests/lab get a lab of their own, those of tests/vm a virtual machine.

LAB_WORKERS files run at the same time (default 2): most of a lab's time is spent waiting. A file
that fails is run again as often as LAB_TRIES allows (default 1: not at all), from bare hosts; the
table at the end says so. Real processes on few cores can be late, and a late answer must not hide
what the other files say.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

FOLDER = Path(__file__).parent
FOLDERS = (FOLDER, FOLDER.with_name("vm"))
NO_TESTS = 5  # pytest's exit code
# These take longest: begun last, they would run alone at the end.
FIRST = (
    "test_platform_lab.py",
    "test_presets_lab.py",
    "test_backup_lab.py",
    "test_k3s_lab.py",
    "test_services_lab.py",
    "test_restore_lab.py",
    "test_standin_rows.py",
    "test_api_address_lab.py",
    "test_gateway_lab.py",
    "test_metrics_lab.py",
)


class Row(NamedTuple):
    """How a file went."""

    name: str
    code: int
    tries: int
    seconds: float

    @property
    def passed(self) -> bool:
        return self.code in (0, NO_TESTS)


def main(names: list[str]) -> int:
    """Run the files, or those of these names; the number of files that failed."""
    tries = int(os.environ.get("LAB_TRIES", "1"))
    workers = int(os.environ.get("LAB_WORKERS", "2"))
    files = sorted((one for some in FOLDERS for one in some.glob("test_*.py")), key=_rank)
    chosen = [file for file in files if not names or file.name in names]
    labs: SimpleQueue[str] = SimpleQueue()
    for number in range(workers):
        labs.put(f"test{number or ''}")
    _prepare()
    with ThreadPoolExecutor(workers) as pool:
        rows = list(pool.map(lambda file: _in_a_lab(file, tries, labs), chosen))
    print("\nfile                        result   tries  seconds")
    for row in rows:
        result = "ok" if row.passed else "FAILED"
        print(f"{row.name:27} {result:8} {row.tries:5} {row.seconds:8.0f}")
    failed = sum(not row.passed for row in rows)
    print(f"{len(rows) - failed} passed, {failed} failed")
    return failed


def _rank(file: Path) -> tuple[int, str]:
    return (FIRST.index(file.name) if file.name in FIRST else len(FIRST), file.name)


def _prepare() -> None:
    """Start the engine and build what labs are made of once, before several want it at once."""
    lab = [sys.executable, "-m", "tests.lab", "--name", "test"]
    subprocess.run([*lab, "up", "--servers", "1", "--agents", "0"], check=False)
    subprocess.run([*lab, "down"], check=False)


def _in_a_lab(file: Path, tries: int, labs: SimpleQueue[str]) -> Row:
    lab = labs.get()
    try:
        return _tried(file, tries, lab)
    finally:
        labs.put(lab)


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
