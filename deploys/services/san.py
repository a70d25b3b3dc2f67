"""Central storage: iSCSI volumes on one host, mounted by the nodes (`services.san`).

    pyinfra inventories/home.py deploys/services/san.py
    pyinfra inventories/home.py deploys/services/san.py --data wipe_disk=nas:/dev/sdb

A disk that holds anything is refused; its name, typed, says that all of it may be lost.
"""

from pyinfra import host, inventory
from pyinfra.api.deploy import deploy

from cluster.services import san as rules
from cluster.services import san_scripts
from deploys.preflight import entry, refuse_unfit_hosts
from facts.node import host_state
from operations import flow, secret, storage_clients, system
from operations import san as operations
from runtime import secrets
from runtime.inventory import hosts_of_run
from runtime.run import cluster, fail, started_directly


@deploy("Central storage")
def offer() -> None:
    """On the target host: volumes, then who may have them."""
    model = cluster()
    wanted, disk = rules.section(model), rules.disk(model)
    packages = (*rules.PACKAGES[wanted.product], *(("lvm2",) if disk else ()))
    system.packages(name="Packages of the target", names=packages)
    typed = rules.typed_names(inventory.get_override_data())
    named = f"{model.host(host.name).name}:{disk}" in typed
    operations.volumes(name="Volumes", wipe=named)
    if wanted.product == "lio":
        operations.lio(name="Targets")
        return
    secret.file(
        name="Targets and their passwords",
        path=san_scripts.TGT_CONFIG,
        content=secrets.rendered(
            "the targets' passwords", lambda values: rules.tgt_config(model, values)
        ),
    )
    operations.tgt(name="Targets")


@deploy("Volume of the node")
def leave() -> None:
    """On every host: mounts that the data had before go."""
    operations.leave(name="No former mounts")


@deploy("Volume of the node")
def use(node: str) -> None:
    """On a node: log in, then mount."""
    volume = rules.section(cluster()).volumes[node]
    tools = ("xfsprogs",) if volume.filesystem == "xfs" else ()
    system.packages(name="Packages of the initiator", names=("open-iscsi", *tools))
    storage_clients.iscsi(name="iSCSI client")
    operations.login(name="Log in to the target")
    operations.mount(name="Mount the volume")


def refuse_what_would_be_lost() -> None:
    """Stop when a disk holds anything, a mount is in use, or a kernel cannot do it: all at once."""
    model, lines = cluster(), list[str]()
    typed = rules.typed_names(inventory.get_override_data())
    target, nodes = rules.target_host(model), {node.name for node in rules.nodes(model)}
    for one in hosts_of_run(inventory):
        me = entry(one)
        if me is None:
            continue
        if me == target:
            lines += rules.target_refusals(model, operations.target_state(one), typed)
        former = operations.mounts_left(one)
        lines += rules.former_refusals(me.name, former)
        if me.name in nodes:
            kernel = "iscsi_tcp" in host_state(one, model).modules
            found = operations.initiator_state(one)
            lines += rules.node_refusals(model, me.name, found, kernel, former)
    if lines:
        fail(lines)


def _something_is_left() -> bool:
    """Whether a host of the run has a log-in of ours without a volume."""
    return any(entry(one) is not None and operations.left(one) for one in hosts_of_run(inventory))


def san() -> None:
    """The target host first, then its nodes; called for every host of the run."""
    if (me := entry(host)) is None:
        return
    if cluster().services.san is None and not _something_is_left():
        return
    refuse_unfit_hosts()
    refuse_what_would_be_lost()
    if me == rules.target_host(cluster()):
        offer()
    flow.barrier(name="The volumes are offered")
    leave()
    if me in rules.nodes(cluster()):
        use(node=me.name)


if started_directly(__name__):
    san()
