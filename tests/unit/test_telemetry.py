"""Metrics and logs of hosts outside: both ends agree, secrets stay in their file."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from typing import Any

import pytest
import yaml

from catalogue import fluent_bit, forward, kube_prometheus_stack
from cluster.host_state import Clock, File, HostState, Unit
from cluster.managed import METRICS
from cluster.services import telemetry
from operations import telemetry as operations
from operations import text as files
from tests.unit.cluster_example import example
from tests.unit.node_ops import Runner

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
OUTSIDE = {"name": "nas", "role": "external", "ip": "10.0.0.60", "arch": "amd64"}


def model(stack: dict[str, str] | None = None, **section: Any) -> Any:
    hosts = [host.model_dump() for host in example().hosts]
    chosen = {"logs": "loki", "certificates": "cert-manager", "metrics": "kube-prometheus-stack"}
    return example(
        hosts=[*hosts, OUTSIDE],
        stack=chosen | (stack or {}),
        platform={"logs": {"address": "10.0.0.101"}},
        services={"telemetry": {"ca": PEM} | section},
    )


def sent(wanted: Any) -> dict[str, Any]:
    """The configuration that Fluent Bit reads."""
    found: dict[str, Any] = yaml.safe_load(telemetry.sender_config(wanted, wanted.host("nas")))
    return found


def test_it_is_for_hosts_outside_unless_others_are_named() -> None:
    assert [host.name for host in telemetry.hosts(model())] == ["nas"]
    assert [host.name for host in telemetry.hosts(model(hosts=["node2"]))] == ["node2"]
    assert telemetry.hosts(example()) == ()


def test_prometheus_reads_where_node_exporter_listens() -> None:
    wanted = model()
    (scraped,) = kube_prometheus_stack.external_hosts(wanted)
    (target,) = scraped["spec"]["staticConfigs"][0]["targets"]
    text = telemetry.exporter_files(wanted, wanted.host("nas"))[telemetry.EXPORTER_ARGUMENTS]
    assert f'ARGS="--web.listen-address={target} ' in text
    assert f"--collector.textfile.directory={METRICS}" in text


def test_logs_go_where_the_cluster_takes_them() -> None:
    wanted = model()
    output = sent(wanted)["pipeline"]["outputs"][0]
    assert (output["host"], output["port"]) == ("10.0.0.101", forward.PORT)
    assert output["tls.vhost"] == forward.hostname(wanted)
    assert output["tls.verify"] is True and output["tls.ca_file"] == telemetry.CA
    assert output["storage.total_limit_size"] == "512M"
    assert output["shared_key"] == "${FORWARD_SHARED_KEY}"
    for line in (f"Port {output['port']}", f"Self_Hostname {output['tls.vhost']}"):
        assert line in fluent_bit.inputs(wanted)


def test_without_certificates_nothing_is_encrypted_on_either_side() -> None:
    wanted = model({"certificates": "none"})
    output = sent(wanted)["pipeline"]["outputs"][0]
    assert not [key for key in output if key.startswith("tls")]
    assert not forward.secured(wanted) and not telemetry.secured(wanted)


def test_fields_are_those_of_the_nodes_journals() -> None:
    found = sent(model())["pipeline"]
    kept = found["filters"][0]["allowlist_key"]
    assert all(f"Allowlist_key {key}\n" in fluent_bit.FILTERS for key in kept)
    assert len(kept) == fluent_bit.FILTERS.count("Allowlist_key")
    assert found["inputs"][0]["tag"] == "host.journal"
    assert found["inputs"][0]["db"].startswith(f"{telemetry.STATE}/")


@pytest.mark.parametrize(
    ("os", "release", "arch", "line"),
    [
        ("ubuntu", "24.04", "arm64", "https://packages.fluentbit.io/ubuntu/noble"),
        ("ubuntu", "26.04", "amd64", "https://packages.fluentbit.io/ubuntu/resolute"),
        ("debian", "12", "amd64", "https://packages.fluentbit.io/debian/bookworm"),
    ],
)
def test_packages_come_from_the_repository_of_the_release(
    os: str, release: str, arch: str, line: str
) -> None:
    text = telemetry.sources(telemetry.Repository(), HostState(os=os, release=release, arch=arch))
    assert f"URIs: {line}\n" in text and f"Architectures: {arch}\n" in text
    assert "Signed-By: /etc/apt/keyrings/picluster-fluent-bit-9f9ddc083888c1cd.asc\n" in text
    mirror = telemetry.Repository(url="https://mirror.lan/fluent/", suite="noble")
    text = telemetry.sources(mirror, HostState(os=os, release=release, arch=arch))
    assert f"URIs: https://mirror.lan/fluent/{os}/noble\nSuites: noble\n" in text


@pytest.mark.parametrize("key", ["plain", 'a"b', "back\\slash", "dollar$x", "tick`", "a b"])
def test_any_key_survives_systemds_way_of_reading(key: str) -> None:
    name, _, value = telemetry.key_text(key).rstrip("\n").partition("=")
    assert name == telemetry.KEY_VARIABLE
    assert shlex.split(value.replace("\\$", "$").replace("\\`", "`")) == [key]


def test_what_fluent_bit_refuses_is_not_in_force(tmp_path: Any) -> None:
    program, path = tmp_path / "fluent-bit", tmp_path / "config.yaml"
    script = files._CHECKED.replace("/etc/picluster", str(tmp_path / "new"))
    # It takes a file for YAML by the end of its name (flb_cf_create_from_file).
    program.write_text(
        '#!/bin/sh\n[ -n "$FORWARD_SHARED_KEY" ] || exit 9\n'
        'case $3 in *.yaml) ;; *) exit 8 ;; esac\necho "bad key"; grep -q good "$3"\n'
    )
    program.chmod(0o755)
    check = [str(program) if word == telemetry.PROGRAM else word for word in telemetry.CHECK]
    for content, code in (("good: 1\n", 0), ("wrong: 1\n", 1)):
        done = subprocess.run(
            ["sh", "-c", script, "x", str(path), "644", *check],
            input=content,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code
    assert done.stderr == "bad key\n" and path.read_text() == "good: 1\n"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["config.yaml", "fluent-bit", "new"]
    assert list((tmp_path / "new").iterdir()) == []


def converged(wanted: Any) -> HostState:
    me = wanted.host("nas")
    texts = telemetry.exporter_files(wanted, me) | {
        telemetry.CONFIG: telemetry.sender_config(wanted, me),
        telemetry.SENDER_UNIT: telemetry.sender_unit(),
        telemetry.CA: f"{PEM}\n",
        telemetry.SOURCES: telemetry.sources(telemetry.Repository(), HostState()),
        telemetry.keyring(telemetry.Repository()): "key",
        METRICS: "",
        telemetry.KEY_FILE: "",
    }
    up = Unit("loaded", "active", "enabled", since=10.0)
    return HostState(
        clock=Clock(10_000.0),
        uptime=1000.0,
        files={
            path: File("644", changed=1, sha256=hashlib.sha256(text.encode()).hexdigest())
            for path, text in texts.items()
        },
        units={telemetry.EXPORTER: up, telemetry.SENDER: up},
    )


OPERATIONS = (operations.exporter, operations.repository, operations.sender)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(monkeypatch)


def test_a_converged_host_is_left_alone(runner: Runner) -> None:
    wanted = model()
    for operation in OPERATIONS:
        assert runner(operation, wanted, {"nas": converged(wanted)}) == []


def test_a_bare_host_gets_everything_and_no_key_in_an_argument(runner: Runner) -> None:
    wanted = model()
    for operation in OPERATIONS:
        commands = runner(operation, wanted, {"nas": HostState(os="ubuntu", release="24.04")})
        assert commands
    texts = [command.text for command in commands]
    assert texts[-1] == f"systemctl restart {telemetry.SENDER}"
    assert texts.count("systemctl daemon-reload") == 1


def test_another_key_restarts_the_sender(runner: Runner) -> None:
    wanted = model()
    state = converged(wanted)
    state.files[telemetry.KEY_FILE] = File("600", changed=9_900)
    (command,) = runner(operations.sender, wanted, {"nas": state})
    assert command.text == f"systemctl restart {telemetry.SENDER}"
