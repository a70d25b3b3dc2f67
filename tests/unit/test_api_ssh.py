"""The API through pyinfra's SSH connections: real SSH and TLS, simulated servers behind them."""

from __future__ import annotations

import base64
import datetime as dt
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyinfra.api import Config, Inventory, State

from cluster.answer import Absent, Answer, Forbidden, Present, Stopped, Unreachable
from runtime.api import NODE, Api, api_of
from tests.unit.certificates import Pair, kubeconfig, make, server_context
from tests.unit.fake_api import FakeApi
from tests.unit.fake_ssh import FakeSsh

CA, CLIENT_CA = make("server-ca"), make("client-ca")
CLIENT = make("system:admin", CLIENT_CA)


class Server:
    """A server: SSH, a kubeconfig, an API behind its loopback address."""

    def __init__(self, folder: Path, certificate: Pair | None = None) -> None:
        folder.mkdir()
        tls = server_context(certificate or make("kube-apiserver", CA), CLIENT_CA, folder)
        self.api = FakeApi(tls=tls)
        self.api.put("nodes", "node1")
        self.ssh = FakeSsh(kubeconfig(CA, CLIENT), self.api.port)


class World:
    """Some servers and the pyinfra state that knows them."""

    def __init__(self, folder: Path, count: int = 1) -> None:
        self.servers = [Server(folder / f"server{i}") for i in range(1, count + 1)]
        names = [
            (f"server{i}", server.ssh.data(folder / "known_hosts"))
            for i, server in enumerate(self.servers, 1)
        ]
        self.state = State(Inventory((names, {}), servers=(names, {})), Config(CONNECT_TIMEOUT=2))
        self.api: Api = api_of(self.state)

    def nodes(self) -> Answer[list[str]]:
        match self.api.list(NODE):
            case Present(value=items):
                return Present([item["metadata"]["name"] for item in items])
            case other:
                return other


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.api.close()


def test_a_server_that_limit_left_out_is_connected_when_asked(world: World) -> None:
    assert not world.state.inventory.get_host("server1").connected
    assert world.nodes() == Present(["node1"])
    assert world.state.inventory.get_host("server1").connected


def test_the_credential_is_read_once_with_sudo(world: World) -> None:
    world.nodes()
    world.nodes()
    assert len(world.servers[0].ssh.commands) == 1
    assert world.servers[0].ssh.commands[0].startswith("sudo ")


