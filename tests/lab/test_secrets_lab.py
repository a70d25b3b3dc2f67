"""The join tokens of a real run are nowhere but in the files that hold them."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from runtime import sops
from tests.lab.lab import Lab
from tests.lab.runs import ROOT, command, ended, k3s, only

pytestmark = pytest.mark.lab(servers=3, agents=2)

NODE = "node1"
LOUD = ("-y", "-vvv", "--debug", "--diff")
DUMPS = (("--dry", "--debug-operations"), ("--dry", "--json"), ("--dry", "-v", "--debug-facts"))


def tokens(lab: Lab) -> list[str]:
    """The values of the lab's secrets."""
    state = lab.names.state_file.parent
    values = sops.flat(sops.load(state / "secrets.sops.yaml", state / "age.txt"))
    return [value for name, value in values.items() if name.endswith("_token")]


class ProcessLists:
    """Every argument list and environment seen on the machine and the node while a run goes on."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._over = lab, threading.Event()
        self.text = ""
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> ProcessLists:
        self._thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        here = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '"
        while not self._over.is_set():
            seen = subprocess.run(["sh", "-c", here], capture_output=True, text=True)
            # The machine's list has the containers' processes too.
            self.text += seen.stdout


def test_a_loud_run_shows_no_token_anywhere(lab: Lab) -> None:
    lab.clear_faults()
    lab.recreate(NODE)
    planted = tokens(lab)
    assert len(planted) == 2
    with only(lab, NODE) as env:
        with ProcessLists(lab) as lists:
            done = ended(lab, command("deploys/k3s.py", *LOUD, data=k3s(lab)), **env)
        dumps = "".join(
            ended(lab, command("deploys/k3s.py", *options, data=k3s(lab)), **env).stdout
            for options in DUMPS
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "k3s server" in lists.text, "the process lists were not looked at"
    places = {
        "the output": done.stdout + done.stderr,
        "a dump": dumps,
        "a process list": lists.text,
        "the journal": lab.run(NODE, "journalctl --no-pager -o cat")[1],
        "a unit": lab.run(NODE, "cat /etc/systemd/system/k3s*")[1],
        "a temporary file": lab.run(NODE, "cat $(find /tmp /var/tmp -type f) 2>/dev/null")[1],
        "the config": lab.read(NODE, "/etc/rancher/k3s/config.yaml"),
        "the debug log": (Path(ROOT) / "pyinfra-debug.log").read_text()
        if (Path(ROOT) / "pyinfra-debug.log").exists()
        else "",
    }
    found = [place for place, text in places.items() for token in planted if token in text]
    assert found == []
    held = lab.run(NODE, f"grep -rlF '{planted[0]}' /etc/rancher")[1].split()
    assert all(path.endswith("-token") for path in held)
