"""A local port whose connections continue from the far end of an SSH connection."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

import gevent
import paramiko
from gevent.server import StreamServer

CHUNK = 64 * 1024  # bytes read at once
OPEN_TIMEOUT = 10  # seconds for the far end to open a channel


class Tunnel:
    """Forward connections to a port of 127.0.0.1 through `direct-tcpip` channels.

    The far end dials from where sshd runs, so `target` may be its loopback address: nothing has to
    be open to the network. Needs `AllowTcpForwarding yes` or `local` in sshd (code 1 of RFC 4254
    §5.1 otherwise). A failure to open a channel closes the local connection and is kept in
    `failure`, because the client only sees a closed socket.

    Args:
        transport: an authenticated SSH transport; it is used, never closed.
        target: host and port as the far end sees them.
    """

    def __init__(self, transport: paramiko.Transport, target: tuple[str, int]) -> None:
        self.transport = transport
        self.target = target
        self._failure: tuple[float, Exception] | None = None
        self._sockets: set[socket.socket] = set()
        _no_delay(transport.sock)
        self._server = StreamServer(("127.0.0.1", 0), self._forward)
        self._server.start()

    @property
    def port(self) -> int:
        """The local port."""
        return int(self._server.server_port)

    @property
    def alive(self) -> bool:
        """Whether the SSH connection below still stands."""
        return bool(self.transport.is_active())

    def failure(self, since: float) -> Exception | None:
        """Why a channel could not be opened after `since`, in seconds of `time.monotonic`."""
        if self._failure and self._failure[0] >= since:
            return self._failure[1]
        return None

    def close(self) -> None:
        """Stop listening and cut what still runs; the SSH connection stays."""
        self._server.stop(timeout=0)
        for sock in list(self._sockets):
            _end(sock)

    def _forward(self, sock: socket.socket, address: tuple[str, int]) -> None:
        _no_delay(sock)
        try:
            channel = self.transport.open_channel(
                "direct-tcpip", self.target, address, timeout=OPEN_TIMEOUT
            )
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._failure = (time.monotonic(), error)
            self._refuse(sock)
            _end(sock)
            return
        self._sockets.add(sock)
        self._begin(sock)
        pumps = [
            gevent.spawn(_pump, sock.recv, channel.sendall, channel.shutdown_write),
            gevent.spawn(_pump, channel.recv, sock.sendall, lambda: sock.shutdown(socket.SHUT_WR)),
        ]
        try:
            gevent.joinall(pumps, raise_error=False)
        finally:
            gevent.killall(pumps, block=False)
            self._sockets.discard(sock)
            channel.close()
            _end(sock)

    def _begin(self, sock: socket.socket) -> None:
        """What is said to the client before its data goes through: nothing."""

    def _refuse(self, sock: socket.socket) -> None:
        """What is said where the far end cannot dial: nothing."""


class Proxy(Tunnel):
    """A tunnel as an HTTP proxy of one destination, for clients that check a server's name.

    A client asks it by CONNECT (RFC 9110 §9.3.6) and then speaks TLS with the server under its own
    name, which nobody has to resolve here.
    """

    @property
    def url(self) -> str:
        """What a client is told."""
        return f"http://127.0.0.1:{self.port}"

    def _begin(self, sock: socket.socket) -> None:
        self._answer(sock, b"200 OK")

    def _refuse(self, sock: socket.socket) -> None:
        # The host is there, as we talk through it: nothing listens at its port.
        self._answer(sock, b"502 Connection refused")

    @staticmethod
    def _answer(sock: socket.socket, status: bytes) -> None:
        request = b""
        with contextlib.suppress(OSError):
            while b"\r\n\r\n" not in request and (data := sock.recv(CHUNK)):
                request += data
            sock.sendall(b"HTTP/1.1 " + status + b"\r\n\r\n")


def _pump(
    read: Callable[[int], bytes], write: Callable[[bytes], object], end: Callable[[], object]
) -> None:
    """Copy until the source ends, then tell the sink; a broken side ends the copy the same way."""
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        while data := read(CHUNK):
            write(data)
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        end()


def _no_delay(sock: object) -> None:
    """Switch Nagle's algorithm off: paramiko leaves it on, which costs 40 ms a request."""
    if isinstance(sock, socket.socket) and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
