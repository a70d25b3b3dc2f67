"""deploys/services/gateway.py on real hosts: nftables, dnsmasq and chrony, asked by others.

Everything is real but the outside: a network namespace on the gateway stands for it.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.services import firewall, gateway
from operations import text
from tests.lab.lab import Lab
from tests.lab.living import wait_for
from tests.lab.net import ssh_answers
from tests.lab.runs import Run, other_record, plan, run

pytestmark = pytest.mark.lab(servers=1, agents=1, gateways=1, k3s=False)

DEPLOY = "deploys/services/gateway.py"
GATEWAY, ASKER, KNOWN = "gateway", "node1", "node2"
NAMES = "Gateway | Names and leases"
FIREWALL, TIME = "Gateway | Firewall", "Gateway | Time for the LAN"
OUTSIDE, INSIDE = "203.0.113.9", "203.0.113.1"  # of RFC 5737, for documentation
SECONDS = 10  # until unconfirmed rules go
# The card towards the outside, and its other end; simulated hardware.
CARD = "ip link add wan0 type veth peer name out0"
FOREIGN = "table inet foreign { chain mine { tcp dport 7777 accept; }; }"


def address(lab: Lab, number: int) -> str:
    return str(lab.names.subnet.network_address + number)


def settings(lab: Lab, **changes: Any) -> dict[str, str]:
    """What makes the lab's host of the role gateway the gateway of its network."""
    own = lab.record.host(GATEWAY).ip
    section = {
        "wan_interface": "wan0",
        "confirm_seconds": SECONDS,
        "upstream_dns": [lab.names.gateway],
        "upstream_ntp": [lab.names.gateway],
        "records": {"nas.example.net": address(lab, 9)},
    }
    network = {
        "lan": str(lab.names.subnet),
        "gateway": own,
        "dns": [own],
        "ntp": [own],
        "dhcp_range": f"{address(lab, 100)}-{address(lab, 120)}",
        "load_balancer_pool": f"{address(lab, 225)}-{address(lab, 250)}",
        "api": {"names": ["api.lab.example.com"]},
    }
    return {
        "LAB_DATA": json.dumps({"network": network, "services": {"gateway": section | changes}})
    }


@pytest.fixture(scope="module")
def record(lab: Lab) -> Iterator[dict[str, str]]:
    """The lab's record with the network card of one node, as an inventory has it."""
    lab.recreate(GATEWAY, ASKER, KNOWN)
    lab.check(GATEWAY, CARD)
    mac = lab.check(KNOWN, "cat /sys/class/net/eth0/address").strip()

    def edit(hosts: list[dict[str, Any]]) -> None:
        next(one for one in hosts if one["name"] == KNOWN)["mac"] = mac

    with other_record(lab, edit) as environment:
        yield environment


@pytest.fixture(scope="module")
def done(lab: Lab, record: dict[str, str]) -> tuple[Lab, dict[str, str], Run, Run]:
    """The lab, its settings, the plan for bare hosts and the run that carried it out."""
    lab.check(GATEWAY, f"apt-get -qy install nftables > /dev/null; echo '{FOREIGN}' | nft -f -")
    environment = record | settings(lab)
    planned = plan(lab, DEPLOY, **environment)
    return lab, environment, planned, run(lab, DEPLOY, **environment)


Done = tuple[Lab, dict[str, str], Run, Run]


def test_a_bare_host_becomes_the_gateway_and_others_see_its_names(done: Done) -> None:
    _, _, planned, first = done
    assert first.code == 0, first.text
    assert planned.code == 0 and set(first.changed) <= set(planned.changed)
    assert {NAMES, TIME, FIREWALL} <= set(first.changed)
    assert planned.changed["Gateway seen by others | Names that gateway answers"] == [ASKER]


def test_a_second_run_and_its_plan_are_empty(done: Done) -> None:
    lab, environment, _, _ = done
    again = run(lab, DEPLOY, **environment)
    assert (again.code, again.changed) == (0, {}), again.text
    assert plan(lab, DEPLOY, **environment).changed == {}


def asked(lab: Lab, name: str, kind: str = "A") -> list[str]:
    """Status and answers to a question of the asking host, by dig."""
    own = lab.record.host(GATEWAY).ip
    said = lab.check(ASKER, f"dig +time=2 +tries=2 @{own} {name} {kind}")
    status = re.search(r"status: (\w+)", said)
    lines = [line.split() for line in said.splitlines() if line and not line.startswith(";")]
    return [status[1] if status else "", *(line[-1] for line in lines)]


