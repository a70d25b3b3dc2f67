"""What people read about the platform: its components, where to log in, what upstream gave up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from cluster.component import Component
from cluster.helm_release import HelmRelease
from cluster.model import Cluster
from cluster.versions import fits

Releases = Mapping[tuple[str, str], HelmRelease]  # by namespace and name

COMPONENTS = ("Component", "Version", "Status", "Endpoint")
SECRETS = "Passwords are in the secrets file, under the names that stand here:"
VERSIONS = ("Component", "Pinned", "Installed", "Kubernetes", "arm64", "Upstream")


def component_rows(
    cluster: Cluster, components: Sequence[Component], releases: Releases
) -> Iterator[tuple[str, str, str, str]]:
    """Rows of COMPONENTS: what is installed, in which state, and where it is opened."""
    for component in components:
        found = _installed(component, releases)
        version = found.version if found else "-"
        status = found.status if found else ("applied" if component.release is None else "absent")
        yield component.name, version, status, _hosts(cluster, component)


def login_lines(cluster: Cluster, components: Sequence[Component], width: int) -> Iterator[str]:
    """What a person opens, one line each: its URL, and the secrets' names of its login.

    Args:
        width: columns; a login that does not fit beside its URL comes on a line of its own, so that
            both can be copied.
    """
    found = [one for component in components for one in component.endpoints(cluster)]
    widest = max((len(one.url) for one in found), default=0)
    for one in found:
        line = f"{one.url:<{widest}}  {one.login}"
        yield from [line] if len(line) <= width else [one.url, f"    {one.login}"]


def retired_lines(components: Sequence[Component]) -> Iterator[str]:
    """One line for each component that upstream has given up."""
    for component in components:
        if component.retired:
            yield f"{component.name} is retired: {component.retired}"


def version_rows(
    components: Sequence[Component], releases: Releases | None, kubernetes: str
) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Rows of VERSIONS.

    Args:
        releases: None when the cluster was not asked.
        kubernetes: the version the charts have to work with.
    """
    for component in components:
        if component.release is None:
            continue
        chart = component.release.chart
        found = _installed(component, releases or {})
        installed = "?" if releases is None else found.version if found else "none"
        if found and found.version.removeprefix("v") != chart.version.removeprefix("v"):
            installed += " (differs)"
        works = _range(chart.kubernetes) or "any"
        if not fits(kubernetes, chart.kubernetes):
            works += " (unfit)"
        alive = "retired" if component.retired else "lives"
        arm64 = "yes" if chart.arm64 else "no"
        yield component.name, chart.version, installed, works, arm64, alive


def _installed(component: Component, releases: Releases) -> HelmRelease | None:
    return releases.get((component.namespace, component.release_name))


def _hosts(cluster: Cluster, component: Component) -> str:
    """Where it is opened, without the cluster's domain; `login_lines` has the whole URLs."""
    hosts = [urlsplit(endpoint.url).netloc for endpoint in component.endpoints(cluster)]
    return " ".join(host.removesuffix(f".{cluster.domain}") for host in hosts) or "-"


def _range(versions: str) -> str:
    """A chart's range of Kubernetes versions as people write it: `>= 1.25.0-0` is `>=1.25`."""
    return re.sub(r"\.0-0\b", "", re.sub(r"([<>=^~]+)\s+", r"\1", versions))
