"""What a lab consists of: names, addresses and paths. Pure, so that it can be tested alone."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from tests.lab.errors import LabError

ROOT = Path(__file__).resolve().parents[2]
SSH_USER = "ubuntu"
FILES_PORT = 8480
CHARTS_PATH = "charts"  # of the chart repository on the file server
LABEL = "picluster.lab"

# 198.18.0.0/15 is set apart for benchmarks of network devices (RFC 2544): no home LAN uses it.
SUBNETS = {"lab": "198.18.10.0/24", "test": "198.18.20.0/24"}
OTHER_SUBNETS = 32  # third numbers from here on belong to labs of other names, by their hash
FIRST_HOST = 11
MOST_HOSTS = 200
# Hosts beside the cluster have addresses before it: theirs stay when the cluster grows.
BESIDE = {"gateway": range(2, 6), "external": range(6, 11)}
# The kernel allows 15 characters for an interface name.
IFNAME_LENGTH = 15
# How the number of hosts of each role is called, in the order of roles.
ROLES = ("server", "agent", "spare", "gateway", "external")
SIZES = ("servers", "agents", "spare", "gateways", "externals")


@dataclass(frozen=True)
class LabHost:
    """One host: its name, its role (server, agent, spare, gateway, external), its address."""

    name: str
    role: str
    ip: str


@dataclass(frozen=True)
class Names:
    """Every name and path that belongs to the lab called `name` on the network `subnet`."""

    name: str
    subnet: IPv4Network

    @property
    def prefix(self) -> str:
        return f"picluster-{self.name}"

    @property
    def network(self) -> str:
        return self.prefix

    @property
    def bridge(self) -> str:
        # By hash: names that share their first letters would share a cut-off one.
        return f"lab-{zlib.crc32(self.name.encode()):08x}"

    @property
    def gateway(self) -> str:
        return str(self.subnet.network_address + 1)

    @property
    def mirror(self) -> str:
        return f"http://{self.gateway}:{FILES_PORT}"

    @property
    def state(self) -> Path:
        return ROOT / "build" / self.name

    @property
    def state_file(self) -> Path:
        return self.state / "lab.json"

    @property
    def ssh_key(self) -> Path:
        return self.state / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.state / "known_hosts"

    def container(self, host: str) -> str:
        """Return the container name of `host`."""
        return f"{self.prefix}-{host}"

    def hosts(
        self, servers: int, agents: int, spare: int, gateways: int = 0, externals: int = 0
    ) -> tuple[LabHost, ...]:
        """Return the hosts of a lab of this size: servers, agents, spare ones, those beside them.

        Raises LabError for a size that is no lab or does not fit into the network.
        """
        if servers < 1 or min(agents, spare, gateways, externals) < 0:
            raise LabError(
                f"a lab needs at least one server and no negative numbers, "
                f"found servers={servers} agents={agents} spare={spare} "
                f"gateways={gateways} externals={externals}"
            )
        roles = ["server"] * servers + ["agent"] * agents + ["spare"] * spare
        if len(roles) > min(MOST_HOSTS, self.subnet.num_addresses - FIRST_HOST - 1):
            raise LabError(f"{len(roles)} hosts do not fit into {self.subnet}")
        first = self.subnet.network_address + FIRST_HOST
        nodes = tuple(
            LabHost(f"node{number}", role, str(first + number - 1))
            for number, role in enumerate(roles, start=1)
        )
        return nodes + self._beside("gateway", gateways) + self._beside("external", externals)

    def _beside(self, role: str, count: int) -> tuple[LabHost, ...]:
        addresses = BESIDE[role]
        if count > len(addresses):
            raise LabError(f"{count} hosts of role {role}: a lab has room for {len(addresses)}")
        return tuple(
            LabHost(f"{role}{number or ''}", role, str(self.subnet.network_address + last))
            for number, last in zip([0, *range(2, count + 1)][:count], addresses, strict=False)
        )


def names(name: str = "lab", subnet: str | None = None) -> Names:
    """Return the names of lab `name` on `subnet` (CIDR), by default the name's own.

    Raises LabError for a name that Docker would refuse and for an unusable subnet.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]{0,15}", name):
        raise LabError(f"lab name {name!r}: a lower-case letter, then up to 15 letters or digits")
    wanted = subnet or SUBNETS.get(name) or _other_subnet(name)
    try:
        network = IPv4Network(wanted)
    except ValueError as error:
        raise LabError(f"subnet {wanted!r}: {error}") from error
    if network.prefixlen > 27:
        raise LabError(f"subnet {wanted!r} is too small: /27 or larger")
    return Names(name, network)


def _other_subnet(name: str) -> str:
    third = OTHER_SUBNETS + zlib.crc32(name.encode()) % (256 - OTHER_SUBNETS)
    return f"198.18.{third}.0/24"
