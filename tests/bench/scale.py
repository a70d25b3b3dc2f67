"""A converged plan, and the doctor, of any number of simulated hosts that answer at once."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from cluster.model import Cluster
from tests.plans.command import ROOT, cold, project
from tests.plans.simulated import K3S, NODE, Node, inventory, plan
from tests.plans.test_k3s_deploy_plan import living
from tests.unit.cluster_example import example
from tests.unit.fake_api import FakeApi
from tests.unit.node_world import finished, lines

NETWORK = {"lan": "10.0.0.0/24", "gateway": "10.0.0.1", "dns": ("10.0.0.1",)}
# The doctor's command, with the fake connector where SSH stands.
DOCTOR = (
    "import sys; from gevent import monkey; monkey.patch_all(); "
    "from tests.plans.start import simulate; simulate(); "
    "from commands.doctor import main; sys.exit(main(sys.argv[1:]))"
)


def doctor(hosts: int) -> float:
    """How long commands.doctor takes, from the start of Python; asserts that it read them all."""
    model = _model(hosts)
    with tempfile.TemporaryDirectory() as folder:
        nodes = [_node(model, member.name) for member in model.members]
        words = [sys.executable, "-c", DOCTOR, project(Path(folder), inventory(nodes)), "--json"]
        start = time.monotonic()
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        taken = time.monotonic() - start
    found = json.loads(done.stdout or "{}")
    assert len(found.get("hosts", ())) == hosts, done.stderr
    return taken


def seconds(hosts: int) -> float:
    """How long `--dry` of deploys/site.py takes with nothing to do; asserts that there is not."""
    model = _model(hosts)
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


def _model(hosts: int) -> Cluster:
    servers = 3 if hosts >= 3 else 1
    return example(servers, hosts - servers, name="home", domain="home.arpa", network=NETWORK)


def _api(model: Cluster) -> FakeApi:
    api = FakeApi()
    for member in model.members:
        conditions = [{"type": "Ready", "status": "True"}]
        if member.is_server:
            conditions.append({"type": "EtcdIsVoter", "status": "True"})
        api.put("nodes", member.name, status={"conditions": conditions})
    return api


def _node(model: Cluster, name: str, url: str = "") -> Node:
    me = model.host(name)
    state = finished(model, me)
    state = replace(state, clock=replace(state.clock, at=time.time()))
    facts = {NODE: lines(state), K3S: living(model, me)}
    return Node(name, str(me.role), facts, url if me.is_server else "")
