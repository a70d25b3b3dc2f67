"""All that is known of the hosts when checks are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.boot.state import BootState
from cluster.doctor.check import INVENTORY
from cluster.doctor.seen import Address, Link, Probes, Seen
from cluster.host_state import HostState
from cluster.model import Cluster, Host

CONTAINER = "a container does not show it"
NOT_ASKED = "the host could not ask"
# Interfaces that K3s and its networks make.
_OWN_LINKS = ("cni", "flannel", "cilium", "lxc", "kube-", "veth", "lo", "tunl", "nodelocaldns")


@dataclass(frozen=True)
class Node:
    """One host: what the inventory says of it, and what was read."""

    model: Cluster
    me: Host
    state: HostState
    seen: Seen = field(default_factory=Seen)
    boot: BootState = field(default_factory=BootState)
    probes: Probes | None = None  # None: the network was not asked
    fsync: tuple[float, ...] | None = None  # seconds, sorted; None: not measured

    @property
    def is_container(self) -> bool:
        """Whether the kernel and the devices that are seen are those of another machine."""
        return self.seen.container not in ("", "none")

    def unread(self, program: str, otherwise: str) -> str:
        """Why something is not known: the program that tells it did not end, or `otherwise`."""
        return next(iter(self.late(program)), otherwise)

    def late(self, program: str = "") -> tuple[str, ...]:
        """What the program was asked in vain, in the time it had; without one, all of them."""
        found = dict.fromkeys((*self.state.late, *self.seen.late, *self.boot.late))
        return tuple(one for one in found if program in ("", one.split()[0]))

    @property
    def is_pi(self) -> bool:
        """Whether it is a Raspberry Pi."""
        return "Raspberry Pi" in self.state.board

    @property
    def has_k3s(self) -> bool:
        """Whether K3s is installed: then its ports and folders are taken by itself."""
        return any(self.state.unit(f"{unit}.service").exists for unit in ("k3s", "k3s-agent"))

    @property
    def mends_cmdline(self) -> bool:
        """Whether site.py writes a Pi's kernel command line and reboots for it."""
        boot = self.model.nodes.boot
        return self.boot.pi is not None and boot.cmdline and boot.reboots != "never"

    @property
    def follows_time(self) -> bool:
        """Whether its clock is known to be that of a time server."""
        return self.state.time_synchronised or self.seen.clock.get("NTPSynchronized") == "yes"

    @property
    def home(self) -> Address | None:
        """The address that the inventory names, and its interface."""
        return next((one for one in self.seen.addresses if one.network.ip == self.me.ip), None)

    @property
    def link(self) -> Link | None:
        """The network interface with that address."""
        return self.seen.links.get(self.home.interface) if self.home else None

    @property
    def macs(self) -> frozenset[str]:
        """Addresses of its network cards."""
        # Tunnels have none, or nothing but zeros.
        return frozenset(link.mac for link in self.seen.links.values() if link.mac.strip("0:"))

    @property
    def own_networks(self) -> tuple[Address, ...]:
        """Networks that it is in, without those that K3s has made."""
        return tuple(one for one in self.seen.addresses if not one.interface.startswith(_OWN_LINKS))


@dataclass(frozen=True)
class Fleet:
    """The hosts that could be read, and why others could not."""

    model: Cluster
    nodes: Mapping[str, Node]
    unreachable: Mapping[str, str] = field(default_factory=dict)
    inventory: str = INVENTORY  # its file, for commands that are named to people

    @property
    def whole(self) -> bool:
        """Whether every Kubernetes node of the inventory was read."""
        return all(member.name in self.nodes for member in self.model.members)

    @property
    def has_k3s(self) -> bool:
        """Whether K3s is installed anywhere."""
        return any(node.has_k3s for node in self.nodes.values())
