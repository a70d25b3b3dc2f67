"""A host's whole state, read by one command."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pyinfra.api import FactBase, Host
from pyinfra.api.exceptions import FactProcessError, PyinfraError

from cluster import base
from cluster.base import question
from cluster.host_state import (
    Account,
    Clock,
    Disk,
    File,
    HostState,
    Listener,
    Package,
    Snap,
    Unit,
)
from cluster.model import Cluster
from cluster.question import EVERYWHERE, Question
from facts.node_script import script
from facts.tagged import LIMIT, Tagged
from runtime.cache import cached, keep


class NodeState(FactBase[HostState | None]):
    """The state of a host: system, packages, units, files, kernel, logins, network, clock.

    ```
    pyinfra inventories/home.py fact facts.node.NodeState
    ```

    + ask: what to read beyond what every host is asked
    """

    def command(self, ask: Question = EVERYWHERE) -> str:
        """One shell script; exits 0 on a bare host too."""
        self.before = time.time()
        return script(ask)

    def process(self, output: Iterable[str]) -> HostState:
        """The script's lines as a `HostState`."""
        after = time.time()
        try:
            state = parse(output)
        except (ValueError, IndexError) as error:
            raise FactProcessError(f"the state of the host: {error}") from error
        return replace(state, clock=Clock(state.clock.at, self.before, after))


def host_state(host: Host, model: Cluster) -> HostState:
    """The state of a host with all that the model asks of it, read once a phase.

    Raises PyinfraError when it cannot be read, which is not "nothing is there".
    """
    state = cached(host, NodeState, **_asked(model))
    if state is None:
        raise PyinfraError(f"{host.name}: its state cannot be read")
    refuse_unread(host, state)
    return state


def keep_host(host: Host, model: Cluster, state: HostState) -> None:
    """Know the state of a host, which another fact has read too."""
    keep(host, state, NodeState, **_asked(model))


def _asked(model: Cluster) -> dict[str, Any]:
    ask = question(model)
    return {"_timeout": LIMIT, **({} if ask == EVERYWHERE else {"ask": ask})}


def refuse_unread(host: Host, state: HostState) -> None:
    """Raise PyinfraError where what did not end in time would be taken for "nothing is there"."""
    if problem := unread(state):
        raise PyinfraError(f"{host.name}: its state cannot be read: {problem}")


def unread(state: HostState) -> str:
    """What of the state is missing because a program did not end; empty: nothing that counts."""
    return next((one for one in state.late if one.startswith(_NEEDED)), "")


def parse(lines: Iterable[str]) -> HostState:
    """Read the script's lines; raises ValueError when they end early."""
    return _Found().read(lines).state()


# Without their answers a host seems to have no units or no accounts.
_NEEDED = ("systemctl show", "getent passwd")


