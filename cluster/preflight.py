"""What must hold on hosts before anything is changed: pure checks of what was read.

A finding can be switched off by its id in `nodes.ignore_preflight`. Reference of ids and limits:
docs of the checks in CHECKS.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median_low

from cluster import base, snaps
from cluster.host_state import HostState
from cluster.model import Cluster, Host

CHECKS = {
    "os-release": "Ubuntu 22.04, 24.04, 26.04 or Debian 12",
    "architecture": "the architecture of the system is the inventory's `arch`",
    "address": "the host has its `ip`",
    "default-route": "there is a default route",
    "hostname": "no two hosts have the same name, where `hostname` is not managed",
    "same-computer": "no computer is in the inventory twice, no disk was cloned",
    "clock": "clocks are within two seconds of each other",
    "time-daemons": "one time daemon runs",
    "disk-space": "more is free than the kubelet's limit for evictions, and one GiB",
    "cgroup-v2": "control groups are of version 2",
    "cgroup-memory": "the controllers cpu, cpuset, memory and pids are on",
    "page-size": "memory pages are smaller than 64 KiB",
    "address-bits": "Envoy (as ingress, and in Istio) has 48 bits of addresses",
    "ports": "nobody else listens on K3s' ports",
    "snaps": "no snap that somebody chose is in the way of removing snapd",
    "ssh-key": "who logs in has a key, before passwords end",
}

SUPPORTED = {"ubuntu": ("22.04", "24.04", "26.04"), "debian": ("12",)}
SKEW = 2.0  # seconds; etcd's leases and young certificates suffer beyond
CONTROLLERS = frozenset({"cpu", "cpuset", "memory", "pids"})
MIN_FREE_KIB = 1 << 20
_AGENT_PORTS = (6444, 10250, 10256)
_SERVER_PORTS = (2379, 2380, 6443, 10257, 10258, 10259)
_OURS = "k3s"  # how the names of K3s' processes start


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that does not hold on a host."""

    check: str
    host: str
    text: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.host}: {self.text}"


Found = Iterator[Finding]


def findings(model: Cluster, states: Mapping[str, HostState]) -> list[Finding]:
    """What does not hold on the hosts that were read, by name, without what is to be ignored."""
    found = [
        finding
        for name, state in states.items()
        for check in _HOST_CHECKS
        for finding in check(model, model.host(name), state)
    ]
    found += [finding for check in _CLUSTER_CHECKS for finding in check(model, states)]
    return [one for one in found if one.check not in model.nodes.ignore_preflight]


def _os_release(model: Cluster, me: Host, state: HostState) -> Found:
    if state.release in SUPPORTED.get(state.os, ()):
        return
    text = f"{state.os_name or 'its system'} is not supported: expected Ubuntu 22.04, 24.04, 26.04"
    text += " or Debian 12"
    if (state.os, state.release) == ("ubuntu", "20.04"):
        text += (
            "; upgrade twice, to 22.04 and then to 24.04, with a reboot after each: "
            "sudo apt-get update && sudo apt-get full-upgrade && sudo do-release-upgrade"
        )
    yield Finding("os-release", me.name, text)


def _arch(model: Cluster, me: Host, state: HostState) -> Found:
    if state.arch != me.arch:
        yield Finding(
            "architecture", me.name, f"its system is {state.arch}, its `arch` says {me.arch}"
        )


def _address(model: Cluster, me: Host, state: HostState) -> Found:
    if str(me.ip) not in state.addresses:
        others = [one for one in state.addresses if not one.startswith("127.")]
        text = f"does not have its address {me.ip} (it has {', '.join(others) or 'none'})"
        yield Finding("address", me.name, text)


def _default_route(model: Cluster, me: Host, state: HostState) -> Found:
    if me.in_cluster and not state.routes:
        text = f"has no default route, which K3s needs: expected one via {model.network.gateway}"
        yield Finding("default-route", me.name, text)


def _time_daemons(model: Cluster, me: Host, state: HostState) -> Found:
    running = [name for name in base.TIME_DAEMONS if state.unit(f"{name}.service").running]
    if len(running) > 1:
        text = f"runs {len(running)} time daemons ({', '.join(running)}): disable all but one"
        yield Finding("time-daemons", me.name, text)


def _disk_space(model: Cluster, me: Host, state: HostState) -> Found:
    if not me.in_cluster:
        return
    threshold = model.k3s.kubelet.eviction_hard.get("nodefs.available", "10%")
    share = float(threshold.rstrip("%")) / 100 if threshold.endswith("%") else 0.1
    for path in ("/", "/var/lib/rancher"):
        disk = state.disks.get(path)
        if disk and disk.free < (needed := max(MIN_FREE_KIB, share * disk.size)):
            text = (
                f"{_gib(disk.free)} of {_gib(disk.size)} are free on {path}: expected at least "
                f"{_gib(needed)} (the kubelet evicts pods below {share:.0%})"
            )
            yield Finding("disk-space", me.name, text)


def _gib(kib: float) -> str:
    return f"{kib / (1 << 20):.1f} GiB"


