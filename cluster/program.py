"""Programs that come as one file of a release: where from, and the shell text that installs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from shlex import quote

from cluster import k3s_release
from cluster.k3s_release import Asset
from cluster.model import Arch, Source


@dataclass(frozen=True)
class Program:
    """A program and its release; `{version}` and `{arch}` stand in the texts for what they say.

    name: of the program, and of its folder below /usr/local/lib.
    archive: file of the release, a compressed tar; member: the program in it.
    site: URL of the public releases; place: folder of a release below it.
    sums: the list of checksums beside the archive.
    arches: what the release calls an architecture, where it is not our name.
    sha256: pinned checksums by version and architecture; what has none is checked against `sums`.
    """

    name: str
    archive: str
    member: str
    site: str
    place: str
    sums: str
    arches: Mapping[Arch, str] = field(default_factory=dict)
    sha256: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def releases(self) -> str:
        """The folder on a host that has one folder a version."""
        return f"/usr/local/lib/{self.name}"

    @property
    def link(self) -> str:
        """What is called by name."""
        return f"/usr/local/bin/{self.name}"

    def path(self, version: str) -> str:
        """Where the program of a version is on a host."""
        return f"{self.releases}/{version}/{self.name}"

    def archive_path(self, version: str, arch: Arch) -> str:
        """Where the archive lies until the program is taken out."""
        return f"{self.releases}/{version}/{self._text(self.archive, version, arch)}"

    def asset(self, source: Source, version: str, arch: Arch) -> Asset:
        """The release's archive, from where `k3s.source` says.

        A mirror has it below its root as the public site does; a folder has it with its list of
        checksums in `<name>-v<version>`.
        """
        name = self._text(self.archive, version, arch)
        pinned = self.sha256.get(version, {}).get(arch)
        if source.checksums == "beside":
            pinned = None
        sums = self._text(self.sums, version, arch)
        if source.folder:
            return Asset(name, None, f"{source.folder}/{self.name}-v{version}", pinned, None, sums)
        place = self._text(self.place, version, arch)
        base = f"{(source.mirror or self.site).rstrip('/')}/{place}".rstrip("/")
        return Asset(name, f"{base}/{name}", None, pinned, f"{base}/{sums}", sums)

    def install_script(self, item: Asset, version: str, arch: Arch) -> str:
        """Shell text that puts the program at its path, verified; safe again after any break."""
        packed, target = self.archive_path(version, arch), self.path(version)
        member = quote(self._text(self.member, version, arch))
        return "\n".join(
            [
                k3s_release.install_script(item, packed, "0644"),
                f"target={quote(target)}",
                f'tar -xzOf "$path" {member} > "$target.new" && [ -s "$target.new" ] '
                f'|| fail "it holds no {self.name}"',
                'chmod 0755 "$target.new" && chown 0:0 "$target.new" '
                '&& mv -f "$target.new" "$target" '
                '&& rm -f "$path" || fail "$target cannot be written"',
            ]
        )

    def link_script(self, version: str) -> str:
        """Shell text that makes a version the one that is called by name, atomically."""
        new = f"{self.link}.new"
        return f"ln -sfn {quote(self.path(version))} {new} && mv -Tf {new} {self.link}"

    def _text(self, template: str, version: str, arch: Arch) -> str:
        return template.format(version=version, arch=self.arches.get(arch, arch.value))
