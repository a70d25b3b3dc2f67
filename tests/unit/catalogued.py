"""What components of the catalogue send, found by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from catalogue import CATALOGUE
from cluster.component import Object
from cluster.model import Cluster


def values_of(name: str, cluster: Cluster) -> dict[str, Any]:
    """Chart values of a component."""
    release = CATALOGUE[name].release
    assert release is not None
    return release.values(cluster)


def named(found: Iterable[Object], kind: str) -> dict[str, Object]:
    """The objects of a kind by name."""
    return {one["metadata"]["name"]: one for one in found if one["kind"] == kind}


def find(found: Iterable[Object], kind: str, name: str) -> Object:
    """The object of that kind and name."""
    return named(found, kind)[name]