class _Found(Tagged):
    plain = ("arch", "kernel", "stack", "login", "snaps_unread")

    def __init__(self) -> None:
        super().__init__()
        self.maps: dict[str, dict[str, Any]] = {}
        self.unit: dict[str, str] = {}

    def state(self) -> HostState:
        self._unit_ends()
        fields: dict[str, Any] = {**self.fields, **self.maps, **self.tuples}
        return HostState(**fields)

    def put(self, field: str, key: str, value: Any) -> None:
        self.maps.setdefault(field, {})[key] = value

    def _clock(self, now: str, uptime: str) -> None:
        self.fields |= {"clock": Clock(float(now)), "uptime": float(uptime.split()[0])}

    def _os(self, name: str, release: str, pretty: str) -> None:
        self.fields |= {"os": name, "release": release, "os_name": pretty}

    def _board(self, device_tree: str, product: str) -> None:
        self.fields["board"] = device_tree or product

    def _hostname(self, running: str, file: str) -> None:
        self.fields |= {"hostname": running, "hostname_file": file}

    def _timezone(self, target: str) -> None:
        self.fields["timezone"] = target.partition("zoneinfo/")[2]

    def _locale(self, lang: str, all_: str) -> None:
        self.fields |= {"locale": lang.strip("\"'"), "locales": tuple(all_.split())}

    def _ids(self, machine: str, boot: str) -> None:
        self.fields |= {"machine_id": machine, "boot_id": boot}

    def _memory(self, kib: str, page: str) -> None:
        self.fields |= {"memory_kib": int(kib or 0), "page_size": int(page or 0)}

    def _cgroup(self, version: str, controllers: str) -> None:
        self.fields |= {"cgroup": version, "controllers": frozenset(controllers.split())}

    def _package(self, name: str, version: str, status: str) -> None:
        package = Package(version, status.strip())
        known = self.maps.get("packages", {}).get(name)
        if known is None or package.installed:  # an architecture it is not installed for
            self.put("packages", name, package)

    def _unit(self, line: str = "") -> None:
        name, _, value = line.partition("=")
        if not name:
            self._unit_ends()
        else:
            self.unit[name] = value

    def _unit_ends(self) -> None:
        values, self.unit = self.unit, {}
        if values:
            since = values.get("StateChangeTimestampMonotonic", "")
            unit = Unit(
                load=values.get("LoadState", "not-found"),
                active=values.get("ActiveState", "inactive"),
                enabled=values.get("UnitFileState", ""),
                since=int(since) / 1e6 if since.isdigit() else 0.0,
            )
            self.put("units", values.get("Id", ""), unit)

    def _file(self, path: str, mode: str, owner: str, changed: str) -> None:
        self.put("files", path, File(mode, owner, int(changed)))

    def _sha256(self, path: str, digest: str) -> None:
        known = self.maps.get("files", {}).get(path, File(""))
        self.put("files", path, replace(known, sha256=digest))

    def _link(self, path: str, target: str) -> None:
        self.put("links", path, target)

    def _text(self, path: str, encoded: str) -> None:
        self.put("texts", path, _decode(encoded))

    def _swap(self, name: str) -> None:
        self.add("swaps", name)

    def _module(self, name: str, state: str) -> None:
        self.put("modules", name, state)  # the last line of a name is the strongest

    def _sysctl(self, line: str, *more: str) -> None:
        path, _, value = line.partition(":")
        self.put("sysctls", base.kernel_key(path), " ".join((value, *more)))

    def _account(self, name: str, uid: str, home: str, shell: str, groups: str, keys: str) -> None:
        account = Account(name, int(uid), home, shell, tuple(groups.split()), _decode(keys))
        self.put("accounts", name, account)

    def _snap(self, name: str, notes: str) -> None:
        self.add("snaps", Snap(name, notes))

    def _lxd(self, name: str) -> None:
        self.add("lxd_instances", name)

    def _route(self, line: str) -> None:
        self.add("routes", line.strip())

    def _address(self, address: str, interface: str = "") -> None:
        self.add("addresses", address)
        self.put("interfaces", address, interface)

    def _listen(self, protocol: str, local: str, process: str = "") -> None:
        port = local.rpartition(":")[2]
        if port.isdigit():
            program = re.search(r'\(\("([^"]+)"', process)
            self.add("listeners", Listener(protocol, int(port), program[1] if program else ""))

    def _disk(self, path: str, size: str, free: str) -> None:
        self.put("disks", path, Disk(int(size), int(free)))

    def _iscsi(self, initiator: str, sessions: str) -> None:
        self.fields |= {"initiator": initiator, "iscsi_sessions": int(sessions or 0)}

    def _sshd(self, key: str, value: str) -> None:
        self.put("sshd", key, value)

    def _has(self, what: str) -> None:
        self.fields["has"] = self.fields.get("has", frozenset()) | {what}

    def _inhibit(self, answer: str) -> None:
        if found := re.fullmatch(r"t (\d+)", answer.strip()):
            self.fields["inhibit_delay"] = int(found[1]) / 1e6

    def _tracking(self, line: str) -> None:
        columns = line.split(",")  # chronyc(1): id, name, stratum, ..., leap status
        if len(columns) > 3:
            self.fields["time_source"] = columns[1]
            self.fields["time_synchronised"] = columns[-1] in ("Normal", "Insert second")

    def _reboot(self, packages: str) -> None:
        self.fields["reboot_required"] = tuple(packages.split())


def _decode(encoded: str) -> str:
    try:
        return base64.b64decode(encoded).decode(errors="replace")
    except binascii.Error as error:
        raise ValueError(f"not base64: {encoded[:20]}") from error
