"""The doctor's facts: what the scripts print, and what is made of it."""

from __future__ import annotations

import os
import socket
import subprocess
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from pyinfra.api.exceptions import FactProcessError

from cluster.doctor.catalogue import examine
from cluster.doctor.fleet import free_addresses
from cluster.doctor.node import Fleet
from cluster.doctor.seen import Address, Link, Usage
from commands.visit import network_question
from facts import doctor_script
from facts.doctor import DoctorState, NetworkState, WriteTimes, parse, parse_probes
from facts.doctor_script import NetworkQuestion
from tests.unit.doctor_world import cluster, healthy, made, state

HOST = """container\tnone
addr\tlo\t127.0.0.1/8\t
addr\teth0\t10.0.0.11/24\tdynamic
interfaces\t eth0 lo wlan0
value\t/sys/class/net/eth0/address:DC:A6:32:0A:1B:2C
value\t/sys/class/net/eth0/mtu:1500
value\t/sys/class/net/eth0/carrier:1
value\t/sys/class/net/eth0/speed:1000
value\t/sys/class/net/eth0/duplex:full
value\t/sys/class/net/wlan0/speed:-1
value\t/proc/device-tree/serial-number:100000002eb65c54\0
value\t/sys/fs/ext4/sda2/errors_count:0
space\t/\t30000000\t25000000
inodes\t/\t-\t-
resolver\t/etc/resolv.conf\t127.0.0.53
modules
module\tvxlan\tavailable
module\tvxlan\tloaded
clock\tNTP=yes
clock\tNTPSynchronized=no
clock\tNTPSynchronized=yes
hostkey\tssh-ed25519 AAAA
units
failed\tsmartd.service
reboots\tfalse
cloud\toff\t\t{ "v1": {"errors": ["no network"]}}\tActiveState=inactive
multipath\t  devnode "^sd[a-z0-9]+"
there\t/etc/cni/net.d
runs\tdocker.service\tactive
runs\tcrio.service\tinactive
iptables\tiptables v1.8.10 (nf_tables)
ufw\tno
k3s\t/usr/local/lib/k3s/v1.36.3+k3s1/k3s
end"""


def test_a_host_is_read() -> None:
    seen = parse(HOST.split("\n"))
    assert seen.links["eth0"] == Link("dc:a6:32:0a:1b:2c", 1500, True, 1000, "full")
    assert seen.links["wlan0"].speed is None and seen.links["wlan0"].carrier is None
    assert seen.interfaces == ("eth0", "lo", "wlan0")
    assert seen.addresses[1] == Address("eth0", IPv4Interface("10.0.0.11/24"), dynamic=True)
    assert seen.values["/proc/device-tree/serial-number"].strip("\0") == "100000002eb65c54"
    assert not any(path.startswith("/sys/class/net") for path in seen.values)
    assert seen.space["/"] == Usage(30000000, 25000000) and seen.inodes["/"] == Usage(0, 0)
    assert seen.resolvers == {"/etc/resolv.conf": ("127.0.0.53",)}
    assert seen.modules == {"vxlan": "loaded"}
    assert seen.clock == {"NTP": "yes", "NTPSynchronized": "yes"}
    assert seen.host_keys == ("ssh-ed25519 AAAA",) and seen.failed_units == ("smartd.service",)
    assert (seen.cloud_init, seen.cloud_errors, seen.cloud_off) == ("error", "no network", True)
    assert seen.multipath == ('devnode "^sd[a-z0-9]+"',)
    assert seen.running == {"docker.service"} and seen.there == {"/etc/cni/net.d"}
    assert (seen.iptables, seen.firewall, seen.k3s) == ("v1.8.10 (nf_tables)", "no", "v1.36.3+k3s1")
    assert "10.0.0.11/24" in str(seen.to_json())


def test_what_a_host_does_not_say_is_not_known() -> None:
    seen = parse(["end"])
    assert seen.modules is None and seen.host_keys is None and seen.failed_units is None
    assert seen.automatic_reboot is None and seen.cloud_init == "" and not seen.container
    assert parse(["cloud\t\t\tno JSON\t", "end"]).cloud_init == ""
    assert parse(["modules", "units", "end"]).modules == {}
    assert parse(["modules", "units", "end"]).failed_units == ()


@pytest.mark.parametrize("fact", [DoctorState, NetworkState])
def test_an_answer_that_ends_early_is_an_error(fact: type[DoctorState | NetworkState]) -> None:
    with pytest.raises(FactProcessError, match="ended early"):
        fact().process(["container\tnone"])


def run(script: str, **env: str) -> list[str]:
    done = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, timeout=30, env=os.environ | env
    )
    assert done.returncode == 0 and (env or not done.stderr), done.stderr
    return done.stdout.splitlines()


def test_the_script_runs_here_and_where_every_program_is_missing() -> None:
    here = parse(run(doctor_script.local(("overlay",))))
    assert any(one.interface == "lo" for one in here.addresses) or not here.addresses
    bare = parse(run(doctor_script.local(("overlay",)), PATH="/nonexistent"))
    assert bare.failed_units is None and bare.automatic_reboot is None


