"""A simulated Kubernetes API in this process: objects in a dictionary, faults on request.

Simulated: storage, merge patch, server-side apply (the last one owns it all), eviction against
`status.disruptionsAllowed`, watch. Not simulated: validation, controllers, RBAC, pagination.
"""

from __future__ import annotations

import gzip
import json
import re
import ssl
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import gevent
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer
from gevent.queue import Queue

from tests.unit.fake_owners import applied, updated

Object = dict[str, Any]
CORE = {
    "nodes": "Node",
    "pods": "Pod",
    "namespaces": "Namespace",
    "events": "Event",
    "secrets": "Secret",
    "configmaps": "ConfigMap",
    "services": "Service",
    "persistentvolumeclaims": "PersistentVolumeClaim",
}
COMPRESSED_FROM = 128 * 1024  # bytes, as the real one
NAMESPACED = CORE.keys() - {"nodes", "namespaces"}
KINDS = CORE | {"poddisruptionbudgets": "PodDisruptionBudget", "volumes": "Volume"}
API_VERSIONS = {
    "poddisruptionbudgets": "policy/v1",
    "volumes": "longhorn.io/v1beta2",
    "settings": "longhorn.io/v1beta2",
}
PATH = re.compile(
    r"^/apis?/(?P<version>v1|[^/]+/[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[a-z]))?"
    r"/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?$"
)


