"""The lab's time server: this machine's clock over NTP, so that chrony on the hosts can settle."""

from __future__ import annotations

import socketserver
import struct
import time

PORT = 123
# Seconds from the NTP era (1900) to the Unix epoch, RFC 5905 §6.
ERA = 2_208_988_800
_HEADER = struct.Struct("!BBbbIIIQQQQ")
_SERVER_MODE = 4
_STRATUM = 10
_PRECISION = -20
_POLL = 4


def timestamp(unix_s: float) -> int:
    """Return an NTP timestamp (32.32 fixed point) of `unix_s` seconds since the Unix epoch."""
    return int((unix_s + ERA) * (1 << 32)) & 0xFFFF_FFFF_FFFF_FFFF


def answer(request: bytes, received_s: float, sent_s: float) -> bytes | None:
    """Return the server's packet for a client's `request` (RFC 5905 §7.3), None when it is none."""
    if len(request) < _HEADER.size or request[0] & 7 != 3:
        return None
    version = request[0] >> 3 & 7
    client_sent = _HEADER.unpack_from(request)[10]
    return _HEADER.pack(
        version << 3 | _SERVER_MODE,
        _STRATUM,
        _POLL,
        _PRECISION,
        0,  # root delay
        1,  # root dispersion: 1/65536 s
        0x7F7F0101,  # reference id of a local clock, 127.127.1.1
        timestamp(received_s),
        client_sent,
        timestamp(received_s),
        timestamp(sent_s),
    )


class NtpServer(socketserver.UDPServer):
    """Answers NTP clients with this machine's time."""

    allow_reuse_address = True

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, _Handler)


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        received = time.time()
        data, udp = self.request
        packet = answer(data, received, time.time())
        if packet is not None:
            udp.sendto(packet, self.client_address)
