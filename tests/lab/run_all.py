"""Every file of lab tests in a session and a lab of its own: `python -m tests.lab.run_all`.

A file that fails is run again as often as LAB_TRIES allows (default 1: not at all), from bare
hosts; the table at the end says so. Real processes on few cores can be late, and a late answer
must not hide what the other files say.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent
NO_TESTS = 5  # pytest's exit code


def main(names: list[str]) -> int:
    """Run the files, or those of these names; the number of files that failed."""
    tries = int(os.environ.get("LAB_TRIES", "1"))
    files = sorted(FOLDER.glob("test_*.py"))
    chosen = [file for file in files if not names or file.name in names]
    rows = [_tried(file, tries) for file in chosen]
    print("\nfile                        result   tries  seconds")
    for name, code, tried, seconds in rows:
        print(f"{name:27} {'ok' if code in (0, NO_TESTS) else 'FAILED':8} {tried:5} {seconds:8.0f}")
    failed = sum(code not in (0, NO_TESTS) for _, code, _, _ in rows)
    print(f"{len(rows) - failed} passed, {failed} failed")
    return failed


def _tried(file: Path, tries: int) -> tuple[str, int, int, float]:
    began = time.monotonic()
    code = tried = 0
    for tried in range(1, tries + 1):
        print(f"\n--- {file.name} (try {tried} of {tries})", flush=True)
        words = [sys.executable, "-m", "pytest", "-q", "-m", "lab", str(file)]
        code = subprocess.run(words, check=False).returncode
        if code in (0, NO_TESTS):
            break
    return file.name, code, tried, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
