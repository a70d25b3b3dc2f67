"""What the Kubernetes API says about nodes, as facts of any host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyinfra.api import FactBase

from cluster.answer import Answer, Present, Unreachable
from cluster.node import Node, parse_node
from runtime.api import NODE, POD, POD_DISRUPTION_BUDGET, Api, Objects, api_of

if TYPE_CHECKING:
    from pyinfra.api import Host, State


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


def pods_on(api: Api, node: str) -> Answer[Objects]:
    """The Pod objects that are bound to a node: one request."""
    return api.list(POD, fields=f"spec.nodeName={node}")


def disruption_budgets(api: Api) -> Answer[Objects]:
    """All PodDisruptionBudget objects: one request."""
    return api.list(POD_DISRUPTION_BUDGET)


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

    def process(self, output: list[str]) -> Answer[Any]:
        """Ask the API."""
        return self.read(api_of(self.state))

    def read(self, api: Api) -> Answer[Any]:
        """What the fact says."""
        raise NotImplementedError


class Nodes(KubeFact):
    """The nodes of the cluster by name: `Answer[dict[str, Node]]`, one request."""

    def command(self) -> str:
        """Something with output, without effect."""
        return "echo kube"

    def read(self, api: Api) -> Answer[dict[str, Node]]:
        """All nodes."""
        return read_nodes(api)


class ClusterUid(KubeFact):
    """The UID of the cluster (of the namespace kube-system): `Answer[str]`, one request."""

    def command(self) -> str:
        """Something with output, without effect."""
        return "echo kube"

    def read(self, api: Api) -> Answer[str]:
        """The UID."""
        return api.state()
