"""deploys/site.py with every service on one set of hosts, as group_data/home.py suggests them.

Real: all that the README's tables name as real for each service. Simulated: the outside, IONOS'
API, and K3s' own copies of snapshots, whose bucket is there (the stand-in takes none).
"""

from __future__ import annotations

import json
import re
import ssl
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.managed import METRICS
from cluster.services import certbot
from runtime import sops, trace
from tests.lab import accounts, versitygw
from tests.lab.acme import INDEX, MANAGEMENT, Acme, acme, wheels
from tests.lab.lab import Lab
from tests.lab.living import kubectl, wait_for
from tests.lab.runs import Run, ended, plan, run

pytestmark = pytest.mark.lab(servers=1, agents=1, gateways=1, externals=1)

SITE = "deploys/site.py"
GATEWAY, EXTERNAL, NODES = "gateway", "external", ("node1", "node2")
ZONE = "lab.example.com"
S3 = f"s3.{ZONE}"
MOST_COMMANDS = 30  # of a run that has nothing to do, on each host


def address(lab: Lab, number: int) -> str:
    return str(lab.names.subnet.network_address + number)


def issuer(server: Acme) -> str:
    """PEM of the root that Pebble's certificates lead to, which it makes at each start."""
    context = ssl.create_default_context(cadata=server.ca)
    url = f"https://{server.address}:{MANAGEMENT}/roots/0"
    with urllib.request.urlopen(url, timeout=10, context=context) as answer:
        return str(answer.read().decode())


def settings(lab: Lab, server: Acme) -> dict[str, str]:
    """All services, as an owner has them in group_data."""
    own, live = lab.record.host(GATEWAY).ip, f"{certbot.CONFIG}/live/s3"
    data: dict[str, Any] = {
        "network": {
            "lan": str(lab.names.subnet),
            "gateway": own,
            "dns": [own],
            "ntp": [own],
            "dhcp_range": f"{address(lab, 100)}-{address(lab, 120)}",
            "load_balancer_pool": f"{address(lab, 225)}-{address(lab, 250)}",
            "api": {
                "vip": address(lab, 60),
                "carrier": "haproxy",
                "names": [f"api.{ZONE}"],
                "haproxy": {"hosts": [GATEWAY, EXTERNAL]},
            },
        },
        "services": {
            "gateway": {
                "wan_interface": "wan0",
                "upstream_dns": ["127.0.0.11"],  # Docker's, on each of its hosts
                "upstream_ntp": [lab.names.gateway],
            },
            "s3": {
                "name": S3,
                "certificate": f"{live}/fullchain.pem",
                "key": f"{live}/privkey.pem",
            },
            "backup": {"paths": ["/srv"], "keeper": GATEWAY},
            "certbot": {
                "certificates": [{"name": "s3", "names": [S3], "reload": ["versitygw.service"]}],
                "directory": server.directory,
                "ca": server.ca,
                "settings": {"dns_ionos_endpoint": server.provider},
                "propagation_seconds": 0,
                "index": f"http://{server.address}:{INDEX}/",
            },
            "telemetry": {},
        },
        "backup": {"ca": issuer(server)},
        "k3s": {
            "source": {"mirror": lab.names.mirror, "checksums": "beside"},
            "datastore": "etcd",
            "snapshots": {"s3": {"endpoint": f"{S3}:9000", "bucket": "k3s-etcd"}},
        },
    }
    return {"LAB_DATA": json.dumps(data)}


def ask_the_gateway(lab: Lab, host: str) -> None:
    """Its name server, as a first boot has it from network.dns."""
    lab.put(host, "/etc/resolv.conf", f"nameserver {lab.record.host(GATEWAY).ip}\n")


@pytest.fixture(scope="module")
def env(lab: Lab) -> Iterator[dict[str, str]]:
    """Bare hosts whose name server is the gateway, secrets, and an ACME server."""
    lab.clear_faults()
    lab.recreate(GATEWAY, EXTERNAL, *NODES)
    lab.check(GATEWAY, "ip link add wan0 type veth peer name out0")  # simulated hardware
    state = lab.names.state
    versitygw.RELEASE.serve(state / "files", lab.record.arch)
    for name in (EXTERNAL, *NODES):
        ask_the_gateway(lab, name)
    python = lab.check(EXTERNAL, "python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'")
    packages = wheels(python.strip(), "dns-ionos")
    with acme(lab.names.gateway, state / "acme", ZONE, "", packages) as server:
        found = settings(lab, server)
        file, key = state / "secrets.sops.yaml", state / "age.txt"
        accounts.make({**lab.environment, **found}, 1, file, key, ("",))
        secrets = sops.flat(sops.load(file, key))
        server.key = f"{secrets['acme.ionos.public_prefix']}.{secrets['acme.ionos.secret']}"
        yield found


@pytest.fixture(scope="module")
def built(lab: Lab, env: dict[str, str]) -> tuple[Run, Run]:
    """The plan for bare hosts, and the run."""
    return plan(lab, SITE, **env), run(lab, SITE, **env)


def test_bare_hosts_become_all_of_it_at_once(lab: Lab, built: tuple[Run, Run]) -> None:
    planned, first = built
    assert planned.code == 0, planned.text
    assert first.code == 0, first.text
    assert set(first.changed) <= set(planned.changed)


