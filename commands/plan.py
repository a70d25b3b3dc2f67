"""What a deploy would change, readable: `python -m commands.plan inventories/home.py`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from itertools import takewhile

from runtime.changes import Change, lines

SITE = "deploys/site.py"
_STAGES = tuple(f"--> {word}" for word in ("Loading", "Connecting", "Preparing", "Disconnecting"))


class RunFailed(Exception):
    """The dry run failed; the text is what it printed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 done, 1 the dry run failed."""
    options, more = options_of("plan", __doc__, arguments)
    try:
        notes, changes = dry(options.inventory, options.deploy, more)
    except RunFailed as error:
        print(error, file=sys.stderr)
        return 1
    show(notes, changes, "would change")
    return 0


def options_of(
    command: str, description: str | None, arguments: Sequence[str] | None
) -> tuple[argparse.Namespace, list[str]]:
    """Inventory and deploy of a command that runs pyinfra, and the options that go to pyinfra."""
    parser = argparse.ArgumentParser(
        prog=f"python -m commands.{command}",
        usage="%(prog)s [-h] inventory [deploy] [option of pyinfra ...]",
        description=description,
        epilog="Options are pyinfra's, such as --limit node4 or --data key=value.",
    )
    parser.add_argument("inventory", help="e.g. inventories/home.py")
    parser.add_argument("deploy", nargs="?", default=SITE, help=f"default: {SITE}")
    words = list(sys.argv[1:] if arguments is None else arguments)
    ours = list(takewhile(lambda word: not word.startswith("-"), words))
    more = words[len(ours) :]
    asked = [word for word in more if word in ("-h", "--help")]
    return parser.parse_args(ours + asked), more


def pyinfra(inventory: str, deploy: str, *options: str) -> list[str]:
    """The command line of a run."""
    return [sys.executable, "-m", "pyinfra", inventory, deploy, *options]


def dry(inventory: str, deploy: str, options: Sequence[str]) -> tuple[list[str], list[Change]]:
    """What was said, and what would change, by a dry run; raises RunFailed."""
    done = subprocess.run(
        pyinfra(inventory, deploy, "--dry", "--json", *options),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        raise RunFailed("\n".join(_without_stages(done.stderr)))
    return list(_notes(done.stderr)), list(_changes(json.loads(done.stdout)["plan"]))


def show(notes: Iterable[str], changes: Sequence[Change], verb: str) -> None:
    """Print the changes by phase, and how many there are."""
    for note in notes:
        print(note, file=sys.stderr)
    print("\n".join(lines(changes, verb)))


def _changes(plan: Iterable[dict[str, list[str]]]) -> Iterable[Change]:
    for one in plan:
        hosts, maybe = one["hosts_with_change"], one["hosts_with_conditional_change"]
        if hosts or maybe:
            yield Change(min(one["names"]), tuple(hosts), tuple(maybe))


def _without_stages(said: str) -> Iterable[str]:
    """What a failed run said, without pyinfra's own stages and progress."""
    for line in said.splitlines():
        if line.strip() and not line.startswith(_STAGES):
            yield line


def _notes(said: str) -> Iterable[str]:
    """Lines that are neither a stage of pyinfra nor the progress of a host, such as warnings."""
    for line in said.splitlines():
        text = line.strip()
        if text and not text.startswith(("-->", "[", "Loading:")):
            yield text


if __name__ == "__main__":
    sys.exit(main())
