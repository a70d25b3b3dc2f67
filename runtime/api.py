"""The Kubernetes API of the run's cluster, through whichever server answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from pyinfra import logger
from pyinfra.api.exceptions import NoGroupError
from pyinfra.api.state import BaseStateCallback
from pyinfra.context import ctx_state

from cluster.answer import (
    Absent,
    Answer,
    Forbidden,
    NoValue,
    Present,
    Refused,
    Stopped,
    Unreachable,
)
from runtime.credential import Credential
from runtime.discovery import AGGREGATED, Discovery, discovered, resource_of
from runtime.discovery import Kind as Kind  # of whoever uses the API
from runtime.endpoint import TIMEOUT, ApiError, Cause, Endpoint, open_endpoint, read_credential

if TYPE_CHECKING:
    from kubernetes.dynamic.client import DynamicClient
    from kubernetes.dynamic.resource import Resource
    from pyinfra.api import Host, State

T = TypeVar("T")
Object = dict[str, Any]  # a Kubernetes object as the API's JSON has it
Objects = list[Object]

FIELD_MANAGER = "picluster"
SERVERS = "servers"  # inventory group
ATTEMPTS = 5  # for answers that may change by themselves: 409, 429, 5xx
LONGEST_PAUSE = 4.0  # seconds between two of them
FORGET_AFTER = 20.0  # seconds after which an unreachable server is tried again
REDISCOVER_AFTER = 1.0  # seconds after which an unknown kind is looked for again
MERGE_PATCH = "application/merge-patch+json"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


NODE = Kind("v1", "Node")
POD = Kind("v1", "Pod")
NAMESPACE = Kind("v1", "Namespace")
EVENT = Kind("v1", "Event")
SECRET = Kind("v1", "Secret")
CONFIG_MAP = Kind("v1", "ConfigMap")
CRD = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition")
POD_DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget")

# Kinds of every cluster, whose paths need no request: plural name, and whether in a namespace.
BUILT_IN: Mapping[Kind, tuple[str, bool]] = {
    NODE: ("nodes", False),
    POD: ("pods", True),
    NAMESPACE: ("namespaces", False),
    EVENT: ("events", True),
    SECRET: ("secrets", True),
    CONFIG_MAP: ("configmaps", True),
    CRD: ("customresourcedefinitions", False),
    POD_DISRUPTION_BUDGET: ("poddisruptionbudgets", True),
}


class Event(NamedTuple):
    """One event of a watch: ADDED, MODIFIED or DELETED."""

    type: str
    object: Object


class Api:
    """Requests to a cluster's API that survive the loss of a server.

    Reads answer with one of four answers; writes return the object or raise ApiError. A server
    that cannot be asked is left for the next one at once; 409, 429 and 5xx are repeated a bounded
    number of times. Safe to use from many greenlets.

    Args:
        hosts: the servers, in the order in which they are tried.
    """

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = {host.name: host for host in hosts}
        self._endpoints: dict[str, Endpoint] = {}
        self._unreachable: dict[str, tuple[float, ApiError]] = {}
        self._credential: Credential | None = None
        self._found = Discovery()
        self._discovery = RLock()
        self._current = ""
        self._sent_before = 0
        self._received_before = 0
        self._lock = RLock()

    @property
    def requests(self) -> int:
        """HTTP requests sent so far."""
        return self._sent_before + sum(e.requests for e in self._endpoints.values())

    @property
    def received(self) -> int:
        """Bytes of the answers' bodies so far, as they came over the wire."""
        return self._received_before + sum(e.received for e in self._endpoints.values())

    @property
    def current(self) -> str:
        """Name of the server that answered last; empty before the first answer."""
        return self._current

    # --- reads

    def state(self) -> Answer[str]:
        """The UID of the cluster, which is that of the namespace kube-system.

        Absent only when every server was reached and none has K3s' kubeconfig.
        """
        match self._ask(lambda: self._get(NAMESPACE, "kube-system", None)):
            case Present(value=namespace):
                return Present(str(namespace["metadata"]["uid"]))
            case Absent(reason=reason) if self._current:
                return Stopped(f"the API has no kube-system yet ({reason})")
            case answer:
                return answer

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Answer[Object]:
        """One object."""
        return self._ask(lambda: self._get(kind, name, namespace))

    def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        metadata_only: bool = False,
    ) -> Answer[Objects]:
        """The objects of a kind, of all namespaces when none is given.

        Absent when the cluster does not know the kind.

        Args:
            labels: a label selector.
            fields: a field selector.
            metadata_only: apiVersion, kind and metadata, nothing else.
        """
        selected = {"namespace": namespace, "label_selector": labels, "field_selector": fields}
        return self._ask(lambda: list_items(self._list(kind, selected, metadata_only), kind))

    def namespaced(self, kind: Kind) -> bool:
        """Whether objects of a kind live in namespaces; raises ApiError for an unknown kind."""
        return bool(self._resource(kind).namespaced)

    def served(self) -> frozenset[str]:
        """What the API serves, as `<plural>.<group>`: the names CRDs have. Raises ApiError."""
        return self._discovered(lambda found: False).names

    def listable(self) -> tuple[Kind, ...]:
        """The kinds that can be listed and changed, each once. Raises ApiError."""
        return self._discovered(lambda found: bool(found.listable)).listable

    def rediscover(self) -> None:
        """Ask for kinds anew at the next unknown one: CRDs were applied or removed."""
        self._found.asked = float("-inf")

    def version(self) -> Answer[str]:
        """Kubernetes' version without K3s' suffix, e.g. v1.36.3."""
        return self._ask(lambda: str(self._send(_get("/version"))["gitVersion"]).partition("+")[0])

    def ready(self, server: str) -> Answer[None]:
        """`/readyz` of that very server, without fail-over; what fails is the reason."""
        return self._ask(lambda: self._ready(server))

    def etcd_members(self, server: str) -> Answer[tuple[str, ...]]:
        """Names of the etcd members, `<node>-<8 hex>`, as that server has them.

        Source: `/db/info` of K3s' supervisor, open to whoever asks from the server itself.
        """
        return self._ask(
            lambda: tuple(
                str(member.get("name") or "")
                for member in self._through(server, _get("/db/info")).get("members", ())
            )
        )

    def credential(self) -> Answer[Credential]:
        """The admin credential of the first server that has one, in the order of the inventory.

        Absent only when every server was reached and none has K3s' kubeconfig.
        """
        failures: list[NoValue] = []
        for host in self._hosts.values():
            try:
                return Present(read_credential(host))
            except ApiError as error:
                failures.append(error.answer)
        return _together(failures)

    def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        fields: str | None = None,
        timeout: float,
        listed: Callable[[], None] = lambda: None,
    ) -> Iterator[Event]:
        """What there is, as ADDED, then what happens to it.

        Goes on after closed connections and expired versions; an object that vanished in such a
        gap comes as DELETED, one that is seen again as ADDED.

        Args:
            timeout: seconds after which the iteration ends.
            listed: called whenever all there is has been told, be it nothing.

        Raises: ApiError.
        """
        deadline = time.monotonic() + timeout
        selected = {"namespace": namespace, "field_selector": fields}
        known: dict[str, Object] = {}
        while (left := deadline - time.monotonic()) > 0:
            listing = self._list(kind, selected)
            found = {item["metadata"]["uid"]: item for item in list_items(listing, kind)}
            for uid in known.keys() - found.keys():
                yield Event("DELETED", known.pop(uid))
            for uid, item in found.items():
                known[uid] = item
                yield Event("ADDED", item)
            listed()
            version = listing["metadata"]["resourceVersion"]
            for event in self._changes(kind, selected, version, left):
                known[event.object["metadata"]["uid"]] = event.object
                if event.type == "DELETED":
                    del known[event.object["metadata"]["uid"]]
                yield event

    # --- writes

    def apply(
        self,
        body: Object,
        *,
        force: bool = False,
        dry_run: bool = False,
        manager: str = FIELD_MANAGER,
    ) -> Object:
        """Create or change an object by server-side apply.

        Args:
            body: the object with every field that we own, and no other.
            force: take over fields that another manager owns.
            dry_run: let the API do all but store it.
            manager: the field manager in whose name it is done.

        Returns: the object as the API has it now.
        Raises: ApiError; with `other_manager` when fields belong to others and `force` is off.
        """
        resource = self._resource(Kind(body["apiVersion"], body["kind"]))
        arguments: dict[str, Any] = {"field_manager": manager} | _dry(dry_run)
        if force:
            arguments["force_conflicts"] = True
        return self._call(
            lambda client: client.server_side_apply(
                resource,
                body=body,
                namespace=body["metadata"].get("namespace"),
                **arguments,
                **_plain(),
            )
        )

    def patch(
        self,
        kind: Kind,
        name: str,
        body: Object,
        namespace: str | None = None,
        *,
        dry_run: bool = False,
    ) -> Object:
        """Change an object by a JSON merge patch (RFC 7396): None removes a key.

        A `metadata.resourceVersion` in the body makes it conditional: 409 when the object has
        changed since, without a further try.

        Returns: the object as it is now. Raises: ApiError.
        """
        resource = self._resource(kind)
        conditional = "resourceVersion" in body.get("metadata", {})
        return self._call(
            lambda client: client.patch(
                resource,
                body=body,
                name=name,
                namespace=namespace,
                content_type=MERGE_PATCH,
                field_manager=FIELD_MANAGER,
                **_dry(dry_run),
                **_plain(),
            ),
            hopeless=frozenset({409} if conditional else ()),
        )

    def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        dry_run: bool = False,
    ) -> bool:
        """Delete an object, and that very one when its UID is given.

        Returns: False when it was not there. Raises: ApiError.
        """
        # What was made for it goes, too: the pods of a Job would stay otherwise.
        options: Object = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if uid:
            options["preconditions"] = {"uid": uid}
        resource = self._resource(kind)
        try:
            self._call(
                lambda client: client.delete(
                    resource,
                    name=name,
                    namespace=namespace,
                    body=options,
                    **_dry(dry_run),
                    **_plain(),
                ),
                hopeless=frozenset({409} if uid else ()),
            )
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def evict(self, name: str, namespace: str) -> bool:
        """Ask for the eviction of a pod, which its disruption budgets may refuse.

        Returns: False when the pod is gone.
        Raises: ApiError; status 429 when a budget refuses now, 500 when it can never be evicted.
        """
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
        }
        path = f"{self._resource(POD).path(name=name, namespace=namespace)}/eviction"
        try:
            self._call(
                lambda client: client.request("post", path, body=body, **_plain()),
                hopeless=frozenset({429, 500}),
            )
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def close(self) -> None:
        """Close all connections of ours; the next request opens them again."""
        with self._lock:
            for name in list(self._endpoints):
                self.drop(name)
            self._credential = None

    def drop(self, server: str) -> None:
        """Close our connection to one server; the next request to it opens one."""
        with self._lock:
            endpoint = self._endpoints.pop(server, None)
        if endpoint:
            self._sent_before += endpoint.requests
            self._received_before += endpoint.received
            endpoint.close()

    # --- below: requests

    def _ask(self, read: Callable[[], T]) -> Answer[T]:
        try:
            return Present(read())
        except ApiError as error:
            return error.answer

    def _get(self, kind: Kind, name: str, namespace: str | None) -> Object:
        resource = self._resource(kind)
        return self._call(
            lambda client: client.get(resource, name=name, namespace=namespace, **_plain())
        )

    def _list(self, kind: Kind, selected: Mapping[str, Any], metadata_only: bool = False) -> Object:
        resource = self._resource(kind)

        def get(client: DynamicClient) -> Any:
            more = {"header_params": {"Accept": METADATA_ONLY}} if metadata_only else {}
            return client.get(resource, **selected, **more, **_plain())

        return self._call(get)

    def _ready(self, server: str) -> None:
        try:
            self._through(server, _get("/readyz?verbose"))
        except ApiError as error:
            failing = [
                line.partition("[-]")[2].removesuffix(": reason withheld")
                for line in error.answer.reason.splitlines()
                if "[-]" in line
            ]
            if failing:
                raise ApiError(
                    Stopped(f"{server} is not ready: {', '.join(failing)}"), status=error.status
                ) from None
            raise

    def _changes(
        self, kind: Kind, selected: Mapping[str, Any], version: str, seconds: float
    ) -> Iterator[Event]:
        """Events after a version until the time is over or the version has expired."""
        from urllib3.exceptions import HTTPError

        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            arguments = dict(
                selected,
                watch=True,
                resource_version=version,
                allow_watch_bookmarks=True,
                timeout_seconds=max(1, int(left)),
                serialize=False,
                _request_timeout=(TIMEOUT[0], left + TIMEOUT[1]),
            )
            get = partial(_get_stream, self._resource(kind), arguments)
            stream = self._send(partial(_stream, get))
            try:
                for event in _events(stream):
                    if event.type == "ERROR":
                        if event.object.get("code") == 410:
                            return
                        raise ApiError(Refused(str(event.object.get("message"))))
                    version = event.object["metadata"]["resourceVersion"]
                    if event.type != "BOOKMARK":
                        yield event
            except (HTTPError, OSError):
                time.sleep(min(1.0, left))  # cut in the middle: go on from the last version
            finally:
                self._received_before += stream.tell()
                stream.close()

    def _resource(self, kind: Kind) -> Resource:
        """Where a kind lives in the API."""
        if kind in BUILT_IN:
            return resource_of(kind, *BUILT_IN[kind])
        found = self._discovered(lambda found: kind in found.resources)
        if resource := found.resources.get(kind):
            return resource
        if kind.api_version in found.stale:
            raise ApiError(Stopped(f"the API service of {kind.api_version} does not answer"))
        raise ApiError(Absent(f"the cluster has no kind {kind}"), status=404)

    def _discovered(self, enough: Callable[[Discovery], bool]) -> Discovery:
        """What the API serves; asked again when it is not enough and not just asked."""
        now = time.monotonic()
        if not enough(self._found):
            with self._discovery:  # whoever waited here has the answer of the one before
                if not enough(self._found) and now - self._found.asked > REDISCOVER_AFTER:
                    self._found = self._discover()
        return self._found

    def _discover(self) -> Discovery:
        """Ask for all kinds at once: two requests, whatever their number.

        Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#aggregated-discovery
        """
        asked = time.monotonic()
        return discovered(asked, [self._send(_get(path, AGGREGATED)) for path in ("/api", "/apis")])

    def _call(
        self, call: Callable[[DynamicClient], Any], hopeless: frozenset[int] = frozenset()
    ) -> Object:
        """Send a request whose answer is JSON; raises ApiError."""
        answer: Object = self._send(lambda endpoint: endpoint.send(call), hopeless)
        return answer

    def _send(self, send: Callable[[Endpoint], Any], hopeless: frozenset[int] = frozenset()) -> Any:
        """Send a request, again while its failure may pass and its status is not hopeless."""
        from tenacity import Retrying, retry_if_exception, stop_after_attempt

        retrying = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=_pause,
            retry=retry_if_exception(lambda error: _may_pass(error, hopeless)),
            sleep=time.sleep,
            reraise=True,
        )
        return retrying(self._anywhere, send)

    def _anywhere(self, send: Callable[[Endpoint], T]) -> T:
        """Send a request to the current server, else to the next that can be asked."""
        failures: list[ApiError] = []
        for name in self._order():
            try:
                result = self._through(name, send)
            except ApiError as error:
                if error.cause is Cause.ANSWER:
                    if error.status >= 500:
                        self._prefer_another(name)
                    else:
                        self._current = name
                    raise
                if name == self._current:
                    logger.warning(f"Kubernetes API: {error}; trying the other servers")
                    self._current = ""
                failures.append(error)
                continue
            self._current = name
            return result
        self.close()  # the cluster may be a new one when it comes back
        raise ApiError(_together([error.answer for error in failures]), Cause.SERVER)

    def _through(self, server: str, send: Callable[[Endpoint], T]) -> T:
        """Send a request to one server, once more for a stale connection and for a stale key."""
        tried: set[Cause] = set()
        while True:
            endpoint = self._endpoint(server)
            try:
                return send(endpoint)
            except ApiError as error:
                if error.cause in tried | {Cause.ANSWER, Cause.SERVER}:
                    raise
                tried.add(error.cause)
                if error.cause is Cause.CREDENTIAL:
                    self._forget_credential(endpoint)

    def _forget_credential(self, endpoint: Endpoint) -> None:
        """Read the credential anew for the next request, unless somebody has already."""
        with self._lock:
            if self._endpoints.get(endpoint.name) is endpoint:
                self._credential = None
                self.drop(endpoint.name)

    def _endpoint(self, server: str) -> Endpoint:
        with self._lock:
            endpoint = self._endpoints.get(server)
            if endpoint and endpoint.alive:
                return endpoint
            self.drop(server)
            since, failure = self._unreachable.get(server, (0.0, None))
            if failure and time.monotonic() - since < FORGET_AFTER:
                raise failure
            try:
                endpoint, self._credential = open_endpoint(self._hosts[server], self._credential)
            except ApiError as error:
                if isinstance(error.answer, Unreachable):
                    self._unreachable[server] = (time.monotonic(), error)
                raise
            self._unreachable.pop(server, None)
            self._endpoints[server] = endpoint
            return endpoint

    def _order(self) -> Sequence[str]:
        """The current server, then those with a connection, then those not known to be down."""

        def rank(name: str) -> tuple[bool, bool, bool]:
            host = self._hosts[name]
            failed = host in host.state.failed_hosts
            return (name != self._current, failed, not host.connected)

        return sorted(self._hosts, key=rank)

    def _prefer_another(self, name: str) -> None:
        """Let the next attempt begin at the server after this one."""
        names = list(self._hosts)
        self._current = names[(names.index(name) + 1) % len(names)]


