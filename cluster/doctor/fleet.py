"""What only shows when all hosts are looked at together, and the LAN they are in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import PurePath
from statistics import median_low

from cluster import versions
from cluster.answer import Present
from cluster.doctor import system
from cluster.doctor.check import (
    APPLY,
    INVENTORY,
    Answer,
    Verdict,
    check,
    failed,
    passed,
    unfit,
    unknown,
    warned,
)
from cluster.doctor.node import Fleet, Node
from cluster.few import some
from cluster.kinds import is_address
from cluster.model import Cluster
from cluster.services.api_address import API_PORT, haproxy_hosts

Found = Iterator[tuple[tuple[str, ...], Answer]]
SKEW = 2.0  # seconds; etcd's leases and young certificates suffer beyond
_SLIGHT = 0.5  # seconds
_YEAR = 365 * 86400  # seconds
_WARN = Verdict.WARN
ETCD_FAR, ETCD_TOO_FAR = 0.010, 0.050  # seconds to a peer and back; its heartbeat is 0.1
MOST_ADDRESSES = 256  # of the load balancer's pool that are asked
# What cheap boards say whose maker has set no serial number.
_NO_SERIAL = (
    "03000200-0400-0500-0006-000700080009", "not settable", "not present", "not specified",
    "to be filled by o.e.m.", "default string",
)  # fmt: skip


def _shared(fleet: Fleet, value: Callable[[Node], Iterable[str]]) -> dict[str, list[str]]:
    """Names of the hosts by a value that more than one of them has."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, node in fleet.nodes.items():
        for found in dict.fromkeys(value(node)):
            names[found].append(name)
    return {key: found for key, found in names.items() if len(found) > 1}


def _unique(fleet: Fleet, value: Callable[[Node], Iterable[str]], text: str, missing: str) -> Found:
    """One answer for each group of hosts with an equal value, else one for all.

    text: with {names} and {value}. missing: what is unknown where no host has a value.
    """
    shared = _shared(fleet, value)
    for found, names in shared.items():
        yield tuple(names), failed(text.format(names=" and ".join(names), value=found))
    if not shared:
        known = sum(any(value(node)) for node in fleet.nodes.values())
        yield (), passed(f"{known} hosts differ") if known else unknown(missing)


@check(
    "reachable",
    "every host of the inventory answers by SSH",
    why="what cannot be asked cannot be checked",
    remedy="switch it on; ssh -v USER@HOST shows what is wrong",
)
def reachable(fleet: Fleet) -> Found:
    for name, why in fleet.unreachable.items():
        yield (name,), failed(why)
    if not fleet.unreachable:
        yield (), passed(f"{len(fleet.nodes)} hosts")


@check(
    "hostname",
    "no two hosts have the same name, where `hostname` is not managed",
    why="K3s takes each name once: the second node cannot join",
    remedy="sudo hostnamectl set-hostname NAME, or nodes.parts.hostname True",
)
def hostname(fleet: Fleet) -> Found:
    if not fleet.model.nodes.parts.hostname:
        text = "{names} are all named {value}: K3s takes each name once"
        yield from _unique(fleet, lambda node: [node.state.hostname.lower()], text, "no names")


@check(
    "same-computer",
    "no computer is in the inventory twice, no disk was cloned",
    why="DHCP, the journal and Cilium take hosts with one machine id for one host",
    remedy="sudo rm /etc/machine-id && sudo systemd-machine-id-setup, then reboot",
)
def same_computer(fleet: Fleet) -> Found:
    shared = _shared(fleet, lambda node: filter(None, [node.state.machine_id]))
    for names in shared.values():
        others = " and ".join(names[1:])
        if len({fleet.nodes[name].state.boot_id for name in names}) == 1:
            text = f"is the same computer as {others}"
            yield tuple(names), failed(text, "check the addresses of the inventory")
        else:
            text = f"has the machine id of {others}, as after cloning a disk"
            yield tuple(names), failed(text)
    if not shared:
        known = sum(bool(node.state.machine_id) for node in fleet.nodes.values())
        yield (), passed(f"{known} machine ids") if known else unknown("no host was read")


