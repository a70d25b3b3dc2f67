"""An ACME server for the lab: the real Pebble with its challenge DNS, built from its Go module.

Beside it stands a simulated IONOS DNS API: real certbot and its real plugin talk to it, and what
they publish goes into Pebble's DNS. Certificates of Pebble are worth nothing outside of the lab.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cluster.services import certbot_pins, tls
from tests.lab import go
from tests.lab.cache import cache_dir, digest, made
from tests.lab.errors import LabError
from tests.lab.program import output

VERSION = "2.10.1"
MODULE = "github.com/letsencrypt/pebble/v2/cmd"
DOWNLOAD_LIMIT_S = 300
START_LIMIT_S = 20
DIRECTORY, MANAGEMENT, DNS, DNS_CONTROL, API, INDEX = 14000, 15000, 8053, 8055, 8056, 8057


def programs() -> Path:
    """The folder with `pebble` and `pebble-challtestsrv`; raises LabError without Go."""
    return made(cache_dir() / "pebble" / VERSION, _build)


def _build(scratch: Path) -> None:
    for name in ("pebble", "pebble-challtestsrv"):
        go.build(f"{name} {VERSION}", f"{MODULE}/{name}", VERSION, scratch / name)


def wheels(python: str, plugin: str, *further: str) -> Path:
    """A folder of packages as an index has it, one folder a name, as PyPI has them."""
    text = certbot_pins.requirements(plugin)
    name = f"{python}-{digest([text, *further])}"
    return made(cache_dir() / "wheels" / name, partial(_download, python, text))


def _download(python: str, requirements: str, scratch: Path) -> None:
    file = scratch / "requirements.txt"
    file.write_text(requirements)
    pip = [shutil.which("python3") or "python3", "-m", "pip", "download", "-q", "--no-deps"]
    options = ["--only-binary=:all:", "--require-hashes", "--python-version", python]
    for platform in ("manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_34"):
        options += ["--platform", f"{platform}_{os.uname().machine}"]
    command = [*pip, *options, "-d", str(scratch), "-r", str(file)]
    output("packages of certbot", command, DOWNLOAD_LIMIT_S)
    for wheel in list(scratch.glob("*.whl")):
        folder = scratch / wheel.name.partition("-")[0].lower().replace("_", "-")
        folder.mkdir(exist_ok=True)
        wheel.rename(folder / wheel.name)


@dataclass
class Acme:
    """A running ACME server.

    Args:
        address: the lab's gateway, where hosts reach it.
        folder: its files.
        zone: the domain that the simulated provider has.
        key: `prefix.secret` that the simulated provider accepts.
    """

    address: str
    folder: Path
    zone: str
    key: str
    records: dict[str, tuple[str, str]] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def directory(self) -> str:
        """The URL that clients begin with."""
        return f"https://{self.address}:{DIRECTORY}/dir"

    @property
    def provider(self) -> str:
        """URL of the simulated IONOS API."""
        return f"http://{self.address}:{API}"

    @property
    def ca(self) -> str:
        """PEM of the CA that signed the server's own certificate."""
        return (self.folder / "ca.pem").read_text()

    @property
    def hooks(self) -> dict[str, str]:
        """Shell commands that publish a proof in the challenge DNS and take it away."""

        def call(what: str, *fields: str) -> str:
            data = ", ".join(fields)
            url = f"http://{self.address}:{DNS_CONTROL}/{what}"
            return f"curl -fsS --max-time 20 -d '{{{data}}}' {url}"

        name = '"host": "_acme-challenge.\'"$CERTBOT_DOMAIN"\'."'
        value = '"value": "\'"$CERTBOT_VALIDATION"\'"'
        return {"publish": call("set-txt", name, value), "clean": call("clear-txt", name)}

    def set_txt(self, name: str, value: str | None) -> None:
        """Publish a record in the challenge DNS; None takes it away."""
        what, data = ("clear-txt", {}) if value is None else ("set-txt", {"value": value})
        body = json.dumps({"host": f"{name}.", **data}).encode()
        url = f"http://{self.address}:{DNS_CONTROL}/{what}"
        urllib.request.urlopen(urllib.request.Request(url, body), timeout=10).close()

    def stop(self) -> None:
        """End the server, as when it cannot be reached."""
        for process in self.processes:
            process.terminate()
            process.wait(timeout=10)
        self.processes.clear()

    def start(self) -> None:
        """Start Pebble and its DNS; accounts of an earlier start are forgotten."""
        place = programs()
        dns = f"{self.address}:{DNS}"
        control = ["-management", f"{self.address}:{DNS_CONTROL}", "-dnsserver", dns]
        off = [
            word for name in ("http01", "https01", "tlsalpn01", "doh") for word in (f"-{name}", "")
        ]
        self._begin([place / "pebble-challtestsrv", *control, *off, "-defaultIPv6", ""])
        config = ["-config", self.folder / "pebble.json", "-dnsserver", dns]
        self._begin(
            [place / "pebble", *config],
            PEBBLE_VA_NOSLEEP="1",
            PEBBLE_WFE_NONCEREJECT="0",
            PEBBLE_AUTHZREUSE="0",
        )
        for port in (DNS_CONTROL, DIRECTORY):
            _answers(self.address, port)

    def _begin(self, command: list[Any], **environment: str) -> None:
        with (self.folder / f"{Path(command[0]).name}.out").open("ab") as log:
            self.processes.append(
                subprocess.Popen(
                    [str(word) for word in command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=os.environ | environment,
                )
            )


def _answers(address: str, port: int) -> None:
    end = time.monotonic() + START_LIMIT_S
    while True:
        try:
            return socket.create_connection((address, port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise LabError(f"{address}:{port} does not answer") from None
            time.sleep(0.05)


@contextmanager
def acme(address: str, folder: Path, zone: str, key: str, packages: Path) -> Iterator[Acme]:
    """A running ACME server with DNS, the simulated provider, and an index of packages."""
    folder.mkdir(parents=True, exist_ok=True)
    _configure(address, folder)
    server = Acme(address, folder, zone, key)
    handlers: dict[int, Any] = {
        API: type("Ionos", (_Ionos,), {"acme": server}),
        INDEX: partial(_Files, directory=str(packages)),
    }
    helpers = [ThreadingHTTPServer((address, port), made) for port, made in handlers.items()]
    for helper in helpers:
        threading.Thread(target=helper.serve_forever, daemon=True).start()
    try:
        server.start()
        yield server
    finally:
        server.stop()
        for helper in helpers:
            helper.shutdown()
            helper.server_close()


def _configure(address: str, folder: Path) -> None:
    now = datetime.now(UTC)
    ca = tls.new_ca(now, "lab")
    own = tls.issue(ca, [address], now)
    for name, content in (("ca", ca.certificate), ("own", own.certificate), ("own-key", own.key)):
        (folder / f"{name}.pem").write_text(content)
    settings = {
        "listenAddress": f"{address}:{DIRECTORY}",
        "managementListenAddress": f"{address}:{MANAGEMENT}",
        "certificate": str(folder / "own.pem"),
        "privateKey": str(folder / "own-key.pem"),
        "httpPort": 5002,
        "tlsPort": 5001,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))


class _Files(SimpleHTTPRequestHandler):
    """Packages; a folder's listing is what pip reads as an index."""

    def log_message(self, *_: Any) -> None:
        pass


class _Ionos(BaseHTTPRequestHandler):
    """Simulated: as much of IONOS' DNS API as its certbot plugin uses."""

    acme: Acme

    def do_GET(self) -> None:
        zone = {"id": "zone-1", "name": self.acme.zone, "type": "NATIVE"}
        if self.path == "/dns/v1/zones":
            return self._answer(200, [zone])
        records = [
            {"id": id_, "name": name, "type": "TXT", "content": f'"{value}"', "ttl": 60,
             "disabled": False}
            for id_, (name, value) in self.acme.records.items()
        ]  # fmt: skip
        return self._answer(200, zone | {"records": records})

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for one in body if self._allowed() else ():
            self.acme.records[f"r{len(self.acme.records)}"] = (one["name"], one["content"])
            self.acme.set_txt(one["name"], one["content"])
        self._answer(200, None)

    def do_DELETE(self) -> None:
        id_ = self.path.rpartition("/")[2]
        if self._allowed() and id_ in self.acme.records:
            self.acme.set_txt(self.acme.records.pop(id_)[0], None)
        self._answer(200, None)

    def _allowed(self) -> bool:
        return self.headers.get("X-API-Key") == self.acme.key

    def _answer(self, status: int, content: Any) -> None:
        if not self._allowed():
            status, content = (
                401,
                {
                    "code": "UNAUTHORIZED",
                    "message": "The customer is not authorized to do this operation.",
                },
            )
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
