"""The helm that the lab's file server offers: the real release, or one built from its Go module."""

from __future__ import annotations

import hashlib
import shutil
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

from cluster import versions
from tests.lab.cache import cache_dir, made
from tests.lab.charts.archive import pack
from tests.lab.errors import LabError
from tests.lab.net import reachable
from tests.lab.program import output

SITE = "https://get.helm.sh"
MODULE = f"helm.sh/helm/v4/cmd/helm@v{versions.HELM}"
FLAGS = f"-s -w -X helm.sh/helm/v4/internal/version.version=v{versions.HELM}"
DOWNLOAD_LIMIT_S = 60
BUILD_LIMIT_S = 900


def archive_name(arch: str) -> str:
    """Name of the release's archive, which get.helm.sh has at its root."""
    return f"helm-v{versions.HELM}-linux-{arch}.tar.gz"


def folder(arch: str) -> Path:
    """The folder with the archive, its `.sha256sum`, and the program itself as `helm`.

    Raises LabError when neither a download nor a build is possible.
    """
    real = reachable("get.helm.sh", 443)
    kind, make = ("release", _download) if real else ("built", _build)
    return made(cache_dir() / "helm" / f"{versions.HELM}-{arch}-{kind}", partial(make, arch))


def description(place: Path) -> str:
    """In words, what `folder` returned."""
    built = place.name.endswith("-built")
    return f"helm {'built from its Go module' if built else 'real (release, sha256 checked)'}"


def _download(arch: str, scratch: Path) -> None:
    name = archive_name(arch)
    try:
        for asset in (name, f"{name}.sha256sum"):
            with (
                urllib.request.urlopen(f"{SITE}/{asset}", timeout=DOWNLOAD_LIMIT_S) as answer,
                (scratch / asset).open("wb") as file,
            ):
                shutil.copyfileobj(answer, file)
    except (urllib.error.URLError, OSError) as error:
        raise LabError(f"helm {versions.HELM}: {error}") from error
    wanted = (scratch / f"{name}.sha256sum").read_text().split()[0]
    found = hashlib.sha256((scratch / name).read_bytes()).hexdigest()
    if wanted != found:
        raise LabError(f"helm {versions.HELM}: sha256 {found}, expected {wanted}")
    shutil.unpack_archive(scratch / name, scratch, filter="data")
    shutil.move(scratch / f"linux-{arch}" / "helm", scratch / "helm")


def _build(arch: str, scratch: Path) -> None:
    if not shutil.which("go"):
        raise LabError("helm: get.helm.sh does not answer, and Go to build it is not installed")
    print(f"building helm {versions.HELM} (a minute, once)", flush=True)
    # GOBIN keeps the program out of the user's own folder.
    command = ["go", "install", "-trimpath", "-ldflags", FLAGS, MODULE]
    output("helm", command, BUILD_LIMIT_S, GOBIN=str(scratch), CGO_ENABLED="0")
    archive = scratch / archive_name(arch)
    archive.write_bytes(pack(f"linux-{arch}", {"helm": (scratch / "helm").read_bytes()}))
    value = hashlib.sha256(archive.read_bytes()).hexdigest()
    (scratch / f"{archive.name}.sha256sum").write_text(f"{value}  {archive.name}\n")