def test_no_file_descriptor_or_file_keeps_the_key(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert world.nodes() == Present(["node1"])
    assert list(folder.iterdir()) == []
    links = [os.readlink(f"/proc/self/fd/{fd}") for fd in _descriptors()]
    assert not [link for link in links if "memfd" in link]


def test_without_anonymous_memory_the_key_file_is_private_and_removed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, modes = tmp_path / "temporary", []
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delattr(os, "memfd_create")
    unlink = os.unlink
    monkeypatch.setattr(
        os, "unlink", lambda path: (modes.append(os.stat(path).st_mode & 0o777), unlink(path))
    )
    assert world.nodes() == Present(["node1"])
    assert modes == [0o600]
    assert list(folder.iterdir()) == []


def test_neither_output_nor_repr_shows_the_key(
    world: World, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    world.state.print_output = world.state.print_input = True
    world.state.print_fact_output = world.state.print_fact_input = True
    assert world.nodes() == Present(["node1"])
    seen = capsys.readouterr()
    shown = seen.out + seen.err + caplog.text + repr(world.api._credential)
    assert CLIENT.key_pem.decode().splitlines()[1][:40] not in shown
    assert base64.b64encode(CLIENT.key_pem).decode()[:80] not in shown


def test_a_server_without_k3s_is_absent(world: World) -> None:
    world.servers[0].ssh.kubeconfig = None
    assert world.nodes() == Absent("server1 has no /etc/rancher/k3s/k3s.yaml")


def test_a_stopped_k3s_is_stopped(world: World) -> None:
    world.servers[0].ssh.api_port = None
    assert world.nodes() == Stopped(
        "nothing listens on 127.0.0.1:6443 of server1: K3s is not running"
    )


def test_k3s_that_starts_again_is_found(world: World) -> None:
    world.nodes()
    world.servers[0].api.stop()
    assert isinstance(world.nodes(), Stopped)
    world.servers[0].api.start()
    assert world.nodes() == Present(["node1"])


def test_a_server_that_is_switched_off_is_unreachable(world: World) -> None:
    world.servers[0].ssh.stop()
    answer = world.nodes()
    assert isinstance(answer, Unreachable)
    assert answer.reason.startswith("server1: ")


def test_sudo_that_does_not_work_is_forbidden(world: World) -> None:
    world.servers[0].ssh.sudo_works = False
    answer = world.nodes()
    assert isinstance(answer, Forbidden)
    assert answer.reason == (
        "/etc/rancher/k3s/k3s.yaml of server1 cannot be read: ubuntu is not in the sudoers file"
    )


def test_sshd_that_forbids_forwarding_is_named(world: World) -> None:
    world.servers[0].ssh.allow_forwarding = False
    assert world.nodes() == Forbidden(
        "sshd of server1 forbids forwarding (AllowTcpForwarding must be local)"
    )


def test_a_reboot_is_survived_by_a_new_connection(world: World) -> None:
    assert world.nodes() == Present(["node1"])
    world.servers[0].ssh.cut()
    assert world.nodes() == Present(["node1"])


def test_the_next_server_answers_when_one_dies(tmp_path: Path) -> None:
    world = World(tmp_path, count=3)
    assert world.nodes() == Present(["node1"])
    assert world.api.current == "server1"
    world.servers[0].ssh.stop()
    assert world.nodes() == Present(["node1"])
    assert world.api.current == "server2"
    world.servers[1].api.stop()
    assert world.nodes() == Present(["node1"])
    assert world.api.current == "server3"


def test_unreachable_servers_make_the_cluster_unreachable_not_absent(tmp_path: Path) -> None:
    world = World(tmp_path, count=2)
    world.servers[0].ssh.kubeconfig = None
    world.servers[1].ssh.stop()
    assert isinstance(world.api.state(), Unreachable)


def test_one_unreachable_server_leaves_the_state_of_a_stopped_cluster_open(tmp_path: Path) -> None:
    world = World(tmp_path, count=2)
    world.servers[0].ssh.api_port = None
    world.servers[1].ssh.stop()
    assert isinstance(world.api.state(), Unreachable)


def test_an_unreachable_server_is_not_dialled_for_every_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.servers[0].ssh.stop()
    host, dialled = world.state.inventory.get_host("server1"), []
    connect = host.connect
    monkeypatch.setattr(host, "connect", lambda **more: (dialled.append(1), connect(**more)))
    assert isinstance(world.nodes(), Unreachable)
    assert isinstance(world.nodes(), Unreachable)
    assert len(dialled) == 1


def test_after_a_reset_the_cluster_is_absent(world: World) -> None:
    assert world.nodes() == Present(["node1"])
    world.servers[0].ssh.kubeconfig = world.servers[0].ssh.api_port = None
    world.servers[0].api.stop()
    assert isinstance(world.nodes(), Stopped)
    assert isinstance(world.nodes(), Absent)


def test_a_joining_server_without_kubeconfig_is_passed_over(tmp_path: Path) -> None:
    world = World(tmp_path, count=2)
    world.servers[0].ssh.kubeconfig = None
    assert world.api.state() == Present("uid-of-the-cluster")
    assert world.api.current == "server2"


def test_a_new_cluster_on_the_same_server_is_read_anew(world: World, tmp_path: Path) -> None:
    assert world.nodes() == Present(["node1"])
    ca, client_ca = make("new-ca"), make("new-client-ca")
    (tmp_path / "new").mkdir()
    tls = server_context(make("kube-apiserver", ca), client_ca, tmp_path / "new")
    fresh = FakeApi(tls=tls)
    fresh.put("nodes", "reborn")
    server = world.servers[0]
    server.api.stop()
    server.ssh.kubeconfig = kubeconfig(ca, make("system:admin", client_ca))
    server.ssh.api_port = fresh.port
    assert world.nodes() == Present(["reborn"])


def test_a_certificate_from_the_future_names_the_clock(tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / "future").mkdir()
    future = make("kube-apiserver", CA, starts_in=dt.timedelta(hours=3))
    api = FakeApi(tls=server_context(future, CLIENT_CA, tmp_path / "future"))
    world.servers[0].ssh.api_port = api.port
    assert world.nodes() == Forbidden(
        "the certificate of server1 is not valid yet: its clock is ahead of this machine's"
    )


def test_a_certificate_for_another_address_is_not_accepted(tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / "other").mkdir()
    other = make("kube-apiserver", CA, address="192.0.2.1")
    api = FakeApi(tls=server_context(other, CLIENT_CA, tmp_path / "other"))
    world.servers[0].ssh.api_port = api.port
    answer = world.nodes()
    assert isinstance(answer, Forbidden)
    assert "certificate is not valid for '127.0.0.1'" in answer.reason


def test_closing_leaves_the_ssh_connection(world: World) -> None:
    world.nodes()
    world.api.close()
    assert world.servers[0].ssh.transports[0].is_active()
    assert world.nodes() == Present(["node1"])
    assert len(world.servers[0].ssh.transports) == 1


def _descriptors() -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
