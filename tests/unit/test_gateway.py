"""The gateway's texts follow from the model, and its operations do only what differs.

The texts are read by nft, dnsmasq and chronyd themselves in tests/lab/test_gateway_lab.py.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import base, rules
from cluster.host_state import Clock, File, HostState, Package, Unit
from cluster.managed import UNITS
from cluster.model import Cluster
from cluster.problem import Given
from cluster.services import chrony_server, dnsmasq, firewall, gateway
from facts.dns import Dns, DnsAnswers
from facts.firewall import Firewall, FirewallState
from operations import config_files, dns, text
from operations import firewall as operations
from tests.unit.cluster_example import example
from tests.unit.node_ops import Runner

UP = Unit("loaded", "active", "enabled")


def model(
    network: dict[str, Any] | None = None, others: dict[str, Any] | None = None, **section: Any
) -> Cluster:
    """Three servers and a gateway with an outside; `others` are further services."""
    lan: dict[str, Any] = {"lan": "10.0.0.0/24", "gateway": "10.0.0.1", "dns": ("10.0.0.1",)}
    hosts = [{"name": "router", "role": "gateway", "ip": "10.0.0.1", "arch": "arm64"}]
    hosts += [
        {
            "name": f"node{n}",
            "role": "servers",
            "ip": f"10.0.0.1{n}",
            "arch": "arm64",
            "mac": f"02:00:00:00:00:0{n}",
        }
        for n in (1, 2, 3)
    ]
    wanted = {"wan_interface": "wlan0"} | section
    services = {"gateway": wanted, **(others or {})}
    return example(network=lan | (network or {}), hosts=hosts, services=services)


def lines(cluster: Cluster) -> list[str]:
    whole = firewall.rules(cluster, cluster.hosts[0], "eth0")
    return [line.strip() for line in whole.splitlines()]


def chain(cluster: Cluster, name: str) -> list[str]:
    found = lines(cluster)
    start = found.index(f"chain {name} {{")
    return found[start + 1 : found.index("}", start)]


# ---- rules of the firewall


def test_loading_replaces_our_table_and_no_other() -> None:
    whole = firewall.rules(model(), model().hosts[0], "eth0")
    assert "flush" not in whole
    assert [line for line in whole.splitlines() if "table" in line] == [
        "table inet picluster",
        "delete table inet picluster",
        "table inet picluster {",
    ]


def test_the_lan_reaches_what_the_gateway_serves_and_the_outside_nothing() -> None:
    found = chain(model(), "input")
    assert found[0].endswith("policy drop;")
    assert 'iifname "eth0" tcp dport { 22, 53 } accept' in found
    assert 'iifname "eth0" udp dport { 53, 67, 123 } accept' in found
    assert not [line for line in found if "wlan0" in line]


@pytest.mark.parametrize(
    ("section", "tcp", "udp"),
    [
        ({"dns": False}, "22", "67, 123"),
        ({"dhcp": False, "time": False, "ssh_port": 2222}, "2222, 53", "53"),
        ({"dns": False, "dhcp": False, "time": False}, "22", None),
    ],
)
def test_ports_follow_the_parts_in_use(section: dict[str, Any], tcp: str, udp: str | None) -> None:
    found = chain(model(**section), "input")
    assert f'iifname "eth0" tcp dport {{ {tcp} }} accept' in found
    opened = [line for line in found if "udp" in line]
    assert opened == ([f'iifname "eth0" udp dport {{ {udp} }} accept'] if udp else [])


def test_other_services_of_ours_on_the_gateway_are_let_in() -> None:
    volumes = {"node1": {"size": "1G"}}
    san = {"host": "router", "folder": "/srv/san", "volumes": volumes}
    found = chain(model(others={"s3": {"host": "router"}, "telemetry": {}, "san": san}), "input")
    assert 'iifname "eth0" tcp dport { 22, 53, 9000, 9100, 3260 } accept' in found


def test_haproxys_port_and_its_peers_are_let_in() -> None:
    api = {"vip": "10.0.0.10", "carrier": "haproxy", "haproxy": {"hosts": ("router", "node1")}}
    found = chain(model({"api": api}), "input")
    assert 'iifname "eth0" tcp dport { 22, 53, 6443 } accept' in found
    assert 'iifname "eth0" ip saddr { 10.0.0.11 } ip protocol 112 accept' in found


def test_the_lan_goes_out_under_the_gateways_address() -> None:
    assert 'iifname "eth0" oifname "wlan0" ip saddr 10.0.0.0/24 accept' in chain(model(), "forward")
    masquerade = 'ip saddr 10.0.0.0/24 oifname "wlan0" masquerade'
    assert chain(model(), "postrouting")[1:] == [masquerade]


def test_without_an_outside_nothing_is_forwarded_or_rewritten() -> None:
    found = lines(model(wan_interface=None))
    assert not [line for line in found if "chain forward" in line or "masquerade" in line]


@pytest.mark.parametrize(
    ("opening", "where", "line"),
    [
        (
            {"way": "wan-to-lan", "ports": [80, "8000-8010"], "target": "10.0.0.100"},
            "forward",
            'iifname "wlan0" oifname "eth0" ip daddr 10.0.0.0/24 ip daddr 10.0.0.100 '
            "tcp dport { 80, 8000-8010 } accept",
        ),
        (
            {"way": "wan-to-gateway", "ports": [22], "source": "192.168.1.0/24"},
            "input",
            'iifname "wlan0" ip saddr 192.168.1.0/24 tcp dport { 22 } accept',
        ),
        (
            {"way": "lan-to-gateway", "ports": [161], "protocol": "udp"},
            "input",
            'iifname "eth0" udp dport { 161 } accept',
        ),
    ],
)
def test_an_opening_is_one_line(opening: dict[str, Any], where: str, line: str) -> None:
    assert line in chain(model(openings=[opening]), where)
    assert line not in chain(model(), where)


def test_listed_forwarding_lets_out_what_is_listed() -> None:
    opening = {"way": "lan-to-wan", "ports": [443]}
    found = chain(model(forward="listed", openings=[opening]), "forward")
    out = 'iifname "eth0" oifname "wlan0" ip saddr 10.0.0.0/24'
    assert f"{out} accept" not in found
    assert f"{out} tcp dport {{ 443 }} accept" in found


# ---- names, leases, time


def test_every_host_the_api_and_the_users_own_names_have_a_record() -> None:
    cluster = model(
        {"api": {"names": ("api.picluster.example.com",)}}, records={"nas.lan": "10.0.0.9"}
    )
    found = dnsmasq.text(cluster, "eth0").splitlines()
    assert "host-record=node1.picluster.example.com,node1,10.0.0.11" in found
    assert "host-record=api.picluster.example.com,api,10.0.0.11" in found
    assert "host-record=nas.lan,10.0.0.9" in found


@pytest.mark.parametrize(
    ("stack", "address"),
    [
        ({}, "10.0.0.11"),  # ServiceLB: every node
        ({"load_balancer": "metallb", "ingress": "traefik"}, "10.0.0.100"),
        ({"load_balancer": "metallb", "ingress": "k3s-traefik"}, None),
        ({"ingress": "none"}, None),
    ],
)
def test_other_names_are_those_of_apps(stack: dict[str, str], address: str | None) -> None:
    cluster = model({"load_balancer_pool": "10.0.0.100-10.0.0.200"})
    cluster = cluster.model_copy(update={"stack": type(cluster.stack)(**stack)})
    found = [one for one in dnsmasq.text(cluster, "eth0").splitlines() if "address=/" in one]
    assert found == ([f"address=/picluster.example.com/{address}"] if address else [])
    assert len(dnsmasq.expected(cluster)) == len(dnsmasq.records(cluster)) + bool(address)


def test_dnsmasq_stays_away_from_loopback_and_the_hosts_own_files() -> None:
    found = dnsmasq.text(model(), "end0").splitlines()
    for line in ("interface=end0", "except-interface=lo", "bind-dynamic", "no-hosts", "no-resolv"):
        assert line in found


def test_hosts_have_their_leases_and_guests_the_range() -> None:
    with_range = dnsmasq.text(model({"dhcp_range": "10.0.0.32-10.0.0.99"}), "eth0").splitlines()
    assert "dhcp-range=10.0.0.32,10.0.0.99,255.255.255.0,12h" in with_range
    assert "dhcp-host=02:00:00:00:00:01,10.0.0.11,node1" in with_range
    assert "dhcp-option=option:router,10.0.0.1" in with_range
    assert "dhcp-range=10.0.0.0,static,255.255.255.0,12h" in dnsmasq.text(model(), "eth0")
    assert "no-dhcp-interface=eth0" in dnsmasq.text(model(dhcp=False), "eth0")
    assert "port=0" in dnsmasq.text(model(dns=False), "eth0")


def test_the_time_server_asks_outside_and_answers_the_lan() -> None:
    found = chrony_server.text(model(upstream_ntp=("10.9.9.9", "pool.ntp.org"))).splitlines()
    wanted = ("server 10.9.9.9 iburst", "pool pool.ntp.org iburst", "allow 10.0.0.0/24")
    assert all(line in found for line in (*wanted, "local stratum 10", "makestep 1 3"))


def test_nodes_py_leaves_the_time_servers_chrony_alone() -> None:
    cluster = model({"ntp": ("10.0.0.254",)})
    assert [gateway.serves_time(cluster, host) for host in cluster.hosts] == [True] + 3 * [False]
    assert not gateway.serves_time(model(time=False), cluster.hosts[0])
    assert not gateway.serves_time(example(), example().hosts[0])


@pytest.mark.parametrize(
    ("network", "key"),
    [
        ({"gateway": "10.0.0.254"}, "gateway"),
        ({"dns": ("9.9.9.9",)}, "dns"),
        ({"ntp": ("a.b",)}, "ntp"),
    ],
)
def test_a_gateway_that_nobody_asks_is_said(network: dict[str, Any], key: str) -> None:
    assert list(rules.gateway_serves_somebody(model(), Given())) == []
    found = list(rules.gateway_serves_somebody(model(network), Given()))
    assert all(one.warning for one in found)
    assert f"network.{key}" in found[0].where


# ---- facts and operations

Run = Callable[..., list[Any]]


def written(content: str, mode: str = "644") -> File:
    return File(mode, sha256=hashlib.sha256(content.encode()).hexdigest())


def converged(cluster: Cluster) -> HostState:
    """A gateway as its deploy leaves it."""
    files = {
        gateway.FIREWALL: written(firewall.rules(cluster, cluster.hosts[0], "eth0")),
        gateway.FIREWALL_COMMAND: written(firewall.COMMAND, "755"),
        f"{UNITS}/{gateway.FIREWALL_UNIT}": written(firewall.UNIT_TEXT),
        gateway.NFTABLES_DROP_IN: written(firewall.DROP_IN_TEXT),
        gateway.FORWARDING: written(gateway.forwarding()),
        gateway.DNSMASQ: written(dnsmasq.text(cluster, "eth0")),
    }
    return HostState(
        clock=Clock(2000.0, 2000.0, 2000.0),
        uptime=1000.0,
        files=files,
        units={gateway.FIREWALL_UNIT: UP, gateway.DNSMASQ_UNIT: UP},
        packages={name: Package("1", "ii") for name in ("nftables", "dnsmasq")},
        interfaces={"10.0.0.1": "eth0"},
        sysctls={"net.ipv4.ip_forward": "1"},
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    runner = Runner(monkeypatch)

    def go(operation: Any, cluster: Cluster, state: HostState, live: Any, **arguments: Any) -> Any:
        monkeypatch.setattr("runtime.cache.cached", lambda *_, **__: live)
        return runner(operation, cluster, state, **arguments)

    return go


SAME = FirewallState("a", "a")


def test_rules_that_are_there_are_left_alone(run: Run) -> None:
    cluster = model()
    assert run(operations.rules, cluster, converged(cluster), SAME) == []


@pytest.mark.parametrize(
    "live", [FirewallState("b", "a"), FirewallState("", "a"), FirewallState("a", "a", pending=True)]
)
def test_other_rules_than_those_of_the_file_are_put_back(run: Run, live: FirewallState) -> None:
    cluster = model()
    found = run(operations.rules, cluster, converged(cluster), live)
    assert [one.text.split("(")[0].split(" 60")[0] for one in found[1:]] == [
        f"{gateway.FIREWALL_COMMAND} try",
        "confirm",
    ]
    assert f"{gateway.FIREWALL}.new" in found[0].text


def test_new_rules_are_tried_and_only_their_confirmation_keeps_them(run: Run) -> None:
    wanted = model(confirm_seconds=30, ssh_port=2222)
    known = converged(model())
    bare = replace(known, files={}, units={}, packages={})
    for now in (known, bare):
        found = [one.text for one in run(operations.rules, wanted, now, SAME)]
        tried = found.index(f"{gateway.FIREWALL_COMMAND} try 30s")
        assert found[tried - 1].endswith(f"{gateway.FIREWALL}.new 644")
        assert found[tried + 1] == "confirm(30,)"
        # The file that is loaded at boot is written by nobody else.
        assert not [one for one in found if one.endswith(f"{gateway.FIREWALL} 644")]


@pytest.mark.parametrize(("unreadable", "loaded"), [("before.nft.part", False), ("nothing", True)])
def test_no_rules_are_tried_without_a_way_back(
    tmp_path: Path, unreadable: str, loaded: bool
) -> None:
    # nft and systemd are played here: nft cannot read one file, and says what it loaded.
    nft = f'[ "$1" = -c ] && {{ case $3 in *{unreadable}) exit 1 ;; esac; exit 0; }}\n'
    nft += f'[ "$1" != -f ] || echo "$2" >> {tmp_path}/loaded\n'
    for name, script in {"nft": nft, "systemctl": "", "systemd-run": ""}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}")
        (tmp_path / name).chmod(0o755)
    command = firewall.COMMAND.replace(gateway.FIREWALL, f"{tmp_path}/wanted")
    command = f"PATH={tmp_path}:$PATH\n" + command.replace(firewall.RUN, f"{tmp_path}/run")
    done = subprocess.run(["sh", "-c", command, "firewall", "try", "60s"])
    assert (done.returncode == 0) is loaded
    assert (tmp_path / "loaded").exists() is loaded


def test_forwarding_is_set_once(run: Run) -> None:
    cluster = model()
    state = converged(cluster)
    assert run(operations.forwarding, cluster, state, None) == []
    off = replace(state, sysctls={"net.ipv4.ip_forward": "0"})
    assert [one.text for one in run(operations.forwarding, cluster, off, None)] == [
        f"sysctl -q -p {gateway.FORWARDING}"
    ]


def service(run: Run, cluster: Cluster, state: HostState, content: str = "") -> list[str]:
    wanted = {gateway.DNSMASQ: content or dnsmasq.text(cluster, "eth0")}
    found = run(
        *(config_files.service, cluster, state, None),
        unit=gateway.DNSMASQ_UNIT, wanted=wanted, check=("dnsmasq", "--test", "-C"),
    )  # fmt: skip
    return [one.text for one in found]


def test_a_service_is_restarted_after_its_checked_file_and_only_then(run: Run) -> None:
    cluster = model()
    state = converged(cluster)
    assert service(run, cluster, state) == []
    write, restart = service(run, cluster, state, "port=0\n")
    assert write.endswith(f"{gateway.DNSMASQ} 644 dnsmasq --test -C")
    assert restart == f"systemctl restart {gateway.DNSMASQ_UNIT}"


def test_a_service_that_is_off_or_failed_is_started_and_one_without_a_package_waits(
    run: Run,
) -> None:
    cluster = model()
    state = converged(cluster)
    failed = replace(state, units={gateway.DNSMASQ_UNIT: Unit("loaded", "failed", "enabled")})
    start = f"systemctl enable --now {gateway.DNSMASQ_UNIT}"
    reset = f"systemctl reset-failed {gateway.DNSMASQ_UNIT}"
    assert service(run, cluster, failed) == [reset, start]
    off = replace(state, units={gateway.DNSMASQ_UNIT: Unit("loaded", "inactive", "disabled")})
    assert service(run, cluster, off) == [start]
    bare = replace(state, files={}, units={})
    assert len(service(run, cluster, bare)) == 1


def test_the_checker_gets_the_new_file_and_nothing_is_written_without_it() -> None:
    plain, checked = text.write("/etc/a", "x", "644"), text.write("/etc/a", "x", "644", ("true",))
    assert '"$@" "$t"' not in plain.get_raw_value()
    assert '"$@" "$t"' in checked.get_raw_value()


WANTED = {"a.example.com": "10.0.0.1", "b.example.com": "10.0.0.2"}


@pytest.mark.parametrize(
    ("answers", "waits"),
    [
        (DnsAnswers(True, WANTED), False),
        (DnsAnswers(True, WANTED | {"b.example.com": "10.0.0.9"}), True),
        (DnsAnswers(True, {"a.example.com": "no answer"}), True),
        (DnsAnswers(), True),
    ],
)
def test_wrong_or_missing_answers_are_waited_for(
    run: Run, answers: DnsAnswers, waits: bool
) -> None:
    cluster = model()
    found = run(dns.answers, cluster, converged(cluster), answers, server="10.0.0.1", wanted=WANTED)
    assert bool(found) is waits


def test_answers_are_read_with_their_reasons() -> None:
    output = ["answer a.example.com 10.0.0.1", "answer b.example.com no such name"]
    assert Dns().process(output).answers == {
        "a.example.com": "10.0.0.1",
        "b.example.com": "no such name",
    }
    assert Dns().process(["no-python"]) == DnsAnswers()
    assert "python3" in Dns().command("10.0.0.1", ("a.example.com",))


def test_a_firewall_fact_that_broke_off_is_no_answer() -> None:
    from pyinfra.api.exceptions import FactProcessError

    assert Firewall().process(["live a", "wanted b", "pending", "end"]) == FirewallState(
        "a", "b", True
    )
    assert not Firewall().process(["end"]).as_in_file
    for output in (["live a"], ["unread", "end"]):
        with pytest.raises(FactProcessError):
            Firewall().process(output)


def test_what_the_gateway_asks_of_hosts_is_nothing_without_a_section() -> None:
    assert gateway.DNSMASQ not in base.question(example()).files
    assert gateway.DNSMASQ in base.question(model()).files


@pytest.mark.parametrize(
    ("interfaces", "said"),
    [
        ({"10.0.0.1": "eth0", "192.0.2.7": "wlan0"}, None),
        ({"192.0.2.7": "wlan0"}, "no interface has 10.0.0.1"),
        ({"10.0.0.1": "wlan0"}, "wan_interface wlan0 has 10.0.0.1"),
    ],
)
def test_the_lan_is_not_the_outside(interfaces: dict[str, str], said: str | None) -> None:
    found = gateway.strange_interfaces(model(), model().hosts[0], HostState(interfaces=interfaces))
    assert (found == []) if said is None else (said in found[0])