def api() -> Api:
    """The API of the run's cluster: one for a run, whoever asks."""
    return api_of(ctx_state.get())


def api_of(state: State) -> Api:
    """The API of the cluster of a pyinfra state, for code that has no context."""
    if state not in _APIS:
        try:
            hosts = state.inventory.get_group(SERVERS)
        except NoGroupError:
            hosts = []
        _APIS[state] = Api(hosts)
        state.add_callback_handler(_Disconnected())
    return _APIS[state]


_APIS: WeakKeyDictionary[State, Api] = WeakKeyDictionary()


class _Disconnected(BaseStateCallback):
    """Our connection to a server ends with pyinfra's."""

    @staticmethod
    def host_disconnect(state: State, host: Host) -> None:
        _APIS[state].drop(host.name)


def list_items(listing: Object, kind: Kind) -> Objects:
    """The objects of a LIST answer; the API leaves their apiVersion and kind out."""
    head = {"apiVersion": kind.api_version, "kind": kind.name}
    return [item | head for item in listing.get("items") or ()]


def _together(answers: Sequence[NoValue]) -> NoValue:
    """One answer for all servers; the least certain one wins."""
    if not answers:
        return Absent("the inventory has no servers")
    reason = "; ".join(dict.fromkeys(answer.reason for answer in answers))
    for answer in (Unreachable, Forbidden, Stopped, Refused):
        if any(isinstance(found, answer) for found in answers):
            return answer(reason)
    return Absent(reason)


