"""Why something does not become ready: what its pods, claims and events say, in one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Object = Mapping[str, Any]

# Messages of a failed pull that no further pull will change.
_NO_SUCH_IMAGE = re.compile(
    r"not found|manifest unknown|no match for platform|no matching manifest|"
    r"invalid reference format",
    re.IGNORECASE,
)
_PULLS = ("ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName")
_NEVER = ("InvalidImageName", "ErrImageNeverPull")
_QUIET = ("ContainerCreating", "PodInitializing", "")  # no cause by themselves: events have it
_LIMIT = 240  # characters of a message


class Cause(NamedTuple):
    """Why it is not ready; hopeless: it will not become so by itself."""

    text: str
    hopeless: bool = False


def of_workload(
    workload: Object, pods: Sequence[Object], claims: Sequence[Object], events: Sequence[Object]
) -> Cause | None:
    """Why a Deployment, DaemonSet, StatefulSet or Job is not complete.

    Args:
        workload: the object.
        pods: those its selector matches.
        claims: PersistentVolumeClaims of its namespace.
        events: warnings of its namespace.
    """
    if found := of_pods(pods, claims, events):
        return found
    name = workload["metadata"]["name"]
    for condition in (workload.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return Cause(_short(condition.get("message")))
    about = [event for event in events if _belongs(event, name)]
    return _of_event(about)


def of_pods(
    pods: Sequence[Object], claims: Sequence[Object], events: Sequence[Object]
) -> Cause | None:
    """Why pods are not ready: the first that is hopeless, else the first with a reason."""
    unready = [pod for pod in pods if not _ready(pod)]
    found = [cause for pod in unready if (cause := _of_pod(pod, claims, events))]
    return next((cause for cause in found if cause.hopeless), found[0] if found else None)


def of_object(name: str, kind: str, events: Sequence[Object]) -> Cause | None:
    """What the newest warning about an object says."""
    return _of_event(
        event
        for event in events
        if (event.get("involvedObject") or {}).get("kind") == kind
        and (event.get("involvedObject") or {}).get("name") == name
    )


def of_crd(crd: Object) -> Cause | None:
    """What a CustomResourceDefinition that is not served says about itself."""
    for condition in (crd.get("status") or {}).get("conditions") or ():
        if condition.get("status") == "False" and condition.get("message"):
            return Cause(f"{crd['metadata']['name']}: {_short(condition['message'])}")
    return None


def _of_pod(pod: Object, claims: Sequence[Object], events: Sequence[Object]) -> Cause | None:
    name = pod["metadata"]["name"]
    about = [event for event in events if _belongs(event, name)]
    for found in (
        _unbound(pod, claims, events),
        _unschedulable(pod),
        *map(_of_container, _containers(pod)),
    ):
        if found:
            return Cause(f"pod {name}: {found.text}", found.hopeless)
    if warned := _of_event(about):
        return Cause(f"pod {name}: {warned.text}")
    if pod["metadata"].get("deletionTimestamp"):
        return Cause(f"pod {name} is being removed")
    return None


def _ready(pod: Object) -> bool:
    status = pod.get("status") or {}
    if status.get("phase") == "Succeeded":
        return True
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in status.get("conditions") or ()
    )


def _unbound(pod: Object, claims: Sequence[Object], events: Sequence[Object]) -> Cause | None:
    """A claim of the pod without a volume."""
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    wanted = {(volume.get("persistentVolumeClaim") or {}).get("claimName") for volume in volumes}
    for claim in claims:
        name = claim["metadata"]["name"]
        if name not in wanted or (claim.get("status") or {}).get("phase") == "Bound":
            continue
        storage = (claim.get("spec") or {}).get("storageClassName") or "the default class"
        why = of_object(name, "PersistentVolumeClaim", events)
        return Cause(f"claim {name} has no volume of {storage}{f': {why.text}' if why else ''}")
    return None


def _unschedulable(pod: Object) -> Cause | None:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Cause(f"no node takes it: {_short(condition.get('message'))}")
    return None


def _containers(pod: Object) -> Iterator[Object]:
    status = pod.get("status") or {}
    for key in ("initContainerStatuses", "containerStatuses"):
        yield from status.get(key) or ()


def _of_container(container: Object) -> Cause | None:
    if container.get("ready"):
        return None
    name, state = container.get("name"), container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason in _PULLS:
        never = reason in _NEVER or (
            reason == "ImagePullBackOff" and bool(_NO_SUCH_IMAGE.search(message))
        )
        text = f"image {container.get('image')} of {name}: {reason}"
        return Cause(f"{text}: {_short(message)}" if message else text, never)
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    if ended and (ended.get("exitCode") or ended.get("reason") not in (None, "Completed")):
        return _of_end(container, reason, ended)
    if reason not in _QUIET:
        return Cause(f"container {name}: {reason}{f': {_short(message)}' if message else ''}")
    return None


def _of_end(container: Object, reason: str, ended: Object) -> Cause:
    """A container that ended, and why."""
    count = container.get("restartCount") or 0
    why = ended.get("reason")
    parts = [f"container {container.get('name')} ended with {ended.get('exitCode')}"]
    if why and why not in ("Error", "Completed"):
        parts[0] += f" ({why})"
    if count:
        parts.append(f"{count} restarts")
    message = _last_line(ended.get("message"))
    if message:
        parts.append(message)
    wrong_arch = "exec format error" in f"{message} {reason} {ended.get('message') or ''}"
    return Cause(", ".join(parts), wrong_arch)


def _belongs(event: Object, name: str) -> bool:
    """Whether an event is about an object or something that was made for it."""
    about = str((event.get("involvedObject") or {}).get("name") or "")
    return about == name or about.startswith(f"{name}-")


def _of_event(events: Iterable[Object]) -> Cause | None:
    newest = max(events, key=seen, default=None)
    if newest is None:
        return None
    return Cause(f"{newest.get('reason')}: {_short(newest.get('message'))}")


def seen(event: Object) -> str:
    """When an event was last seen, as the API writes times."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((str(time) for time in times if time), "")


def _short(message: object) -> str:
    text = " ".join(str(message or "no message").split())
    return text if len(text) <= _LIMIT else f"{text[:_LIMIT]}…"


def _last_line(message: object) -> str:
    lines = [line.strip() for line in str(message or "").splitlines() if line.strip()]
    return _short(lines[-1]) if lines else ""
