"""Refusals before anything is changed, and the model's entry for a host: for deploy code."""

from __future__ import annotations

from pyinfra import host, inventory
from pyinfra.api import Host as PyinfraHost

from cluster import preflight
from cluster.host_state import HostState
from cluster.model import Cluster, Host
from facts.node import host_state
from facts.sudo import Sudo
from runtime.cache import cached
from runtime.inventory import node_name
from runtime.run import cluster, fail


def me() -> Host | None:
    """The model's entry for this host; None for the computer that pyinfra runs on."""
    return _entry(cluster(), host)


def refuse_unfit_hosts() -> list[preflight.Finding]:
    """Stop when a host of this run is not fit, all reasons at once.

    Returns what is only doubtful.
    """
    model = cluster()
    hosts = [one for one in inventory if one in inventory.state.activated_hosts]
    hosts = [one for one in hosts if _entry(model, one)]
    if refused := [line for one in hosts for line in _without_sudo(one)]:
        fail(refused)
    states: dict[str, HostState] = {node_name(one): host_state(one, model) for one in hosts}
    found = preflight.findings(model, states)
    if fatal := [str(finding) for finding in found if finding.fatal]:
        fail(fatal)
    return found


def _entry(model: Cluster, one: PyinfraHost) -> Host | None:
    try:
        return model.host(one.name)
    except KeyError:
        return None


def _without_sudo(one: PyinfraHost) -> list[str]:
    """Why root's rights cannot be had; asked before pyinfra would ask for a password."""
    if not one.data.get("_sudo") or one.data.get("_sudo_password"):
        return []
    found = cached(one, Sudo, _sudo=False)
    if found is None or not found.refusal:
        return []
    rule = f"`{found.login} ALL=(ALL) NOPASSWD:ALL`"
    return [
        f"{node_name(one)}: {found.login} may not use sudo without a password ({found.refusal}): "
        f"put {rule} into a file of /etc/sudoers.d there"
    ]
