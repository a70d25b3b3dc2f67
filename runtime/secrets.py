"""The cluster's secrets: decrypted once a run, when the first of them is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.hiddenvalue import HiddenValue

from cluster import secret_table
from cluster.mask import MASK
from cluster.model import Cluster
from runtime import sops


class SecretsUnavailable(PyinfraError):
    """The secrets cannot be read; the text says why and what to do."""


class Secret(HiddenValue):
    """A text that is read when it is needed and shown nowhere.

    It may stand among group_data values, as an operation's argument, in a StringCommand, in
    `_env`, and as a command's `_stdin`, which is then read only when the command runs.
    """

    def __init__(self, label: str, read: Callable[[], str]) -> None:
        # Not HiddenValue's own __init__, which keeps the text.
        self.label = label
        self.masked_value = MASK
        self._read = read

    def unmask(self) -> str:
        """The text; raises SecretsUnavailable."""
        return self._read()

    @property
    def raw_value(self) -> str:
        """The text, under the name HiddenValue has for it."""
        return self.unmask()

    def readlines(self) -> list[str]:
        """The text as one item: how pyinfra reads a file-like `_stdin` when a command runs."""
        return [self.unmask()]

    def to_json(self) -> str:
        """What JSON output shows."""
        return MASK


class Store:
    """One file of secrets, opened at the first question."""

    def __init__(self, path: str, keys: str | None) -> None:
        self.path = Path(path)
        self.keys = sops.key_file(keys)
        self._lock = threading.Lock()

    @cached_property
    def _decrypted(self) -> dict[str, str] | str:
        """The secrets, or why they cannot be read: sops is asked once."""
        try:
            return sops.flat(sops.load(self.path, self.keys))
        except sops.SopsError as error:
            return str(error)

    def values(self) -> dict[str, str]:
        """Every secret by its dotted name; raises SecretsUnavailable."""
        with self._lock:  # hosts ask at the same time
            found = self._decrypted
        if isinstance(found, str):
            raise SecretsUnavailable(found)
        return found

    def get(self, name: str) -> str:
        """One secret; raises SecretsUnavailable, also when the file lacks it."""
        values = self.values()
        if make := secret_table.DERIVED.get(name):
            return make(values)
        if name not in values:
            raise SecretsUnavailable(f"{self.path} has no {name}; {_hint(name, values)}")
        return values[name]


_run: dict[str, Any] = {}


def use(cluster: Cluster, inventory: str) -> None:
    """Let `secret()` read the file of this cluster; called once at the start of a run.

    inventory: its file, for commands that are named to people.
    """
    _run["store"] = Store(cluster.secrets_file, cluster.age_key_file)
    _run["cluster"] = cluster
    _run["inventory"] = inventory


def fill() -> str:
    """The command that writes what this project wants of the file, for people."""
    return f"`make secrets INVENTORY={_run['inventory']}`"


def _hint(name: str, there: Collection[str]) -> str:
    """What to do about a name that the file does not have."""
    if close := get_close_matches(name, there, n=1):
        return f"did you mean {close[0]}"
    if any(kind.name == name for kind in secret_table.wanted(_run["cluster"])):
        return f"{fill()} adds it"
    return f"`python -m commands.secrets {_run['inventory']} --edit` lets you add it"


def secret(name: str) -> Secret:
    """The secret of that dotted name, e.g. `k3s.server_token`; reads nothing yet."""
    need()
    return Secret(name, lambda: _store().get(name))


def rendered(label: str, make: Callable[[Mapping[str, str]], str]) -> Secret:
    """A text made of secrets, which reads nothing yet; make: from the secrets by name."""
    need()
    return Secret(label, lambda: make(_store().values()))


def need() -> None:
    """Say in deploy code that operations of the run will ask for secrets.

    With `-y` their bodies run only when earlier ones have changed things already.
    """
    _run["needed"] = True


def require() -> None:
    """Open the secrets if the run needs them, and check that all are there, before any change.

    Raises SecretsUnavailable with one line a problem.
    """
    if not _run.get("needed"):
        return
    store = _store()
    if found := secret_table.problems(_run["cluster"], store.values()):
        raise SecretsUnavailable("\n".join(f"{store.path}: {line}" for line in found))


def _store() -> Store:
    store = _run.get("store")
    if not isinstance(store, Store):
        raise SecretsUnavailable("no cluster is loaded, so there is no file of secrets to read")
    return store
