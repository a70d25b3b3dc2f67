"""What the doctor looks at beyond the state of a host and its boot layer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from ipaddress import IPv4Interface
from typing import Any

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from cluster.doctor import cloud
from cluster.doctor.seen import Address, Link, Probes, Seen, Usage
from facts import doctor_script
from facts.doctor_script import NetworkQuestion
from facts.tagged import words

_LINK = re.compile(r"/sys/class/net/([^/]+)/(\w+)")
_VERSION = re.compile(r"/(v[^/]+)/k3s$")
# States of a neighbour whose address somebody has (ip-neighbour(8)).
_KNOWN = ("REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT")


class DoctorState(FactBase[Seen | None]):
    """What the doctor's script reads of a host; read-only, without the network.

    ```
    pyinfra inventories/home.py fact facts.doctor.DoctorState
    ```

    + modules: kernel modules to look for
    """

    def command(self, modules: tuple[str, ...] = ()) -> str:
        """One shell script; exits 0 where half of what it looks for is missing."""
        return doctor_script.local(modules)

    def process(self, output: Iterable[str]) -> Seen:
        """The script's lines as `Seen`."""
        seen: Seen = _checked(parse, output)
        return seen


class NetworkState(FactBase[Probes | None]):
    """What the network answers to a host, within a limit of a few seconds.

    + ask: what to ask for
    """

    def command(self, ask: NetworkQuestion) -> str:
        """One script; all its questions run at the same time."""
        return doctor_script.probe(ask)

    def process(self, output: Iterable[str]) -> Probes:
        """The script's lines as `Probes`."""
        probes: Probes = _checked(parse_probes, output)
        return probes


class WriteTimes(FactBase[tuple[float, ...]]):
    """How long small writes take until they are on the disk of etcd's folder, in seconds, sorted.

    It writes 0.7 MB into a file without a name. Empty: it could not be measured.
    """

    @staticmethod
    def default() -> tuple[float, ...]:
        """Not measured."""
        return ()

    def command(self) -> str:
        """One script, which ends after 20 seconds."""
        return doctor_script.fsync()

    def process(self, output: Iterable[str]) -> tuple[float, ...]:
        """The times."""
        rows = [line.split("\t") for line in output]
        return tuple(sorted(float(row[1]) for row in rows if row[0] == "write"))


def _checked(read: Any, output: Iterable[str]) -> Any:
    try:
        return read(output)
    except (ValueError, IndexError, TypeError) as error:
        raise FactProcessError(f"what the doctor read of the host: {error}") from error


def parse(lines: Iterable[str]) -> Seen:
    """Read the lines of the local script; raises ValueError when they end early."""
    fields: dict[str, Any] = {}
    maps: dict[str, dict[str, Any]] = {"values": {}, "space": {}, "inodes": {}, "resolvers": {}}
    lists: dict[str, list[Any]] = {"addresses": [], "multipath": [], "late": []}
    for key, rest in words(lines):
        match key:
            case "container" | "k3s":
                fields[key] = rest[0].strip()
            case "addr":
                found = Address(rest[0], IPv4Interface(rest[1]), rest[2] == "dynamic")
                lists["addresses"].append(found)
            case "interfaces":
                fields[key] = tuple(rest[0].split())
            case "value":
                path, _, value = rest[0].partition(":")
                maps["values"].setdefault(path, value.strip())
            case "space" | "inodes":
                numbers = [int(one) if one.isdigit() else 0 for one in rest[1:3]]
                maps[key][rest[0]] = Usage(*numbers)
            case "resolver":
                maps["resolvers"][rest[0]] = tuple(rest[1].split())
            case "modules":
                fields.setdefault("modules", {})
            case "module":
                fields.setdefault("modules", {})[rest[0]] = rest[1]
            case "clock":
                name, _, value = rest[0].partition("=")
                fields.setdefault("clock", {})[name] = value
            case "hostkey":
                fields["host_keys"] = (*fields.get("host_keys", ()), rest[0])
            case "units":
                fields.setdefault("failed_units", ())
            case "failed":
                fields["failed_units"] = (*fields.get("failed_units", ()), rest[0])
            case "reboots":
                fields["automatic_reboot"] = rest[0]
            case "cloud":
                fields |= _cloud(*rest)
            case "late":
                lists["late"].append(rest[0])
            case "multipath":
                lists["multipath"].append(rest[0].strip())
            case "there":
                fields["there"] = fields.get("there", frozenset()) | {rest[0]}
            case "runs" if rest[1] in ("active", "activating", "reloading"):
                fields["running"] = fields.get("running", frozenset()) | {rest[0]}
            case "iptables":
                fields["iptables"] = rest[0].removeprefix("iptables ").strip()
            case "ufw":
                fields["firewall"] = rest[0]
    version = _VERSION.search(fields.get("k3s", ""))
    fields |= {name: tuple(values) for name, values in lists.items()}
    fields |= {"links": _links(maps["values"]), "k3s": version[1] if version else ""}
    return Seen(**fields | maps)


def _cloud(off: str, *rest: str) -> dict[str, Any]:
    if off == "absent":
        return {"cloud_init": off}
    state, errors = cloud.judge(*rest, off=bool(off))
    return {"cloud_init": state, "cloud_errors": errors[:200], "cloud_off": bool(off)}


def _links(values: dict[str, str]) -> dict[str, Link]:
    """The network interfaces among the files, which leave the others to the caller."""
    read: dict[str, dict[str, str]] = {}
    for path in [path for path in values if path.startswith("/sys/class/net/")]:
        if found := _LINK.fullmatch(path):
            read.setdefault(found[1], {})[found[2]] = values.pop(path)
    return {
        name: Link(
            mac=one.get("address", "").lower(),
            mtu=_number(one.get("mtu", "")) or 0,
            carrier={"0": False, "1": True}.get(one.get("carrier", "")),
            speed=_number(one.get("speed", "")),
            duplex=one.get("duplex"),
        )
        for name, one in read.items()
    }


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def parse_probes(lines: Iterable[str]) -> Probes:
    """Read the lines of the network's script; raises ValueError when they end early."""
    neighbours: dict[str, str] = {}
    connects: dict[tuple[str, int], float] = {}
    names: dict[str, str] = {}
    smart: dict[str, Any] = {}
    refused, dns, tools, path = set(), set(), set(), None
    asked: list[str] = []
    for key, rest in words(lines):
        match key:
            case "neighbour":
                neighbours[rest[0]] = rest[1].lower() if rest[2] in _KNOWN else ""
            case "connect":
                connects[rest[0], int(rest[1])] = float(rest[3]) - float(rest[2])
            case "refused":
                refused.add((rest[0], int(rest[1])))
            case "name":
                names[rest[0]] = rest[1]
            case "dns":
                dns.add(rest[0])
            case "path":
                path = rest[0] == "yes"
            case "asked":
                asked.append(rest[0])
            case "smart":
                smart |= _smart(*rest)
            case "tool":
                tools.add(rest[0])
    return Probes(
        neighbours, connects, frozenset(refused), names, frozenset(dns), path, smart,
        tuple(asked), frozenset(tools),
    )  # fmt: skip


def _smart(name: str, text: str) -> dict[str, Any]:
    try:
        return {name: json.loads(text)}
    except ValueError:
        return {}