@check(
    "same-mac",
    "no two network cards have the same address",
    why="the switch sends what is for one of them to the other",
    remedy="remove the cloned MAC from netplan, or give the virtual machine one of its own",
)
def same_mac(fleet: Fleet) -> Found:
    text = "{names} both have the network card {value}"
    yield from _unique(fleet, lambda node: node.macs, text, "no network cards were read")


@check(
    "same-board",
    "no two hosts have the same serial number",
    why="it is one computer under two addresses, or a cloned virtual machine",
    remedy="check the addresses of the inventory",
)
def same_board(fleet: Fleet) -> Found:
    paths = ("/sys/class/dmi/id/product_uuid", "/proc/device-tree/serial-number")

    def serial(node: Node) -> list[str]:
        # Containers show the serial number of the machine that they share.
        if node.is_container:
            return []
        found = [node.seen.values[path].lower() for path in paths if path in node.seen.values]
        return [one for one in found if one not in _NO_SERIAL and one.strip("0f-")]

    yield from _unique(fleet, serial, "{names} both have the serial number {value}", "not readable")


@check(
    "same-initiator",
    "no two hosts have the same iSCSI name",
    why="a disk of Longhorn or of the SAN would be given to both, and lose its data",
    remedy='echo "InitiatorName=$(sudo /sbin/iscsi-iname)" | sudo tee '
    "/etc/iscsi/initiatorname.iscsi && sudo systemctl restart iscsid",
)
def same_initiator(fleet: Fleet) -> Found:
    shared = _shared(fleet, lambda node: filter(None, [node.state.initiator]))
    for found, names in shared.items():
        text = f"{' and '.join(names)} both have the iSCSI name {found}"
        yield tuple(names), unfit(text, mended=all(_gets_a_name(fleet, one) for one in names[1:]))
    if not shared and (known := sum(bool(node.state.initiator) for node in fleet.nodes.values())):
        yield (), passed(f"{known} hosts differ")


def _gets_a_name(fleet: Fleet, name: str) -> bool:
    """Whether deploys/nodes.py gives the host an iSCSI name of its own."""
    wanted = fleet.model.nodes.parts.storage_clients and fleet.model.member(name)
    return bool(wanted) and not fleet.nodes[name].state.iscsi_sessions


@check(
    "same-host-key",
    "no two hosts have the same SSH host key",
    why="who has the key of one can pose as the other: the image was made after the first boot",
    remedy="sudo rm /etc/ssh/ssh_host_* && sudo ssh-keygen -A && sudo systemctl restart ssh",
)
def same_host_key(fleet: Fleet) -> Found:
    # The whole keys: those of one kind all begin alike.
    shared = {
        tuple(names) for names in _shared(fleet, lambda node: node.seen.host_keys or ()).values()
    }
    for names in sorted(shared):
        yield names, failed(f"{' and '.join(names)} have the same host keys")
    if not shared:
        known = any(node.seen.host_keys for node in fleet.nodes.values())
        yield (), passed("all differ") if known else unknown("host keys cannot be read")


@check(
    "clock",
    "clocks are within two seconds of each other",
    why="a new node's certificate is not valid yet, etcd's leases end early",
    remedy="let its time daemon reach a server (chronyc sources), or sudo date --set",
)
def clock(fleet: Fleet) -> Found:
    """Hosts whose clock is surely off; this computer's clock has a vote."""
    states = {name: node.state.clock for name, node in fleet.nodes.items()}
    if not states:
        return
    right = median_low([0.0, *(one.ahead for one in states.values())])
    agree = True
    for name, one in states.items():
        off, surely = one.ahead - right, abs(one.ahead - right) - one.error
        if surely <= _SLIGHT:
            continue
        agree = False
        side = "ahead of" if off > 0 else "behind"
        text = f"its clock is {duration(abs(off))} {side} the other computers'"
        # Of one host and this computer, the one that follows a time server is right.
        right_alone = len(states) == 1 and fleet.nodes[name].follows_time
        yield (name,), failed(text) if surely > SKEW and not right_alone else warned(text)
    if agree:
        yield (), passed(f"within {_SLIGHT + max(one.error for one in states.values()):.1f} s")


