"""Kubernetes objects: planned by comparison, applied by server-side apply, waited for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.objects import Difference, Object
from cluster.readiness import Check, Ref
from facts.live import Live
from runtime import signals
from runtime.api import FIELD_MANAGER, Api

Say = Callable[[str], None]


@dataclass(frozen=True)
class Change:
    """What happens to one object; `same`: nothing.

    wanted: the object as it is sent.
    differences: of the live object from what the API would make of it.
    others: managers that own differing fields.
    note: why it could not be compared exactly, e.g. a webhook that is not there yet.
    """

    ref: Ref
    kind: Literal["create", "change", "same"]
    wanted: Object
    differences: tuple[Difference, ...] = ()
    others: tuple[str, ...] = ()
    note: str = ""

    @property
    def lines(self) -> list[str]:
        """What changes, one line each, secrets masked; empty for `same`."""
        raise NotImplementedError


def plan_objects(
    api: Api,
    live: Live,
    wanted: Iterable[Object],
    *,
    namespace: str | None = None,
    manager: str = FIELD_MANAGER,
) -> list[Change]:
    """Compare objects with the live ones; a dry run tells the truth about those that differ.

    One LIST for each kind that `live` has not read yet, one dry run for each object that differs
    on wanted fields. An object whose kind or namespace is not there yet is to be created.

    Args:
        namespace: of objects that name none and whose kind has one.
        manager: the field manager in whose name they are compared (`helm` for a release's).

    Raises: ApiError when the cluster cannot be asked.
    """
    raise NotImplementedError


def apply_changes(
    api: Api,
    changes: Sequence[Change],
    say: Say,
    *,
    timeout: float = 120.0,
    stop: Callable[[], bool] = signals.stopping,
) -> str | None:
    """Send what differs, namespaces and CRDs first; fields of other managers are taken over.

    Repeated while a kind is not served, a namespace is missing or a webhook does not answer.

    Args:
        say: gets one line for each object that was changed.
        timeout: seconds after which such a refusal is final.
        stop: whether the run is being broken off.

    Returns: None when all were sent, else the cause, one line.
    """
    raise NotImplementedError


def surplus(
    api: Api, live: Live, component: str, keep: Collection[Ref], *, named: Collection[str] = ()
) -> list[Ref]:
    """Objects that we applied for a component and that are no longer wanted.

    Only kinds that `live` has read. Never CustomResourceDefinitions, PersistentVolumeClaims and
    namespaces, unless their name is in `named`.
    """
    raise NotImplementedError


def all_objects(api: Api, component: str) -> list[Ref]:
    """Every object that we applied for a component, of all kinds the cluster serves.

    One metadata LIST for each kind: for removals. Raises: ApiError.
    """
    raise NotImplementedError


def prune(api: Api, refs: Iterable[Ref], say: Say) -> str | None:
    """Delete objects, the last applied first; None when all are deleted, else the cause."""
    raise NotImplementedError


def await_ready(
    api: Api,
    checks: Sequence[Check],
    timeout: float,
    say: Say,
    stop: Callable[[], bool] = signals.stopping,
) -> str | None:
    """Wait until all checks hold, by watches; safe in concurrent greenlets.

    Args:
        timeout: seconds.
        say: gets a line whenever what is missing changes.
        stop: whether the run is being broken off.

    Returns: None when all hold, else the cause in one line: the events, containers, volume claims
    or quota behind what is missing.
    """
    raise NotImplementedError
