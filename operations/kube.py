"""Kubernetes objects: planned by comparison, applied by server-side apply, pruned, waited for.

The functions are for engines that bring many components about side by side; the operations are
the same for deploys of one's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Literal

from gevent.pool import Pool
from pyinfra import host, state
from pyinfra.api import FunctionCommand, Host, State, operation

from cluster.answer import Absent, Present
from cluster.component import COMPONENT
from cluster.objects import (
    Difference,
    Object,
    changes_of,
    coded,
    differences,
    fingerprint,
    last_writers,
    lines,
    lost,
    operated,
    other_managers,
    prepared,
    ref,
    with_annotation,
    with_labels,
)
from cluster.probe import Done, Pending, Probe
from cluster.readiness import Check, Ref, judge
from facts.kube import ours, read_objects
from facts.live import Live, look_now
from operations.flow import ended
from operations.kube_ready import await_ready as await_ready
from runtime import signals
from runtime.api import CRD, FIELD_MANAGER, Api, Kind, api, api_of
from runtime.endpoint import ApiError
from runtime.wait import wait

Say = Callable[[str], None]

# On every CRD of ours: what was applied, so that its metadata tells whether it is up to date.
APPLIED = "picluster.io/sha256"
AT_ONCE = 6  # requests
PAUSE = 1.0  # seconds between two attempts at an object that is refused for now
PRECIOUS = frozenset({"CustomResourceDefinition", "PersistentVolumeClaim", "Namespace"})
# Kinds that come first, in the order in which others rest on them, and those that come last.
FIRST = (
    "Namespace", "NetworkPolicy", "ResourceQuota", "LimitRange", "PodDisruptionBudget",
    "PriorityClass", "CustomResourceDefinition", "StorageClass", "ServiceAccount", "Secret",
    "ConfigMap", "PersistentVolume", "PersistentVolumeClaim", "ClusterRole", "ClusterRoleBinding",
    "Role", "RoleBinding", "Service",
)  # fmt: skip
LAST = ("Ingress", "HTTPRoute", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
# Words of refusals that pass when what is missing has started.
PASSING = (
    "failed calling webhook",
    "no endpoints available",
    "conversion webhook",
    "because it is being terminated",
    "connection refused",
)


@dataclass(frozen=True)
class Change:
    """What happens to one object; `same`: nothing.

    wanted: the object as it is sent.
    differences: of the live object from what the API would make of it.
    others: managers that own differing fields, or wrote the object after us.
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
        if self.kind == "create":
            return [f"{self.ref} is created"]
        if self.kind == "same":
            return []
        found = lines(self.differences, self.ref)
        if self.others:
            found.append(f"{self.ref}: was changed by {', '.join(self.others)}")
        if self.note:
            found.append(f"{self.ref}: {self.note}")
        return found


# --- plan


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
    items = [_sent(api, item, namespace, manager) for item in wanted]
    live.load(_kind(item) for item in items)
    found = [_compared(live, item, manager) for item in items]
    pool = Pool(AT_ONCE)
    return list(pool.imap(partial(_verified, api, live, manager), found))


def _kind(item: Object) -> Kind:
    return Kind(item["apiVersion"], item["kind"])


def _sent(api: Api, item: Object, namespace: str | None, manager: str) -> Object:
    """An object as it is sent: in its namespace, and a CRD of ours with its fingerprint."""
    sent = prepared(item) if manager == FIELD_MANAGER else coded(item)
    if _kind(sent) == CRD and manager == FIELD_MANAGER:
        sent = with_annotation(sent, APPLIED, fingerprint(sent))
    try:
        wants = api.namespaced(_kind(sent))
    except ApiError as error:
        if isinstance(error.answer, Absent):
            return sent
        raise
    metadata = dict(sent["metadata"])
    named = metadata.pop("namespace", None)
    if wants:
        metadata["namespace"] = named or namespace or "default"
    return sent | {"metadata": metadata}


def _compared(live: Live, item: Object, manager: str) -> Change:
    """What the fields that were read say."""
    which = ref(item)
    found = live.look(which)
    if found is None:
        return Change(which, "create", item)
    if _kind(item) == CRD:
        head = {key: item[key] for key in ("apiVersion", "kind", "metadata")}
        gone = (Difference(path, None, None) for path in lost(item, found, manager))
        differing = (*differences(head, found), *gone)
    else:
        differing = differences(item, found, manager)
    differing = _unexpected(differing, found, manager)
    return Change(which, "change" if differing else "same", item, differing)


