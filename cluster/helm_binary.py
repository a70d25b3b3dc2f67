"""Where the helm that the servers run comes from, and the shell text that installs it."""

from __future__ import annotations

from shlex import quote

from cluster import k3s_release, versions
from cluster.k3s_release import Asset
from cluster.model import Arch, Source

RELEASES = "/usr/local/lib/helm"  # one folder a version
LINK = "/usr/local/bin/helm"
SITE = "https://get.helm.sh"


def path(version: str = versions.HELM) -> str:
    """Where the program of a version is on a server."""
    return f"{RELEASES}/{version}/helm"


def archive(version: str, arch: Arch) -> str:
    """Name of the release's archive."""
    return f"helm-v{version}-linux-{arch}.tar.gz"


def archive_path(version: str, arch: Arch) -> str:
    """Where the archive lies until the program is taken out."""
    return f"{RELEASES}/{version}/{archive(version, arch)}"


def asset(source: Source, version: str, arch: Arch) -> Asset:
    """The release's archive, from where `k3s.source` says.

    A mirror has it at its root, as get.helm.sh does, with `<archive>.sha256sum` beside it; a folder
    has both in `helm-v<version>`.
    """
    name = archive(version, arch)
    pinned = versions.HELM_SHA256.get(version, {}).get(arch)
    if source.checksums == "beside":
        pinned = None
    sums = f"{name}.sha256sum"
    if source.folder:
        return Asset(name, None, f"{source.folder}/helm-v{version}", pinned, None, sums)
    base = (source.mirror or SITE).rstrip("/")
    return Asset(name, f"{base}/{name}", None, pinned, f"{base}/{sums}", sums)


def install_script(item: Asset, version: str, arch: Arch) -> str:
    """Shell text that puts the program at its path, verified; safe to run again after any break."""
    packed, target = archive_path(version, arch), path(version)
    return "\n".join(
        [
            k3s_release.install_script(item, packed, "0644"),
            f"target={quote(target)}",
            f'tar -xzOf "$path" linux-{arch}/helm > "$target.new" && [ -s "$target.new" ] '
            '|| fail "it holds no helm"',
            'chmod 0755 "$target.new" && chown 0:0 "$target.new" && mv -f "$target.new" "$target" '
            '&& rm -f "$path" || fail "$target cannot be written"',
        ]
    )


def link_script(version: str) -> str:
    """Shell text that makes a version the one that is called by name, atomically."""
    return f"ln -sfn {quote(path(version))} {LINK}.new && mv -Tf {LINK}.new {LINK}"