def test_the_network_is_asked_and_the_silent_are_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        is_open, is_closed = listening.getsockname()[1], closed.getsockname()[1]
        ask = NetworkQuestion(
            connects=(f"127.0.0.1:{is_open}", f"127.0.0.1:{is_closed}"),
            names=("localhost",),
            limit=2,
        )
        probes = parse_probes(run(doctor_script.probe(ask)))
    assert 0 < probes.connects["127.0.0.1", is_open] < 1
    assert probes.refused == {("127.0.0.1", is_closed)}
    assert probes.names == {"localhost": "127.0.0.1"} and probes.path_mtu is None
    assert "bash" in probes.tools


def test_only_neighbours_that_nobody_manages_are_asked_for_anew(tmp_path: Path) -> None:
    known = (
        "10.0.0.2 dev eth0 lladdr dc:a6:32:00:00:02 REACHABLE",
        "10.0.0.3 dev eth0 lladdr dc:a6:32:00:00:03 managed extern_learn STALE",
        "10.0.0.4 dev eth0 lladdr dc:a6:32:00:00:04 PERMANENT",
    )
    program, asked = tmp_path / "ip", tmp_path / "asked"
    lines = "\n".join(f"echo {one}" for one in known)
    program.write_text(f'#!/bin/sh\n[ "$2" = del ] && echo "$*" >> {asked} && exit\n{lines}\n')
    program.chmod(0o755)
    ask = NetworkQuestion(neighbours=("127.0.0.2", "10.0.0.2", "10.0.0.3", "10.0.0.4"), limit=1)
    probes = parse_probes(run(doctor_script.probe(ask), PATH=f"{tmp_path}:{os.environ['PATH']}"))
    assert asked.read_text().splitlines() == ["neigh del 10.0.0.2 dev eth0"]
    assert probes.neighbours["10.0.0.3"] == "dc:a6:32:00:00:03"


def test_answers_of_the_network_are_read() -> None:
    lines = [
        "neighbour\t10.0.0.50\tDC:A6:32:00:00:01\tSTALE",
        "neighbour\t10.0.0.51\t\tFAILED",
        "neighbour\t10.0.0.52\tdc:a6:32:00:00:02\tFAILED",
        "dns\t10.0.0.1",
        "path\tno",
        'smart\tsda\t{"smart_status": {"passed": true}}',
        "smart\tsdb\tno JSON",
        "end",
    ]
    probes = parse_probes(lines)
    assert probes.neighbours == {"10.0.0.50": "dc:a6:32:00:00:01", "10.0.0.51": "", "10.0.0.52": ""}
    assert probes.dns == {"10.0.0.1"} and probes.path_mtu is False
    assert probes.smart == {"sda": {"smart_status": {"passed": True}}}
    assert probes.to_json()["neighbours"]["10.0.0.51"] == ""


def test_a_question_of_dns_is_one() -> None:
    """RFC 1035: id, recursion desired, one question, labels with their lengths, type A, IN."""
    octets = bytes.fromhex(doctor_script._query("pi.example.com").replace("\\x", ""))
    assert octets[2:12] == bytes.fromhex("01000001000000000000")
    assert octets[12:] == b"\x02pi\x07example\x03com\x00\x00\x01\x00\x01"


def test_a_host_is_asked_about_the_others() -> None:
    fleet = healthy()
    first, second = (network_question(fleet, fleet.nodes[name]) for name in ("node1", "node2"))
    assert first.neighbours == tuple(f"10.0.0.1{n}" for n in (2, 3, 4, 5))
    assert second.neighbours == tuple(f"10.0.0.1{n}" for n in (1, 3, 4, 5))
    free = ("10.0.0.50", "10.0.0.100", "10.0.0.101", "10.0.0.102", "10.0.0.103")
    assert free_addresses(fleet.model) == free
    assert set(first.connects) == {f"10.0.0.1{n}:22" for n in (2, 3, 4, 5)}
    assert first.names[-1] == "registry-1.docker.io" and first.gateway == "10.0.0.1"
    assert first.smart == ("sda:-d sat",)


def test_images_that_come_from_elsewhere_are_not_looked_up_outside() -> None:
    fleet = made(cluster(k3s={"registries": {"mirrors": {"docker.io": {}}}}))
    assert "registry-1.docker.io" not in network_question(fleet, fleet.nodes["node1"]).names
    asked = [one for one in examine(fleet, extra=True) if one.check.id == "dns-answers"]
    assert {one.answer.seen for one in asked} == {"10.0.0.1"}


def test_write_times_are_sorted_and_may_be_missing() -> None:
    assert WriteTimes().process(["write\t0.003", "write\t0.001", "end"]) == (0.001, 0.003)
    assert WriteTimes().process(["end"]) == ()


def test_a_running_cluster_is_asked_for_its_own_ports() -> None:
    fleet: Fleet = healthy()
    from cluster.host_state import Unit

    for name, node in fleet.nodes.items():
        units = {**node.state.units, "k3s.service": Unit("loaded", "active", "enabled")}
        fleet = state(name, units=units)(fleet)
    connects = network_question(fleet, fleet.nodes["node1"]).connects
    assert {"10.0.0.12:6443", "10.0.0.12:2380", "10.0.0.14:10250"} <= set(connects)
    assert "10.0.0.14:6443" not in connects
    agent = network_question(fleet, fleet.nodes["node4"]).connects
    assert "10.0.0.11:6443" in agent and "10.0.0.11:2380" not in agent
