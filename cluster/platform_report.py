"""What people read about the platform: its components, where to log in, what upstream gave up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from cluster.component import Component
from cluster.helm_release import HelmRelease
from cluster.model import Cluster
from cluster.versions import fits

Releases = Mapping[tuple[str, str], HelmRelease]  # by namespace and name

COMPONENTS = ("Component", "Version", "Status", "Endpoint")
VERSIONS = ("Component", "Pinned", "Installed", "Kubernetes", "arm64", "Upstream")


def component_rows(
    cluster: Cluster, components: Sequence[Component], releases: Releases
) -> Iterator[tuple[str, str, str, str]]:
    """Rows of COMPONENTS: what is installed, in which state, and where it is opened."""
    for component in components:
        found = _installed(component, releases)
        version = found.version if found else "-"
        status = found.status if found else ("objects" if component.release is None else "absent")
        yield component.name, version, status, _hosts(cluster, component)


def login_lines(cluster: Cluster, components: Sequence[Component]) -> Iterator[str]:
    """One line for each thing a person opens: its URL, and the secrets' names of its login."""
    for component in components:
        for endpoint in component.endpoints(cluster):
            yield f"{endpoint.url}  login: {endpoint.login}"


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
        works = "any" if not chart.kubernetes else chart.kubernetes
        if not fits(kubernetes, chart.kubernetes):
            works += f": not {kubernetes}"
        alive = "retired" if component.retired else "lives"
        arm64 = "yes" if chart.arm64 else "no"
        yield component.name, chart.version, installed, works, arm64, alive


def _installed(component: Component, releases: Releases) -> HelmRelease | None:
    return releases.get((component.namespace, component.release_name))


def _hosts(cluster: Cluster, component: Component) -> str:
    """Where it is opened, short enough for a table; `login_lines` has the whole URLs."""
    hosts = (urlsplit(endpoint.url).netloc for endpoint in component.endpoints(cluster))
    return " ".join(hosts) or "-"
