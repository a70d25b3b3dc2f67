"""How a node leaves the cluster: its object, its etcd member, its password.

Functions for FunctionCommands: called with the state and the host first (the host only lends its
name to the log), they answer False when the operation has failed.
"""

from __future__ import annotations

import time

from pyinfra.api import Host, State

from cluster.answer import Absent, Present
from cluster.probe import Done, Pending, Probe
from operations import node_actions
from operations.k3s_process import say_error
from runtime.api import NODE, SECRET, Api, api_of
from runtime.endpoint import ApiError
from runtime.run import cluster
from runtime.wait import until

NAMESPACE = "kube-system"
PATIENCE = 20.0  # seconds K3s has to delete the password itself, once the Node is gone


def leave(state: State, host: Host, node: str, timeout: float) -> bool:
    """Delete a node's object and wait until nothing of the node is left in the cluster.

    K3s removes the etcd member and the node's password with the object; the password is deleted
    here when K3s does not. timeout: seconds.
    """
    api = api_of(state)
    try:
        api.delete(NODE, node)
    except ApiError as error:
        say_error(host, f"the Node object {node} cannot be deleted: {error}")
        return False
    node_actions.gone(node)
    return until(
        _Gone(api, node).probe, what=f"{node} to leave the cluster", timeout=timeout, host=host
    )


def password_secret(node: str) -> str:
    """Name of the Secret with the hash of the node's password, in kube-system."""
    return f"{node.lower()}.node-password.k3s"


def traces(api: Api, node: str) -> str:
    """The first trace of a node in the cluster that is found; empty when there is none."""
    match api.get(NODE, node):
        case Present(value=found):
            waiting = ", ".join(found["metadata"].get("finalizers") or ())
            return "its Node object is there" + (f" (finalizer {waiting})" if waiting else "")
        case Absent():
            pass
        case answer:
            return str(answer)
    if member := etcd_member(api, node):
        return member
    match api.get(SECRET, password_secret(node), NAMESPACE):
        case Absent():
            return ""
        case Present():
            return f"the Secret {password_secret(node)} is there"
        case answer:
            return str(answer)


def etcd_member(api: Api, node: str) -> str:
    """Whether etcd counts the node, as a text; empty when it does not, or there is no etcd."""
    model = cluster()
    known = model.member(node)
    if model.datastore != "etcd" or (known and not known.is_server):
        return ""
    why = "no other server tells the members of etcd"
    for server in model.servers:
        if server.name == node:
            continue
        match api.etcd_members(server.name):
            case Present(value=members):
                mine = [name for name in members if name.rpartition("-")[0] == node]
                return f"etcd counts its member {', '.join(mine)}" if mine else ""
            case answer:
                why = str(answer)
    return why


class _Gone:
    """Waits until no trace of a node is left; helps with the password."""

    def __init__(self, api: Api, node: str) -> None:
        self._api, self._node = api, node
        self._only_password: float | None = None

    def probe(self) -> Probe:
        """One look at the cluster."""
        trace = traces(self._api, self._node)
        if not trace:
            return Done(f"{self._node} is gone")
        if password_secret(self._node) not in trace:
            self._only_password = None
            return Pending(trace)
        now = time.monotonic()
        self._only_password = self._only_password or now
        if now - self._only_password >= PATIENCE:
            try:
                self._api.delete(SECRET, password_secret(self._node), NAMESPACE)
            except ApiError as error:
                return Pending(f"{trace} and cannot be deleted: {error}")
        return Pending(trace)
