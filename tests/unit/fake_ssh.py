"""A simulated SSH server in this process, for pyinfra's real SSH connector.

Simulated: commands (only reading K3s' kubeconfig gets an answer) and what listens on the server's
port 6443, which is a port of this process. Real: the SSH protocol, both ways, and direct-tcpip.
"""

from __future__ import annotations

import socket
from typing import Any

import gevent
import paramiko
from gevent.server import StreamServer

KEY = paramiko.RSAKey.generate(2048)


class FakeSsh:
    """One server that runs no command; `kubeconfig` is what its k3s.yaml holds, None for no file.

    `api_port` is the local port behind 127.0.0.1:6443, None when nothing listens.
    """

    def __init__(self, kubeconfig: str | None = None, api_port: int | None = None) -> None:
        self.kubeconfig = kubeconfig
        self.api_port = api_port
        self.allow_forwarding = True
        self.sudo_works = True
        self.silent = False  # takes commands and never answers
        self.lock_holder = ""  # another run that holds the lock
        self.commands: list[str] = []
        self.transports: list[paramiko.Transport] = []
        self.accepted = 0  # connections so far
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.port = self._server.server_port

    def data(self, known_hosts: Any) -> dict[str, Any]:
        """pyinfra host data that lead here."""
        return {
            "ssh_hostname": "127.0.0.1",
            "ssh_port": self.port,
            "ssh_user": "ubuntu",
            "ssh_password": "simulated",
            "ssh_known_hosts_file": str(known_hosts),
            "ssh_allow_agent": False,
            "ssh_look_for_keys": False,
        }

    def cut(self) -> None:
        """Break all connections, as a reboot does."""
        for transport in self.transports:
            transport.close()
        self.transports.clear()

    def stop(self) -> None:
        """Be switched off."""
        self._server.stop(timeout=0)
        self.cut()

    def _serve(self, sock: socket.socket, _address: Any) -> None:
        self.accepted += 1
        transport = paramiko.Transport(sock)
        transport.add_server_key(KEY)
        self.transports.append(transport)
        transport.start_server(server=_Session(self))
        while transport.is_active():
            gevent.sleep(0.05)


class _Session(paramiko.ServerInterface):
    def __init__(self, ssh: FakeSsh) -> None:
        self.ssh = ssh
        self.opened: dict[int, int] = {}

    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.ssh.commands.append(command.decode())
        gevent.spawn(self._run, channel, command.decode())
        return True

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        if not self.ssh.allow_forwarding:
            return paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        if self.ssh.api_port is None or destination != ("127.0.0.1", 6443):
            return paramiko.common.OPEN_FAILED_CONNECT_FAILED
        try:
            sock = socket.create_connection(("127.0.0.1", self.ssh.api_port), timeout=5)
        except OSError:
            return paramiko.common.OPEN_FAILED_CONNECT_FAILED
        gevent.spawn(self._pump_when_open, chanid, sock)
        return paramiko.common.OPEN_SUCCEEDED

    def _run(self, channel: paramiko.Channel, command: str) -> None:
        gevent.sleep(0.01)  # the reply to the request goes first
        if self.ssh.silent:
            return
        if "sudo" in command and not self.ssh.sudo_works:
            channel.sendall_stderr(b"ubuntu is not in the sudoers file\n")
            channel.send_exit_status(1)
        elif "flock" in command and self.ssh.lock_holder:
            channel.sendall(self.ssh.lock_holder.encode() + b"\n")
            channel.send_exit_status(75)
        elif "flock" in command:
            channel.sendall(b"held\n")
            return  # it is held until the channel ends
        elif "k3s.yaml" in command:
            channel.sendall((self.ssh.kubeconfig or "#absent").encode() + b"\n")
            channel.send_exit_status(0)
        else:
            channel.sendall(b"simulated\n")
            channel.send_exit_status(0)
        channel.close()

    def _pump_when_open(self, chanid: int, sock: socket.socket) -> None:
        while (channel := self._channel(chanid)) is None:
            gevent.sleep(0.001)
        gevent.spawn(_copy, sock.recv, channel.sendall, channel.close)
        _copy(channel.recv, sock.sendall, sock.close)

    def _channel(self, chanid: int) -> paramiko.Channel | None:
        for transport in self.ssh.transports:
            channel = transport._channels.get(chanid)  # the only way to a forwarded channel
            if channel is not None and transport.server_object is self:
                return channel
        return None


def _copy(read: Any, write: Any, end: Any) -> None:
    try:
        while data := read(65536):
            write(data)
    except (OSError, EOFError):
        pass
    end()
