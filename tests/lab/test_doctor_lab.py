"""The doctor on real hosts: before and after deploys/nodes.py, with faults, one that is off.

The hosts are containers: what is of the machine (board, disks, kernel's log) is unknown there, and
tested on fixtures instead. The stranger on the LAN is a container outside of the inventory.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.doctor.catalogue import CHECKS
from tests.lab.fingerprint import difference
from tests.lab.lab import Lab
from tests.lab.runs import ROOT, command, ended, run

pytestmark = pytest.mark.lab(servers=1, agents=1, spare=1, k3s=False)

NAMES, STRANGER = ("node1", "node2"), "node3"
PREFLIGHT = "deploys/preflight.py"
MORE = tuple(range(100, 108))  # last parts of further addresses


@dataclass(frozen=True)
class Seen:
    """What the command said: exit code, its JSON, the checks by answer, seconds it took."""

    code: int
    data: dict[str, Any]
    seconds: float

    def checks(self, answer: str, host: str = "") -> set[str]:
        return {
            one["check"]
            for one in self.data["findings"]
            if one["answer"] == answer and not one["ignored"]
            if not host or host in one["hosts"]
        }

    def of(self, check: str) -> list[dict[str, Any]]:
        return [one for one in self.data["findings"] if one["check"] == check]


def doctor(lab: Lab, *options: str, inventory: str = "inventories/lab.py") -> Seen:
    start = time.monotonic()
    words = [sys.executable, "-m", "commands.doctor", inventory, "--json", *options]
    done = ended(lab, words, limit=120)
    assert done.stdout, done.stderr
    assert not done.stderr, done.stderr
    return Seen(done.returncode, json.loads(done.stdout), time.monotonic() - start)


@pytest.fixture(scope="module")
def bare(lab: Lab) -> Lab:
    """The lab with bare hosts."""
    lab.clear_faults()
    lab.recreate(*NAMES, STRANGER)
    return lab


@pytest.fixture(scope="module")
def prepared(bare: Lab) -> Iterator[Lab]:
    """The lab after deploys/nodes.py."""
    done = run(bare, "deploys/nodes.py")
    assert done.code == 0, done.text
    yield bare


def test_bare_hosts_lack_only_what_site_puts_right(bare: Lab) -> None:
    doctor(bare)  # the first login of a user leaves files of sudo and systemd
    before = {name: bare.fingerprint(name) for name in NAMES}
    found = doctor(bare)
    assert (found.data["unreachable"], found.code) == ({}, 2)
    fails = [one for one in found.data["findings"] if one["answer"] == "fail"]
    assert all(one["mended"] or one["ignored"] for one in fails), fails
    assert "time-daemons" in found.checks("fail")
    for name in NAMES:
        assert difference(before[name], bare.fingerprint(name)) == []


def test_what_a_container_hides_is_unknown(bare: Lab) -> None:
    found = doctor(bare)
    unknown = found.checks("unknown", "node1")
    assert {"root-medium", "kernel-log", "link", "temperature", "kernel-modules"} <= unknown
    physical = {name for name, check in CHECKS.items() if check.physical}
    assert not physical & (found.checks("pass") | found.checks("fail") | found.checks("warn"))


def test_the_network_was_really_asked(bare: Lab) -> None:
    found = doctor(bare)
    for check in ("connections", "names-resolve", "same-address", "address-free", "path-mtu"):
        assert {one["answer"] for one in found.of(check)} == {"pass"}, found.of(check)
    (free,) = found.of("address-free")
    assert free["seen"].startswith("26 addresses asked")


def test_prepared_hosts_fail_nothing(prepared: Lab) -> None:
    found = doctor(prepared)
    assert (found.code, found.checks("fail")) == (0, set()), found.of("clock-synchronised")
    assert "follows" in found.of("clock-synchronised")[0]["seen"]
    print(
        f"\n{len(NAMES)} hosts: {found.data['seconds']} s in the doctor, "
        f"{found.data['seconds'] / len(NAMES):.2f} s a host, {found.seconds:.1f} s in all"
    )


@pytest.fixture
def crowded(prepared: Lab) -> Iterator[Lab]:
    """node2 has the addresses of eight more hosts."""
    network = str(prepared.names.gateway).rpartition(".")[0]
    for verb in ("add", "del"):
        if verb == "del":
            yield prepared
        addresses = " ".join(f"{network}.{n}" for n in MORE)
        prepared.check("node2", f"for a in {addresses}; do ip addr {verb} $a/24 dev eth0; done")


def test_ten_hosts_are_measured(crowded: Lab, tmp_path: Path) -> None:
    """Eight of the ten are node2 again: more work for one computer than ten would have."""
    file = tmp_path / "ten.py"
    code = (ROOT / "inventories" / "lab.py").read_text()
    more = """
