"""Every test that needs no host: `python -m tests.fast`.

Much of their time is spent waiting for servers that the tests play, so the files are dealt to
several processes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).parent
HANDS = {"unit": 8, "plans": 4, "contracts": 2}  # parts that the files of each folder make
AT_ONCE = 8  # parts: most wait most of their time
NO_TESTS = 5  # pytest's exit code


def main() -> int:
    """Run them and print what each process said; 1 when one has failed."""
    parts = list(_parts())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        codes = [_show(done) for done in pool.map(_run, parts)]
    return int(any(code not in (0, NO_TESTS) for code in codes))


def _parts() -> Iterator[Sequence[Path]]:
    """Files that run in one process."""
    for folder, hands in HANDS.items():
        files = sorted((FOLDER / folder).glob("test_*.py"))
        yield from (files[hand::hands] for hand in range(hands))


def _run(files: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "pytest", "-q", "-m", "not lab and not vm", *map(str, files)]
    return subprocess.run(
        words, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _show(done: subprocess.CompletedProcess[str]) -> int:
    print(done.stdout, flush=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
