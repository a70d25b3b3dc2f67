"""The `k3s` binaries that the lab's file server offers: a real release, or the stand-in."""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cluster import versions
from tests.lab import go
from tests.lab.cache import cache_dir, files_digest, made, prune
from tests.lab.errors import LabError
from tests.lab.net import reachable
from tests.lab.program import output

# What the product can be pinned to, from the third newest minor on: enough for a patch step, a
# walk over minors and a refused downgrade.
VERSIONS = tuple(
    version
    for version in versions.K3S_RELEASES
    if versions.minor(version) >= versions.minor(versions.K3S_LADDER[-3])
)
KINDS = {
    "release": "real (release binaries, sha256 checked)",
    "stand-in": f"stand-in (one build under {len(VERSIONS)} version strings)",
    "none": "none",
}
RELEASES = "https://github.com/k3s-io/k3s/releases/download"
DOWNLOAD_LIMIT_S = 60
SIMULATED_IMAGES = b"simulated: a K3s air-gap image archive without images\n"


@dataclass(frozen=True)
class Choice:
    """Which kind of binaries will be served, and in words what that means."""

    kind: str
    description: str


def choose() -> Choice:
    """Return what LAB_K3S asks for: `release`, `stand-in`, `none`, or `auto`.

    `auto` is a release where GitHub answers quickly, else the stand-in. Raises LabError.
    """
    wanted = os.environ.get("LAB_K3S", "auto")
    if wanted == "auto":
        wanted = "release" if reachable("github.com", 443) else "stand-in"
    if wanted not in KINDS:
        raise LabError(f"LAB_K3S={wanted!r}: allowed are auto, {', '.join(KINDS)}")
    return Choice(wanted, KINDS[wanted])


def folders(kind: str, arch: str) -> dict[str, Path]:
    """Return the release folder of each version, downloaded or built if it is not cached.

    Raises LabError when a download or build fails, or a checksum is wrong.
    """
    if kind == "release":
        return _releases(arch)
    return _standin(arch) if kind == "stand-in" else {}


def check_sums(folder: Path, arch: str) -> None:
    """Check the binary in `folder` against the release's own sha256sum file; raises LabError."""
    name = versions.K3S_ASSET[arch]
    sums = {}
    for line in (folder / f"sha256sum-{arch}.txt").read_text().splitlines():
        value, _, asset = line.partition("  ")
        sums[asset] = value
    found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    if sums.get(name) != found:
        raise LabError(f"{folder / name}: sha256 {found}, expected {sums.get(name)}")


def _releases(arch: str) -> dict[str, Path]:
    found = {}
    for version in VERSIONS:
        folder = cache_dir() / "k3s" / "release" / version
        found[version] = made(folder, partial(_download, version, arch))
    return found


def _download(version: str, arch: str, scratch: Path) -> None:
    print(f"downloading K3s {version}", flush=True)
    try:
        for asset in (f"sha256sum-{arch}.txt", versions.K3S_ASSET[arch]):
            url = f"{RELEASES}/{version.replace('+', '%2B')}/{asset}"
            with (
                urllib.request.urlopen(url, timeout=DOWNLOAD_LIMIT_S) as answer,
                (scratch / asset).open("wb") as file,
            ):
                shutil.copyfileobj(answer, file)
        check_sums(scratch, arch)
        _check_pin(scratch, version, arch)
    except (urllib.error.URLError, OSError) as error:
        raise LabError(f"K3s {version}: {error}") from error


def _check_pin(folder: Path, version: str, arch: str) -> None:
    pinned = versions.sha256(version, arch)
    found = hashlib.sha256((folder / versions.K3S_ASSET[arch]).read_bytes()).hexdigest()
    if pinned not in (None, found):
        raise LabError(f"K3s {version}: sha256 {found}, pinned is {pinned}")


def _standin(arch: str) -> dict[str, Path]:
    build = go.STANDIN / "build"
    if not build.exists():
        raise LabError("tests/lab/standin/build is missing: use LAB_K3S=release or LAB_K3S=none")
    folder = cache_dir() / "k3s" / f"stand-in-{files_digest(go.STANDIN, arch, *VERSIONS)}"
    if not folder.exists():
        made(folder, partial(_build, build, arch))
        prune(folder.parent, "stand-in-*")
    return {version: folder / version for version in VERSIONS}


def _build(build: Path, arch: str, scratch: Path) -> None:
    go.need("the k3s stand-in needs Go: install it, or use LAB_K3S=release")
    print("building the k3s stand-in (minutes at first, then seconds)", flush=True)
    wanted = [part for version in VERSIONS for part in ("--version", version)]
    command = [build, "--output", scratch, *wanted, "--arch", arch]
    output("k3s stand-in", command, go.BUILD_LIMIT_S, **go.ENVIRONMENT)
    for version in VERSIONS:
        check_sums(scratch / version, arch)
        images = scratch / version / f"k3s-airgap-images-{arch}.tar.zst"
        images.write_bytes(SIMULATED_IMAGES)
        _append_sum(scratch / version / f"sha256sum-{arch}.txt", images)
    shutil.rmtree(scratch / ".build", ignore_errors=True)  # its own working files


def _append_sum(sums: Path, asset: Path) -> None:
    with sums.open("a") as file:
        file.write(f"{hashlib.sha256(asset.read_bytes()).hexdigest()}  {asset.name}\n")