def _verified(api: Api, live: Live, manager: str, change: Change) -> Change:
    """The change as the API would make it; `same` when it would make none."""
    if change.kind != "change":
        return change
    kind, which = _kind(change.wanted), change.ref
    found = live.look(which)
    if kind == CRD:
        match api.get(kind, which.name):
            case Present(value=found):
                pass
            case answer:
                raise ApiError(answer)
    assert found is not None
    try:
        made = api.apply(change.wanted, force=True, dry_run=True, manager=manager)
    except ApiError as error:
        if not error.status:
            raise
        return replace(change, note=str(error), others=_others(found, change.differences, manager))
    differing = _unexpected(changes_of(found, made), found, manager)
    if not differing:
        return replace(change, kind="same", differences=())
    return replace(change, differences=differing, others=_others(found, differing, manager))


def _unexpected(
    differing: Iterable[Difference], found: Object, manager: str
) -> tuple[Difference, ...]:
    return tuple(one for one in differing if not operated(one, found, manager))


def _others(found: Object, differing: Iterable[Difference], manager: str) -> tuple[str, ...]:
    names = [name for one in differing for name in other_managers(found, one.path, manager)]
    return tuple(dict.fromkeys(names)) or last_writers(found, manager)


# --- apply


def apply_changes(
    api: Api,
    changes: Sequence[Change],
    say: Say,
    *,
    timeout: float = 120.0,
    stop: Callable[[], bool] = signals.stopping,
) -> str | None:
    """Send what differs, namespaces and CRDs first; fields of other managers are taken over.

    Of one rank, objects that are there come first: a change may make room for a new one.

    Repeated while a kind is not served, a namespace is missing or a webhook does not answer.

    Args:
        say: gets one line for each object that was changed.
        timeout: seconds after which such a refusal is final.
        stop: whether the run is being broken off.

    Returns: None when all were sent, else the cause, one line.
    """
    deadline = time.monotonic() + timeout
    todo = sorted((change for change in changes if change.kind != "same"), key=_turn)
    for _, group in groupby(todo, key=_turn):
        some = list(group)
        causes = Pool(AT_ONCE).map(partial(_applied, api, say, deadline, stop), some)
        if any(_kind(change.wanted) == CRD for change in some):
            api.rediscover()
        if failed := [str(cause) for cause in causes if cause]:
            return failed[0]
    return None


def _turn(change: Change) -> tuple[int, bool]:
    return _rank(change.ref), change.kind == "create"


def _rank(which: Ref) -> int:
    if which.kind in FIRST:
        return FIRST.index(which.kind)
    return len(FIRST) + (LAST.index(which.kind) + 1 if which.kind in LAST else 0)


def _applied(
    api: Api, say: Say, deadline: float, stop: Callable[[], bool], change: Change
) -> str | None:
    said = ""
    while True:
        try:
            api.apply(change.wanted, force=True)
        except ApiError as error:
            cause = f"{change.ref}: {error}"
            if stop() or not _passes(error) or time.monotonic() >= deadline:
                return cause
            if cause != said:
                say(f"waiting: {cause}")
                said = cause
            time.sleep(PAUSE)
            continue
        for line in change.lines:
            say(line)
        return None


def _passes(error: ApiError) -> bool:
    """Whether a refusal may pass when others have started."""
    if error.status in (0, 404, 429) or error.status >= 500:
        return True
    return any(words in str(error) for words in PASSING)


# --- prune


def surplus(live: Live, component: str, keep: Collection[Ref]) -> list[Ref]:
    """Objects that we applied for a component and that are no longer wanted.

    Only kinds that `live` has read, and never CustomResourceDefinitions, PersistentVolumeClaims
    and namespaces.
    """
    return [
        which
        for kind in live.kinds
        for which in ours(_values(live, kind), component)
        if which not in keep and which.kind not in PRECIOUS
    ]


