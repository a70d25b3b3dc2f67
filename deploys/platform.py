"""The platform on a running cluster: every component of its stack, in order, side by side.

pyinfra inventories/home.py deploys/platform.py
pyinfra inventories/home.py deploys/platform.py --data components=longhorn,velero
"""

from pyinfra import host, inventory, logger
from pyinfra.api.deploy import deploy
from pyinfra.context import ctx_state

from catalogue import CATALOGUE
from cluster import versions
from cluster.answer import Present
from cluster.component import Component
from cluster.graph import GraphError, select
from cluster.removal import unwanted
from operations import flow, platform_removal, program
from operations import platform as engine
from runtime.api import api
from runtime.inventory import spokesman
from runtime.run import cluster, fail, report, started_directly


def _names(option: str) -> list[str]:
    """Names by comma, as --data has them."""
    given = str(inventory.get_override_data().get(option, ""))
    return [name for name in given.split(",") if name]


def chosen() -> tuple[Component, ...]:
    """The components of this run; refuses names that are none."""
    try:
        return select(CATALOGUE, cluster(), _names("components"))
    except GraphError as error:
        fail([f"--data components: {error}"])


@deploy("Helm")
def helm_on_servers() -> None:
    """The program that installs charts."""
    if host.name in {server.name for server in inventory.get_group("servers")}:
        program.installed(name="Put helm on the servers", program="helm", version=versions.HELM)
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
    if speaks and not _names("components") and isinstance(api().state(), Present):
        there = platform_removal.installed(api())
        gone = unwanted(CATALOGUE, wanted, there)
        if problems := platform_removal.refusals(
            api(), cluster(), wanted, there, gone, _names("remove")
        ):
            fail(problems)
    if wanted or gone:
        helm_on_servers()
    if speaks:
        components(wanted, gone)


if started_directly(__name__):
    platform()