def test_another_host_gets_names_of_hosts_api_and_apps(done: Done) -> None:
    lab = done[0]
    lab.check(ASKER, "apt-get -qy install bind9-dnsutils > /dev/null")
    first = lab.record.host("node1").ip
    assert asked(lab, "node2.lab.example.com") == ["NOERROR", lab.record.host("node2").ip]
    assert asked(lab, "node2") == ["NOERROR", lab.record.host("node2").ip]
    assert asked(lab, "gateway.lab.example.com") == ["NOERROR", lab.record.host(GATEWAY).ip]
    assert asked(lab, "api.lab.example.com") == ["NOERROR", first]
    assert asked(lab, "nas.example.net") == ["NOERROR", address(lab, 9)]
    assert asked(lab, "grafana.lab.example.com") == ["NOERROR", first]
    # No address of the other kind is not the same as no such name.
    assert asked(lab, "grafana.lab.example.com", "AAAA") == ["NOERROR"]
    assert asked(lab, f"-x {first}", "")[1] == "node1.lab.example.com."


def leased(lab: Lab, mac: str) -> dict[str, str]:
    """What a DHCP client with that card is told, in a network namespace of a node."""
    script = "#!/bin/sh\nenv | grep -E '^(reason|new_)' > /root/lease\n"
    lab.put(KNOWN, "/root/take", script, 0o755)
    lab.check(
        KNOWN,
        "ip netns del guest 2>/dev/null; ip link del lan1 2>/dev/null; rm -f /root/lease; set -e; "
        "ip netns add guest; ip link add lan1 link eth0 type macvlan mode bridge; "
        f"ip link set lan1 address {mac} netns guest; ip netns exec guest ip link set lan1 up; "
        "timeout 60 ip netns exec guest dhclient -1 -sf /root/take -lf /root/leases -pf /root/pid "
        "lan1; ip netns del guest",
    )
    return dict(line.split("=", 1) for line in lab.read(KNOWN, "/root/lease").splitlines())


def test_a_guest_gets_an_address_of_the_range_and_is_told_the_rest(done: Done) -> None:
    lab = done[0]
    lab.check(KNOWN, "apt-get -qy install isc-dhcp-client > /dev/null")
    lease, own = leased(lab, "02:00:00:00:53:99"), lab.record.host(GATEWAY).ip
    assert lease["reason"] == "BOUND"
    assert 100 <= int(lease["new_ip_address"].rpartition(".")[2]) <= 120
    told = ("new_routers", "new_domain_name_servers", "new_ntp_servers")
    assert [lease[key] for key in told] == [own, own, own]
    assert lease["new_domain_name"] == "lab.example.com"


def test_a_host_of_the_inventory_gets_its_own_address(done: Done) -> None:
    lab = done[0]
    mac = lab.check(KNOWN, "cat /sys/class/net/eth0/address").strip()
    lab.check(
        KNOWN,
        "rm -f /root/lease; timeout 60 dhclient -1 -sf /root/take "
        "-lf /root/own -pf /root/pid eth0; kill $(cat /root/pid)",
    )
    assert f"new_ip_address={lab.record.host(KNOWN).ip}" in lab.read(KNOWN, "/root/lease")
    assert mac in lab.read(GATEWAY, "/var/lib/misc/dnsmasq.leases")


def test_another_host_gets_the_time(done: Done) -> None:
    lab = done[0]
    lab.check(ASKER, "apt-get -qy install chrony > /dev/null")
    own = lab.record.host(GATEWAY).ip
    ask = f"chronyd -Q -t 20 'server {own} iburst maxsamples 1'"
    assert "System clock wrong by" in lab.check(ASKER, f"{ask} 2>&1")


@pytest.fixture
def outside(done: Done) -> Iterator[Lab]:
    """A host outside with a web server; the namespace is simulated."""
    lab = done[0]
    lab.check(
        GATEWAY,
        "set -e; ip netns add outside; "
        f"ip link set out0 netns outside; ip addr add {INSIDE}/24 dev wan0; ip link set wan0 up; "
        f"ip netns exec outside ip addr add {OUTSIDE}/24 dev out0; "
        "ip netns exec outside ip link set out0 up; "
        f"ip netns exec outside ip route add {lab.names.subnet} via {INSIDE}; "
        "systemd-run -q --unit=outside ip netns exec outside python3 -m http.server 80",
    )
    own = lab.record.host(GATEWAY).ip
    lab.check(ASKER, f"ip route add {OUTSIDE} via {own}")
    yield lab
    lab.run(ASKER, f"ip route del {OUTSIDE}")
    lab.run(GATEWAY, f"systemctl stop outside; ip link del wan0; ip netns del outside; {CARD}")


def test_the_lan_gets_out_under_the_gateways_address_and_nobody_gets_in(outside: Lab) -> None:
    lab = outside
    wait_for(lambda: not lab.run(ASKER, f"curl -fs -m 3 http://{OUTSIDE}/")[0], "the way out")
    assert f"{INSIDE} - -" in lab.check(GATEWAY, "journalctl -q -u outside -o cat")
    for target in (INSIDE, lab.record.host(ASKER).ip):
        dial = f"timeout 2 bash -c ': < /dev/tcp/{target}/22'"
        assert lab.run(GATEWAY, f"ip netns exec outside {dial}")[0] == 124, target


