"""What the doctor's checks do to a run: stop it before anything changes, be ignored, be only said.

Simulated: the hosts; what their facts print is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.host_state import Unit
from tests.plans.simulated import DOCTOR, K3S, NETWORK, NODE, Node, Planned, k3s, plan
from tests.plans.test_nodes_plan import MODEL, now
from tests.unit.node_world import finished, lines

SITE = "deploys/site.py"
LAN = {
    "lan": "10.0.0.0/24",
    "gateway": "10.0.0.1",
    "dns": ("10.0.0.1",),
    "load_balancer_pool": "10.0.0.100-10.0.0.110",
}
STRANGER = ["neighbour\t10.0.0.101\t02:00:00:00:00:99\tREACHABLE", "end"]
LEASE = ["addr\teth0\t10.0.0.11/24\tdynamic", "reboots\ttrue", "ufw\tyes", "end"]


def planned(
    tmp_path: Path, deploy: str, facts: dict[str, list[str]], running: bool = False, **data: Any
) -> Planned:
    """The plan of a deploy on finished hosts; facts: what they print in the place of it."""
    nodes = []
    for host in MODEL.hosts:
        state = now(finished(MODEL, host))
        if running:
            unit = "k3s.service" if host.is_server else "k3s-agent.service"
            state.units[unit] = Unit("loaded", "active", "enabled", 50.0)
        known = {NODE: lines(state), K3S: k3s(host.is_server, version="")}
        nodes.append(Node(host.name, host.role.value, known | facts))
    return plan(tmp_path, nodes, deploy, **data)


def said(found: Planned) -> list[str]:
    return [line.strip().removeprefix("--> ") for line in found.text.splitlines()]


def test_site_stops_before_the_first_install_where_an_address_is_somebodys(tmp_path: Path) -> None:
    found = planned(tmp_path, SITE, {NETWORK: STRANGER}, network=LAN)
    assert (found.code, found.changed) == (1, {}), found.text
    line = "cluster: address-free: somebody answers at 10.0.0.101 (02:00:00:00:00:99): another"
    assert sum(one.startswith(line) for one in said(found)) == 1
    assert "refused; nothing was changed" in said(found)


def test_an_id_in_the_data_lets_it_pass_and_says_so_once(tmp_path: Path) -> None:
    ignored = {"ignore_preflight": ["address-free"]}
    found = planned(tmp_path, SITE, {NETWORK: STRANGER}, network=LAN, nodes=ignored)
    assert found.code == 0, found.text
    line = "preflight: fails, and ignore_preflight says that it may: address-free (cluster)"
    assert sum(one == line for one in said(found)) == 1


def test_a_running_cluster_is_not_asked_for_its_own_addresses(tmp_path: Path) -> None:
    found = planned(tmp_path, "deploys/preflight.py", {NETWORK: STRANGER}, True, network=LAN)
    assert found.code == 0, found.text


def test_warnings_are_one_line_of_site_and_one_each_of_the_preflight(tmp_path: Path) -> None:
    facts = {DOCTOR: [*LEASE[:1], LEASE[2], "end"]}
    alone = planned(tmp_path, "deploys/preflight.py", facts)
    assert alone.code == 0, alone.text
    assert "node1: address-fixed: 10.0.0.11 is a lease" in alone.text
    assert sum(": firewall: ufw is on" in line for line in said(alone)) == len(MODEL.hosts)
    site = planned(tmp_path, SITE, facts)
    (line,) = [one for one in said(site) if one.startswith("preflight: ")]
    assert "address-fixed" in line and "firewall" in line
    assert line.endswith(f": `make doctor INVENTORY={tmp_path}/simulated.py` explains them")


def test_what_nodes_puts_right_is_no_reason_to_stop_it(tmp_path: Path) -> None:
    assert planned(tmp_path, "deploys/nodes.py", {DOCTOR: LEASE}).code == 0
    off = {"parts": {"unattended_upgrades": False}}
    found = planned(tmp_path, "deploys/nodes.py", {DOCTOR: LEASE}, nodes=off)
    assert found.code == 1 and 'automatic-reboot: Unattended-Upgrade::Automatic-Reboot "true"' in (
        found.text
    )
