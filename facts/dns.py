"""What a name server answers to the host that asks: proof that names work for others too."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from pyinfra.api import FactBase

# DNS as RFC 1035 has it, over UDP; three tries a name. A host may lack dig, Ubuntu has Python.
_ASK = r"""
import secrets, socket, struct, sys
def ask(server, name):
    number = secrets.randbelow(65536)
    labels = b"".join(bytes([len(one)]) + one.encode() for one in name.split("."))
    query = struct.pack("!6H", number, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.connect((server, 53))
        for _ in range(3):
            try:
                sock.send(query)
                packet = sock.recv(4096)
            except socket.timeout:
                continue
            if packet[:2] == query[:2]:
                break
        else:
            return "no answer"
    code, answers = packet[3] & 15, struct.unpack("!H", packet[6:8])[0]
    if code:
        return {3: "no such name", 5: "refused"}.get(code, "error %d" % code)
    at = len(query)
    for _ in range(answers):
        while packet[at] and packet[at] < 192:
            at += packet[at] + 1
        at += 2 if packet[at] else 1
        kind, size = struct.unpack("!H6xH", packet[at : at + 10])
        at += 10
        if kind == 1:
            return socket.inet_ntoa(packet[at : at + 4])
        at += size
    return "no address"
for name in sys.argv[2:]:
    try:
        print("answer", name, ask(sys.argv[1], name))
    except OSError as error:
        print("answer", name, error.strerror or error)
"""


@dataclass(frozen=True)
class DnsAnswers:
    """Address or reason by name; `asked` is False where the host cannot ask."""

    asked: bool = False
    answers: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Plain data for `pyinfra --json`."""
        return asdict(self)


class Dns(FactBase[DnsAnswers]):
    """Answers of a name server to this host.

    + server: its address
    + names: what to ask for
    """

    def command(self, server: str, names: tuple[str, ...]) -> str:
        """One question a name, one after another."""
        words = " ".join(map(shlex.quote, (server, *names)))
        return (
            "if command -v python3 > /dev/null; then "
            f"python3 -c {shlex.quote(_ASK)} {words}; else echo no-python; fi"
        )

    def process(self, output: Iterable[str]) -> DnsAnswers:
        """The lines as `DnsAnswers`."""
        lines = [line.split(" ", 2) for line in output]
        if ["no-python"] in lines:
            return DnsAnswers()
        return DnsAnswers(True, {words[1]: words[2] for words in lines if len(words) == 3})
