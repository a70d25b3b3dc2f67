"""The S3 server that the lab's file server offers where a test asks for it."""

from __future__ import annotations

from cluster import programs, versions
from tests.lab.release import Release

RELEASE = Release(
    programs.VERSITYGW,
    versions.VERSITYGW,
    command="github.com/versity/versitygw/cmd/versitygw",
    flags=f"-s -w -X main.Version=v{versions.VERSITYGW}",
)
