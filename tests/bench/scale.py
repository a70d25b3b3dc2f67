"""A converged plan of any number of simulated hosts, whose commands answer at once."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from cluster.model import Cluster
from tests.plans.command import cold
from tests.plans.simulated import K3S, NODE, Node, plan
from tests.plans.test_k3s_deploy_plan import living
from tests.unit.cluster_example import example
from tests.unit.fake_api import FakeApi
from tests.unit.node_world import finished, lines

NETWORK = {"lan": "10.0.0.0/24", "gateway": "10.0.0.1", "dns": ("10.0.0.1",)}


def seconds(hosts: int) -> float:
    """How long `--dry` of deploys/site.py takes with nothing to do; asserts that there is not."""
    servers = 3 if hosts >= 3 else 1
    model = example(servers, hosts - servers, name="home", domain="home.arpa", network=NETWORK)
    api = _api(model)
    try:
        with tempfile.TemporaryDirectory() as folder:
            nodes = [_node(model, member.name, api.url) for member in model.members]
            start = time.monotonic()
            found = plan(Path(folder), nodes, "deploys/site.py", run=cold)
            taken = time.monotonic() - start
    finally:
        api.stop()
    assert found.code == 0, found.text
    assert found.changed == {}, found.changed
    return taken


def _api(model: Cluster) -> FakeApi:
    api = FakeApi()
    for member in model.members:
        conditions = [{"type": "Ready", "status": "True"}]
        if member.is_server:
            conditions.append({"type": "EtcdIsVoter", "status": "True"})
        api.put("nodes", member.name, status={"conditions": conditions})
    return api


def _node(model: Cluster, name: str, url: str) -> Node:
    me = model.host(name)
    state = finished(model, me)
    state = replace(state, clock=replace(state.clock, at=time.time()))
    facts = {NODE: lines(state), K3S: living(model, me)}
    return Node(name, str(me.role), facts, url if me.is_server else "")
