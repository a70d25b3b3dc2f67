"""K3s off the cluster's nodes, or one node out of its cluster; data of users stay.

    pyinfra inventories/home.py deploys/reset.py --data confirm=home
    pyinfra inventories/home.py deploys/reset.py --data node=node4 --data confirm=home
    pyinfra inventories/home.py deploys/reset.py --data forget=node2

Without the name of the cluster it says what it would remove. Further options: keep_snapshots=false
(else they are kept in /var/backups/picluster), forget_password=true (the node's identity),
wipe_data=NAME,... (empties the data directories of those nodes).
"""

from pyinfra import host, inventory, logger, state
from pyinfra.api.deploy import deploy

from cluster import leftovers
from cluster import reset as rules
from cluster.answer import Absent, Present
from facts.k3s import census, taking_part
from facts.kube import read_nodes
from facts.leftovers import Leftovers
from operations import flow, reset
from runtime.api import api
from runtime.cache import cached
from runtime.inventory import node_name, spokesman
from runtime.run import cluster, fail, started_directly


def situation(wanted: rules.Request) -> rules.Situation:
    """What is there before anything changes."""
    model = cluster()
    active = taking_part(inventory)
    hosts = {node_name(one): one for one in inventory}
    asks = wanted.node or wanted.forget
    return rules.Situation(
        survey=census(model, inventory),
        nodes=read_nodes(api()) if asks else Absent("nobody asked"),
        taking_part=frozenset(active),
        found={
            target.name: cached(
                hosts[target.name],
                Leftovers,
                options=rules.options(model, target, wanted),
            ).topics
            for target in rules.targets(model, wanted)
            if target.name in active
        },
    )


@deploy("Leave the cluster")
def leave(node: str) -> None:
    """Drain, then remove from API and etcd."""
    model = cluster()
    if node_name(host) == node:
        reset.drain(name=f"Drain {node}", node=node, timeout=model.k3s.drain_timeout)
        reset.leave(name=f"Remove {node}", node=node, timeout=model.k3s.start_timeout)
    flow.barrier(name=f"{node} has left")


@deploy("Clean")
def clean(wanted: rules.Request) -> None:
    """Topic by topic; K3s stops everywhere before anything else is touched."""
    model = cluster()
    names = {target.name for target in rules.targets(model, wanted)}
    for topic in host.loop(tuple(leftovers.TOPICS)):
        if node_name(host) in names:
            reset.clean(
                name=leftovers.TOPICS[topic].title,
                topic=topic,
                options=rules.options(model, model.host(host.name), wanted),
            )
        if topic == "units":
            flow.barrier(name="K3s has stopped everywhere")


@deploy("Forget")
def forget(node: str) -> None:
    """Only through the API; no host is touched."""
    if host.name == spokesman(inventory):
        reset.forget(name=f"Forget {node}", node=node, timeout=cluster().k3s.start_timeout)


def reset_run() -> None:
    """The reset that `--data` asks for, called for every host of the run."""
    try:
        wanted = rules.request(inventory.get_override_data())
    except rules.BadRequest as error:
        fail([str(error)])
    now = situation(wanted)
    if problems := rules.refusals(cluster(), wanted, now):
        fail(problems)
    if wanted.forget:
        forget(wanted.forget)
        return
    if wanted.node and isinstance(now.nodes, Present):  # else there is no cluster any more
        leave(wanted.node)
        if not state.is_executing and host.name == spokesman(inventory):
            logger.info(rules.afterwards(cluster(), wanted.node))
    clean(wanted)


if started_directly(__name__):
    reset_run()
