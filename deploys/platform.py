"""The platform on a running cluster: every component of its stack, in order, side by side.

pyinfra inventories/home.py deploys/platform.py
pyinfra inventories/home.py deploys/platform.py --data components=longhorn,velero
"""

from pyinfra import host, inventory, logger
from pyinfra.api.deploy import deploy
from pyinfra.context import ctx_state

from catalogue import CATALOGUE
from cluster.answer import Present
from cluster.component import Component
from cluster.graph import GraphError, select
from cluster.removal import unwanted
from operations import flow, helm, platform_removal
from operations import platform as engine
from runtime.api import api
from runtime.inventory import spokesman
from runtime.run import cluster, fail, report, started_directly


def _option(name: str) -> str:
    return str(inventory.get_override_data().get(name, ""))


def chosen() -> tuple[Component, ...]:
    """The components of this run; refuses names that are none."""
    only = [name for name in _option("components").split(",") if name]
    try:
        return select(CATALOGUE, cluster(), only)
    except GraphError as error:
        fail([f"--data components: {error}"])


@deploy("Helm")
def helm_on_servers() -> None:
    """The program that installs charts."""
    if host.name in {server.name for server in inventory.get_group("servers")}:
        helm.binary(name="Put helm on the servers")
    flow.barrier(name="helm is on the servers")


@deploy("Platform")
def components(wanted: tuple[Component, ...], gone: tuple[Component, ...]) -> None:
    """One operation for each step that has something to do, the removals last."""
    run = ctx_state.get()
    found = engine.planned(run, inventory.get_host(host.name), cluster(), wanted)
    if found.secrets_missing:
        logger.warning(f"Secrets were not compared: {found.secrets_missing}")
    report(found.report)
    for plan in found.plans.values():
        if plan.reasons:
            for line in plan.lines if run.config.DIFF else ():
                logger.info(f"    {plan.step}: {line}")
            engine.step(name=plan.title, component=plan.step.component, half=plan.step.half)
    for component in gone:
        platform_removal.remove(name=f"{component.name}: remove", component=component.name)


def platform() -> None:
    """The whole platform, called for every host of the run."""
    wanted = chosen()
    speaks = host.name == spokesman(inventory)
    gone: tuple[Component, ...] = ()
    if speaks and not _option("components") and isinstance(api().state(), Present):
        if problems := platform_removal.refusals(
            ctx_state.get(), cluster(), wanted, _option("remove")
        ):
            fail(problems)
        gone = unwanted(CATALOGUE, wanted, platform_removal.installed(api()))
    if wanted or gone:
        helm_on_servers()
    if speaks:
        components(wanted, gone)


if started_directly(__name__):
    platform()
