"""What the Kubernetes API says about nodes, as facts of any host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from gevent.pool import Pool
from pyinfra.api import FactBase

from cluster.answer import Absent, Answer, Present, Unreachable
from cluster.component import COMPONENT
from cluster.node import Node, parse_node
from cluster.objects import managed_by, ref
from cluster.readiness import Ref
from cluster.workload import Crd, Workload, crd, workload
from runtime.api import (
    CRD,
    FIELD_MANAGER,
    NODE,
    POD,
    POD_DISRUPTION_BUDGET,
    Api,
    Kind,
    Object,
    api_of,
)
from runtime.endpoint import ApiError

if TYPE_CHECKING:
    from pyinfra.api import Host, State

WORKLOADS = tuple(Kind("apps/v1", name) for name in ("Deployment", "DaemonSet", "StatefulSet"))
AT_ONCE = 6  # requests


def read_nodes(api: Api) -> Answer[dict[str, Node]]:
    """All nodes by name: one request."""
    match api.list(NODE):
        case Present(value=items):
            return Present({item["metadata"]["name"]: parse_node(item) for item in items})
        case other:
            return other


def read_node(api: Api, name: str) -> Answer[Node]:
    """One node: one request."""
    match api.get(NODE, name):
        case Present(value=item):
            return Present(parse_node(item))
        case other:
            return other


def pods_on(api: Api, node: str) -> Answer[list[Object]]:
    """The Pod objects that are bound to a node: one request."""
    return api.list(POD, fields=f"spec.nodeName={node}")


def disruption_budgets(api: Api) -> Answer[list[Object]]:
    """All PodDisruptionBudget objects: one request."""
    return api.list(POD_DISRUPTION_BUDGET)


def read_workloads(api: Api) -> Answer[dict[str, Workload]]:
    """All workloads by `<kind> <namespace>/<name>`: one request a kind."""
    found: dict[str, Workload] = {}
    for kind in WORKLOADS:
        match api.list(kind):
            case Present(value=items):
                found |= {f"{ref(item)}": workload(item) for item in items}
            case answer:
                return answer
    return Present(found)


def read_crds(api: Api) -> Answer[dict[str, Crd]]:
    """All CustomResourceDefinitions by name, whole: one request."""
    match api.list(CRD):
        case Present(value=items):
            return Present({item["metadata"]["name"]: crd(item) for item in items})
        case other:
            return other


def read_objects(api: Api, component: str) -> Answer[list[Ref]]:
    """Every object that we applied for a component: one metadata request for each kind there is."""
    try:
        kinds = api.listable()
    except ApiError as error:
        return error.answer
    selector = f"{COMPONENT}={component}"
    reads = [partial(api.list, kind, labels=selector, metadata_only=True) for kind in kinds]
    found: list[Ref] = []
    for answer in Pool(AT_ONCE).imap(lambda read: read(), reads):
        match answer:
            case Present(value=items):
                found += ours(items, component)
            case Absent():
                continue
            case _:
                failure: Answer[list[Ref]] = answer
                return failure
    return Present(found)


def ours(items: Iterable[Object], component: str) -> Iterator[Ref]:
    """Those that we applied; controllers copy labels to what they make of our objects."""
    for item in items:
        labels = item["metadata"].get("labels") or {}
        if labels.get(COMPONENT) == component and managed_by(item, FIELD_MANAGER):
            yield ref(item)


class KubeFact(FactBase[Answer[Any]]):
    """A fact whose value comes from the API; its command does nothing on the host."""

    state: State

    @staticmethod
    def default() -> Answer[Any]:
        """What is known when the command of the fact did not run."""
        return Unreachable("the host of the fact was not reached")

    def check_preconditions(self, state: State, host: Host) -> str | None:
        """Keep the state: `process` is not given it (pyinfra calls both on one instance)."""
        self.state = state
        return None

    def command(self) -> str:
        """Something with output, without effect."""
        return "echo kube"

    def process(self, output: list[str]) -> Answer[Any]:
        """Ask the API."""
        return self.read(api_of(self.state))

    def read(self, api: Api) -> Answer[Any]:
        """What the fact says."""
        raise NotImplementedError


class Nodes(KubeFact):
    """The nodes of the cluster by name: `Answer[dict[str, Node]]`, one request."""

    def read(self, api: Api) -> Answer[dict[str, Node]]:
        """All nodes."""
        return read_nodes(api)


class ClusterUid(KubeFact):
    """The UID of the cluster (of the namespace kube-system): `Answer[str]`, one request."""

    def read(self, api: Api) -> Answer[str]:
        """The UID."""
        return api.state()


class Workloads(KubeFact):
    """Deployments, DaemonSets and StatefulSets: `Answer[dict[str, Workload]]`, three requests."""

    def read(self, api: Api) -> Answer[dict[str, Workload]]:
        """All workloads."""
        return read_workloads(api)


class Crds(KubeFact):
    """CustomResourceDefinitions with the versions they store: `Answer[dict[str, Crd]]`."""

    def read(self, api: Api) -> Answer[dict[str, Crd]]:
        """All CRDs."""
        return read_crds(api)


class Objects(KubeFact):
    """Objects that we applied for a component, as text: `Answer[list[str]]`."""

    def command(self, component: str) -> str:  # type: ignore[override]
        """Something with output, without effect.

        component: value of the label `picluster.io/component`.
        """
        self.component = component
        return "echo kube"

    def read(self, api: Api) -> Answer[list[str]]:
        """The objects."""
        match read_objects(api, self.component):
            case Present(value=found):
                return Present([str(one) for one in found])
            case other:
                return other