def duration(seconds: float) -> str:
    """A length of time for people."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds" if seconds >= 2 else f"{seconds:.1f} seconds"


@check(
    "time-source",
    "the nodes follow the same time servers",
    why="two sources drift apart, and half of the nodes with them",
    remedy=f"network.ntp for all, then {APPLY}",
    worst=_WARN,
)
def time_source(fleet: Fleet) -> Found:
    members = [node for node in fleet.nodes.values() if node.me.in_cluster]
    known = {node.me.name: node.state.time_source for node in members if node.state.time_source}
    wanted = fleet.model.network.time_servers
    strange = {name: one for name, one in known.items() if one not in wanted}
    kinds = {_daemon(node) for node in members} - {""}
    # A name such as pool.ntp.org stands for many servers.
    if strange and all(map(is_address, wanted)):
        yield tuple(strange), warned(", ".join(f"{name}: {one}" for name, one in strange.items()))
    elif len(kinds) > 1:
        yield (), warned(f"{' and '.join(sorted(kinds))} are in use")
    elif known or kinds:
        yield (), passed(", ".join(sorted(set(known.values()) | kinds)))
    else:
        yield (), unknown("no host says whom it follows")


def _daemon(node: Node) -> str:
    for name in ("chrony", "systemd-timesyncd"):
        if node.state.unit(f"{name}.service").running:
            return name
    return ""


@check(
    "address-free",
    "nobody outside the cluster answers at the API's virtual address or in the pool",
    why="two holders of one address: every second connection goes to the wrong one",
    remedy="another network.api.vip or load_balancer_pool, or move the other device "
    "(ip neigh shows its network card)",
)
def address_free(fleet: Fleet) -> Found:
    wanted = free_addresses(fleet.model)
    probed = [node.probes for node in fleet.nodes.values() if node.probes is not None]
    if not probed or not wanted:
        return
    neighbours: dict[str, str] = {}
    for one in probed:
        for address, mac in one.neighbours.items():
            neighbours[address] = mac or neighbours.get(address, "")
    ours = {mac for node in fleet.nodes.values() for mac in node.macs}
    local = {address for node in fleet.nodes.values() for address in node.state.addresses}
    holders = {
        address: neighbours[address]
        for address in wanted
        if neighbours.get(address) and address not in local
    }
    strange = {address: mac for address, mac in holders.items() if mac not in ours}
    if strange:
        shown = some((f"{address} ({mac})" for address, mac in sorted(strange.items())), most=4)
        text = f"somebody answers at {shown}"
        # A host that was not asked may hold it rightly.
        carriers = all(one.name in fleet.nodes for one in haproxy_hosts(fleet.model))
        sure = carriers and (fleet.whole or not fleet.has_k3s)
        yield (), failed(text) if sure else warned(text)
    elif not neighbours.keys() & set(wanted):
        yield (), unknown("bash or ip is missing, which ask for them")
    else:
        held = f", {len(holders)} held by nodes" if holders else ""
        yield (), passed(f"{len(wanted)} addresses asked{held}")


def free_addresses(model: Cluster) -> tuple[str, ...]:
    """The addresses that only the cluster may have: virtual address and pool."""
    network = model.network
    found = [network.api.vip] if network.api.vip else []
    if pool := network.load_balancer_pool:
        first, last = int(pool.first), int(pool.last)
        found += map(IPv4Address, range(first, min(last + 1, first + MOST_ADDRESSES)))
    return tuple(map(str, found))


@check(
    "same-address",
    "no other device has a host's address",
    why="connections end up at the wrong one, now and then",
    remedy="ip neigh on the host that saw it shows the other's network card: change its address",
    extra=True,
)
def same_address(fleet: Fleet) -> Found:
    probed = {name: node.probes for name, node in fleet.nodes.items() if node.probes is not None}
    if len(fleet.nodes) < 2 or not probed:
        return
    asked, clean = 0, True
    for name, node in fleet.nodes.items():
        ip = str(node.me.ip)
        macs = {other: one.neighbours.get(ip) for other, one in probed.items() if other != name}
        # The card with the address must be among those that were read: not so with some bridges.
        seen = {other: mac for other, mac in macs.items() if mac and node.link}
        asked += len(seen)
        for strange in sorted(set(seen.values()) - node.macs):
            clean = False
            who = ", ".join(other for other, mac in seen.items() if mac == strange)
            yield (name,), failed(f"{ip} is at {strange} for {who}: none of its network cards")
    if clean:
        yield (), passed(f"{asked} looked at") if asked else unknown("no host sees another's card")


@check(
    "arch-images",
    "every chosen component has images for the nodes' architectures",
    why="a pod without an image for its node ends in exec format error",
    remedy="another product for that role of the stack",
)
def arch_images(fleet: Fleet) -> Found:
    model = fleet.model
    chosen = {str(one) for one in model.stack.model_dump().values()} | {*model.platform.components}
    arm = [member.name for member in model.members if member.arch == "arm64"]
    lacking = sorted(
        name for name in chosen if name in versions.CHARTS and not versions.CHARTS[name].arm64
    )
    kinds = ", ".join(sorted({str(member.arch) for member in model.members}))
    if arm and lacking:
        yield tuple(arm), failed(f"{', '.join(lacking)} has no images for arm64")
    else:
        yield (), passed(kinds)


def _spread(fleet: Fleet, value: Callable[[Node], str]) -> dict[str, list[str]]:
    """Names of Kubernetes nodes by a value that they should have in common."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, node in fleet.nodes.items():
        if node.me.in_cluster and (text := value(node)):
            found[text].append(name)
    return found