def all_objects(api: Api, component: str) -> list[Ref]:
    """Every object that we applied for a component, of all kinds the cluster serves.

    One metadata LIST for each kind: for removals. Raises: ApiError.
    """
    match read_objects(api, component):
        case Present(value=found):
            return found
        case answer:
            raise ApiError(answer)


def _values(live: Live, kind: Kind) -> Iterable[Object]:
    answer = live.of(kind)
    return answer.value.values() if isinstance(answer, Present) else ()


def prune(api: Api, refs: Iterable[Ref], say: Say) -> str | None:
    """Delete objects, what was applied last first; None when all are deleted, else the cause."""
    for which in sorted(refs, key=_rank, reverse=True):
        try:
            gone = api.delete(Kind(which.api_version, which.kind), which.name, which.namespace)
        except ApiError as error:
            return f"{which}: {error}"
        if gone:
            say(f"{which} is deleted")
    return None


def await_gone(api: Api, refs: Iterable[Ref], timeout: float, say: Say) -> str | None:
    """Wait until objects that were deleted are no longer there.

    Args:
        timeout: seconds.

    Returns: None when all are gone, else what is left and who holds it. Raises: ApiError.
    """
    left = list(refs)

    def probe() -> Probe:
        while left:
            which = left[-1]
            live = look_now(api, which)
            if live and live["metadata"].get("deletionTimestamp"):
                held = ", ".join(live["metadata"].get("finalizers") or ())
                return Pending(f"{which} is being removed{f', {held} holds it' if held else ''}")
            left.pop()
        return Done()

    return wait(probe, timeout=timeout, say=say)


# --- operations


@operation()
def objects(
    wanted: Sequence[Object], component: str | None = None, prune_others: bool = False
) -> Generator[FunctionCommand, None, None]:
    """Keep objects as they are given, by server-side apply as field manager `picluster`.

    Fields that others own are taken over, and who they were is said.

    Args:
        wanted: the objects, as in manifests.
        component: value of the label `picluster.io/component` of all of them.
        prune_others: delete what we once applied with that label and do not want any more, of
            the kinds given here; never CRDs, claims and namespaces.
    """
    items = [with_labels(item, {COMPONENT: component}) if component else item for item in wanted]
    try:
        changes, old = _plan(api(), items, component if prune_others else None)
    except ApiError as error:
        host.noop(f"objects cannot be compared yet: {error}")
        changes, old = [Change(ref(item), "create", item) for item in items], []
    if not old and all(change.kind == "same" for change in changes):
        host.noop(f"{len(items)} objects are as wanted")
        return
    if state.config.DIFF:
        for line in (line for change in changes for line in change.lines):
            host.log(line)
    yield FunctionCommand(bring_about, (items, component if prune_others else None), {})


def bring_about(state: State, host: Host, items: Sequence[Object], pruned: str | None) -> bool:
    """Compare once more and apply what differs; False when it failed."""
    api = api_of(state)
    try:
        changes, old = _plan(api, items, pruned)
    except ApiError as error:
        return ended(host, str(error))
    cause = apply_changes(api, changes, host.log) or prune(api, old, host.log)
    return ended(host, cause)


def _plan(api: Api, items: Sequence[Object], pruned: str | None) -> tuple[list[Change], list[Ref]]:
    live = Live(api)
    changes = plan_objects(api, live, items)
    keep = {change.ref for change in changes}
    return changes, surplus(live, pruned, keep) if pruned else []


@operation()
def ready(checks: Sequence[Check], timeout: float = 600) -> Generator[FunctionCommand, None, None]:
    """Wait until checks of `cluster/readiness.py` hold; nothing to do when they do already.

    Args:
        checks: e.g. Rollout("Deployment", "web", "default").
        timeout: seconds.
    """
    try:
        hold = isinstance(judge(checks, Live(api()).look), Done)
    except ApiError:
        hold = False
    if hold:
        host.noop(f"{len(checks)} checks hold")
        return
    yield FunctionCommand(wait_for, (checks, timeout), {})


def wait_for(state: State, host: Host, checks: Sequence[Check], timeout: float) -> bool:
    """Wait for checks; False with the cause in the log when they do not come."""
    say = partial(_waiting, host)
    return ended(host, await_ready(api_of(state), checks, timeout, say))


def _waiting(host: Host, text: str) -> None:
    host.log(f"waiting for {text}")
