"""What differs on a node that runs K3s, and what therefore is done to it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from cluster import k3s_config
from cluster.host_state import HostState
from cluster.k3s_plan import Seen
from cluster.managed import MANAGED
from cluster.model import Cluster, Host
from cluster.versions import K3S_DEFAULT
from facts.k3s import File, K3s, Unit
from operations import k3s
from runtime.secrets import Secret, SecretsUnavailable
from tests.unit.cluster_example import example
from tests.unit.node_ops import Runner

BUCKET = {"s3": {"endpoint": "s3.example.com", "bucket": "etcd"}}
WITH_S3 = example(k3s={"version": K3S_DEFAULT, "snapshots": BUCKET})
PLAIN = example()
KEYS = "etcd-s3-access-key: AK\netcd-s3-secret-key: old\n"


def file(text: str, mode: str = "600") -> File:
    return File(mode, hashlib.sha256(text.encode()).hexdigest())


def living(model: Cluster, me: Host, **more: File) -> K3s:
    """A node as the model wants it; `more`: further files by name of the constant."""
    name = k3s_config.unit_name(me)
    files = {p: file(text) for p, text in k3s_config.files(model, me).items() if text is not None}
    files[k3s_config.unit_path(me)] = file(k3s_config.unit(me), "644")
    files |= {getattr(k3s_config, constant): one for constant, one in more.items()}
    return K3s(
        link=k3s_config.binary_path(K3S_DEFAULT),
        version=K3S_DEFAULT,
        files=files,
        units={name: Unit(active="active", enabled="enabled")},
        revision="r",
        started_with="r",
    )


def work(model: Cluster, me: Host, state: K3s) -> k3s.Work:
    return k3s.work(model, me, state, K3S_DEFAULT)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket's keys as the secrets have them."""
    monkeypatch.setattr(k3s, "named_secret", lambda name: Secret(name, lambda: KEYS))


def test_a_node_as_wanted_is_left_alone() -> None:
    for me in PLAIN.members:
        assert work(PLAIN, me, living(PLAIN, me)).empty
    for me in WITH_S3.members:
        more = {"S3_KEYS": file(KEYS)} if me.is_server else {}
        assert work(WITH_S3, me, living(WITH_S3, me, **more)).empty


@pytest.mark.parametrize("there", [file(KEYS.replace("old", "older")), file(KEYS, "644")])
def test_other_keys_of_the_bucket_alone_are_a_rolling_restart(there: File) -> None:
    me = WITH_S3.servers[0]
    found = work(WITH_S3, me, living(WITH_S3, me, S3_KEYS=there))
    assert (list(found.secrets), found.restart, found.files) == ([k3s_config.S3_KEYS], True, {})


def test_keys_that_are_not_there_yet_are_written() -> None:
    me = WITH_S3.servers[0]
    assert work(WITH_S3, me, living(WITH_S3, me)).secrets


def test_without_a_bucket_its_keys_go() -> None:
    me = PLAIN.servers[0]
    found = work(PLAIN, me, living(PLAIN, me, S3_KEYS=file(KEYS)))
    assert found.files == {k3s_config.S3_KEYS: None} and found.restart
    assert not found.secrets


def test_a_server_that_does_not_run_is_started() -> None:
    me = PLAIN.servers[0]
    state = living(PLAIN, me)
    state.units[k3s_config.unit_name(me)] = Unit(active="failed", enabled="enabled")
    assert work(PLAIN, me, state).restart


def test_the_password_of_a_registry_is_written_as_a_secret_and_compared() -> None:
    password = Secret("registry.password", lambda: "hunter2")
    auth = {"r.example.com": {"auth": {"username": "pi", "password": password}}}
    model = example(k3s={"registries": {"configs": auth, "mirrors": {"*": None}}})
    content = (
        f"{MANAGED}configs:\n  r.example.com:\n    auth:\n      password: hunter2\n"
        "      username: pi\nmirrors:\n  '*': null\n"
    )
    for me in model.members:
        found = work(model, me, living(model, me))
        assert k3s_config.REGISTRIES not in found.files and found.restart
        assert found.secrets[k3s_config.REGISTRIES].unmask() == content
        assert "hunter2" not in repr(found)
        assert work(model, me, living(model, me, REGISTRIES=file(content))).empty


def test_a_secret_that_is_not_in_the_file_of_secrets_is_named_before_anything_is_done() -> None:
    def read() -> str:
        raise SecretsUnavailable("secrets/pi.sops.yaml has no registry.pasword")

    auth = {"r.example.com": {"auth": {"password": Secret("registry.pasword", read)}}}
    model = example(k3s={"registries": {"configs": auth}})
    assert k3s.missing_secrets(model, model.servers[0]) == [
        "/etc/rancher/k3s/registries.yaml: secrets/pi.sops.yaml has no registry.pasword"
    ]


OLD = "v1.35.7+k3s1"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Bodies of operations on the first server, which is a member at the older release."""
    holds = {"node1": Seen("node1", datastore="etcd", version=OLD)}
    monkeypatch.setattr(k3s, "survey", lambda *_: holds)
    return Runner(monkeypatch)


@pytest.mark.parametrize("active", ["active", "failed"])
def test_over_a_minor_a_node_is_drained_while_its_k3s_runs(
    run: Runner, monkeypatch: pytest.MonkeyPatch, active: str
) -> None:
    state = replace(living(PLAIN, PLAIN.servers[0]), version=OLD, link="", datastore="etcd")
    state.units["k3s"] = Unit(active=active, enabled="enabled")
    monkeypatch.setattr(k3s, "k3s_state", lambda _: state)
    gate, *_ = run(k3s.roll, PLAIN, HostState(), version=K3S_DEFAULT)
    assert gate.text.startswith(f"before('node1', {active == 'active'}, ")


def test_sqlite_is_copied_with_k3s_down_so_that_k3s_is_waited_for(run: Runner) -> None:
    (etcd,) = run(k3s.snapshot, PLAIN, HostState(), version=K3S_DEFAULT)
    assert etcd.text == "sh -s" and "etcd-snapshot save" in str(etcd.stdin)
    (sqlite,) = run(k3s.snapshot, example(servers=1), HostState(), version=K3S_DEFAULT)
    assert sqlite.text.startswith("keep_copy('node1', ") and "systemctl stop k3s" in sqlite
