"""Where a K3s release comes from, and the shell text that installs it. Pure text."""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote

from cluster import versions
from cluster.model import Arch, Source

GITHUB = "https://github.com"
NEEDED_KIB = 300 * 1024  # binary and what K3s unpacks from it


@dataclass(frozen=True)
class Asset:
    """One file of a release and how it is verified.

    `url` or `folder` says where it comes from; `sha256` is the checksum it must have, else the
    list at `sums_url`, or `sums` beside it in the folder, names it.
    """

    name: str
    url: str | None
    folder: str | None
    sha256: str | None
    sums_url: str | None
    sums: str


def asset(source: Source, version: str, arch: Arch, name: str | None = None) -> Asset:
    """The release's binary for an architecture, or another asset of it by name."""
    file = name or versions.K3S_ASSET[arch]
    sums = f"sha256sum-{arch}.txt"
    pinned = None
    if source.checksums == "pinned" and name is None:
        pinned = source.sha256.get(arch) or versions.sha256(version, arch)
    if source.folder:
        return Asset(file, None, f"{source.folder}/{version}", pinned, None, sums)
    base = source.mirror or GITHUB
    folder = f"{base.rstrip('/')}/k3s-io/k3s/releases/download/{version.replace('+', '%2B')}"
    return Asset(file, f"{folder}/{file}", None, pinned, f"{folder}/{sums}", sums)


def images(arch: Arch) -> str:
    """Name of the asset with all images of a release."""
    return f"k3s-airgap-images-{arch}.tar.zst"


def part(path: str) -> str:
    """Where an asset lies until it is verified; the same folder, so that the rename is atomic."""
    return f"{path}.part"


def install_script(item: Asset, path: str, mode: str) -> str:
    """Shell text that puts the asset at `path`, verified; safe to run again after any break.

    A download that broke off is continued. One line on stderr says what went wrong.
    """
    lines = [
        "set -u",
        f"path={quote(path)}; part={quote(part(path))}; name={quote(item.name)}",
        'fail() { echo "$name: $*" >&2; exit 1; }',
        'mkdir -p "${path%/*}" || fail "the folder ${path%/*} cannot be made"',
        "free=$(df -Pk \"${path%/*}\" | awk 'NR==2 {print $4}')",
        f'[ "$free" -ge {NEEDED_KIB} ] || fail "the disk of ${{path%/*}} is full: '
        f'$((free / 1024)) MiB are free, {NEEDED_KIB // 1024} are needed"',
    ]
    if item.url:
        lines.append(
            "get() { curl --fail --silent --show-error --location --retry 2 --retry-delay 1 "
            '--connect-timeout 10 --speed-limit 1024 --speed-time 30 "$@"; }'
        )
    lines += [
        f"want={quote(item.sha256)}" if item.sha256 else _sums(item, path),
        '[ -n "$want" ] || fail "its checksum list does not name it"',
        "sum() { sha256sum < \"$part\" 2>/dev/null | cut -d' ' -f1; }",
    ]
    if item.url:
        url = quote(item.url)
        lines += [
            'if [ ! -s "$part" ] || [ "$(sum)" != "$want" ]; then',
            f'  get --continue-at - --output "$part" {url}',
            # 22: the part is no beginning of the file (416), or 404; 33: no ranges there.
            '  case $? in 0) ;; 22|33) rm -f "$part"; '
            f'get --output "$part" {url} || fail "{item.url} cannot be downloaded" ;;',
            '  23) fail "it cannot be written: is the disk full?" ;;',
            f'  *) fail "the download from {item.url} broke off; run again to continue it" ;; esac',
            "fi",
        ]
    lines += [
        "have=$(sum)",
        '[ "$have" = "$want" ] || { rm -f "$part"; '
        'fail "checksum mismatch: expected $want, found $have; nothing was installed"; }',
        f'chmod {mode} "$part" && chown 0:0 "$part" || fail "its mode cannot be set"',
        'printf "%s" "$want" > "$path.sha256.new" && mv -f "$path.sha256.new" "$path.sha256" '
        '&& mv -f "$part" "$path" || fail "it cannot be moved to $path"',
    ]
    return "\n".join(lines)


def _sums(item: Asset, path: str) -> str:
    pick = "awk -v n=\"$name\" '$2 == n {print $1; exit}'"
    if item.sums_url:
        return (
            f"sums=$(get {quote(item.sums_url)}) || "
            f'fail "its checksum list {item.sums_url} cannot be read"\n'
            f"want=$(printf '%s\\n' \"$sums\" | {pick})"
        )
    return f"want=$({pick} {quote(part(path) + '.sums')}); rm -f {quote(part(path) + '.sums')}"
