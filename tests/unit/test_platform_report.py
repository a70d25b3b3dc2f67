"""What people read about the platform."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from cluster.component import Component, Endpoint, Release
from cluster.helm_release import HelmRelease
from cluster.model import Cluster
from cluster.platform_report import component_rows, login_lines, retired_lines, version_rows
from cluster.versions import CHARTS

CLUSTER = cast(Cluster, SimpleNamespace())
LONGHORN = Component(
    name="longhorn",
    namespace="longhorn-system",
    wanted=lambda cluster: True,
    release=Release(CHARTS["longhorn"]),
    endpoints=lambda cluster: [Endpoint("https://longhorn.example.com/", "single sign-on")],
)
NGINX = Component(
    name="ingress-nginx",
    namespace="nginx",
    wanted=lambda cluster: True,
    release=Release(CHARTS["ingress-nginx"]),
    retired="upstream has ended it; envoy-gateway takes its place",
)
DATABASE = Component(name="keycloak-db", namespace="keycloak", wanted=lambda cluster: True)
ALL = (LONGHORN, NGINX, DATABASE)
VERSION = CHARTS["longhorn"].version


def release(version: str) -> dict[tuple[str, str], HelmRelease]:
    key = ("longhorn-system", "longhorn")
    return {key: HelmRelease(key[1], key[0], 1, "deployed", "longhorn", version)}


def test_components_have_their_version_state_and_place() -> None:
    assert list(component_rows(CLUSTER, ALL, release(VERSION))) == [
        ("longhorn", VERSION, "deployed", "longhorn.example.com"),
        ("ingress-nginx", "-", "absent", "-"),
        ("keycloak-db", "-", "objects", "-"),
    ]


def test_each_address_says_how_one_logs_in() -> None:
    assert list(login_lines(CLUSTER, ALL)) == [
        "https://longhorn.example.com/  login: single sign-on"
    ]


def test_what_upstream_gave_up_is_one_line_with_the_alternative() -> None:
    assert list(retired_lines(ALL)) == [
        "ingress-nginx is retired: upstream has ended it; envoy-gateway takes its place"
    ]


def test_versions_tell_pinned_from_installed_and_what_does_not_fit() -> None:
    rows = list(version_rows(ALL, release("1.11.0"), "v1.20.4+k3s1"))
    assert rows[0] == (
        "longhorn",
        VERSION,
        "1.11.0 (differs)",
        ">=1.25.0-0: not v1.20.4+k3s1",
        "yes",
        "lives",
    )
    assert rows[1][2:] == ("none", ">=1.21.0-0: not v1.20.4+k3s1", "yes", "retired")
    assert len(rows) == 2
    assert [row[2] for row in version_rows(ALL, None, "v1.36.3+k3s1")] == ["?", "?"]
