"""The join tokens of a real run are nowhere but in the files that hold them."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.runs import ROOT, command, ended, k3s, new_tokens, only, secrets

pytestmark = pytest.mark.lab(servers=3, agents=2)

NODE = "node1"
LOUD = ("-y", "-vvv", "--debug", "--diff")
DUMPS = (("--dry", "--debug-operations"), ("--dry", "--json"), ("--dry", "-v", "--debug-facts"))


def tokens(lab: Lab) -> list[str]:
    """The join tokens of the lab's secrets."""
    return [value for name, value in secrets(lab).items() if name.endswith("_token")]


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


def shown(lab: Lab, deploy: str, planted: list[str], **env: str) -> list[str]:
    """Where a loud run and dumps of it show a token."""
    with ProcessLists(lab) as lists:
        done = ended(lab, command(deploy, *LOUD, data=k3s(lab)), **env)
    dumps = "".join(
        ended(lab, command(deploy, *options, data=k3s(lab)), **env).stdout for options in DUMPS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "k3s server" in lists.text, "the process lists were not looked at"
    debug = Path(ROOT) / "pyinfra-debug.log"
    places = {
        "the output": done.stdout + done.stderr,
        "a dump": dumps,
        "a process list": lists.text,
        "the journal": lab.run(NODE, "journalctl --no-pager -o cat")[1],
        "a unit": lab.run(NODE, "cat /etc/systemd/system/k3s*")[1],
        "a temporary file": lab.run(NODE, "cat $(find /tmp /var/tmp -type f) 2>/dev/null")[1],
        "the config": lab.read(NODE, "/etc/rancher/k3s/config.yaml"),
        "the debug log": debug.read_text() if debug.exists() else "",
    }
    return [place for place, text in places.items() for token in planted if token in text]


def test_a_loud_run_shows_no_token_anywhere_nor_does_their_rotation(lab: Lab) -> None:
    lab.clear_faults()
    lab.recreate(NODE)
    planted = tokens(lab)
    assert len(planted) == 2
    with only(lab, NODE) as env:
        assert shown(lab, "deploys/k3s.py", planted, **env) == []
        held = lab.run(NODE, f"grep -rlF '{planted[0]}' /etc/rancher")[1].split()
        assert held and all(path.endswith("-token") for path in held)
        new_tokens(lab)
        assert shown(lab, "deploys/tokens.py", [*planted, *tokens(lab)], **env) == []
    new = secrets(lab)["k3s.server_token"]
    for place in ("/etc/rancher/k3s/server-token", "/var/lib/rancher/k3s/server/token"):
        assert new in lab.read(NODE, place)
