"""Every pinned version, and the legal steps between K3s releases."""

from __future__ import annotations

from typing import NamedTuple

from semver import Version

K3S_DEFAULT = "v1.36.3+k3s1"

# The last patch of each minor in K3s' stable channel: Kubernetes allows no skipped minor, so an
# upgrade walks these rungs.
K3S_LADDER: tuple[str, ...] = (
    "v1.30.14+k3s2",
    "v1.31.14+k3s1",
    "v1.32.13+k3s1",
    "v1.33.13+k3s2",
    "v1.34.10+k3s1",
    "v1.35.7+k3s1",
    "v1.36.3+k3s1",
)
# Further releases a cluster may be pinned to.
K3S_RELEASES: tuple[str, ...] = (*K3S_LADDER, "v1.36.2+k3s1")

# sha256 of the release's binary by version and architecture. A release without an entry is
# checked against the list that the release itself publishes (`sha256sum-<arch>.txt`).
K3S_SHA256: dict[str, dict[str, str]] = {
    "v1.33.13+k3s2": {
        "amd64": "1572f0f23bd5a844bd405b71875877aacacc7ab79e279d3d73735654c37c7735",
        "arm64": "cf6afb3944f9ecf120fa2837b542479018c08f9ea1d1d181d4a68445e7717a8d",
    },
    "v1.34.10+k3s1": {
        "amd64": "e63a3511b2603fd1436a1ea8d228348a3b47334b45024801d41a8c0e2d22e8c4",
        "arm64": "e96eb8b095600cb790f776ae3c619d266ad83a3c3d7b56166f8f2605ca898d65",
    },
    "v1.35.7+k3s1": {
        "amd64": "5fc25309c53031e0cf03f7ee85f6f60969381ff3649039ffda19e30f5c26947a",
    },
    "v1.36.3+k3s1": {
        "amd64": "2f98a9f8fe5782479ee2d54e70a1b10a7f6fd4cae8d38ed3098452dc6eed76b5",
        "arm64": "c9a209103f480f163b7c6a56f00862b4481927b284dc29a3716bb70d886691a8",
    },
}

K3S_ASSET = {"amd64": "k3s", "arm64": "k3s-arm64"}


class Step(NamedTuple):
    """One step of an upgrade; a minor step drains the node first."""

    version: str
    minor: bool


def parse(version: str) -> Version:
    """Read `v1.36.3+k3s1`; raises ValueError."""
    return Version.parse(version.removeprefix("v"))


def _key(version: str) -> tuple[int, int, int, int]:
    parsed = parse(version)
    # semver ignores build metadata when it compares, but k3s2 does follow k3s1.
    build = (parsed.build or "k3s0").removeprefix("k3s")
    return parsed.major, parsed.minor, parsed.patch, int(build) if build.isdigit() else 0


def compare(left: str, right: str) -> int:
    """-1, 0 or 1 as `left` is older than, equal to or newer than `right`."""
    return (_key(left) > _key(right)) - (_key(left) < _key(right))


def minor(version: str) -> tuple[int, int]:
    """Major and minor number."""
    parsed = parse(version)
    return parsed.major, parsed.minor


def same_minor(left: str, right: str) -> bool:
    """Whether two releases share their minor: then a step back is possible."""
    return minor(left) == minor(right)


def known(version: str) -> bool:
    """Whether the release is pinned here."""
    return version in K3S_RELEASES


def sha256(version: str, arch: str) -> str | None:
    """The pinned checksum of the release's binary, None when the table lacks it."""
    return K3S_SHA256.get(version, {}).get(arch)


def upgrade_path(installed: str, wanted: str) -> tuple[Step, ...]:
    """The legal steps from one release to another, both as `v1.36.3+k3s1`.

    Empty when they are equal. Raises ValueError for a downgrade and when a minor between the two
    is missing on the ladder.
    """
    order = compare(installed, wanted)
    if order == 0:
        return ()
    if order > 0:
        raise ValueError(
            f"K3s {wanted} is older than the installed {installed}: a downgrade needs a restore "
            "of the snapshot taken before the upgrade (deploys/restore.py)"
        )
    steps: list[Step] = []
    major, current = minor(installed)
    while current < minor(wanted)[1] - 1:
        current += 1
        rung = next((v for v in K3S_LADDER if minor(v) == (major, current)), None)
        if rung is None:
            raise ValueError(
                f"no release of {major}.{current} is pinned, and Kubernetes allows no skipped "
                f"minor on the way from {installed} to {wanted}"
            )
        steps.append(Step(rung, minor=True))
    steps.append(Step(wanted, minor=not same_minor(installed, wanted)))
    return tuple(steps)


def skew_problem(server: str, agent: str) -> str | None:
    """Why an agent of one version cannot serve a server of another, None when it can."""
    if compare(agent, server) > 0 and not same_minor(agent, server):
        return f"agent {agent} is newer than the servers' {server}"
    if minor(server)[1] - minor(agent)[1] > 3:
        return f"agent {agent} is more than three minors behind the servers' {server}"
    return None
