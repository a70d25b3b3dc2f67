"""What answers of an S3 service mean: present, absent, forbidden or stopped, unreachable."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ProxyConnectionError

from cluster.answer import Absent, Forbidden, Present, Refused, Stopped, Unreachable
from runtime.s3 import S3, S3Error, _session
from runtime.tunnel import Proxy


@pytest.fixture(scope="module")
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def service(closed_port: int) -> Iterator[S3]:
    with S3(f"127.0.0.1:{closed_port}", "eu-west-1", "ada", "secret-of-ada", None) as found:
        yield found


def response(code: str, status: int) -> dict[str, Any]:
    return {
        "Error": {"Code": code, "Message": "words"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("NoSuchBucket", 404, Absent),
        ("AccessDenied", 403, Forbidden),
        ("InvalidAccessKeyId", 403, Forbidden),
        ("SignatureDoesNotMatch", 403, Forbidden),
        ("RequestTimeTooSkewed", 403, Forbidden),
        ("SlowDown", 503, Stopped),
        ("InternalError", 500, Stopped),
        ("MalformedPolicy", 400, Refused),
    ],
)
def test_an_error_of_the_service_is_one_of_the_answers(
    service: S3, code: str, status: int, kind: type
) -> None:
    found = service._answered(response(code, status))
    assert type(found) is kind
    assert "words" in found.reason and service.endpoint in found.reason


def test_a_port_where_nobody_listens_says_that_the_service_is_stopped(service: S3) -> None:
    found = service.listed("bucket")
    assert found == Stopped(f"nothing listens at {service.endpoint}")


def test_a_host_that_does_not_answer_says_nothing_about_buckets(
    service: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ConnectTimeoutError

    def late(**_: Any) -> None:
        raise ConnectTimeoutError(endpoint_url="https://10.0.0.9:9000")

    monkeypatch.setattr(service._client, "get_bucket_policy", late)
    assert isinstance(service.policy("bucket"), Unreachable)


def test_a_bucket_without_a_policy_is_there(service: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    def none(**_: Any) -> None:
        raise ClientError(response("NoSuchBucketPolicy", 404), "GetBucketPolicy")  # type: ignore[arg-type]

    monkeypatch.setattr(service._client, "get_bucket_policy", none)
    assert service.policy("bucket") == Present({})


def test_an_object_that_comes_back_different_is_no_proof(
    service: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Body:
        @staticmethod
        def read() -> bytes:
            return b"other"

    called: list[str] = []

    def call(name: str, **_: Any) -> dict[str, Any]:
        called.append(name)
        return {"Body": Body}

    monkeypatch.setattr(service, "_call", call)
    with pytest.raises(S3Error, match="something else"):
        service.try_out("bucket", "key", b"content")
    assert called[-1] == "delete_object"  # nothing of ours stays in the bucket


def test_the_account_of_a_persons_own_command_line_is_not_used(
    monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    _session.cache_clear()
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-person")
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1:1")
    with S3(f"127.0.0.1:{closed_port}", "eu-west-1", "ada", "secret-of-ada", None) as found:
        assert isinstance(found.listed("bucket"), Stopped)
        assert found._client._request_signer._credentials.access_key == "ada"


def test_a_proxy_whose_far_end_cannot_dial_says_that_the_service_is_stopped() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, S3("s3:1", "eu-west-1", "a", "b", None) as service:
        theirs.sendall(b"CONNECT s3:1 HTTP/1.0\r\n\r\n")
        Proxy.__new__(Proxy)._refuse(ours)
        said = theirs.recv(100).decode()
        refused = ProxyConnectionError(proxy_url="http://127.0.0.1:1", error=said)
        refused.__context__ = OSError(f"Tunnel connection failed: {said}")
        assert isinstance(service._cut(refused), Stopped)


def test_a_proxy_answers_connect_and_then_is_silent() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"CONNECT s3.example.com:9000 HTTP/1.0\r\nHost: s3")
        theirs.sendall(b".example.com\r\n\r\n")
        Proxy.__new__(Proxy)._begin(ours)
        ours.sendall(b"the server")
        said = b"HTTP/1.1 200 OK\r\n\r\nthe server"
        assert theirs.recv(len(said), socket.MSG_WAITALL) == said
