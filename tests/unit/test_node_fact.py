"""The combined node fact: one script, one answer, on bare, odd and finished hosts."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pyinfra.api.exceptions import FactProcessError

from cluster.host_state import Clock, File, HostState, Listener, Snap, Unit
from cluster.question import Question
from facts.node import NodeState, parse
from facts.node_script import script
from tests.unit import node_world
from tests.unit.cluster_example import example

RECORDED = Path(__file__).parents[1] / "fixtures" / "nodes"


def read(name: str) -> HostState:
    return parse((RECORDED / f"{name}.txt").read_text().splitlines())


def test_a_bare_host_is_read_whole() -> None:
    state = read("debian-12-bare")
    assert (state.os, state.release, state.arch) == ("debian", "12", "amd64")
    assert state.hostname == "node1" and state.timezone == "Etc/UTC"
    assert state.installed("curl") and not state.installed("chrony")
    assert state.unit("ssh.service").running and state.unit("ssh.service").exists
    assert not state.unit("chrony.service").exists
    assert state.files["/etc/hosts"].mode == "644" and len(state.files["/etc/hosts"].sha256) == 64
    assert "localhost" in state.texts["/etc/hosts"]
    assert state.modules["overlay"] == "loaded"
    assert state.sysctls["net.ipv4.conf.all.rp_filter"] == "0"
    assert state.login == "ubuntu" and state.accounts["ubuntu"].authorized_keys.startswith("ssh-")
    assert Listener("tcp", 22, "sshd") in state.listeners
    assert state.sshd["passwordauthentication"] == "yes"
    assert state.inhibit_delay == 5.0
    assert state.cgroup == "v1" and "memory" in state.controllers
    assert state.disks["/"].free > 0 and state.page_size == 4096
    assert state.reboot_required is None and state.swaps == ()


def test_an_answer_that_ends_early_is_an_error_and_not_an_absence() -> None:
    lines = (RECORDED / "debian-12-bare.txt").read_text().splitlines()
    with pytest.raises(FactProcessError, match="ended early"):
        NodeState().process(lines[:-1])
    with pytest.raises(FactProcessError):
        NodeState().process(["clock\tnoon\tmidnight", "end\t"])


def test_the_clock_lies_between_the_readings_of_this_computer() -> None:
    fact = NodeState()
    fact.command()
    state = fact.process(["clock\t1700000000.5\t10.0 5.0", "end\t"])
    assert state.clock.before <= state.clock.after
    assert Clock(at=110.0, before=100.0, after=104.0).ahead == 8.0
    assert Clock(at=110.0, before=100.0, after=104.0).error == 2.0


def test_odd_lines_are_read() -> None:
    state = parse(
        [
            "package\tlibc6\t\tun",
            "package\tlibc6\t2.39\thi ",
            "package\tlibc6\t\tun",
            "unit\tId=swap.target",
            "unit\tLoadState=masked",
            "unit\t",
            "sysctl\t/proc/sys/net/ipv4/tcp_rmem:4096\t131072\t6291456",
            "snap\tcore22\tbase",
            "lxd\tdb",
            "listen\tudp\t0.0.0.0:8472\t",
            "module\tnf_conntrack\tavailable",
            "module\tnf_conntrack\tloaded",
            "tracking\tC6330A01,198.18.10.1,11,1795.1,0.0,-0.0,0.0,0.0,0.0,0.0,0.0,64.0,Normal",
            "reboot\tlinux-image-raspi linux-base ",
            "inhibit\t",
            "board\tRaspberry Pi 5 Model B Rev 1.0\t",
            "has\tcloud-init",
            "end\t",
        ]
    )
    assert state.packages["libc6"].installed and state.packages["libc6"].held
    assert state.unit("swap.target") == Unit(load="masked")
    assert state.sysctls["net.ipv4.tcp_rmem"] == "4096 131072 6291456"
    assert state.snaps == (Snap("core22", "base"),) and state.lxd_instances == ("db",)
    assert state.listeners == (Listener("udp", 8472, ""),)
    assert state.modules["nf_conntrack"] == "loaded"
    assert state.time_synchronised and state.time_source == "198.18.10.1"
    assert state.reboot_required == ("linux-image-raspi", "linux-base")
    assert state.inhibit_delay is None and state.board.startswith("Raspberry Pi 5")
    assert "cloud-init" in state.has


def test_a_service_is_stale_when_its_file_was_written_after_it_started() -> None:
    def at(changed: int) -> bool:
        state = HostState(
            clock=Clock(10_000.0),
            uptime=1000.0,  # booted at 9000, started at 9100
            units={"x.service": Unit(load="loaded", active="active", since=100.0)},
            files={"/x": File("644", changed=changed)},
        )
        return state.stale("x.service", "/x", "/absent")

    assert [at(9050), at(9101), at(9103), at(10_001)] == [False, False, True, False]


def test_a_service_that_does_not_run_is_not_stale() -> None:
    state = HostState(clock=Clock(1e4), uptime=1e3, files={"/x": File("644", changed=9999)})
    assert not state.stale("x.service", "/x")


@pytest.mark.parametrize(("stack", "bits"), [("", None), ("7fb91c7000", 39), ("ffff8a2c0000", 48)])
def test_address_bits_are_seen_at_a_high_address(stack: str, bits: int | None) -> None:
    assert HostState(stack=stack).address_bits == bits


def test_the_question_is_part_of_the_script() -> None:
    text = script(Question(packages=("a'b",), settings=("net.ipv4.tcp_rmem",), users=("ada",)))
    assert """'a'"'"'b'""" in text
    assert " /proc/sys/net/ipv4/tcp_rmem " in text
    assert "/etc/sudoers.d/91-picluster-ada" in text
    assert "@" not in script().replace("picluster@", "").replace("$@", "")


def test_the_script_runs_on_this_computer() -> None:
    run = subprocess.run(
        ["sh", "-c", script()], capture_output=True, text=True, timeout=60, check=True
    )
    state = parse(run.stdout.splitlines())
    assert state.kernel and state.page_size and state.memory_kib


@pytest.mark.parametrize("release", ["20.04", "22.04", "24.04", "26.04"])
def test_constructed_hosts_are_read_back_as_they_were_made(release: str) -> None:
    model = example(nodes={"users": ({"name": "ada", "keys": (node_world.KEY,)},)})
    for host in model.hosts:
        for state in (
            node_world.pi(host, release),
            node_world.finished(model, host, release),
        ):
            read_back = parse(node_world.lines(state))
            assert replace(read_back, clock=state.clock) == state


def test_a_file_whose_name_has_a_backslash_is_read_like_others(tmp_path: Path) -> None:
    """So are units of paths with a `-` called, and sha256sum prints such names in its own way."""
    paths = [str(tmp_path / name) for name in ("plain", r"srv-my\x2ddata.mount")]
    for path in paths:
        Path(path).write_text("x\n")
    text = script(Question(files=tuple(paths)))
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    files = parse(done.stdout.splitlines()).files
    assert files[paths[0]].sha256 == files[paths[1]].sha256 != ""
    assert files[paths[1]].mode == "644"