def _events(stream: Any) -> Iterator[Event]:
    from kubernetes.watch.watch import iter_resp_lines

    for line in iter_resp_lines(stream):
        if line.strip():
            event = json.loads(line)
            yield Event(event["type"], event["object"])


def _get(path: str, accept: str = "application/json") -> Callable[[Endpoint], Any]:
    def get(client: DynamicClient) -> Any:
        return client.request("get", path, header_params={"Accept": accept}, **_plain())

    return lambda endpoint: endpoint.send(get)


def _stream(get: Callable[[DynamicClient], Any], endpoint: Endpoint) -> Any:
    return endpoint.stream(get)


def _get_stream(resource: Resource, arguments: Object, client: DynamicClient) -> Any:
    return client.get(resource, **arguments)


def _may_pass(error: BaseException, hopeless: frozenset[int]) -> bool:
    """Whether the same request may get another answer in a moment."""
    return (
        isinstance(error, ApiError)
        and error.cause is Cause.ANSWER
        and (error.status in (409, 429) or error.status >= 500)
        and error.status not in hopeless
        and not error.other_manager
    )


def _pause(retry: Any) -> float:
    """Seconds to the next attempt: what the API asks for, else doubling."""
    asked: float = retry.outcome.exception().after
    doubling: float = 0.2 * 2 ** (retry.attempt_number - 1)
    return min(max(asked, doubling), LONGEST_PAUSE)


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dry_run": "All"} if dry_run else {}


def _plain() -> dict[str, Any]:
    """Arguments of every request: the raw answer back, and a limit."""
    return {"serialize": False, "_request_timeout": TIMEOUT}