def test_an_opening_lets_in_what_it_says(outside: Lab, record: dict[str, str]) -> None:
    lab = outside
    node = lab.record.host(ASKER).ip
    opening = {"way": "wan-to-lan", "ports": [22], "target": node}
    opened = run(lab, DEPLOY, **record | settings(lab, openings=[opening]))
    assert opened.code == 0 and list(opened.changed) == [FIREWALL], opened.text
    dial = "ip netns exec outside timeout 2 bash -c ': < /dev/tcp/{}/22'"
    assert lab.run(GATEWAY, dial.format(node))[0] == 0
    assert lab.run(GATEWAY, dial.format(lab.record.host(KNOWN).ip))[0] == 124
    assert list(run(lab, DEPLOY, **record | settings(lab)).changed) == [FIREWALL]
    assert lab.run(GATEWAY, dial.format(node))[0] == 124


def test_what_somebody_changed_by_hand_is_put_back_and_foreign_tables_stay(done: Done) -> None:
    lab, environment, _, _ = done
    lab.check(
        GATEWAY,
        f"nft add rule {firewall.TABLE} input tcp dport 8080 accept; "
        f"echo port=0 >> {gateway.DNSMASQ}; sysctl -q net.ipv4.ip_forward=0",
    )
    again = run(lab, DEPLOY, **environment)
    assert again.code == 0, again.text
    assert set(again.changed) == {NAMES, FIREWALL, "Gateway | Packets are forwarded"}
    assert "8080" not in lab.check(GATEWAY, f"nft list table {firewall.TABLE}")
    assert "7777" in lab.check(GATEWAY, "nft list table inet foreign")


def rules(lab: Lab) -> str:
    return lab.check(GATEWAY, f"nft -s list table {firewall.TABLE}")


def test_rules_that_lock_everybody_out_go_by_themselves(done: Done) -> None:
    lab, environment, _, _ = done
    before, own = rules(lab), lab.record.host(GATEWAY).ip
    began = time.monotonic()
    bad = run(lab, DEPLOY, **environment | settings(lab, ssh_port=2222))
    assert bad.code == 1 and "no new connection after the new rules" in bad.text, bad.text
    wait_for(lambda: ssh_answers(own, 1), "SSH to answer again")
    print(f"SSH answers again {time.monotonic() - began:.0f} s after the run began")
    wait_for(lambda: rules(lab) == before, "the former rules")
    assert "nobody confirmed" in lab.check(GATEWAY, f"journalctl -q -u {firewall.BACK_UNIT}")
    again = run(lab, DEPLOY, **environment)
    assert (again.code, again.changed) == (0, {}), again.text


def test_rules_that_nobody_could_confirm_are_not_there_after_a_boot(done: Done) -> None:
    lab = done[0]
    before = rules(lab)
    file = f"{gateway.FIREWALL}.new"
    lab.put(GATEWAY, file, before.replace("22", "2222"))
    lab.check(GATEWAY, f"sed -i '1i delete table {firewall.TABLE}' {file}")
    lab.check(GATEWAY, f"{gateway.FIREWALL_COMMAND} try 600s")
    assert "2222" in rules(lab)
    lab.kill(GATEWAY)
    lab.start(GATEWAY)
    assert rules(lab) == before
    lab.check(GATEWAY, f"rm {file}")
    assert lab.check(GATEWAY, "sysctl -n net.ipv4.ip_forward").strip() == "1"


@pytest.mark.parametrize(
    ("path", "check", "wrong"),
    [
        (gateway.DNSMASQ, ("dnsmasq", "--test", "-C"), "dhcp-range=nonsense"),
        ("/etc/chrony/chrony.conf", ("chronyd", "-p", "-f"), "allow nonsense here"),
        (gateway.FIREWALL, ("nft", "-c", "-f"), "table inet x { chain }"),
    ],
)
def test_what_its_checker_refuses_is_not_put_in_place(
    done: Done, path: str, check: tuple[str, ...], wrong: str
) -> None:
    lab = done[0]
    before = lab.read(GATEWAY, path)
    command = text.write(path, wrong, "644", check).get_raw_value()
    code, said = lab.run(GATEWAY, f"printf '%s\\n' {shlex.quote(wrong)} | {command}")
    assert code != 0 and said.strip(), said
    assert lab.read(GATEWAY, path) == before
    assert not lab.check(GATEWAY, "ls -A /etc/picluster | grep -c '^.new' || true").strip("0\n")


def test_our_table_is_back_after_debians_own_service_has_flushed_everything(done: Done) -> None:
    # The last test: it flushes the container's own name service too.
    lab = done[0]
    before = rules(lab)
    for verb in ("start", "restart", "reload"):
        lab.check(GATEWAY, f"systemctl {verb} nftables")
        wait_for(lambda: lab.run(GATEWAY, f"nft list table {firewall.TABLE}")[0] == 0, verb)
        assert rules(lab) == before
    assert "foreign" not in lab.check(GATEWAY, "nft list tables")  # it really was flushed
