"""The operator's kubeconfig on the computer that pyinfra runs on."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

from pyinfra import host
from pyinfra.api import FunctionCommand, Host, State, operation
from pyinfra.api.command import PyinfraCommand

from cluster import kubeconfig as rules
from cluster.answer import Answer, Present
from cluster.kubeconfig import Entry, Refusal
from cluster.model import Cluster
from operations.k3s_process import say_error
from runtime.api import Api, api, api_of
from runtime.run import cluster

MODE = 0o600


@operation()
def entry(path: str | None = None) -> Generator[PyinfraCommand, None, None]:
    """Keep the cluster's entry in the operator's kubeconfig, beside those of others; mode 0600.

    The admin credential comes from the first server that has one. Nothing of it is shown. Before
    there is a cluster the entry counts as a change.

    + path: of the file; else of `$KUBECONFIG`, else `~/.kube/config`
    """
    model = cluster()
    match _wanted(api(), model):
        case Present(value=wanted):
            file = find(path, model.name)
            if _is_there(file, wanted, model):
                host.noop(f"{file} knows {model.name}")
                return
        case answer:
            host.noop(f"the credential is not there yet: {answer}")
    yield FunctionCommand(write, (path,), {})


def write(state: State, host: Host, path: str | None) -> bool:
    """Put the entry into the file, read anew; False when it cannot be."""
    model = cluster()
    match _wanted(api_of(state), model):
        case Present(value=wanted):
            file = find(path, model.name)
        case answer:
            say_error(host, f"the kubeconfig is not written: {answer}")
            return False
    try:
        _replace(file, _merged(file, wanted, model))
    except (Refusal, OSError) as error:
        say_error(host, f"{file}: {error}")
        return False
    host.log(f"kubectl --context {model.name} ({file})")
    return True


def problem(path: str | None) -> str:
    """Why the file will be refused; empty when it will not.

    Without a cluster to ask, only what the file itself says is known.
    """
    model = cluster()
    file = find(path, model.name)
    try:
        found = rules.problem(_text(file), model.name, rules.endpoints(model))
        match _wanted(api(), model):
            case Present(value=wanted) if not found:
                _merged(file, wanted, model)
    except Refusal as error:
        found = str(error)
    except (OSError, UnicodeDecodeError) as error:
        found = f"it cannot be read ({getattr(error, 'strerror', None) or 'not text'})"
    return f"kubeconfig {file}: {found}" if found else ""


def find(path: str | None, name: str) -> Path:
    """The file that is changed; links are followed, so that a rename does not replace them."""
    listed = [path] if path else os.environ.get("KUBECONFIG", "").split(os.pathsep)
    files = [Path(one).expanduser() for one in listed if one] or [
        Path("~/.kube/config").expanduser()
    ]
    if len(files) == 1:
        return files[0].resolve()
    return Path(rules.choose([(str(one), _text(one)) for one in files], name)).resolve()


def _wanted(api: Api, model: Cluster) -> Answer[Entry]:
    match api.credential():
        case Present(value=found):
            return Present(
                Entry(
                    name=model.name,
                    server=model.api_url,
                    ca=found.ca,
                    certificate=found.certificate,
                    key=found.key,
                    token=found.token,
                )
            )
        case other:
            return other


def _is_there(file: Path, wanted: Entry, model: Cluster) -> bool:
    try:
        return _text(file) == _merged(file, wanted, model) and _mode(file) == MODE
    except Refusal:
        return False  # the command says why


def _merged(file: Path, wanted: Entry, model: Cluster) -> str:
    return rules.merged(_text(file), wanted, rules.endpoints(model), datetime.now(UTC))


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


def _replace(file: Path, text: str) -> None:
    """Write a new file beside the old one and rename it: nobody ever reads half of it."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")  # 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as new:
            new.write(text)
            new.flush()
            os.fsync(new.fileno())
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
