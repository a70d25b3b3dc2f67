"""A pyinfra state with a simulated API and a control host, for tests of operations."""

from __future__ import annotations

from typing import Any

from pyinfra.api import Config, Host, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.operation import OperationMeta, add_op
from pyinfra.api.operations import run_ops
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_state

from runtime.api import Api, api_of
from tests.unit.fake_api import FakeApi

QUIET = {"fake_delay": 0, "fake_delay_jitter": 0}


class World:
    """One run: `control` carries the operations, the servers' API is simulated."""

    def __init__(self, *servers: FakeApi) -> None:
        self.server = servers[0] if servers else FakeApi()
        addresses = [server.url for server in servers or (self.server,)]
        names = [
            (f"@fake/server{i}", QUIET | {"api_address": url}) for i, url in enumerate(addresses, 1)
        ]
        control = [("@fake/control", QUIET | {"fake_responses": {"echo kube": "kube"}})]
        inventory = Inventory(([*control, *names], {}), servers=(names, {}), control=(control, {}))
        self.state = State(inventory, Config())
        self.state.set_stage(StateStage.Connect)
        connect_all(self.state)
        self.state.set_stage(StateStage.Prepare)
        self.said: list[str] = []
        self.host.log = lambda text, *_: self.said.append(text)  # type: ignore[method-assign]
        self.host.log_styled = lambda text, *_, **__: self.said.append(text)  # type: ignore[method-assign]

    @property
    def host(self) -> Host:
        return self.state.inventory.get_host("@fake/control")

    @property
    def api(self) -> Api:
        return api_of(self.state)

    def plan(self, operation: Any, *args: Any, **kwargs: Any) -> OperationMeta:
        """Prepare an operation on the control host."""
        meta: OperationMeta = add_op(self.state, operation, *args, host=self.host, **kwargs)[
            self.host
        ]
        return meta

    def execute(self) -> None:
        """Run what was prepared."""
        self.state.set_stage(StateStage.Execute)
        with ctx_state.use(self.state):
            run_ops(self.state)

    def run(self, operation: Any, *args: Any, **kwargs: Any) -> bool:
        """Plan and run one operation; whether it changed something."""
        meta = self.plan(operation, *args, **kwargs)
        self.execute()
        return meta.did_change()


def put_node(
    server: FakeApi, name: str, *, ready: bool = True, version: str = "v1.36.2+k3s1", **more: Any
) -> None:
    """Store a node; `voter` True or False adds the condition of an etcd member."""
    conditions = [
        {"type": "Ready", "status": str(ready), "message": "" if ready else "kubelet is silent"}
    ]
    if "voter" in more:
        voter = more.pop("voter")
        message = "" if voter else "Node has not been promoted from learner"
        conditions.append({"type": "EtcdIsVoter", "status": str(voter), "message": message})
    server.put(
        "nodes",
        name,
        spec=more.pop("spec", {}),
        status={"nodeInfo": {"kubeletVersion": version}, "conditions": conditions},
        **more,
    )


def put_pod(server: FakeApi, name: str, node: str, **more: Any) -> None:
    """Store a pod of a ReplicaSet on a node."""
    server.put(
        "pods",
        name,
        "default",
        spec={"nodeName": node} | more.pop("spec", {}),
        status={"phase": "Running"},
        ownerReferences=[{"kind": "ReplicaSet", "name": "x", "controller": True}],
        **more,
    )


def put_budget(server: FakeApi, app: str, allowed: int, namespace: str = "default") -> None:
    """Store a disruption budget for pods labelled app=…"""
    server.put(
        "poddisruptionbudgets",
        app,
        namespace,
        spec={"selector": {"matchLabels": {"app": app}}},
        status={"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1},
    )