def started(lab: Lab) -> dict[str, str]:
    """When each unit of the services last started, as systemd counts."""
    units = {
        GATEWAY: "dnsmasq chrony haproxy keepalived prometheus-node-exporter",
        EXTERNAL: "versitygw chrony haproxy keepalived prometheus-node-exporter",
        "node1": "k3s chrony",
        "node2": "k3s-agent chrony",
    }
    asked = "systemctl show -p Id -p ActiveState -p ActiveEnterTimestampMonotonic -p MainPID"
    return {host: lab.check(host, f"{asked} {names}") for host, names in units.items()}


def test_a_second_run_changes_and_restarts_nothing(
    lab: Lab, env: dict[str, str], built: tuple[Run, Run]
) -> None:
    before = started(lab)
    with tempfile.NamedTemporaryFile("r", suffix=".trace") as file:
        again = run(lab, SITE, **env, **{trace.VARIABLE: file.name})
        lines = [json.loads(line) for line in file]
    assert (again.code, again.changed) == (0, {}), again.text
    counts = Counter(one["host"] for one in lines if one.get("host", "@local") != "@local")
    print(dict(counts))
    assert max(counts.values()) <= MOST_COMMANDS, counts
    assert started(lab) == before and "inactive" not in str(before)
    assert plan(lab, SITE, **env).changed == {}


def test_each_phase_has_a_title_of_its_own_and_nothing_is_said_twice(
    lab: Lab, env: dict[str, str], built: tuple[Run, Run]
) -> None:
    lines = built[1].text.splitlines()
    titles = re.findall(r"--> \d+/\d+ (.+) \(\d+:\d\d\)", built[1].text)
    assert titles and len(titles) == len(set(titles)), titles
    warned = [line for line in lines if "preflight:" in line]
    assert len(warned) == len(set(warned)), warned


def test_the_services_find_each_other(lab: Lab, built: tuple[Run, Run]) -> None:
    ip = lab.record.host(GATEWAY).ip
    for host in (GATEWAY, EXTERNAL, *NODES):
        assert lab.record.host(EXTERNAL).ip in lab.check(host, f"getent ahostsv4 {S3}"), host
        assert lab.run(host, "systemctl start picluster-backup@backup.service")[0] == 0, host
    assert lab.check("node1", f"curl -fs -m 5 http://{ip}:9100/metrics").count("picluster_backup")
    assert "picluster_certificate" in lab.check(EXTERNAL, f"cat {METRICS}/*.prom")
    # K3s has what it needs for copies of snapshots: server and region; the account is proved.
    config = lab.check("node1", "grep etcd-s3 /etc/rancher/k3s/config.yaml")
    assert f"{S3}:9000" in config and "eu-west-1" in config
    assert "401" in lab.run("node2", f"curl -sk -m 5 https://{address(lab, 60)}:6443/readyz")[1]
    assert kubectl(lab, "node1", "get nodes -o name").split() == ["node/node1", "node/node2"]


def served(lab: Lab) -> str:
    """Issuer and serial of the certificate that a node is shown by the S3 server."""
    shown = f"openssl s_client -connect {S3}:9000 -servername {S3} < /dev/null 2> /dev/null"
    return lab.check("node2", f"{shown} | openssl x509 -noout -issuer -serial")


def test_a_renewed_certificate_reaches_the_s3_server(lab: Lab, built: tuple[Run, Run]) -> None:
    before = served(lab)
    assert "Pebble" in before
    renew = f"{certbot.COMMAND} renew --force-renewal --quiet --no-random-sleep-on-renew"
    lab.check(EXTERNAL, f"{renew} && systemctl start {certbot.SERVICE}")
    wait_for(lambda: served(lab) not in ("", before), "the new certificate")


def test_the_doctor_finds_nothing_that_is_wrong(
    lab: Lab, env: dict[str, str], built: tuple[Run, Run]
) -> None:
    words = [sys.executable, "-m", "commands.doctor", "inventories/lab.py", "--json"]
    done = ended(lab, words, limit=120, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)["findings"]
    # Containers have the way out of Docker's network, not that of the gateway; and the disk of
    # the machine that tests may be rather full.
    theirs = {"gateway", "disk-space"}
    assert {one["check"] for one in found if one["answer"] == "warn"} <= theirs
    names = [one for one in found if one["check"] == "dns-answers"]
    assert "no answer" not in str(names), names


def test_a_host_that_was_replaced_gets_its_services_back(
    lab: Lab, env: dict[str, str], built: tuple[Run, Run]
) -> None:
    before = started(lab)
    lab.recreate(EXTERNAL)  # with the bucket, and with it the repository
    ask_the_gateway(lab, EXTERNAL)
    planned = plan(lab, SITE, **env)
    again = run(lab, SITE, **env)
    assert again.code == 0, again.text
    assert set(again.changed) <= set(planned.changed)
    for name, hosts in again.changed.items():
        assert set(hosts) <= set(planned.changed[name]), name
    assert {name: before[name] for name in NODES} == {name: started(lab)[name] for name in NODES}
    assert plan(lab, SITE, **env).changed == {}
