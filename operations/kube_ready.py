"""One wait for many objects: watches that tell at once, and the cause of what does not come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import gevent
from gevent.event import Event

from cluster import cause
from cluster.answer import Absent, Present
from cluster.cause import Cause
from cluster.drain import selects
from cluster.probe import Done, Failed, Pending, Probe
from cluster.readiness import Check, Completed, Look, Ref, Rollout, judge
from facts.live import Live, judged
from runtime import signals
from runtime.api import CRD, EVENT, POD, Api, Kind, Object, Objects
from runtime.api import Event as ApiEvent
from runtime.endpoint import ApiError
from runtime.wait import wait

CLAIM = Kind("v1", "PersistentVolumeClaim")
SERVICE = Kind("v1", "Service")
INTERVAL = 2.0  # seconds between two looks when nothing happens
CALM = 0.1  # seconds in which events are taken together
AGAIN = 1.0  # seconds after which what could not be watched is tried again
EXPLAIN_EVERY = 10.0  # seconds between two searches for a cause
SURE_AFTER = 15.0  # seconds a failure that was there before must last: it may be an old one


def await_ready(
    api: Api,
    checks: Sequence[Check],
    timeout: float,
    say: Callable[[str], None],
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
    if not checks:
        return None
    watched = _Watched(api, [ref for check in checks for ref in check.refs], timeout)
    try:
        judgement = _Judgement(checks, watched, _Causes(api, watched.look), timeout)
        return wait(
            judgement.probe,
            timeout=timeout,
            interval=INTERVAL,
            say=say,
            stop=stop,
            pause=watched.pause,
        )
    finally:
        watched.close()


def explain(api: Api, checks: Sequence[Check]) -> Cause | None:
    """What is behind checks that do not hold now; None when nothing tells. Raises: ApiError."""
    return _Causes(api, Live(api).look).of(checks)


class _Watched:
    """The live objects behind some references, as they change."""

    def __init__(self, api: Api, refs: Iterable[Ref], seconds: float) -> None:
        self._api = api
        self._deadline = time.monotonic() + seconds
        self._objects: dict[Ref, Object] = {}
        self._news = Event()
        groups: dict[tuple[Kind, str | None], set[str]] = {}
        for ref in refs:
            kind = Kind(ref.api_version, ref.kind)
            if kind != CRD:
                groups.setdefault((kind, ref.namespace), set()).add(ref.name)
        self._unknown = set(groups)  # not listed yet
        self.troubles: dict[tuple[Kind, str | None], str] = {}
        self._jobs = [gevent.spawn(self._follow, group, names) for group, names in groups.items()]

    @property
    def known(self) -> bool:
        """Whether everything was looked at once."""
        return not self._unknown

    def look(self, ref: Ref) -> Object | None:
        """The live object; a CRD as far as the discovery knows it. Raises ApiError."""
        if Kind(ref.api_version, ref.kind) == CRD:
            if ref.name not in self._api.served():
                return None
            key = (ref.name, None)
            return judged({key: {"metadata": {"name": ref.name}}}, [ref.name])[key]
        return self._objects.get(ref)

    def pause(self, seconds: float) -> None:
        """Wait until something happens, so many seconds at most."""
        if self._news.wait(seconds):
            gevent.sleep(min(CALM, seconds))
        self._news.clear()

    def close(self) -> None:
        """End the watches."""
        gevent.killall(self._jobs, block=False)

    def _follow(self, group: tuple[Kind, str | None], names: set[str]) -> None:
        kind, namespace = group
        fields = f"metadata.name={next(iter(names))}" if len(names) == 1 else None

        def listed() -> None:
            self.troubles.pop(group, None)
            self._seen(group)

        while (left := self._deadline - time.monotonic()) > 0:
            try:
                for event in self._api.watch(
                    kind, namespace, fields=fields, timeout=left, listed=listed
                ):
                    self._take(kind, names, event)
            except ApiError as error:
                if isinstance(error.answer, Absent):
                    self.troubles.pop(group, None)
                else:
                    self.troubles[group] = str(error)
                self._seen(group)
                gevent.sleep(AGAIN)

    def _seen(self, group: tuple[Kind, str | None]) -> None:
        self._unknown.discard(group)
        self._news.set()

    def _take(self, kind: Kind, names: set[str], event: ApiEvent) -> None:
        metadata = event.object["metadata"]
        if metadata["name"] not in names:
            return
        ref = Ref(kind.api_version, kind.name, metadata["name"], metadata.get("namespace"))
        if event.type == "DELETED":
            self._objects.pop(ref, None)
        else:
            self._objects[ref] = event.object
        self._news.set()


class _Judgement:
    """Judges what is watched, and looks for a cause when nothing moves."""

    def __init__(
        self, checks: Sequence[Check], watched: _Watched, causes: _Causes, seconds: float
    ) -> None:
        self._checks, self._watched, self._causes = checks, watched, causes
        self._began = time.monotonic()
        self._deadline = self._began + seconds
        self._text = ""
        self._since = self._began
        self._cause: Cause | None = None
        self._failed_since: float | None = None

    def probe(self) -> Probe:
        """One look."""
        if not self._watched.known:
            return Pending("")  # not looked at yet
        try:
            found = judge(self._checks, self._watched.look)
        except ApiError as error:
            return Pending(str(error))
        match found:
            case Done():
                return found
            case Failed(cause=text):
                return self._failure(text)
            case Pending(text):
                return self._pending(text)

    def _failure(self, text: str) -> Probe:
        """A failure is final, unless it may be an old one that is about to pass."""
        now = time.monotonic()
        if self._failed_since is None:
            self._failed_since = now
        why = self._causes.of(self._checks)
        text = f"{text}; {why.text}" if why else text
        old = self._failed_since - self._began < INTERVAL
        if old and now - self._failed_since < SURE_AFTER:
            return Pending(text)
        return Failed(text)

    def _pending(self, text: str) -> Probe:
        self._failed_since = None
        now = time.monotonic()
        if trouble := next(iter(self._watched.troubles.values()), ""):
            return Pending(f"{text}; {trouble}")
        if text != self._text:
            self._text, self._since, self._cause = text, now, None
        if now - self._since >= EXPLAIN_EVERY or now >= self._deadline:
            self._since = now
            self._cause = self._causes.of(self._checks)
        if self._cause is None:
            return Pending(text)
        full = f"{text}; {self._cause.text}"
        return Failed(full) if self._cause.hopeless else Pending(full)


class _Causes:
    """Looks for the cause of what is missing among pods, claims and events."""

    def __init__(self, api: Api, look: Look) -> None:
        self._api, self._look = api, look
        self._lists: dict[tuple[Kind, str], Objects] = {}

    def of(self, checks: Sequence[Check]) -> Cause | None:
        """The first cause that is hopeless, else the first."""
        self._lists.clear()
        found: list[Cause] = []
        for check in checks:
            if isinstance(check.judge(self._look), Done):
                continue
            if why := self._why(check):
                found.append(why)
        return next((why for why in found if why.hopeless), found[0] if found else None)

    def _why(self, check: Check) -> Cause | None:
        ref = check.refs[-1]  # of a webhook: what stands behind it
        live = self._look(ref)
        if ref.kind == "Endpoints" and ref.namespace:
            return self._of_service(ref.name, ref.namespace)
        if ref == _crd(ref):
            return self._of_crd(check)
        events = self._events(ref.namespace)
        if isinstance(check, Rollout | Completed) and live is not None:
            namespace = str(ref.namespace)
            pods = self._pods(namespace, live["spec"].get("selector"))
            return cause.of_workload(live, pods, self._list(CLAIM, namespace), events)
        return cause.of_object(ref.name, ref.kind, events)

    def _of_service(self, name: str, namespace: str) -> Cause | None:
        match self._api.get(SERVICE, name, namespace):
            case Present(value=service):
                selector = {"matchLabels": service["spec"].get("selector") or {}}
            case _:
                return None
        pods = self._pods(namespace, selector)
        return cause.of_pods(pods, self._list(CLAIM, namespace), self._events(namespace))

    def _of_crd(self, check: Check) -> Cause | None:
        """What a CRD that is not served says itself."""
        for ref in check.refs:
            if self._look(ref) is not None:
                continue
            match self._api.get(CRD, ref.name):
                case Present(value=crd):
                    return cause.of_crd(crd)
                case _:
                    return None
        return None

    def _pods(self, namespace: str, selector: Object | None) -> Objects:
        return [
            pod
            for pod in self._list(POD, namespace)
            if selects(selector, pod["metadata"].get("labels") or {})
        ]

    def _events(self, namespace: str | None) -> Objects:
        return self._list(EVENT, namespace or "default", fields="type=Warning")

    def _list(self, kind: Kind, namespace: str, fields: str | None = None) -> Objects:
        key = (kind, namespace)
        if key not in self._lists:
            answer = self._api.list(kind, namespace, fields=fields)
            self._lists[key] = answer.value if isinstance(answer, Present) else []
        return self._lists[key]


def _crd(ref: Ref) -> Ref:
    return Ref(CRD.api_version, CRD.name, ref.name)
