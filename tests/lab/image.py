"""Builds the image of the lab's hosts, cached by the hash of everything that goes into it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from docker import DockerClient
from docker.errors import BuildError, DockerException, ImageNotFound

from tests.lab import packages
from tests.lab.apt import AptSetup, read_apt_setup
from tests.lab.cache import alone, cache_dir, digest, files_digest
from tests.lab.errors import LabError
from tests.lab.net import reachable

RECIPE = Path(__file__).parent / "host"
HOST_REPOSITORY = "picluster-lab-host"
BASE_REPOSITORY = "picluster-lab-base"
UBUNTU = "ubuntu:24.04"
REGISTRY = ("registry-1.docker.io", 443)


@dataclass(frozen=True)
class Source:
    """What the hosts are made from: a tag to pull, or this machine's own apt archive."""

    base: str | None
    apt: AptSetup | None
    description: str


def choose(client: DockerClient) -> Source:
    """Return what LAB_IMAGE asks for: `ubuntu:<release>`, `debian` (debootstrap), or `auto`.

    `auto` is Ubuntu 24.04 where its image is there or can be pulled. Raises LabError.
    """
    wanted = os.environ.get("LAB_IMAGE", "auto")
    if wanted == "auto":
        wanted = UBUNTU if _have(client, UBUNTU) or reachable(*REGISTRY) else "debian"
    if wanted.startswith("ubuntu:"):
        return Source(wanted, None, f"{wanted} (pulled)")
    if wanted == "debian":
        setup = read_apt_setup()
        return Source(None, setup, f"{setup.suite} (debootstrap of this machine's mirror)")
    raise LabError(f"LAB_IMAGE={wanted!r}: allowed are auto, debian, ubuntu:<release>")


def build(client: DockerClient, source: Source, arch: str) -> str:
    """Return the tag of the hosts' image for `arch` (amd64, arm64), built if it is not there.

    Raises LabError when the base cannot be had or a step of the recipe fails.
    """
    with alone("image"):
        if source.apt is not None:
            return _from_mirror(client, source.apt, arch)
        return _from_registry(client, source.base or UBUNTU, arch)


def remove_images(client: DockerClient) -> list[str]:
    """Remove every image that the lab has built; return their tags."""
    tags = [
        tag
        for repository in (HOST_REPOSITORY, BASE_REPOSITORY)
        for image in client.images.list(repository)
        for tag in image.tags
    ]
    for tag in tags:
        client.images.remove(tag)
    return tags


def _from_registry(client: DockerClient, base: str, arch: str) -> str:
    if not _have(client, base):
        print(f"pulling {base}", flush=True)
        try:
            client.images.pull(base, platform=f"linux/{arch}")
        except DockerException as error:
            cause = getattr(error, "explanation", error)
            raise LabError(f"cannot pull {base}: {cause}") from error
    return _build(client, base, sources=(), conf=())


def _from_mirror(client: DockerClient, setup: AptSetup, arch: str) -> str:
    base = f"{BASE_REPOSITORY}:{digest([setup.suite, setup.mirror, *setup.components, arch])}"
    if not _have(client, base):
        _debootstrap(client, setup, arch, base)
    return _build(client, base, setup.sources, setup.conf)


def _debootstrap(client: DockerClient, setup: AptSetup, arch: str, tag: str) -> None:
    if os.geteuid() != 0:
        raise LabError("debootstrap needs root: run this once with sudo")
    packages.ensure("debootstrap", "debootstrap")
    print(f"debootstrap of {setup.suite} from the mirror of this machine (a minute)", flush=True)
    with _scratch() as folder:
        root, log = folder / "root", folder / "log"
        command = ["debootstrap", "--variant=minbase", "--include=ca-certificates"]
        command += [f"--arch={arch}", f"--components={','.join(setup.components)}"]
        with log.open("wb") as output:
            result = subprocess.run(
                [*command, setup.suite, str(root), setup.mirror],
                check=False,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if result.returncode:
            last = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise LabError(f"debootstrap: {' / '.join(last)}")
        archive = folder / "root.tar"
        exclude = ["--exclude=./var/cache/apt/*.bin", "--exclude=./var/cache/apt/archives/*.deb"]
        subprocess.run(["tar", "-C", root, "-cf", archive, *exclude, "."], check=True)
        repository, version = tag.split(":")
        client.api.import_image_from_file(str(archive), repository, version)


def _build(client: DockerClient, base: str, sources: tuple[str, ...], conf: tuple[str, ...]) -> str:
    tag = f"{HOST_REPOSITORY}:{files_digest(RECIPE, base, *sources, *conf)}"
    if _have(client, tag):
        return tag
    print(f"building the host image {tag}", flush=True)
    with _scratch() as folder:
        context = folder / "context"
        shutil.copytree(RECIPE, context)
        _plain_modes(context)
        (context / "apt").mkdir()
        (context / "apt" / "sources.list").write_text("".join(f"{line}\n" for line in sources))
        (context / "apt" / "lab.conf").write_text("".join(f"{line}\n" for line in conf))
        try:
            client.images.build(
                path=str(context),
                tag=tag,
                buildargs={"BASE": base},
                network_mode="host",
                rm=True,
                forcerm=True,
            )
        except BuildError as error:
            log = "".join(str(line.get("stream", "")) for line in error.build_log)
            raise LabError(f"host image: {error} / {' / '.join(log.splitlines()[-3:])}") from error
    return tag


def _plain_modes(folder: Path) -> None:
    """Give the recipe's files the modes that Git knows: Docker copies them into /etc and /usr."""
    for path in [folder, *folder.rglob("*")]:
        executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if executable else 0o644)


def _have(client: DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
    except ImageNotFound:
        return False
    return True


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="image-", dir=cache_dir()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
