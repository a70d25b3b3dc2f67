"""The cluster back to a snapshot, with its servers stopped in between; pods go on running.

    pyinfra inventories/home.py deploys/restore.py --data list=true
    pyinfra inventories/home.py deploys/restore.py --data snapshot=NAME --data confirm=home

NAME is one of the list, a path on a server, or s3://bucket/folder/name; `--data from=node3` says
on which server to restore. It works with K3s stopped everywhere, and goes on where an earlier run
was ended; of one that all servers had done it asks for `--data again=true` (anew) or `again=false`.
"""

import shutil

from pyinfra import host, inventory, logger
from pyinfra.api.deploy import deploy

from cluster import restore as rules
from facts.k3s import survey, taking_part
from facts.snapshots import in_bucket, on_servers
from operations import flow, restore
from runtime.api import api
from runtime.inventory import node_name, spokesman
from runtime.run import cluster, fail, started_directly


def show() -> None:
    """Every snapshot that can be seen, as a table."""
    servers = on_servers(cluster(), inventory)
    found = [one for server in servers.values() for one in server.snapshots] + in_bucket(api())
    if host.name != spokesman(inventory):
        return
    for server in cluster().servers:
        if server.name not in servers:
            logger.warning(f"{server.name} was not reached: its snapshots are not shown")
    width = shutil.get_terminal_size().columns
    logger.info(rules.table(found, servers, width) if found else "none")


def decide(wanted: rules.Request) -> rules.Plan:
    """The restore of this run, or the refusal."""
    model = cluster()
    servers = on_servers(model, inventory)
    s3 = in_bucket(api()) if wanted.snapshot.startswith(rules.S3) else []
    try:
        snapshot = rules.choose(wanted, servers, s3)
    except rules.BadRequest as error:
        fail([str(error)])
    plan = rules.plan(model, wanted, snapshot, servers, restore.identity())
    active = frozenset(taking_part(inventory))
    problems = rules.refusals(
        model, wanted, snapshot, plan, survey(model, inventory), servers, active
    )
    if problems:
        fail(problems)
    if host.name == spokesman(inventory):
        logger.info(f"    the restore of {snapshot.name} will {rules.course(plan)}")
    return plan


@deploy("Restore servers")
def servers(plan: rules.Plan) -> None:
    """Stop all, restore one, then let the others join it one at a time."""
    model, me = cluster(), node_name(host)
    limit = model.k3s.start_timeout
    names = [server.name for server in model.servers]
    if me in names:
        restore.stop(name="Stop K3s", plan=plan)
    flow.barrier(name="K3s is stopped on all servers")
    if me == plan.server:
        restore.rebuild(name="Restore the snapshot", plan=plan, timeout=limit)
        restore.start(name="Start the restored server", plan=plan, timeout=limit)
    flow.barrier(name="The restored server answers")
    for name in host.loop(names):
        if me == name != plan.server:
            restore.rejoin(name=f"{name}: join again", plan=plan, timeout=limit)
        flow.barrier(name=f"{name} is in")


@deploy("Restore agents")
def agents() -> None:
    """All at once: their pods go on."""
    model = cluster()
    if node_name(host) in {agent.name for agent in model.agents}:
        restore.wake(name="Restart K3s", timeout=model.k3s.start_timeout)
    flow.barrier(name="Agents are back")


@deploy("Restore is over")
def finish(plan: rules.Plan) -> None:
    """The mark of the restored server goes first: without it the others' say nothing."""
    if host.name == spokesman(inventory):
        restore.name_strangers(name="Name nodes that no longer exist")
    me = node_name(host)
    if me == plan.server:
        restore.finish(name="Take the mark away")
    flow.barrier(name="The restore is over")
    if me in {server.name for server in cluster().servers} - {plan.server}:
        restore.finish(name="Take the other marks away")


def restore_run() -> None:
    """The list or the restore that `--data` asks for, called for every host of the run."""
    try:
        wanted = rules.request(inventory.get_override_data())
    except rules.BadRequest as error:
        fail([str(error)])
    if wanted.listing:
        show()
        return
    plan = decide(wanted)
    servers(plan)
    agents()
    finish(plan)


if started_directly(__name__):
    restore_run()