def _shown(groups: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{value}: {', '.join(names)}" for value, names in sorted(groups.items()))


@check(
    "same-release",
    "the nodes have the same release of the system; servers may be one upgrade apart",
    why="two releases differ in kernel, network and firewall: faults show on some nodes only",
    remedy="sudo do-release-upgrade on the older ones, one at a time",
    members=True,
)
def same_release(fleet: Fleet) -> Found:
    groups = _spread(fleet, lambda node: f"{node.state.os} {node.state.release}".strip())
    servers = {
        value: [name for name in names if fleet.nodes[name].me.is_server]
        for value, names in groups.items()
    }
    found = [value for value, names in servers.items() if names]
    if len(found) > 1 and not _one_upgrade_apart(found):
        yield (), failed(_shown({value: servers[value] for value in found}))
    elif len(groups) > 1:
        yield (), warned(_shown(groups))
    elif groups:
        yield (), passed(next(iter(groups)))


def _one_upgrade_apart(systems: list[str]) -> bool:
    """Whether servers are on their way from one long-term release to the next, one at a time."""
    releases = [f"ubuntu {one}" for one in system.SUPPORTED["ubuntu"]]
    return sorted(systems) in [[old, new] for old, new in pairwise(releases)]


@check(
    "same-kernel",
    "nodes of one kind run the same kernel",
    why="a fault that one node alone has takes longest to find",
    remedy="finish the upgrade: sudo apt-get full-upgrade, and a reboot one node at a time",
    worst=_WARN,
)
def same_kernel(fleet: Fleet) -> Found:
    kinds: dict[tuple[str, str], dict[str, list[str]]] = {}
    for kernel, names in _spread(fleet, lambda node: node.state.kernel).items():
        for name in names:
            state = fleet.nodes[name].state
            kind = kinds.setdefault((state.arch, state.release), {})
            kind.setdefault(kernel, []).append(name)
    mixed = [kernels for kernels in kinds.values() if len(kernels) > 1]
    for kernels in mixed:
        yield (), warned(_shown(kernels))
    if kinds and not mixed:
        yield (), passed(", ".join(sorted({one for kernels in kinds.values() for one in kernels})))


@check(
    "same-pages",
    "the nodes have pages and addresses of the same size",
    why="a pod that runs on one node ends at once on another",
    remedy="the same family of kernels on all of them",
    worst=_WARN,
)
def same_pages(fleet: Fleet) -> Found:
    def layout(node: Node) -> str:
        if node.state.arch != "arm64" or not node.state.page_size:
            return ""
        return f"{node.state.page_size // 1024} KiB, {node.state.address_bits or '?'} bits"

    groups = _spread(fleet, layout)
    if len(groups) > 1:
        yield (), warned(_shown(groups))
    elif groups:
        yield (), passed(next(iter(groups)))


@check(
    "same-eeprom",
    "the bootloaders of one kind of board are within a year of each other",
    why="a fault of an old bootloader shows on one node alone, and only when it starts",
    remedy="sudo apt-get install rpi-eeprom && sudo rpi-eeprom-update -a on the older ones, then "
    "reboot",
    worst=_WARN,
)
def same_eeprom(fleet: Fleet) -> Found:
    kinds: dict[str, dict[str, int]] = defaultdict(dict)
    for name, node in fleet.nodes.items():
        match node.boot.eeprom:
            case Present(value=found) if found.built and node.boot.pi:
                kinds[node.boot.pi.family][name] = found.built
    apart = [built for built in kinds.values() if max(built.values()) - min(built.values()) > _YEAR]
    for built in apart:
        dates = {
            name: f"{datetime.fromtimestamp(one, UTC):%Y-%m-%d}" for name, one in built.items()
        }
        yield (), warned(", ".join(f"{name}: {date}" for name, date in dates.items()))
    if kinds and not apart:
        yield (), passed(f"{sum(map(len, kinds.values()))} boards")


@check(
    "same-mtu",
    "the nodes' interfaces have the same packet size",
    why="large packets between two nodes vanish, small ones arrive",
    remedy="the same MTU on all of them, by netplan",
)
def same_mtu(fleet: Fleet) -> Found:
    groups = _spread(fleet, lambda node: str(node.link.mtu) if node.link else "")
    if len(groups) > 1:
        yield (), failed(_shown(groups))
    elif groups:
        yield (), passed(f"{next(iter(groups))} bytes")
    elif fleet.nodes:
        yield (), unknown("no interface has the host's address")


@check(
    "names-resolve",
    "every node finds every other by its name",
    why="a name that leads to the host itself, or nowhere, shows when a pod or a person uses it",
    remedy="nodes.parts.hostname True writes /etc/hosts; or records on the LAN's DNS server",
    extra=True,
)
def names_resolve(fleet: Fleet) -> Found:
    clean = True
    asked = 0
    for name, node in fleet.nodes.items():
        if node.probes is None or not node.me.in_cluster:
            continue
        wrong, silent = [], []
        for other in fleet.model.members:
            found = node.probes.names.get(other.name)
            if other.name == name:
                continue
            if found is None:
                silent.append(other.name)
                continue
            asked += 1
            if found != str(other.ip):
                wrong.append(f"{other.name} is {found or 'not found'}")
        if wrong:
            clean = False
            managed = fleet.model.nodes.parts.hostname and not node.has_k3s
            yield (name,), unfit(some(wrong, most=4), mended=managed)
        elif silent and "bash" in node.probes.tools:
            clean = False
            yield (name,), unknown(f"{some(silent, most=4)}: nobody answered in time")
    if clean and asked:
        yield (), passed(f"{asked} names")


@check(
    "connections",
    "nodes reach each other's ports",
    why="a firewall or a switch between nodes lets a cluster come up and then fall apart",
    remedy="open the named ports between the nodes (docs.k3s.io, requirements)",
    extra=True,
)
def connections(fleet: Fleet) -> Found:
    clean, asked = True, 0
    for name, node in fleet.nodes.items():
        if node.probes is None or "bash" not in node.probes.tools:
            continue
        wanted = list(connects(fleet, node))
        asked += len(wanted)
        answered = node.probes.connects.keys() | node.probes.refused
        silent = [f"{ip}:{port}" for ip, port in wanted if (ip, port) not in answered]
        if silent:
            clean = False
            yield (name,), failed(f"no answer from {', '.join(silent[:6])}")
    if clean and asked:
        yield (), passed(f"{asked} connections")


def connects(fleet: Fleet, node: Node) -> Iterator[tuple[str, int]]:
    """Address and port of what a node must be able to reach, as far as it runs already."""
    for other in fleet.nodes.values():
        if other is node or not (node.me.in_cluster and other.me.in_cluster):
            continue
        ip = str(other.me.ip)
        yield ip, 22  # whether it is open does not matter, only that somebody answers
        if not (node.has_k3s and other.has_k3s):
            continue
        yield ip, 10250
        if other.me.is_server:
            yield ip, API_PORT
            if node.me.is_server and fleet.model.datastore == "etcd":
                yield ip, 2380


@check(
    "latency",
    "servers reach each other within 10 ms",
    why="etcd writes when most members have answered; a slow one makes leaders change",
    remedy="servers on the same switch, by cable",
    extra=True,
)
def latency(fleet: Fleet) -> Found:
    slowest: tuple[float, str, str] | None = None
    addresses = {str(server.ip): server.name for server in fleet.model.servers}
    for name, node in fleet.nodes.items():
        if node.probes is None or not node.me.is_server:
            continue
        for (ip, _), seconds in node.probes.connects.items():
            if ip in addresses and addresses[ip] != name:
                slowest = max(slowest or (0.0, "", ""), (seconds, name, addresses[ip]))
    if slowest is None:
        return
    seconds, name, other = slowest
    text = f"{seconds * 1000:.1f} ms from {name} to {other}"
    if seconds > ETCD_TOO_FAR:
        yield (name,), failed(text)
    elif seconds > ETCD_FAR:
        yield (name,), warned(text)
    else:
        yield (), passed(text)


@check(
    "storage",
    "enough nodes have room for the copies of Longhorn's volumes",
    why="a volume with fewer copies than it asks for is degraded for ever",
    remedy="platform.storage.replicas, or larger disks on the smaller nodes",
)
def storage(fleet: Fleet) -> Found:
    if fleet.model.stack.storage != "longhorn":
        return
    sizes = {
        name: size
        for name, node in fleet.nodes.items()
        if node.me.in_cluster and (size := _room(node))
    }
    if not sizes:
        yield (), unknown("no disk's size was read")
        return
    wanted = min(fleet.model.platform.storage.replicas, len(fleet.model.members))
    if fleet.whole and len(sizes) < wanted:
        yield (), failed(f"{len(sizes)} nodes have room, {wanted} copies are wanted")
        return
    small, large = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    text = f"{sizes[small] >> 20} GiB on {small}, {sizes[large] >> 20} GiB on {large}"
    if sizes[small] == sizes[large]:
        text = f"{sizes[small] >> 20} GiB on each"
    yield (), warned(text) if sizes[large] > 3 * sizes[small] else passed(text)


def _room(node: Node) -> int:
    """Size in KiB of the file system that has Longhorn's folder."""
    path = PurePath(node.model.platform.storage.path)
    sizes = {target: usage.size for target, usage in node.seen.space.items()}
    sizes |= {target: disk.size for target, disk in node.state.disks.items()}
    above = [one for one in sizes if path.is_relative_to(one)]
    return sizes[max(above, key=len)] if above else 0


@check(
    "k3s-versions",
    "K3s' versions fit together",
    why="an agent that is newer than its servers is not supported by Kubernetes",
    remedy=f"pyinfra {INVENTORY} deploys/k3s.py: servers first, then agents",
)
def k3s_versions(fleet: Fleet) -> Found:
    found = {name: node.seen.k3s for name, node in fleet.nodes.items() if node.seen.k3s}
    servers = [found[one.name] for one in fleet.model.servers if one.name in found]
    agents = [one.name for one in fleet.model.agents if one.name in found]
    pairs = (
        (name, versions.skew_problem(server, found[name])) for name in agents for server in servers
    )
    wrong = {name: why for name, why in pairs if why}
    for name, why in wrong.items():
        yield (name,), failed(why)
    if len({versions.minor(one) for one in servers}) > 1:
        yield (), warned(_shown(_spread(fleet, lambda node: node.seen.k3s)))
    elif found and not wrong:
        yield (), passed(", ".join(sorted(set(found.values()))))


CHECKS = (
    reachable, hostname, same_computer, same_mac, same_board, same_initiator, same_host_key, clock,
    time_source, address_free, same_address, arch_images, same_release, same_kernel, same_pages,
    same_eeprom, same_mtu, names_resolve, connections, latency, storage, k3s_versions,
)  # fmt: skip
