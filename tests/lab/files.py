"""The lab's file server: the layout of a K3s release over HTTP, and faults on demand.

Bound to the gateway address of the lab's network, so that hosts reach it as they would reach a
mirror. Faults come from a control file that is read at each request.
"""

from __future__ import annotations

import fnmatch
import json
import mmap
import re
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.lab.errors import LabError

CHUNK = 1024 * 1024
FAULT_KINDS = ("truncate", "content", "status", "slow")
FAULT_KEYS = {"truncate": "bytes", "content": "text", "status": "code", "slow": "bytes_per_second"}


@dataclass(frozen=True)
class Fault:
    """One fault: `truncate` after value bytes, `content` replaced by value, `status` value, or
    `slow` at value bytes per second; it applies `times` times, or always when that is None."""

    kind: str
    value: int | str
    times: int | None = None


def parse_fault(data: dict[str, Any]) -> Fault:
    """Return the fault that `data` (one entry of the control file) describes; raises LabError."""
    kind = data.get("kind")
    if kind not in FAULT_KINDS:
        raise LabError(f"fault kind {kind!r}: allowed are {', '.join(FAULT_KINDS)}")
    key = FAULT_KEYS[kind]
    wanted = str if kind == "content" else int
    unknown = set(data) - {"kind", key, "times"}
    if unknown or not isinstance(data.get(key), wanted):
        raise LabError(f"fault {kind}: needs {key} ({wanted.__name__}), found {sorted(data)}")
    return Fault(kind, data[key], data.get("times"))


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return first and last byte of a single Range of a file of `size` bytes, None for the whole.

    Raises ValueError when the range lies outside the file (RFC 9110 §14.2: status 416).
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").strip())
    if not match or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last) if last else size - 1, size - 1)
    if start > end:
        raise ValueError(f"range {header} of {size} bytes")
    return start, end


class Faults:
    """The faults of a control file: re-read at each request, uses counted for each entry."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._lock = threading.Lock()
        self._used: dict[tuple[str, Fault], int] = {}

    def take(self, path: str) -> Fault | None:
        """Return the first fault whose pattern matches `path` and that is not used up."""
        try:
            entries = json.loads(self._control.read_text())
        except (FileNotFoundError, ValueError):
            entries = {}
        wanted = {pattern: parse_fault(entry) for pattern, entry in entries.items()}
        with self._lock:
            present = set(wanted.items())
            self._used = {key: count for key, count in self._used.items() if key in present}
            for pattern, fault in wanted.items():
                used = self._used.get((pattern, fault), 0)
                exhausted = fault.times is not None and used >= fault.times
                if fnmatch.fnmatchcase(path, pattern) and not exhausted:
                    self._used[pattern, fault] = used + 1
                    return fault
        return None


class FileServer(ThreadingHTTPServer):
    """Serves the files under `root`, with the faults of `control`, and logs each request."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], root: Path, control: Path, log: Path) -> None:
        super().__init__(address, _Handler)
        self.root = root
        self.faults = Faults(control)
        self._log = log
        self._log_lock = threading.Lock()

    def record(self, **entry: object) -> None:
        """Append one request to the log, as a line of JSON."""
        with self._log_lock, self._log.open("a") as output:
            output.write(json.dumps({"time": round(time.time(), 3), **entry}) + "\n")


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr: FileServer.record is the log."""

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        fault = self.server.faults.take(path)
        status, sent = self._serve(path, fault, body)
        self.server.record(
            client=self.client_address[0],
            method=self.command,
            path=path,
            status=int(status),
            bytes=sent,
            fault=fault.kind if fault else None,
        )

    def _serve(self, path: str, fault: Fault | None, body: bool) -> tuple[HTTPStatus, int]:
        if fault and fault.kind == "status":
            return self._refuse(HTTPStatus(int(fault.value)))
        content = self._content(path, fault)
        if content is None:
            return self._refuse(HTTPStatus.NOT_FOUND)
        try:
            part = parse_range(self.headers.get("Range"), len(content))
        except ValueError:
            return self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
        status = HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK
        first, last = part or (0, len(content) - 1)
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        if part:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        return status, self._send(content[first : last + 1], fault) if body else 0

    def _content(self, path: str, fault: Fault | None) -> memoryview | None:
        if fault and fault.kind == "content":
            return memoryview(str(fault.value).encode())
        root = self.server.root
        # Files are links into the cache, so the path is checked as asked for, not as resolved.
        if ".." in path.split("/"):
            return None
        file = root / path.lstrip("/")
        return _map(file) if file.is_file() else None

    def _send(self, content: memoryview, fault: Fault | None) -> int:
        limit, pause, chunk = len(content), 0.0, CHUNK
        if fault and fault.kind == "truncate":
            limit = min(limit, int(fault.value))
        if fault and fault.kind == "slow":
            chunk = max(1, int(fault.value) // 10)
            pause = 0.1
        sent = 0
        try:
            while sent < limit:
                part = content[sent : min(sent + chunk, limit)]
                self.wfile.write(part)
                sent += len(part)
                if pause:
                    time.sleep(pause)
        except OSError:  # the client went away
            self.close_connection = True
        if sent < len(content):
            self.close_connection = True
        return sent

    def _refuse(self, status: HTTPStatus) -> tuple[HTTPStatus, int]:
        text = f"{status.value} {status.phrase}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)
        return status, len(text)


def _map(file: Path) -> memoryview:
    """Return the content of `file` without reading it into memory: binaries are large."""
    with file.open("rb") as opened:
        if file.stat().st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
