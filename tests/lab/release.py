"""Programs that the lab's file server offers: the real release, or one built from its Go module."""

from __future__ import annotations

import hashlib
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from cluster.k3s_release import Asset
from cluster.model import Arch, Source
from cluster.program import Program
from tests.lab import go
from tests.lab.cache import cache_dir, made
from tests.lab.charts.archive import pack
from tests.lab.errors import LabError
from tests.lab.net import reachable

DOWNLOAD_LIMIT_S = 60


@dataclass(frozen=True)
class Release:
    """One version of a program.

    command, flags, libraries: as of go.build.
    """

    program: Program
    version: str
    command: str
    flags: str
    libraries: Path | None = None

    def folder(self, arch: str) -> Path:
        """The folder with the archive, its list of checksums, and the program itself.

        Raises LabError when neither a download nor a build is possible.
        """
        real = reachable(urlsplit(self.program.site).hostname or "", 443)
        kind, make = ("release", self._download) if real else ("built", self._build)
        place = cache_dir() / self.program.name / f"{self.version}-{arch}-{kind}"
        return made(place, partial(make, Arch(arch)))

    def serve(self, files: Path, arch: str) -> None:
        """Lay archive and checksums out below the root of a file server, as the public site does.

        files: the root.
        """
        item = self._asset(arch)
        site = self.program.site.rstrip("/")
        place = files / str(item.url).removeprefix(f"{site}/").rpartition("/")[0]
        place.mkdir(parents=True, exist_ok=True)
        for name in (item.name, item.sums):
            link = place / name
            link.unlink(missing_ok=True)
            link.symlink_to(self.folder(arch) / name)

    def _asset(self, arch: str) -> Asset:
        return self.program.asset(Source(), self.version, Arch(arch))

    def _member(self, arch: str) -> tuple[str, str]:
        """Folder and name of the program in the archive."""
        name = self.program.arches.get(Arch(arch), arch)
        path = self.program.member.format(version=self.version, arch=name)
        inside, _, member = path.rpartition("/")
        return inside, member

    def _download(self, arch: str, scratch: Path) -> None:
        item = self._asset(arch)
        what = f"{self.program.name} {self.version}"
        try:
            for url, name in ((item.url, item.name), (item.sums_url, item.sums)):
                with (
                    urllib.request.urlopen(str(url), timeout=DOWNLOAD_LIMIT_S) as answer,
                    (scratch / name).open("wb") as file,
                ):
                    shutil.copyfileobj(answer, file)
        except (urllib.error.URLError, OSError) as error:
            raise LabError(f"{what}: {error}") from error
        lines = [line.split() for line in (scratch / item.sums).read_text().splitlines()]
        wanted = next((words[0] for words in lines if words[1:] == [item.name]), None)
        found = hashlib.sha256((scratch / item.name).read_bytes()).hexdigest()
        if wanted != found:
            raise LabError(f"{what}: sha256 {found}, expected {wanted}")
        shutil.unpack_archive(scratch / item.name, scratch, filter="data")
        inside, member = self._member(arch)
        shutil.move(scratch / inside / member, scratch / self.program.name)

    def _build(self, arch: str, scratch: Path) -> None:
        item, target = self._asset(arch), scratch / self.program.name
        what = f"{self.program.name} {self.version}"
        go.need(f"{what}: its site does not answer, and Go to build it is not installed")
        go.build(
            what,
            self.command,
            self.version,
            target,
            flags=self.flags,
            libraries=self.libraries,
        )
        inside, member = self._member(arch)
        archive = scratch / item.name
        archive.write_bytes(pack(inside, {member: target.read_bytes()}))
        value = hashlib.sha256(archive.read_bytes()).hexdigest()
        (scratch / item.sums).write_text(f"{value}  {archive.name}\n")
