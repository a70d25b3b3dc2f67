"""Builds what labs are made of before a test asks for it: `python -m tests.lab.prepare`.

Given a command, it runs that meanwhile: what is built takes only the CPU time that is left over.

    python -m tests.lab.prepare make lint test-fast test-lab
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.lab import acme, binaries, engine, helm, image, versitygw
from tests.lab.cache import alone
from tests.lab.charts import repository
from tests.lab.errors import LabError
from tests.lab.metrics import programs

LESS, LEFT_OVER = 10, 19  # niceness
DONE = "prepared: {}"


def hosts() -> None:
    """The Docker engine and the hosts' image, which every lab needs."""
    client = engine.connect()  # not the engine with less: containers would have it too
    os.nice(LESS)
    image.build(client, image.choose(client), engine.arch(client))


def k3s() -> None:
    """What a cluster needs, and what is quick to build of the rest."""
    os.nice(LEFT_OVER)
    arch = engine.arch_of(os.uname().machine)
    acme.programs()
    binaries.folders(binaries.choose().kind, arch)
    helm.folder(arch)
    if repository.choose().kind == "surrogate":
        repository.folder()


def others() -> None:
    """What single tests need."""
    os.nice(LEFT_OVER)
    versitygw.RELEASE.folder(engine.arch_of(os.uname().machine))
    for name in programs.MODULES:
        programs.built(name)


PARTS = {one.__name__: one for one in (hosts, k3s, others)}


@contextmanager
def begun(*parts: str, out: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Parts one after the other in a process of their own, which ends with this block.

    It says DONE after each, whether it could be built or not. out: where it says so, as of Popen.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.lab.prepare", "--parts", *parts],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=out,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def main(words: Sequence[str]) -> int:
    """Build all, while the command runs; its exit code, or 1 when something could not be built."""
    if words[:1] == ["--parts"]:
        return _build(words[1:])
    with begun("hosts") as first, begun("k3s", "others") as second:
        if words:
            return subprocess.run(words, check=False).returncode
        return int(any([first.wait(), second.wait()]))


def _build(parts: Sequence[str]) -> int:
    """Failures are only said: the tests that need it fail by them, and say more."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what is half made is removed
    failed = 0
    for part in parts:
        try:
            with alone(f"prepare-{part}"):  # run_all asks for it again
                PARTS[part]()
        except LabError as error:
            print(f"lab: {error}", file=sys.stderr, flush=True)
            failed = 1
        print(DONE.format(part), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
