"""K3s on lab hosts without any deploy, for tests of what needs a cluster and not how it came."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tests.lab.lab import Lab
from tests.lab.living import wait_for
from tests.lab.record import Record

TOKEN = "by-hand-in-the-lab"
UNIT = """
[Service]
ExecStart=/usr/local/bin/k3s {role}
KillMode=process
Delegate=yes
Restart=always
RestartSec=2
"""
RELEASES = "k3s-io/k3s/releases/download"


def start_cluster(lab: Lab, servers: Sequence[str], agents: Sequence[str] = ()) -> None:
    """Start K3s on servers, one after another, and agents; wait until all nodes are Ready."""
    record = lab.record
    url = f"https://{record.host(servers[0]).ip}:6443"
    for number, name in enumerate(servers):
        join = f"server: {url}" if number else "cluster-init: true"
        _start(lab, record, name, "server", join)
        wait_for(lambda name=name: _ready(lab, servers[0], name), f"{name} to be Ready")
    for name in agents:
        _start(lab, record, name, "agent", f"server: {url}")
        wait_for(lambda name=name: _ready(lab, servers[0], name), f"{name} to be Ready")


def _start(lab: Lab, record: Record, name: str, role: str, join: str) -> None:
    source = f"http://{lab.names.gateway}:8480/{RELEASES}/{record.k3s_versions[0]}/k3s"
    config = f"token: {TOKEN}\nnode-ip: {record.host(name).ip}\n{join}\n"
    unit = UNIT.format(role=role)
    lab.check(
        name,
        "mkdir -p /etc/rancher/k3s; umask 077; "
        f"printf %s {shlex.quote(config)} > /etc/rancher/k3s/config.yaml; umask 022; "
        f"printf %s {shlex.quote(unit)} > /etc/systemd/system/k3s.service; "
        f"curl -fsS -o /usr/local/bin/k3s {shlex.quote(source)} && chmod 755 /usr/local/bin/k3s && "
        "systemctl daemon-reload && systemctl start k3s",
    )


def _ready(lab: Lab, server: str, node: str) -> bool:
    path = "{.status.conditions[?(@.type=='Ready')].status}"
    status, output = lab.run(server, f'k3s kubectl get node {node} -o jsonpath="{path}"')
    return status == 0 and output.strip() == "True"
