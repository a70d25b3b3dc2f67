"""The combined K3s fact: one script, one answer, on bare, odd and living nodes."""

import base64
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import gevent
import pytest
from pyinfra.api.exceptions import FactProcessError, PyinfraError

from cluster import k3s_config
from cluster.k3s_plan import Seen
from cluster.k3s_settings import differences, refusals
from commands import look as status
from facts import k3s
from facts.k3s import K3sState, k3s_state, look, parse, script
from tests.unit.test_cache import World

LIVING = """\
link\t/usr/local/lib/k3s/v1.36.3+k3s1/k3s
version\tv1.36.3+k3s1
release\tv1.36.3+k3s1\tabc
file\t/etc/rancher/k3s/config.yaml\t600\tdef
text\t/etc/rancher/k3s/config.yaml\t{config}
text\t/etc/rancher/k3s/config.yaml.d/50-join.yaml\t{join}
unit\tk3s\tActiveState=active
unit\tk3s\tUnitFileState=enabled
datastore\tetcd
member\tnode1-0123abcd
registered\tyes
ca\tffff
revision\taaa  -\taaa  -
end\t
"""


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def living(config: str = "node-name: node1\n", join: str = "server: https://x:6443\n") -> list[str]:
    return LIVING.format(config=encode(config), join=encode(join)).splitlines()


def test_a_living_server_is_read_whole() -> None:
    state = parse(living())
    assert state.version == "v1.36.3+k3s1"
    assert state.config == {"node-name": "node1"}
    assert state.join == {"server": "https://x:6443"}
    assert state.unit("k3s").running and state.unit("k3s").enabled == "enabled"
    assert not state.unit("k3s-agent").running
    assert state.revision == state.started_with
    assert state.files["/etc/rancher/k3s/config.yaml"].mode == "600"


def test_a_broken_config_has_no_settings_but_is_there() -> None:
    state = parse(living(config="a: [1\n"))
    assert state.config is None
    assert "/etc/rancher/k3s/config.yaml" in state.files


def test_an_answer_that_ends_early_is_an_error_and_not_an_absence() -> None:
    with pytest.raises(FactProcessError, match="ended early"):
        K3sState().process(living()[:5])


def test_a_host_is_asked_once_for_the_survey_and_for_what_is_done_there() -> None:
    host: Any = World("node1").hosts["node1"]
    said: list[dict[str, Any]] = []
    host.get_fact = lambda _, **options: said.append(options) or parse(living())
    assert look(host).running and k3s_state(host).unit("k3s").running
    assert len(said) == 1


def test_a_host_that_hangs_is_not_reached_and_never_without_k3s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(k3s, "LIMIT", 0.1)
    host: Any = World("node1").hosts["node1"]
    host.get_fact = lambda *_, **__: gevent.sleep(3600)
    assert not look(host).reached
    assert look(host).reason == "no answer to K3sState within 0.1 seconds"
    with pytest.raises(PyinfraError, match="node1: no answer"):
        k3s_state(host)
    host.get_fact = lambda *_, **__: None
    with pytest.raises(PyinfraError, match="node1: its K3s state cannot be read"):
        k3s_state(host)


SHOWS = "echo ActiveState=active; echo UnitFileState=enabled"


@pytest.mark.parametrize(
    ("systemctl", "late"),
    [
        (SHOWS, ""),
        ("sleep 60", "systemctl show did not end within 0.2 seconds"),
        ("exit 1", "systemctl show says nothing"),
    ],
)
def test_a_systemd_that_does_not_answer_is_not_a_k3s_that_is_stopped(
    systemctl: str, late: str, tmp_path: Path
) -> None:
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\n{systemctl}\n")
    program.chmod(0o755)
    text = f"PATH={tmp_path}:$PATH\n{script()}"
    if "sleep" in systemctl:  # the others are waited for as long as on a node: machines can be slow
        text = text.replace("-k 1 10 ", "-k 1 0.2 ").replace("within 10 ", "within 0.2 ")
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    host: Any = World("node1").hosts["node1"]
    host.get_fact = lambda *_, **__: parse(done.stdout.splitlines())
    if not late:
        assert look(host).running and k3s_state(host).unit("k3s").enabled == "enabled"
        return
    cause = f"its K3s state cannot be read: {late}"
    assert look(host) == Seen("node1", reached=False, reason=cause)
    assert status._k3s(host) is None
    with pytest.raises(PyinfraError, match=f"node1: {cause}"):
        k3s_state(host)


@pytest.mark.parametrize(
    ("step", "waits"), [("stopped", True), ("restored", True), ("started", False)]
)
def test_a_server_in_the_middle_of_a_restore_says_so(
    step: str, waits: bool, tmp_path: Path
) -> None:
    (tmp_path / "restore").write_text(f"7 {step} /x/nightly\n")
    text = script().replace(k3s_config.DATA, str(tmp_path))
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    found = parse(done.stdout.splitlines())
    assert k3s.seen("node1", found).restoring == ("/x/nightly" if waits else "")


def test_the_script_runs_on_a_machine_without_k3s() -> None:
    done = subprocess.run(["sh", "-c", script()], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    state = parse(done.stdout.splitlines())
    assert state.revision and state.datastore is None


def test_secret_values_of_a_foreign_config_stay_on_the_node(tmp_path: object) -> None:
    path = f"{tmp_path}/config.yaml"
    with open(path, "w") as file:
        file.write("token: hunter2\nagent-token: hunter3\ntoken-file: /etc/x\nnode-name: a\n")
    done = subprocess.run(
        ["sh", "-c", script().replace("/etc/rancher/k3s/config.yaml ", f"{path} ")],
        capture_output=True,
        text=True,
        check=True,
    )
    text = next(line for line in done.stdout.splitlines() if line.startswith("text\t"))
    shown = base64.b64decode(text.split("\t")[2]).decode()
    assert "hunter" not in shown
    assert "token-file: /etc/x" in shown and "node-name: a" in shown


@pytest.mark.parametrize(
    "text",
    [
        '{"token": "hunter2", "node-name": "a"}',
        '"token": hunter2\nnode-name: a\n',
        "token : hunter2\nnode-name: a\n",
        "token: >-\n  hunter2\nnode-name: a\n",
        "token+: [hunter2]\nnode-name: a\n",
        "? token\n: hunter2\nnode-name: a\n",
    ],
)
def test_a_secret_value_is_not_read_in_whatever_form_of_yaml_it_is(text: str) -> None:
    state = parse(living(config=text, join=text))
    assert "hunter" not in str(state.to_json())
    assert state.config and state.config["node-name"] == "a"
    said = refusals(differences(state.config, {"node-name": "a", "token-file": "/etc/t"}))
    assert said and "hunter" not in str(said)


def test_the_server_token_that_k3s_has_is_known_by_its_sum_alone(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server/token").write_text(f"K10{'0' * 64}::server:hunter:2\n")
    text = script().replace(k3s_config.DATA, str(tmp_path))
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    assert "hunter" not in done.stdout
    # The sum of the file that holds this token, as `held_by` compares them.
    assert parse(done.stdout.splitlines()).token == hashlib.sha256(b"hunter:2\n").hexdigest()