@dataclass
class Request:
    """What the server was asked."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    content_type: str = ""
    accept: str = ""

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Fault:
    """An answer instead of the real one, for requests whose `METHOD path` matches."""

    pattern: str
    status: int = 500
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    act: Callable[[], None] | None = None  # called instead of answering, e.g. to hang


class FakeApi:
    """One simulated API server; several may share `objects`."""

    def __init__(
        self,
        objects: dict[tuple[str, str, str], Object] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.objects = {} if objects is None else objects
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self.unready: list[str] = []
        self.groups: dict[str, list[Object]] = {}
        self.version = 100
        self.serial = 0
        self._watchers: list[tuple[str, Queue[Any]]] = []
        self._tls = tls
        self._server = self._make(("127.0.0.1", 0))
        self._server.start()
        self.port = self._server.server_port
        self.put("namespaces", "kube-system", uid="uid-of-the-cluster")

    # --- for tests

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def put(self, plural: str, name: str, namespace: str = "", **parts: Any) -> Object:
        """Store an object; `uid`, `labels`, `annotations`, … go to its metadata."""
        body = {
            key: parts.pop(key)
            for key in (
                "spec",
                "status",
                "type",
                "reason",
                "message",
                "involvedObject",
                "lastTimestamp",
                "value",
            )
            if key in parts
        }
        metadata = {"name": name, "uid": f"uid-{namespace}-{name}", **parts}
        if namespace:
            metadata["namespace"] = namespace
        kind = KINDS.get(plural, plural.rstrip("s").capitalize())
        return self._store(
            plural,
            body
            | {"metadata": metadata, "kind": kind, "apiVersion": API_VERSIONS.get(plural, "v1")},
            "ADDED",
        )

    def object(self, plural: str, name: str, namespace: str = "") -> Object:
        return self.objects[plural, namespace, name]

    def store(self, plural: str, item: Object) -> None:
        """Store an object as it is."""
        self._store(plural, deepcopy(item), "ADDED")

    def edit(
        self, plural: str, name: str, patch: Object, namespace: str = "", by: str = "kubectl-edit"
    ) -> None:
        """Change an object as somebody else."""
        found = self.object(plural, name, namespace)
        self._store(plural, updated(found, _merge(found, patch), by), "MODIFIED")

    def remove(self, plural: str, name: str, namespace: str = "") -> None:
        self._tell("DELETED", plural, self.objects.pop((plural, namespace, name)))

    def fail(self, pattern: str, status: int = 500, **more: Any) -> None:
        self.faults.append(Fault(pattern, status, **more))

    def lines(self, *, method: str = "") -> list[str]:
        return [request.line for request in self.log if request.method.startswith(method)]

    def wait_for_watch(self) -> None:
        """Until somebody watches."""
        while not self._watchers:
            gevent.sleep(0.01)

    def cut_watches(self) -> None:
        """Close all watches, as a restart of the API server does."""
        for _, queue in self._watchers:
            queue.put(None)

    def expire_watches(self) -> None:
        """End all watches with 410 Gone, as compaction does."""
        for _, queue in self._watchers:
            queue.put({"type": "ERROR", "object": {"code": 410, "message": "too old"}})
            queue.put(None)

    def stop(self) -> None:
        self._server.stop(timeout=0)

    def start(self) -> None:
        self._server = self._make(("127.0.0.1", self.port))
        self._server.start()

    # --- the server

    def _make(self, address: tuple[str, int]) -> WSGIServer:
        tls = {"ssl_context": self._tls} if self._tls else {}
        return WSGIServer(address, self._answer, log=None, error_log=None, spawn=Pool(100), **tls)

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        query = {
            k: v[0] for k, v in parse_qs(environ["QUERY_STRING"], keep_blank_values=True).items()
        }
        raw = environ["wsgi.input"].read()
        request = Request(
            environ["REQUEST_METHOD"],
            urlsplit(environ["PATH_INFO"]).path,
            query,
            json.loads(raw) if raw else None,
            environ.get("CONTENT_TYPE", ""),
            environ.get("HTTP_ACCEPT", ""),
        )
        self.log.append(request)
        for fault in self.faults:
            if fault.times and re.search(fault.pattern, request.line):
                fault.times -= 1
                if fault.act:
                    fault.act()
                return self._say(
                    start, fault.status, fault.body or _status(fault.status, "fault"), fault.headers
                )
        if request.path == "/readyz":
            lines = [f"[-]{name} failed: reason withheld" for name in self.unready]
            return self._say(start, 500 if lines else 200, "\n".join(["[+]ping ok", *lines]))
        if request.path in ("/api", "/apis"):
            return self._say(start, 200, self._discovery(core=request.path == "/api"))
        match = PATH.match(request.path)
        if not match:
            return self._say(start, 404, _status(404, "the server could not find it"))
        if query.get("watch"):
            start("200 OK", [("Content-Type", "application/json")])
            seconds = int(query["timeoutSeconds"])
            return self._watch(match["plural"], int(query["resourceVersion"]), seconds)
        zipped = "gzip" in environ.get("HTTP_ACCEPT_ENCODING", "")
        return self._say(start, *self._handle(request, match.groupdict()), zipped=zipped)

    def _discovery(self, *, core: bool) -> Object:
        """The aggregated discovery of what `groups` has, and of the core kinds."""
        groups = (
            self.groups
            if not core
            else {
                "v1": [
                    {"kind": kind, "name": plural, "namespaced": plural in NAMESPACED}
                    for plural, kind in CORE.items()
                ]
            }
        )
        return {"kind": "APIGroupDiscoveryList", "items": [_group(*one) for one in groups.items()]}

    def _handle(self, request: Request, at: dict[str, str | None]) -> tuple[int, Any]:
        plural, namespace, name = str(at["plural"]), at["namespace"] or "", at["name"]
        if name is None:
            return 200, {
                "kind": f"{KINDS.get(plural, plural)}List",
                "apiVersion": at["version"],
                "metadata": {"resourceVersion": str(self.version)},
                "items": [
                    _head(item) if "PartialObjectMetadataList" in request.accept else item
                    for item in self._select(plural, namespace, request.query)
                ],
            }
        key = (plural, namespace, name)
        found = self.objects.get(key)
        apply = request.method == "PATCH" and "apply-patch" in request.content_type
        if apply and found is None:
            place = {"namespace": namespace} if namespace else {}
            head = {key: request.body[key] for key in ("apiVersion", "kind")}
            self.serial += 1
            found = head | {"metadata": {"name": name, "uid": f"uid-{self.serial}", **place}}
        if found is None:
            return 404, _status(404, f'{plural} "{name}" not found')
        if at["sub"] == "eviction":
            return self._evict(found)
        if apply:
            return self._apply(plural, found, request)
        if request.method == "PATCH":
            return self._patch(plural, found, request)
        if request.method == "DELETE":
            uid = ((request.body or {}).get("preconditions") or {}).get("uid")
            if uid and uid != found["metadata"]["uid"]:
                return 409, _status(409, "uid differs")
            if "dryRun" not in request.query:
                self._delete(plural, found)
        return 200, found

    def _patch(self, plural: str, found: Object, request: Request) -> tuple[int, Any]:
        wanted = request.body.get("metadata", {}).get("resourceVersion")
        if wanted and wanted != found["metadata"]["resourceVersion"]:
            return 409, _status(409, "the object has been modified")
        changed = _merge(found, request.body)
        if "kind" in request.body:  # an apply, not a merge patch
            owner = {
                "manager": request.query["fieldManager"],
                "operation": "Apply",
                "fieldsV1": _fields(request.body),
            }
            changed["metadata"]["managedFields"] = [owner]
        if "dryRun" in request.query or changed == found:
            return 200, changed
        return 200, self._store(plural, changed, "MODIFIED")

    def _apply(self, plural: str, found: Object, request: Request) -> tuple[int, Any]:
        manager, force = request.query["fieldManager"], "force" in request.query
        changed, conflicts = applied(found, request.body, manager, force)
        if conflicts:
            causes = [
                {
                    "reason": "FieldManagerConflict",
                    "message": f'conflict with "{other}"',
                    "field": where,
                }
                for where, other in conflicts
            ]
            return 409, _status(409, "Apply failed", causes=causes)
        if "dryRun" in request.query or changed == found:
            return 200, changed
        return 200, self._store(plural, changed, "MODIFIED")

    def _evict(self, pod: Object) -> tuple[int, Any]:
        labels = pod["metadata"].get("labels") or {}
        budgets = [
            o
            for (plural, _, _), o in self.objects.items()
            if plural == "poddisruptionbudgets"
            and o["metadata"]["namespace"] == pod["metadata"]["namespace"]
            and o["spec"]["selector"]["matchLabels"].items() <= labels.items()
        ]
        if len(budgets) > 1:
            return 500, _status(500, "This pod has more than one PodDisruptionBudget")
        for budget in budgets:
            if budget["status"]["disruptionsAllowed"] < 1:
                cause = {
                    "reason": "DisruptionBudget",
                    "message": "The disruption budget "
                    f"{budget['metadata']['name']} needs 1 healthy pods and has 1 currently",
                }
                return 429, _status(
                    429,
                    "Cannot evict pod as it would violate the pod's disruption budget.",
                    causes=[cause],
                )
            budget["status"]["disruptionsAllowed"] -= 1
        self._delete("pods", pod)
        return 201, {"kind": "Status", "status": "Success"}

    def _delete(self, plural: str, found: Object) -> None:
        metadata = found["metadata"]
        if metadata.get("finalizers"):
            self._store(
                plural,
                _merge(found, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
                "MODIFIED",
            )
        else:
            self.remove(plural, metadata["name"], metadata.get("namespace", ""))

    def _select(self, plural: str, namespace: str, query: dict[str, str]) -> Iterator[Object]:
        for (kind, place, _), item in list(self.objects.items()):
            if kind != plural or (namespace and place != namespace):
                continue
            labels = item["metadata"].get("labels") or {}
            if _selects(query.get("fieldSelector", ""), partial(_at, item)) and _selects(
                query.get("labelSelector", ""), labels.get
            ):
                yield item

    def _watch(self, plural: str, version: int, seconds: int) -> Iterator[bytes]:
        queue: Queue[Any] = Queue()
        gevent.spawn_later(seconds, queue.put, None)
        self._watchers.append((plural, queue))
        for (kind, _, _), item in list(self.objects.items()):
            if kind == plural and int(item["metadata"]["resourceVersion"]) > version:
                queue.put({"type": "MODIFIED", "object": item})
        while (event := queue.get()) is not None:
            yield json.dumps(event).encode() + b"\n"

    def _store(self, plural: str, item: Object, event: str) -> Object:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        metadata = item["metadata"]
        self.objects[plural, metadata.get("namespace") or "", metadata["name"]] = item
        self._tell(event, plural, item)
        return item

    def _tell(self, event: str, plural: str, item: Object) -> None:
        for kind, queue in self._watchers:
            if kind == plural:
                queue.put({"type": event, "object": deepcopy(item)})

    def _say(
        self,
        start: Callable[..., Any],
        status: int,
        body: Any,
        headers: dict[str, str] | None = None,
        *,
        zipped: bool = False,
    ) -> list[bytes]:
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        given = {"Content-Type": "application/json"} | (headers or {})
        if zipped and len(raw) > COMPRESSED_FROM:
            raw, given = gzip.compress(raw), given | {"Content-Encoding": "gzip"}
        start(f"{status} .", list(given.items()))
        return [raw]


def _group(api_version: str, kinds: list[Object]) -> Object:
    group, _, version = api_version.rpartition("/")
    resources = [
        {
            "resource": kind["name"],
            "responseKind": {"kind": kind["kind"]},
            "scope": "Namespaced" if kind["namespaced"] else "Cluster",
            "verbs": ["delete", "get", "list", "patch", "watch"],
        }
        for kind in kinds
        if "/" not in kind["name"]
    ]
    versions = [{"version": version, "freshness": "Current", "resources": resources}]
    return {"metadata": {"name": group}, "versions": versions}


def _selects(selector: str, get: Callable[[str], Any]) -> bool:
    """Whether a selector of `key=value` and `key!=value` parts holds."""
    for part in filter(None, selector.split(",")):
        key, _, value = part.partition("=")
        if (get(key.removesuffix("!")) == value) == key.endswith("!"):
            return False
    return True


def _head(item: Object) -> Object:
    return {key: item[key] for key in ("apiVersion", "kind", "metadata")}


def hang() -> None:
    """A server that accepts a request and says nothing."""
    gevent.sleep(60)


def _status(code: int, message: str, **details: Any) -> Object:
    return {
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "message": message,
        "details": details,
    }


def _fields(value: Any) -> Any:
    """What a manager owns after an apply; lists as a whole."""
    if not isinstance(value, dict):
        return {}
    return {f"f:{key}": _fields(below) for key, below in value.items()}


def _merge(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


def _at(item: Object, path: str) -> Any:
    value: Any = item
    for part in path.split("."):
        value = (value or {}).get(part)
    return value
