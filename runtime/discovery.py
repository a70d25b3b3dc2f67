"""Which kinds the API serves, from the two documents of its aggregated discovery."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from kubernetes.dynamic.resource import Resource

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
CHANGEABLE = {"list", "patch", "delete"}


class Kind(NamedTuple):
    """A kind of objects: its `apiVersion` and `kind`, as in a manifest."""

    api_version: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} ({self.api_version})"


@dataclass
class Discovery:
    """What was found when it was asked, in seconds of `time.monotonic`.

    stale: API versions whose own server does not answer.
    names: `<plural>.<group>` of everything that is served.
    listable: kinds that can be listed, changed and deleted, each in its preferred version.
    """

    asked: float = float("-inf")
    resources: dict[Kind, Resource] = field(default_factory=dict)
    stale: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    listable: tuple[Kind, ...] = ()


def discovered(asked: float, documents: Iterable[dict[str, Any]]) -> Discovery:
    """Read the answers of `/api` and `/apis`, both lists of API groups."""
    found = Discovery(asked)
    stale: set[str] = set()
    listable: dict[str, Kind] = {}
    for group, version in _versions(documents):
        api_version = f"{group}/{version['version']}" if group else version["version"]
        if version.get("freshness") == "Stale":
            stale.add(api_version)
        for entry in version.get("resources") or ():
            kind = Kind(api_version, entry["responseKind"]["kind"])
            namespaced = entry.get("scope") == "Namespaced"
            found.resources[kind] = resource_of(kind, entry["resource"], namespaced)
            name = f"{entry['resource']}.{group}"
            if set(entry.get("verbs") or ()) >= CHANGEABLE:
                listable.setdefault(name, kind)
    found.stale, found.listable = frozenset(stale), tuple(listable.values())
    found.names = frozenset(f"{r.name}.{r.group}" for r in found.resources.values())
    return found


def _versions(documents: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for document in documents:
        for group in document.get("items") or ():
            for version in group.get("versions") or ():
                yield str(group["metadata"].get("name") or ""), version


def resource_of(kind: Kind, plural: str, namespaced: bool) -> Resource:
    """The dynamic client's idea of a kind."""
    from kubernetes.dynamic.resource import Resource

    group, _, version = kind.api_version.rpartition("/")
    return Resource(
        prefix="apis" if group else "api",
        group=group,
        api_version=version,
        kind=kind.name,
        name=plural,
        namespaced=namespaced,
    )
