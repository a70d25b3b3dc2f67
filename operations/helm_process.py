"""Helm on the servers: each function runs the pinned helm there, over pyinfra's connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyinfra.api import Host, State

from cluster.helm_release import Action, Wanted
from cluster.objects import Object
from cluster.versions import Chart
from runtime.api import Api

Say = Callable[[str], None]
Observer = Callable[[str, tuple[str, ...]], None]  # server, argv

observers: list[Observer] = []  # called with every helm that is started


class HelmError(Exception):
    """Helm failed, or could not be run; the text is the cause, one line."""


class ServerLost(HelmError):
    """The server went away while helm ran, or could not be asked."""


@dataclass(frozen=True)
class Result:
    """How a helm ended."""

    code: int
    out: str
    error: str


@dataclass(frozen=True)
class Rendered:
    """What a chart makes of its values: its CRDs (`crds/`), and its other objects."""

    crds: tuple[Object, ...]
    objects: tuple[Object, ...]


def pick_server(state: State, avoid: Sequence[str] = ()) -> Host:
    """A server whose API is ready and that can be reached; raises HelmError."""
    raise NotImplementedError


def run(server: Host, argv: Sequence[str], stdin: str = "", *, timeout: float = 120.0) -> Result:
    """Run `helm <argv>` on a server as root, values on standard input; it ends within `timeout` s.

    When the run is broken off, the remote helm is ended as well. Raises: ServerLost.
    """
    raise NotImplementedError


def pull_chart(server: Host, chart: Chart, repository: str | None = None) -> str:
    """Path of the chart's archive on the server, fetched when it is not there.

    Args:
        repository: a repository that has all charts, in place of the chart's own.

    Raises: HelmError.
    """
    raise NotImplementedError


def render(server: Host, archive: str, wanted: Wanted, kubernetes: str) -> Rendered:
    """What helm would apply, without asking the cluster; kubernetes: its version, `v1.36.3`.

    Raises: HelmError.
    """
    raise NotImplementedError


def upgrade(server: Host, archive: str, wanted: Wanted, *, adopt: bool = False) -> None:
    """Install or upgrade a release without waiting for its pods; hand edits are put back.

    Args:
        adopt: take over objects that are there without the release.

    Raises: HelmError.
    """
    raise NotImplementedError


def repair(api: Api, state: State, wanted: Wanted, say: Say) -> None:
    """Let a release that was left pending be upgraded again; nothing of it is removed.

    Waits for a helm of ours that still runs on a server. Raises: HelmError.
    """
    raise NotImplementedError


def rollback(server: Host, wanted: Wanted, revision: int) -> None:
    """Go back to a revision; only for components that say so. Raises: HelmError."""
    raise NotImplementedError


def uninstall(server: Host, namespace: str, name: str, timeout: float = 300.0) -> None:
    """Remove a release whose removal was asked for; CRDs stay. Raises: HelmError."""
    raise NotImplementedError


def carry_out(
    state: State,
    wanted: Wanted,
    action: Action,
    say: Say,
    *,
    repository: str | None = None,
    before: Callable[[Rendered], str | None] = lambda rendered: None,
) -> str | None:
    """Do what was decided on a healthy server, on the next one when it is lost.

    Args:
        before: called with what the chart makes, before helm runs: applies CRDs; returns a cause
            to stop, None to go on.

    Returns: None when it is done, else the cause, one line.
    """
    raise NotImplementedError
