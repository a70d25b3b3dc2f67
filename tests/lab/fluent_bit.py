"""A surrogate of Fluent Bit for the lab: its package in a signed apt repository, and a receiver.

Simulated: the program. It reads the YAML configuration as Fluent Bit does, refuses unknown keys in
a dry run, and proves to the receiver over TLS that it has the shared key and can read the journal.
Real: apt, the repository's signature, systemd, TLS.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cluster.services import tls
from tests.lab.program import output

LIMIT_S = 60
VERSION = "5.0.0-simulated"

PROGRAM = r'''#!/usr/bin/python3
"""Simulated: stands for Fluent Bit in the lab of picluster."""
import hashlib, json, os, socket, ssl, subprocess, sys, time
import yaml

SERVICE = {"flush", "log_level", "scheduler.cap", "storage.path", "storage.sync",
           "storage.backlog.mem_limit"}
INPUT = {"name", "tag", "db", "read_from_tail", "strip_underscores", "lowercase", "storage.type"}
OUTPUT = {"name", "match", "host", "port", "self_hostname", "shared_key", "require_ack_response",
          "retry_limit", "storage.total_limit_size", "tls", "tls.verify", "tls.ca_file",
          "tls.vhost"}

path = sys.argv[sys.argv.index("-c") + 1]
if not path.endswith((".yaml", ".yml")):  # flb_cf_create_from_file takes others for its old format
    sys.exit(f"[error] [config] {path} is not of the classic format")
config = yaml.safe_load(open(path))
pipeline = config["pipeline"]
for known, part in ((SERVICE, config["service"]), (INPUT, pipeline["inputs"][0]),
                    (OUTPUT, pipeline["outputs"][0])):
    for key in part:
        if key not in known:
            sys.exit(f"[error] [config] unknown configuration property '{key}'")
if "--dry-run" in sys.argv:
    print("configuration test is successful")
    sys.exit()
out, source = pipeline["outputs"][0], pipeline["inputs"][0]
os.makedirs(config["service"]["storage.path"], exist_ok=True)
open(source["db"], "a").close()
key = out["shared_key"].replace("${FORWARD_SHARED_KEY}", os.environ["FORWARD_SHARED_KEY"])
context = ssl.create_default_context(cafile=out["tls.ca_file"])
while True:
    try:
        with socket.create_connection((out["host"], out["port"]), timeout=5) as plain:
            with context.wrap_socket(plain, server_hostname=out["tls.vhost"]) as sent:
                line = subprocess.run(["journalctl", "-n", "1", "-o", "json"],
                                      capture_output=True, text=True).stdout
                sent.sendall(json.dumps({
                    "host": out["self_hostname"], "tag": source["tag"],
                    "key": hashlib.sha512(key.encode()).hexdigest(), "journal": bool(line),
                }).encode() + b"\n")
    except OSError as error:
        print(f"[warn] [output:forward] {error}", flush=True)
    time.sleep(1)
'''
UNIT = """[Unit]
Description=Fluent Bit (simulated)
[Service]
ExecStart=/opt/fluent-bit/bin/fluent-bit -c /etc/fluent-bit/fluent-bit.conf
[Install]
WantedBy=multi-user.target
"""


def repository(folder: Path, suite: str, arch: str) -> str:
    """Make a signed apt repository with the surrogate's package; the fingerprint of its key."""
    root = folder / "debian" / suite
    pool, dists = root / "pool", root / "dists" / suite
    binary = dists / "main" / f"binary-{arch}"
    for place in (pool, binary):
        place.mkdir(parents=True)
    package = _package(folder, pool, arch)
    text = _control(arch) + (
        f"Filename: pool/{package.name}\nSize: {package.stat().st_size}\n"
        f"SHA256: {hashlib.sha256(package.read_bytes()).hexdigest()}\n"
    )
    (binary / "Packages").write_text(text)
    (binary / "Packages.gz").write_bytes(gzip.compress(text.encode()))
    sums = "".join(
        f" {hashlib.sha256(file.read_bytes()).hexdigest()} {file.stat().st_size} "
        f"{file.relative_to(dists)}\n"
        for file in sorted(binary.iterdir())
    )
    release = (
        f"Origin: lab\nSuite: {suite}\nCodename: {suite}\nArchitectures: {arch}\n"
        f"Components: main\nDate: {datetime.now(UTC):%a, %d %b %Y %H:%M:%S UTC}\nSHA256:\n{sums}"
    )
    (dists / "Release").write_text(release)
    return _sign(folder, dists)


def _control(arch: str) -> str:
    return (
        f"Package: fluent-bit\nVersion: {VERSION}\nArchitecture: {arch}\n"
        "Maintainer: lab <lab@example.com>\nDepends: python3, python3-yaml\n"
        "Description: stands for Fluent Bit in the lab of picluster (simulated)\n"
    )


def _package(folder: Path, pool: Path, arch: str) -> Path:
    tree = folder / "package"
    for path, content, mode in (
        ("DEBIAN/control", _control(arch), 0o644),
        ("opt/fluent-bit/bin/fluent-bit", PROGRAM, 0o755),
        ("etc/fluent-bit/fluent-bit.conf", "# the package's own\n", 0o644),
        ("lib/systemd/system/fluent-bit.service", UNIT, 0o644),
    ):
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(mode)
    package = pool / f"fluent-bit_{VERSION}_{arch}.deb"
    output("package", ["dpkg-deb", "--root-owner-group", "-b", tree, package], LIMIT_S)
    shutil.rmtree(tree)
    return package


def _sign(folder: Path, dists: Path) -> str:
    home = folder / "gnupg"
    home.mkdir(mode=0o700)
    gpg = partial(output, "gpg", limit=LIMIT_S, GNUPGHOME=str(home))
    options = ["gpg", "--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""]
    gpg(command=[*options, "--quick-gen-key", "lab <lab@example.com>", "ed25519", "sign", "1y"])
    listed = gpg(command=["gpg", "--list-keys", "--with-colons"])
    fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
    release, signed = dists / "Release", dists / "InRelease"
    gpg(command=[*options, "--clearsign", "--output", signed, release])
    (folder / "fluentbit.key").write_text(gpg(command=["gpg", "--armor", "--export"]))
    output("gpg", ["gpgconf", "--kill", "gpg-agent"], LIMIT_S, GNUPGHOME=str(home))
    shutil.rmtree(home)
    return fingerprint


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(address: str, port: int, folder: Path) -> Iterator[str]:
    """The repository over HTTP; its URL."""
    server = ThreadingHTTPServer((address, port), partial(_Files, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{address}:{port}"
    finally:
        server.shutdown()
        server.server_close()


class Receiver:
    """Stands for the aggregator: what senders said over TLS."""

    def __init__(self, address: str, port: int, name: str, folder: Path) -> None:
        now = datetime.now(UTC)
        ca = tls.new_ca(now, "lab")
        own = tls.issue(ca, [name], now)
        self.ca, self.said = ca.certificate, list[dict[str, Any]]()
        file = folder / "receiver.pem"
        file.touch(mode=0o600)
        file.write_text(own.certificate + own.key)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(file)
        self._socket = socket.create_server((address, port))
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(plain, server_side=True) as peer:
                    self.said.append(json.loads(peer.makefile().readline()))
            except (OSError, ValueError):
                continue

    def close(self) -> None:
        """Take nothing any more."""
        os.close(self._socket.detach())
