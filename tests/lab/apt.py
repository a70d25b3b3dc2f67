"""What this machine's own apt is set up with, so that the lab's hosts use the same mirror."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.lab.errors import LabError

TARGET_FORMAT = "$(CREATED_BY)|$(SITE)|$(RELEASE)|$(COMPONENT)"
COMPONENTS = (
    "main",
    "restricted",
    "universe",
    "multiverse",
    "contrib",
    "non-free",
    "non-free-firmware",
)
PROXY_KEYS = ("Acquire::http::Proxy", "Acquire::https::Proxy")
DATE_KEYS = ("Acquire::Check-Valid-Until", "Acquire::Check-Date")


@dataclass(frozen=True)
class AptSetup:
    """A distribution's own archive: suite, mirror, lines for sources.list and for apt.conf."""

    suite: str
    mirror: str
    components: tuple[str, ...]
    sources: tuple[str, ...]
    conf: tuple[str, ...]


def read_apt_setup() -> AptSetup:
    """Return the setup of this machine's apt; raises LabError where apt has no usable archive."""
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    targets = _output("apt-get", "indextargets", "--format", TARGET_FORMAT)
    return parse_apt_setup(codename, targets, _output("apt-config", "dump"))


def parse_apt_setup(codename: str, targets: str, dump: str) -> AptSetup:
    """Return the setup of the archive of `codename`.

    `targets` is `apt-get indextargets` in TARGET_FORMAT, `dump` is `apt-config dump`. Archives of
    others (another suite, or components the distribution does not have) are left out.
    Raises LabError when the main suite is missing.
    """
    archives: dict[tuple[str, str], list[str]] = {}
    for line in targets.splitlines():
        kind, site, release, component = (line.split("|") + [""] * 4)[:4]
        own = release == codename or release.startswith(f"{codename}-")
        if kind == "Packages" and own and component in COMPONENTS:
            archives.setdefault((site, release), []).append(component)
    main = [(site, parts) for (site, release), parts in archives.items() if release == codename]
    if not codename or not main:
        raise LabError(f"apt has no archive of {codename or 'this system'}: see its sources.list")
    mirror, components = main[0]
    return AptSetup(
        suite=codename,
        mirror=mirror,
        components=tuple(components),
        sources=tuple(
            f"deb {site} {release} {' '.join(dict.fromkeys(parts))}"
            for (site, release), parts in archives.items()
        ),
        conf=tuple(_conf_lines(dump)),
    )


def _conf_lines(dump: str) -> list[str]:
    lines = []
    for line in dump.splitlines():
        key, _, value = line.rstrip(";").partition(" ")
        if key in PROXY_KEYS and not _is_loopback(value.strip('"')):
            lines.append(f"{key} {value};")
        if key in DATE_KEYS:
            lines.append(f"{key} {value};")
    return lines


def _is_loopback(proxy: str) -> bool:
    host = urlsplit(proxy).hostname or ""
    return host in ("", "localhost", "::1") or host.startswith("127.")


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise LabError(f"{command[0]}: {error}") from error