_real = agents[0][1]["ip"]
agents += [
    (f"node{n}", {**agents[0][1], "ip": _real.rpartition(".")[0] + f".{n}", "ssh_hostname": _real})
    for n in MORE
]
lab = ([name for name, _ in servers + agents] + control, lab[1])
"""
    file.write_text(code + more.replace("MORE", repr(MORE)))
    data = tmp_path / "group_data"
    data.mkdir()
    for name in ("lab", "ten"):
        (data / f"{name}.py").write_text((ROOT / "group_data" / "lab.py").read_text())
    found = doctor(crowded, inventory=str(file))
    assert len(found.data["hosts"]) == 10 and found.data["unreachable"] == {}
    assert found.of("same-computer")[0]["answer"] == "fail"
    print(f"\n10 hosts: {found.data['seconds']} s in the doctor, {found.seconds:.1f} s in all")


def test_a_write_test_is_only_made_when_it_is_asked_for(prepared: Lab) -> None:
    assert doctor(prepared).of("fsync") == []
    found = doctor(prepared, "--write-test")
    assert [one["hosts"] for one in found.of("fsync")] == [["node1"], ["node2"]]
    print("".join(f"\n{one['hosts'][0]}: {one['seen']}" for one in found.of("fsync")))


@pytest.fixture
def taken(prepared: Lab) -> Iterator[Lab]:
    """Somebody listens on the port of the API."""
    listen = "systemd-run --unit=taken systemd-socket-activate -l 6443 /bin/true"
    prepared.check("node1", listen)
    yield prepared
    prepared.check("node1", "systemctl stop taken")


def test_a_port_that_is_taken_stops_a_run_unless_it_is_ignored(taken: Lab) -> None:
    found = doctor(taken)
    assert found.code == 2 and found.checks("fail") == {"ports"}
    refused = run(taken, PREFLIGHT)
    assert refused.code == 1 and "node1: ports: systemd-socket" in refused.text, refused.text
    assert "listens on port 6443, which K3s needs" in refused.text
    assert "--> refused; nothing was changed" in refused.text
    nodes = {"ignore_preflight": ["cgroup-v2", "dns-servers", "ports"]}
    passed = run(taken, PREFLIGHT, data={"nodes": nodes})
    assert passed.code == 0 and "ports (node1)" in passed.text


@pytest.fixture
def strange(prepared: Lab) -> Iterator[tuple[Lab, str]]:
    """A device that the inventory does not know has an address of the pool."""
    pool = str(next(prepared.names.subnet.subnets(new_prefix=32)).network_address + 230)
    prepared.check(STRANGER, f"ip addr add {pool}/32 dev eth0")
    yield prepared, pool
    prepared.check(STRANGER, f"ip addr del {pool}/32 dev eth0")


def test_an_address_of_the_pool_that_somebody_has_stops_the_first_install(
    strange: tuple[Lab, str],
) -> None:
    lab, address = strange
    found = doctor(lab)
    assert found.code == 2 and found.checks("fail") == {"address-free"}
    refused = run(lab, PREFLIGHT)
    assert refused.code == 1, refused.text
    assert f"cluster: address-free: somebody answers at {address} (" in refused.text


def test_a_host_that_is_off_is_named_and_the_others_are_checked(prepared: Lab) -> None:
    prepared.stop("node2")
    try:
        found = doctor(prepared)
    finally:
        prepared.start("node2")
    assert found.code == 2 and list(found.data["unreachable"]) == ["node2"]
    assert found.of("reachable")[0]["hosts"] == ["node2"]
    assert "memory" in found.checks("pass", "node1")


@pytest.fixture
def hung(prepared: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A program of node2 waits for ever, as df does for a disk of the network that is gone."""
    path = f"/usr/local/sbin/{request.param}"
    prepared.check("node2", f"printf '#!/bin/sh\nexec sleep 600\n' > {path} && chmod 755 {path}")
    yield prepared
    prepared.check("node2", f"rm {path}")


@pytest.mark.parametrize("hung", ["df"], indirect=True)
def test_a_program_that_hangs_makes_unknown_what_it_tells(hung: Lab) -> None:
    found = doctor(hung)
    assert {"disk-space", "inodes"} <= found.checks("unknown", "node2")
    (space,) = (one for one in found.of("disk-space") if one["hosts"] == ["node2"])
    assert "df / did not end within 10 seconds" in space["seen"]
    assert found.checks("fail") == set() and "disk-space" not in found.checks("unknown", "node1")
    assert run(hung, PREFLIGHT).code == 0


@pytest.mark.parametrize(
    ("hung", "cause"),
    [
        ("getent", "its state cannot be read: getent passwd did not end within 10 seconds"),
        ("uname", "a login with sudo does not end within 30 seconds"),
    ],
    indirect=["hung"],
)
def test_a_host_that_cannot_be_read_in_time_stops_a_run_with_the_cause(
    hung: Lab, cause: str
) -> None:
    found = doctor(hung)
    assert list(found.data["unreachable"]) == ["node2"] and found.code == 2
    refused = run(hung, PREFLIGHT)
    assert refused.code == 1 and f"node2: {cause}" in refused.text, refused.text


def test_the_table_fits_into_80_columns_and_the_page_is_written(
    prepared: Lab, tmp_path: Path
) -> None:
    options = f"OPTIONS=--all --html {tmp_path}/page.html"
    words = ["make", "--silent", "doctor", "INVENTORY=inventories/lab.py", options]
    done = ended(prepared, words, limit=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80 and "\x1b" not in done.stdout
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_a_run_without_changes_takes_few_commands(prepared: Lab) -> None:
    """State, boot layer, the doctor's look, the state again when it executes, sudo, the lock."""
    done = ended(prepared, command("deploys/nodes.py", "-y", "-vv"), limit=120)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if ">>>" in line]
    for name in NAMES:
        commands = [line for line in lines if line.startswith(f"[{name}]")]
        assert 0 < len(commands) <= 7, commands
        print(f"\n{name}: {len(commands)} commands")
