"""K3s on servers and agents: created or joined, configured, upgraded step by step.

pyinfra inventories/home.py deploys/k3s.py
"""

from pyinfra import host, inventory, logger
from pyinfra.api.deploy import deploy

from cluster import k3s_plan
from cluster.answer import Present
from cluster.versions import Step
from facts.k3s import k3s_state, survey, taking_part
from facts.kube import read_nodes
from operations import flow, k3s, k3s_token, node
from runtime.api import api
from runtime.inventory import CONTROL, inventory_file, node_name, spokesman
from runtime.run import cluster, fail, started_directly
from runtime.secrets import need


def refuse_what_must_not_run() -> None:
    """Stop before anything is changed when the survey of the servers says so."""
    model, found = cluster(), survey(cluster(), inventory)
    problems = k3s_plan.refusals(model, found, taking_part(inventory))
    if not any(CONTROL in one.groups for one in inventory):
        problems.append('the inventory has no group control: expected control = ["@local"]')
    strangers = k3s_plan.strangers(found)
    if strangers and any(seen.running for seen in found.values()):
        match read_nodes(api()):
            case Present(value=known):
                problems += k3s_plan.reflashed(strangers, known, inventory_file(inventory))
    if me := model.member(host.name):
        problems += k3s.class_refusals(model, me, k3s_state(host))
        if not k3s_token.unknown():
            problems += k3s.missing_secrets(model, me)
    if problems:
        fail(problems)
    if any(seen.datastore for seen in found.values()) and host.name == spokesman(inventory):
        for why in k3s_token.unknown():
            logger.warning(f"    the join tokens cannot be compared: {why}")


@deploy("K3s release")
def release(steps: tuple[Step, ...]) -> None:
    """Binaries of every step, on all members at once; nothing runs another one yet."""
    member = cluster().member(host.name)
    for step in host.loop(steps):
        if member:
            k3s.release(name=f"Put K3s {step.version} on the nodes", version=step.version)
    if member:
        k3s.tokens(name="Put the join tokens on the nodes")
    flow.barrier(name="Releases and tokens are on the nodes")


@deploy("K3s servers")
def servers(step: Step, first: bool) -> None:
    """One server at a time."""
    model = cluster()
    me, found = node_name(host), survey(model, inventory)
    if me == k3s_plan.keeper(model, found, taking_part(inventory)):
        k3s.snapshot(name="Keep the datastore before a move", version=step.version)
    flow.barrier(name="The datastore is kept")
    for server in host.loop(model.servers):
        if me == server.name:
            if first:
                k3s.enter(name=f"{server.name}: enter the cluster", version=step.version)
            k3s.roll(name=f"{server.name}: release and configuration", version=step.version)
        flow.barrier(name=f"{server.name} is done")
    if me in {server.name for server in model.servers}:
        k3s.settle(name="Leave the servers with a way to join")


@deploy("K3s agents")
def agents(step: Step, first: bool) -> None:
    """New agents all at once, the others one at a time."""
    model, me = cluster(), node_name(host)
    if first and me in {agent.name for agent in model.agents}:
        k3s.enter(name="Enter the cluster", version=step.version)
    flow.barrier(name="New agents are in")
    for agent in host.loop(model.agents):
        if me == agent.name:
            k3s.roll(name=f"{agent.name}: release and configuration", version=step.version)
        flow.barrier(name=f"{agent.name} is done")


@deploy("K3s nodes")
def nodes() -> None:
    """What belongs to the cluster, not to a server: members, labels, taints."""
    model = cluster()
    if CONTROL not in host.groups:
        return
    k3s.members(name="All members are in", ready=model.stack.cni == "flannel")
    node.labels_of_all(
        name="Labels of the nodes", wanted={one.name: one.labels for one in model.members}
    )
    node.taints_of_all(
        name="Taints of the nodes",
        wanted={one.name: model.taints(one) for one in model.members},
    )


def k3s_cluster() -> None:
    """The whole of K3s, called for every host of the run."""
    need()
    refuse_what_must_not_run()
    steps = k3s_plan.path(cluster(), survey(cluster(), inventory))
    if me := cluster().member(host.name):
        versions, state = [step.version for step in steps], k3s_state(host)
        if problems := k3s.missing_assets(cluster(), me, state, versions):
            fail(problems)
    release(steps)
    for number, step in enumerate(host.loop(steps)):
        servers(step, first=number == 0)
        agents(step, first=number == 0)
    nodes()


if started_directly(__name__):
    k3s_cluster()
