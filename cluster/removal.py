"""Components that are installed and no longer wanted: which may go, and which must not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from cluster.component import MIGRATED, Component
from cluster.graph import Catalogue, removal
from cluster.model import Cluster


def unwanted(
    catalogue: Catalogue, wanted: Sequence[Component], installed: Collection[str]
) -> tuple[Component, ...]:
    """Components to remove, in the order in which they can go.

    Args:
        installed: names of components that we installed.
    """
    keep = {component.name for component in wanted}
    gone = [catalogue[name] for name in sorted(installed) if name in catalogue and name not in keep]
    return tuple(one for one in removal([*wanted, *gone]) if one in gone)


def product_changes(
    cluster: Cluster,
    catalogue: Catalogue,
    wanted: Sequence[Component],
    installed: Collection[str],
) -> Iterator[str]:
    """Roles whose product would be another one on a living cluster, one line each.

    Also where K3s itself brings the new one. What holds data has a refusal of its own.
    """
    for role in MIGRATED:
        new = [component.name for component in wanted if component.role == role]
        old = [
            name
            for name in sorted(installed)
            if name in catalogue and catalogue[name].role == role and name not in new
        ]
        key = role.replace("-", "_")
        product = getattr(cluster.stack, key)
        by_k3s = not new and product != "none" and not any(catalogue[one].driver for one in old)
        if old and (by_k3s or not set(new) <= set(installed)):
            yield (
                f"stack.{key} {product}: {', '.join(old)} plays the role "
                f"{role} on this cluster: a living cluster changes it by a migration, not here"
            )


def refusals(
    components: Sequence[Component], data: Mapping[str, Sequence[str]], typed: Collection[str]
) -> Iterator[str]:
    """Why components must not be removed, one line each.

    Args:
        data: what each holds, in words: volumes of its driver, objects of its kinds.
        typed: names the user has typed.
    """
    for component in components:
        held = ", ".join(data.get(component.name, ()))
        if held and component.name not in typed:
            yield (
                f"{component.name} is not wanted any more and holds {held}: it stays; "
                f"--data remove={component.name} removes it with all it holds"
            )
