"""One wrong thing about the inputs, and where the inputs came from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from cluster.component import Component


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the inputs, as one line."""

    where: str
    found: str
    allowed: str = ""
    suggestion: str = ""
    warning: bool = False  # allowed, but to be said

    def __str__(self) -> str:
        line = f"{self.where}: {self.found}"
        if self.allowed:
            line += f": expected {self.allowed}"
        if self.suggestion:
            line += f"; did you mean {self.suggestion}"
        return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


class Problems(ValueError):
    """Everything wrong with the inputs."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True)
class Source:
    """The top-level keys that one place sets; a later source wins, key by key."""

    origin: str  # e.g. group_data/home.py
    values: Mapping[str, Any]
    whole: bool = True  # whether it speaks for all hosts


@dataclass(frozen=True)
class HostEntry:
    """A host as the inventory has it: its name, the groups of roles it is in, its own keys."""

    name: str
    roles: tuple[str, ...]
    values: Mapping[str, Any]
    origin: str = "inventory"  # file that names it


@dataclass(frozen=True)
class Given:
    """What is known about the inputs besides their values."""

    inventory: str = "cluster"  # name of the inventory, which names the file of secrets
    repair: bool = False  # a cluster that lost nodes is worked on: some refusals become warnings
    secrets: Literal["present", "missing", "plaintext", "damaged", "unneeded"] = "unneeded"
    ca: str | None = None  # certificate of the CA of the secrets file, PEM
    options: Mapping[str, Any] = field(default_factory=dict)  # all of --data
    foreign: Collection[str] = ()  # keys that belong to pyinfra
    components: Mapping[str, Component] = field(default_factory=dict)  # the catalogue
    preflight: Collection[str] = ()  # ids of preflight checks
    origins: Mapping[str, str] = field(default_factory=dict)  # file that sets each key
    host_origins: Mapping[str, str] = field(default_factory=dict)

    def at(self, path: str) -> str:
        """The file and key of `network.api.vip`."""
        top = path.partition(".")[0].partition("[")[0]
        return f"{self.origins.get(top, f'group_data/{self.inventory}.py')}: {path}"

    def at_host(self, name: str, key: str = "") -> str:
        """The file, host and key of a value of one host."""
        place = f"{self.host_origins.get(name, 'inventory')}: {name}"
        return f"{place}: {key}" if key else place

    def at_group(self, group: str) -> str:
        """The file and group of the inventory."""
        files = sorted(set(self.host_origins.values())) or [f"inventories/{self.inventory}.py"]
        return f"{', '.join(files)}: {group}"


def hint(value: object, known: Iterable[str]) -> str:
    """The end of a line about an unknown name: `; did you mean <known>`, or nothing."""
    close = meant(value, known)
    return f"; did you mean {close}" if close else ""


def meant(value: object, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known name closest to the value, empty when none is that close (0 to 1)."""
    close: Sequence[str] = get_close_matches(str(value), list(known), n=1, cutoff=cutoff)
    return close[0] if close else ""
