"""A simulated host that changes as the commands of deploys/nodes.py would change it.

Simulated: each command that is known here takes the host to what that command is for; a command
that is not known has no effect. `@fake` hosts have no memory of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster import base
from cluster.host_state import HostState, Unit
from cluster.model import Cluster
from tests.plans.simulated import NODE, NOTHING_KNOWN, SURVEY, surveyed
from tests.unit.node_world import finished, lines, pi

Act = Callable[[HostState], HostState]


class Answer(dict[str, Any]):
    """A response of pyinfra's fake connector that does something when it is looked at."""

    def __init__(self, look: Callable[[], list[str]]) -> None:
        super().__init__()
        self._look = look

    def get(self, key: str, default: Any = None) -> Any:
        if key == "success":
            self["stdout"] = self._look()
        return super().get(key, default)


class LivingHost(dict[Any, Any]):
    """`fake_responses` of a host that starts fresh; its state is kept in `folder`/name.json."""

    def __init__(self, model: Cluster, name: str, folder: Path) -> None:
        super().__init__()
        self._me = model.host(name)
        self._file = folder / f"{name}.json"
        self._goal = finished(model, self._me)
        self.state = pi(self._me)
        self.commands: list[str] = []
        self._keep("")

    def __bool__(self) -> bool:
        return True

    def items(self) -> Iterator[tuple[Any, Answer]]:  # type: ignore[override]
        yield (
            re.compile(SURVEY),
            Answer(lambda: surveyed({**NOTHING_KNOWN, NODE: lines(self.state)})[SURVEY]),
        )
        yield re.compile(NODE), Answer(lambda: lines(self.state))
        for pattern, said in NOTHING_KNOWN.items():
            yield re.compile(pattern), Answer(lambda given=said: given)
        for pattern, act in self._acts():
            yield re.compile(pattern), Answer(lambda a=act, p=pattern: self._do(a, p))

    def _do(self, act: Act, pattern: str) -> list[str]:
        self.state = act(self.state)
        self._keep(pattern)
        return []

    def _keep(self, command: str) -> None:
        self.commands.append(command)
        self._file.write_text(json.dumps({"lines": lines(self.state), "did": self.commands[1:]}))

    def _acts(self) -> Iterator[tuple[str, Act]]:
        goal = self._goal
        for path in goal.files:
            yield rf" write {re.escape(path)} ", self._written(path)
            if path == base.SSHD:
                yield "sshd -t", self._written(path, sshd=goal.sshd)
        yield from (
            ("apt-get .*purge snapd", lambda s: replace(
                s, snaps=(), packages=_without(s.packages, "snapd"))),
            ("(?s)apt-get .*install", lambda s: replace(
                s, packages=goal.packages | {"snapd": s.packages["snapd"]},
                units=s.units | {"chrony.service": Unit("loaded", "active", "enabled", 20.0)}
                | {"systemd-timesyncd.service": Unit()})),
            ("apt-mark hold", lambda s: replace(
                s, packages=s.packages | {name: goal.packages[name]
                                          for name in base.kernel_packages(goal)})),
            (r"hostname \S+$", lambda s: replace(s, hostname=goal.hostname)),
            ("mask swap.target", self._unit("swap.target")),
            ("swapoff -a", lambda s: replace(s, swaps=())),
            ("modprobe -a", lambda s: replace(s, modules=goal.modules)),
            ("sysctl -q", lambda s: replace(s, sysctls=goal.sysctls)),
            ("enable --now iscsid", self._unit("iscsid.service")),
            ("enable chrony-wait", self._unit("chrony-wait.service")),
            ("restart chrony", lambda s: replace(
                s, time_source=goal.time_source, time_synchronised=True)),
            ("ln -sfn /dev/null", lambda s: replace(s, links=goal.links)),
            ("kill --signal=HUP", lambda s: replace(s, inhibit_delay=goal.inhibit_delay)),
        )  # fmt: skip

    def _written(self, path: str, **more: Any) -> Act:
        def act(state: HostState) -> HostState:
            files = state.files | {path: self._goal.files[path]}
            texts = {key: self._goal.texts[key] for key in self._goal.texts if key == path}
            if path == base.HOSTNAME:
                more["hostname_file"] = self._goal.hostname_file
            return replace(state, files=files, texts=state.texts | texts, **more)

        return act

    def _unit(self, name: str) -> Act:
        return lambda state: replace(state, units=state.units | {name: self._goal.units[name]})


def _without(packages: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: one for key, one in packages.items() if key != name}
