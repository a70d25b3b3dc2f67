"""An S3 service as one of its accounts sees it, from this computer."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from cluster.answer import (
    Absent,
    Answer,
    Forbidden,
    NoValue,
    Present,
    Refused,
    Stopped,
    Unreachable,
)

TIMEOUT = 10  # seconds to connect, and between two reads
_ABSENT = ("NoSuchBucket", "NoSuchKey", "404")
_FORBIDDEN = (
    "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "403",
)  # fmt: skip


@cache
def _session() -> Any:
    """What clients share: the description of the service, which takes long to read."""
    from botocore.session import Session

    # What the person's own command line of Amazon's is set to is no affair of ours.
    session = Session(session_vars={"profile": (None, None, None, None)})
    session.set_config_variable("config_file", os.devnull)
    session.set_config_variable("credentials_file", os.devnull)
    return session


class S3Error(Exception):
    """A request got no value; `answer` says which of the other answers it was."""

    def __init__(self, answer: NoValue) -> None:
        super().__init__(answer.reason)
        self.answer = answer


class S3:
    """One account of a service.

    Args:
        endpoint: `host[:port]`; TLS always.
        region: of the service.
        access_key, secret_key: of the account.
        ca: PEM of the CA that signed the service's certificate, None for a public one.
        proxy: URL of an HTTP proxy to reach it by, None for none.
    """

    def __init__(
        self,
        endpoint: str,
        region: str,
        access_key: str,
        secret_key: str,
        ca: str | None,
        proxy: str | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._scratch = tempfile.TemporaryDirectory(prefix="picluster-")
        self._client = self._made(region, access_key, secret_key, ca, proxy)

    def __enter__(self) -> S3:
        return self

    def __exit__(self, *ended: object) -> None:
        self._client.close()
        self._scratch.cleanup()

    def policy(self, bucket: str) -> Answer[dict[str, Any]]:
        """The policy of a bucket, empty when it has none; Absent when there is no such bucket."""
        try:
            found = self._call("get_bucket_policy", Bucket=bucket)
        except S3Error as error:
            if "NoSuchBucketPolicy" in str(error):
                return Present({})
            return error.answer
        return Present(json.loads(found["Policy"]))

    def listed(self, bucket: str) -> Answer[int]:
        """How many objects a first look at the bucket finds: one at most."""
        try:
            found = self._call("list_objects_v2", Bucket=bucket, MaxKeys=1)
        except S3Error as error:
            return error.answer
        return Present(int(found.get("KeyCount", 0)))

    def make_bucket(self, bucket: str) -> None:
        """Make a bucket; raises S3Error."""
        self._call("create_bucket", Bucket=bucket)

    def set_policy(self, bucket: str, policy: dict[str, Any]) -> None:
        """Set the policy of a bucket, take it away when it is empty; raises S3Error."""
        if policy:
            self._call("put_bucket_policy", Bucket=bucket, Policy=json.dumps(policy))
        else:
            self._call("delete_bucket_policy", Bucket=bucket)

    def try_out(self, bucket: str, key: str, content: bytes) -> None:
        """Put an object, get it back and delete it; raises S3Error."""
        self._call("put_object", Bucket=bucket, Key=key, Body=content)
        try:
            found = self._call("get_object", Bucket=bucket, Key=key)
            if self._guarded(found["Body"].read) != content:
                raise S3Error(Refused(f"{self.endpoint}: {bucket} gave back something else"))
        finally:  # it is tried again, and nothing must pile up
            self._call("delete_object", Bucket=bucket, Key=key)

    def _made(
        self, region: str, access_key: str, secret_key: str, ca: str | None, proxy: str | None
    ) -> Any:
        from botocore.config import Config  # a tenth of a second, and only for this

        verify: bool | str = True
        if ca:
            verify = str(Path(self._scratch.name) / "ca.pem")
            Path(verify).write_text(ca)
        return _session().create_client(
            "s3",
            endpoint_url=f"https://{self.endpoint}",
            region_name=region,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            verify=verify,
            config=Config(
                connect_timeout=TIMEOUT,
                read_timeout=TIMEOUT,
                retries={"total_max_attempts": 1},
                proxies={"https": proxy} if proxy else {},
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def _call(self, name: str, **arguments: Any) -> Any:
        return self._guarded(lambda: getattr(self._client, name)(**arguments))

    def _guarded(self, call: Callable[[], Any]) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return call()
        except ClientError as error:
            raise S3Error(self._answered(error.response)) from None
        except (BotoCoreError, OSError) as error:
            raise S3Error(self._cut(error)) from None

    def _answered(self, response: Any) -> NoValue:
        """What an error of the service means."""
        code = str(response.get("Error", {}).get("Code", ""))
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        words = response.get("Error", {}).get("Message") or code
        text = f"{self.endpoint}: {code}: {words}"
        if code in _ABSENT:
            return Absent(text)
        if code in _FORBIDDEN:
            return Forbidden(text)
        if status >= 500:
            return Stopped(text)
        return Refused(text)

    def _cut(self, error: Exception) -> NoValue:
        """Why no answer came."""
        from botocore.exceptions import EndpointConnectionError, ProxyConnectionError, SSLError

        if isinstance(error, SSLError):
            words = str(error).rpartition("failed for ")[2]
            return Forbidden(f"{self.endpoint}: its certificate is not accepted ({words})")
        if isinstance(error, EndpointConnectionError | ProxyConnectionError):
            cause = error.__context__
            if "refused" in str(cause).lower():
                return Stopped(f"nothing listens at {self.endpoint}")
        return Unreachable(f"{self.endpoint} cannot be reached: {' '.join(str(error).split())}")