def _cgroups(model: Cluster, me: Host, state: HostState) -> Found:
    if not me.in_cluster:
        return
    if state.cgroup != "v2":
        text = "has control groups of version 1, which kubelets from 1.35 on refuse"
        yield Finding("cgroup-v2", me.name, text)
    if missing := sorted(CONTROLLERS - state.controllers):
        text = f"its kernel has no {' and '.join(missing)} cgroup controller, which K3s needs"
        if "memory" in missing and "Raspberry Pi" in state.board:
            file = "/boot/firmware/cmdline.txt"
            if state.release >= "25.10":
                file = "/boot/firmware/current/cmdline.txt"
            text += f": add cgroup_enable=memory to the line of {file} and reboot"
        yield Finding("cgroup-memory", me.name, text)


def _memory_layout(model: Cluster, me: Host, state: HostState) -> Found:
    if not me.in_cluster:
        return
    if state.page_size >= 16384:
        text = f"its kernel has pages of {state.page_size // 1024} KiB: programs with jemalloc or "
        text += "tcmalloc (Redis, Envoy, fluent-bit) may not start; expected 4 KiB"
        yield Finding("page-size", me.name, text, fatal=state.page_size > 16384)
    # Cilium runs without its Envoy here, see catalogue/cilium.py.
    envoy = model.stack.ingress == "envoy" or model.stack.mesh == "istio"
    if state.address_bits == 39:
        text = "its kernel gives processes 39 bits of addresses: Envoy needs 48 (Ubuntu's has them)"
        yield Finding("address-bits", me.name, text, fatal=envoy)


def _ports(model: Cluster, me: Host, state: HostState) -> Found:
    if not me.in_cluster:
        return
    wanted = {*_AGENT_PORTS, *(_SERVER_PORTS if me.is_server else ())}
    if me.is_server:
        wanted.add(model.network.api.port)
    taken = {
        (one.port, one.process)
        for one in state.listeners
        if one.protocol == "tcp" and one.port in wanted and one.process
        if not one.process.startswith(_OURS)
    }
    for port, process in sorted(taken):
        yield Finding("ports", me.name, f"{process} listens on port {port}, which K3s needs")


def _snaps(model: Cluster, me: Host, state: HostState) -> Found:
    if not (me.in_cluster and model.nodes.parts.snapd and state.installed("snapd")):
        return
    if state.snaps_unread:
        yield Finding("snaps", me.name, f"its snaps cannot be listed: {state.snaps_unread}")
    if used := snaps.in_use(state):
        text = f"has snaps with data of yours ({', '.join(used)}): remove them (`snap remove`), or "
        yield Finding("snaps", me.name, f"{text}set nodes.parts.snapd to False")


def _ssh_key(model: Cluster, me: Host, state: HostState) -> Found:
    if not model.nodes.parts.sshd:
        return
    account = state.accounts.get(state.login)
    lines = account.authorized_keys.splitlines() if account else []
    if not any(line.strip() and not line.lstrip().startswith("#") for line in lines):
        text = (
            f"{state.login} has no key in ~/.ssh/authorized_keys, and sshd will take keys only: "
            f"ssh-copy-id {state.login}@{me.ip}, or set nodes.parts.sshd to False"
        )
        yield Finding("ssh-key", me.name, text)


_HOST_CHECKS: tuple[Callable[[Cluster, Host, HostState], Found], ...] = (
    _os_release, _arch, _address, _default_route, _time_daemons, _disk_space, _cgroups,
    _memory_layout, _ports, _snaps, _ssh_key,
)  # fmt: skip


def _clocks(model: Cluster, states: Mapping[str, HostState]) -> Found:
    """Hosts whose clock is surely off; this computer's clock has a vote."""
    if not states:
        return
    right = median_low([0.0, *(state.clock.ahead for state in states.values())])
    for name, state in states.items():
        off = state.clock.ahead - right
        if abs(off) - state.clock.error > SKEW:
            side = "ahead of" if off > 0 else "behind"
            text = f"its clock is {duration(abs(off))} {side} the other computers': "
            text += "let its time daemon reach a server, or set it by hand"
            yield Finding("clock", name, text)


def duration(seconds: float) -> str:
    """A length of time for people."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _hostnames(model: Cluster, states: Mapping[str, HostState]) -> Found:
    if model.nodes.parts.hostname:
        return
    for value, names in _shared(states, lambda state: state.hostname).items():
        text = f"{' and '.join(names)} are all named {value}: K3s takes each name once"
        yield Finding("hostname", names[0], text)


def _same_computer(model: Cluster, states: Mapping[str, HostState]) -> Found:
    for names in _shared(states, lambda state: state.machine_id).values():
        boots = {states[name].boot_id for name in names}
        if len(boots) == 1:
            text = f"is the same computer as {' and '.join(names[1:])}: check the addresses"
        else:
            text = f"has the machine id of {' and '.join(names[1:])}, as after cloning a disk: "
            text += "sudo rm /etc/machine-id && sudo systemd-machine-id-setup, then reboot"
        yield Finding("same-computer", names[0], text)


def _shared(
    states: Mapping[str, HostState], value: Callable[[HostState], str]
) -> dict[str, list[str]]:
    """Names of the hosts by a value that more than one of them has."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, state in states.items():
        if found := value(state):
            names[found].append(name)
    return {key: found for key, found in names.items() if len(found) > 1}


_CLUSTER_CHECKS: tuple[Callable[[Cluster, Mapping[str, HostState]], Found], ...] = (
    _clocks, _hostnames, _same_computer,
)  # fmt: skip
