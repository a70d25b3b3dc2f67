"""The helm that the lab's file server offers."""

from __future__ import annotations

from pathlib import Path

from cluster import programs, versions
from tests.lab.go import STANDIN
from tests.lab.release import Release

RELEASE = Release(
    programs.HELM,
    versions.HELM,
    command="helm.sh/helm/v4/cmd/helm",
    flags=f"-s -w -X helm.sh/helm/v4/internal/version.version=v{versions.HELM}",
    libraries=STANDIN,
)


def folder(arch: str) -> Path:
    """The folder with the archive, its `.sha256sum`, and the program itself as `helm`.

    Raises LabError when neither a download nor a build is possible.
    """
    return RELEASE.folder(arch)
