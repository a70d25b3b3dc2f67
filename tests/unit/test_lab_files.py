"""The lab's file server: the layout of a release, ranges, and faults that a test orders."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.errors import LabError
from tests.lab.files import Fault, FileServer, parse_fault, parse_range

CONTENT = bytes(range(256)) * 40
PATH = "/k3s-io/k3s/releases/download/v1.2.3+k3s1/k3s"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    cached = tmp_path / "cache"
    cached.mkdir()
    (cached / "k3s").write_bytes(CONTENT)
    (cached / "empty").write_bytes(b"")
    release = tmp_path / "root" / "k3s-io" / "k3s" / "releases" / "download"
    release.mkdir(parents=True)
    (release / "v1.2.3+k3s1").symlink_to(cached)
    control, log = tmp_path / "faults.json", tmp_path / "requests.log"
    served = FileServer(("127.0.0.1", 0), tmp_path / "root", control, log)
    thread = threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()


def order(tmp_path: Path, **faults: dict[str, Any]) -> None:
    (tmp_path / "faults.json").write_text(json.dumps(faults))


def get(
    server: FileServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    try:
        body = answer.read()
    except http.client.IncompleteRead as error:
        body = error.partial
    connection.close()
    return answer.status, body, answer.headers


@pytest.mark.parametrize("path", [PATH, PATH.replace("+", "%2B"), PATH + "?download=1"])
def test_a_plus_in_a_version_may_be_quoted_or_not(server: FileServer, path: str) -> None:
    status, body, headers = get(server, path)
    assert (status, body) == (200, CONTENT)
    assert headers["Content-Length"] == str(len(CONTENT))


def test_head_says_the_size_and_sends_nothing(server: FileServer) -> None:
    status, body, headers = get(server, PATH, "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len(CONTENT)))


def test_an_empty_file_is_served(server: FileServer) -> None:
    assert get(server, PATH.rpartition("/")[0] + "/empty")[:2] == (200, b"")


@pytest.mark.parametrize("path", ["/none", "/", "/k3s-io", "/../cache/k3s", "/%2e%2e/cache/k3s"])
def test_what_is_not_a_file_under_the_root_is_not_found(server: FileServer, path: str) -> None:
    assert get(server, path)[0] == 404


def test_a_download_can_be_continued(server: FileServer) -> None:
    status, body, headers = get(server, PATH, Range="bytes=10000-")
    assert (status, body) == (206, CONTENT[10000:])
    assert headers["Content-Range"] == f"bytes 10000-{len(CONTENT) - 1}/{len(CONTENT)}"
    assert get(server, PATH, Range=f"bytes={len(CONTENT)}-")[0] == 416


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-9", (0, 9)),
        ("bytes=5-", (5, 99)),
        ("bytes=-10", (90, 99)),
        ("bytes=-500", (0, 99)),
        ("bytes=90-500", (90, 99)),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("lines=1-2", None),
    ],
)
def test_ranges_as_rfc_9110_has_them(header: str | None, expected: tuple[int, int] | None) -> None:
    assert parse_range(header, 100) == expected


def test_a_truncated_answer_promises_more_than_it_sends(server: FileServer, tmp_path: Path) -> None:
    order(tmp_path, **{PATH: {"kind": "truncate", "bytes": 100}})
    status, body, headers = get(server, PATH)
    assert (status, body) == (200, CONTENT[:100])
    assert headers["Content-Length"] == str(len(CONTENT))


def test_wrong_content_and_a_wrong_status_come_as_ordered(
    server: FileServer, tmp_path: Path
) -> None:
    order(tmp_path, **{"*/k3s": {"kind": "content", "text": "evil"}})
    assert get(server, PATH)[:2] == (200, b"evil")
    order(tmp_path, **{"*/k3s": {"kind": "status", "code": 503}})
    assert get(server, PATH)[0] == 503


def test_a_slow_answer_is_complete(server: FileServer, tmp_path: Path) -> None:
    order(tmp_path, **{PATH: {"kind": "slow", "bytes_per_second": 100_000}})
    assert get(server, PATH)[:2] == (200, CONTENT)


def test_a_fault_for_one_request_is_used_up_and_another_path_is_not_touched(
    server: FileServer, tmp_path: Path
) -> None:
    order(tmp_path, **{PATH: {"kind": "status", "code": 500, "times": 1}})
    other = PATH.rpartition("/")[0] + "/empty"
    assert [get(server, path)[0] for path in (other, PATH, PATH)] == [200, 500, 200]


def test_a_fault_that_was_withdrawn_and_ordered_again_counts_anew(
    server: FileServer, tmp_path: Path
) -> None:
    once = {PATH: {"kind": "status", "code": 500, "times": 1}}
    order(tmp_path, **once)
    assert get(server, PATH)[0] == 500
    order(tmp_path)
    assert get(server, PATH)[0] == 200
    order(tmp_path, **once)
    assert get(server, PATH)[0] == 500


def test_each_request_is_logged_with_its_fault(server: FileServer, tmp_path: Path) -> None:
    order(tmp_path, **{PATH: {"kind": "truncate", "bytes": 7, "times": 1}})
    get(server, PATH)
    get(server, "/none")
    lines = [json.loads(line) for line in (tmp_path / "requests.log").read_text().splitlines()]
    assert [(e["path"], e["status"], e["fault"]) for e in lines] == [
        (PATH, 200, "truncate"),
        ("/none", 404, None),
    ]
    assert lines[0]["bytes"] == 7


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "allowed are truncate, content, status, slow"),
        ({"kind": "explode"}, "explode"),
        ({"kind": "truncate"}, "needs bytes"),
        ({"kind": "truncate", "bytes": "7"}, "needs bytes"),
        ({"kind": "status", "code": 404, "byts": 1}, "found"),
    ],
)
def test_a_fault_with_a_typing_error_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        parse_fault(data)


def test_a_fault_is_read_with_its_number_of_uses() -> None:
    assert parse_fault({"kind": "slow", "bytes_per_second": 9, "times": 2}) == Fault("slow", 9, 2)
