"""Pods that start anew because a Secret that they read at their start has changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial

from cluster import pod_secrets
from cluster.readiness import Ref
from facts.live import look_now
from runtime.api import Api, Kind, Object

Say = Callable[[str], None]


def remember(api: Api, workloads: Iterable[Ref], secrets: Collection[Ref]) -> None:
    """Write down what pods have read of Secrets, before those change. Raises: ApiError."""
    for which in workloads:
        if found := look_now(api, which):
            mine = [one for one in pod_secrets.used(found) if one in secrets]
            if patch := pod_secrets.remembered(found, partial(look_now, api), mine):
                _patch(api, which, patch)


def bring_about(api: Api, workloads: Iterable[Ref], say: Say) -> None:
    """Start anew what has read another content of a Secret than it has now. Raises: ApiError.

    A Job goes: it is made again by whoever applies it next.
    """
    for which in workloads:
        found = look_now(api, which)
        changed = pod_secrets.outdated(found, partial(look_now, api)) if found else ()
        if found is None or not changed:
            continue
        if which.kind in pod_secrets.ROLLED:
            _patch(api, which, pod_secrets.restarted(found, partial(look_now, api)))
        else:
            api.delete(Kind(which.api_version, which.kind), which.name, which.namespace)
        say(f"{which} {reason(changed)}")


def reason(changed: Collection[Ref]) -> str:
    """Why a workload starts anew, in words."""
    return f"starts anew: {', '.join(map(str, changed))} has changed"


def _patch(api: Api, which: Ref, patch: Object) -> None:
    api.patch(Kind(which.api_version, which.kind), which.name, patch, which.namespace)
