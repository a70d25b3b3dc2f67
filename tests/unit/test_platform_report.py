"""What people read about the platform."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import cast, get_args

import pytest

from catalogue import CATALOGUE
from cluster.component import Component, Endpoint, Release
from cluster.graph import select
from cluster.helm_release import HelmRelease
from cluster.model import Cluster, Stack
from cluster.platform_report import (
    COMPONENTS,
    VERSIONS,
    component_rows,
    login_lines,
    retired_lines,
    version_rows,
)
from cluster.versions import CHARTS
from runtime import table
from runtime.summary import INDENT
from tests.contracts.clusters import CLUSTERS

CLUSTER = cast(Cluster, SimpleNamespace(domain="example.com"))
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
        ("longhorn", VERSION, "deployed", "longhorn"),
        ("ingress-nginx", "-", "absent", "-"),
        ("keycloak-db", "-", "applied", "-"),
    ]


def test_each_address_says_how_one_logs_in() -> None:
    line = "https://longhorn.example.com/  single sign-on"
    assert list(login_lines(CLUSTER, ALL, len(line))) == [line]
    assert list(login_lines(CLUSTER, ALL, len(line) - 1)) == [
        "https://longhorn.example.com/",
        "    single sign-on",
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
        ">=1.25 (unfit)",
        "yes",
        "lives",
    )
    assert rows[1][2:] == ("none", ">=1.21 (unfit)", "yes", "retired")
    assert len(rows) == 2
    assert [row[2] for row in version_rows(ALL, None, "v1.36.3+k3s1")] == ["?", "?"]


@pytest.mark.parametrize("preset", CLUSTERS)
def test_every_line_fits_into_80_columns_and_no_word_is_broken(preset: str) -> None:
    cluster = CLUSTERS[preset]
    components = select(CATALOGUE, cluster)
    installed = {
        (one.namespace, one.release_name): HelmRelease(
            one.release_name, one.namespace, 1, "pending-upgrade", "chart", "1.0.0"
        )
        for one in components
    }
    tables = (
        (INDENT, COMPONENTS, component_rows(cluster, components, installed)),
        (0, VERSIONS, version_rows(components, installed, "v1.20.4+k3s1")),
    )
    for indent, headings, found in tables:
        rows = list(found)
        lines = table.render(headings, rows, indent, whole=headings[:1])
        words = {word for row in (headings, *rows) for cell in row for word in cell.split()}
        assert max(map(len, lines)) <= table.WIDTH - indent
        assert {word for line in lines for word in line.split()} <= words, "\n".join(lines)
    width = table.WIDTH - INDENT
    others = [*login_lines(cluster, components, width), *retired_lines(components)]
    assert max(map(len, others)) <= width


def test_what_design_calls_retired_names_its_alternative() -> None:
    retired = [one for one in CATALOGUE.values() if one.retired]
    assert {one.name for one in retired} == {"ingress-nginx", "keycloak-bitnami", "linkerd"}
    for one in retired:
        role, product = re.search(r"; take stack\.(\w+) (\S+)$", one.retired).groups()  # type: ignore[union-attr]
        assert product in get_args(Stack.model_fields[role].annotation)
