"""Which components a cluster has, and in which order they come and go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Literal, NamedTuple

from cluster.component import ROLES, Component
from cluster.model import Cluster
from cluster.problem import meant

Catalogue = Mapping[str, Component]
Half = Literal["release", "objects"]


class GraphError(ValueError):
    """The components cannot be put in order; the text names them."""


class Step(NamedTuple):
    """One half of a component: its release, or the objects on top of it."""

    component: str
    half: Half

    def __str__(self) -> str:
        return self.component if self.half == "release" else f"{self.component} objects"


class Graph(NamedTuple):
    """Steps in an order that respects their needs: `needs` has the direct ones of each."""

    order: tuple[Step, ...]
    needs: Mapping[Step, frozenset[Step]]


def select(
    catalogue: Catalogue, cluster: Cluster, only: Collection[str] = ()
) -> tuple[Component, ...]:
    """The components of a cluster, in the order of their names.

    Those its stack asks for, those of `platform.components`, and what they need.

    Args:
        only: names of components; they and what they need are taken, nothing else.

    Raises: GraphError for a name that is not in the catalogue.
    """
    asked = {name for name, component in catalogue.items() if component.wanted(cluster)}
    asked |= set(cluster.platform.components)
    _known(catalogue, {**dict.fromkeys(asked, "platform.components"), **dict.fromkeys(only, "")})
    all_of_it = _closure(catalogue, asked | set(only))
    if only:
        roles = _players(catalogue[name] for name in all_of_it)
        all_of_it = _closure(catalogue, only, roles)
    return tuple(catalogue[name] for name in sorted(all_of_it))


def graph(components: Sequence[Component]) -> Graph:
    """The steps of the components and their order.

    Of steps that could come next, the one on which most others wait comes first.

    Raises: GraphError for needs that lead in a circle, and for unknown ones.
    """
    chosen = {component.name: component for component in components}
    roles = _players(components)
    needs: dict[Step, frozenset[Step]] = {}
    for name, component in chosen.items():
        last = {Step(need, "objects") for need in _needs(component, chosen, roles)}
        needs[Step(name, "release")] = frozenset(last)
        needs[Step(name, "objects")] = frozenset({Step(name, "release")})
    return Graph(tuple(_sorted(needs)), needs)


def removal(components: Sequence[Component]) -> tuple[Component, ...]:
    """The components in the order in which they can go: those that need others first."""
    chosen = {component.name: component for component in components}
    order = graph(components).order
    return tuple(chosen[step.component] for step in reversed(order) if step.half == "objects")


def critical_path(order: Graph, seconds: Mapping[Step, float]) -> float:
    """Seconds that a run takes at least when each step takes as long as given."""
    ends: dict[Step, float] = {}
    for step in order.order:
        begun = max((ends[need] for need in order.needs[step]), default=0.0)
        ends[step] = begun + seconds.get(step, 0.0)
    return max(ends.values(), default=0.0)


def _players(components: Iterable[Component]) -> dict[str, set[str]]:
    """Names of components by role."""
    found: dict[str, set[str]] = {}
    for component in components:
        if component.role is not None:
            found.setdefault(component.role, set()).add(component.name)
    return found


def _needs(
    component: Component, chosen: Collection[str], roles: Mapping[str, Collection[str]]
) -> Iterator[str]:
    """Names of the components one waits for; a role it plays itself means the others of it."""
    for need in component.needs:
        if need in ROLES:
            yield from (name for name in roles.get(need, ()) if name != component.name)
        elif need in chosen:
            yield need
        else:
            raise GraphError(
                f"{component.name} needs {need}, which is neither a role nor a component"
            )


def _known(catalogue: Catalogue, named: Mapping[str, str]) -> None:
    for name, where in named.items():
        if name not in catalogue:
            close = meant(name, list(catalogue))
            hint = f"; did you mean {close}?" if close else ""
            place = f"{where}: " if where else ""
            raise GraphError(f"{place}{name} is no component{hint}")


def _closure(
    catalogue: Catalogue, names: Iterable[str], roles: Mapping[str, Collection[str]] | None = None
) -> set[str]:
    """The names and what they need by name, and with `roles` what they need by role too."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        for need in catalogue[name].needs:
            if need in catalogue:
                left.append(need)
            elif roles:
                left += roles.get(need, ())
    return found


def _sorted(needs: Mapping[Step, frozenset[Step]]) -> Iterator[Step]:
    sorter = TopologicalSorter(needs)
    try:
        sorter.prepare()
    except CycleError as error:
        circle = dict.fromkeys(step.component for step in error.args[1])
        path = " → ".join([*circle, next(iter(circle))])
        raise GraphError(f"components need each other in a circle: {path}") from None
    waiting = _waiting(needs)
    ready: list[Step] = []
    while sorter.is_active():
        ready += sorter.get_ready()
        ready.sort(key=lambda step: (-waiting[step], step))
        step = ready.pop(0)
        yield step
        sorter.done(step)


def _waiting(needs: Mapping[Step, frozenset[Step]]) -> dict[Step, int]:
    """How many steps wait for each, directly or not."""
    direct: dict[Step, set[Step]] = {step: set() for step in needs}
    for step, before in needs.items():
        for need in before:
            direct[need].add(step)
    found: dict[Step, int] = {}
    for step in direct:
        seen: set[Step] = set()
        left = [step]
        while left:
            for later in direct[left.pop()] - seen:
                seen.add(later)
                left.append(later)
        found[step] = len(seen)
    return found
