"""Files that hold secrets: never shown, never readable by others, never half written."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Generator

from pyinfra.api import StringCommand, operation
from pyinfra.context import host

from facts.secret import SecretFile
from operations.text import Known
from runtime.secrets import Secret, SecretsUnavailable

MODE = "0600"


@operation()
def file(
    path: str, content: Secret, user: str = "root", group: str = "root"
) -> Generator[StringCommand, None, None]:
    """Keep a secret in a file with mode 0600, written through standard input and renamed.

    Without the key to the secrets a plan says that the file cannot be compared, and counts it as
    a change.

    + path: absolute path; its folder is made when missing
    + content: the secret; the file ends with a newline
    + user: owner
    + group: owning group
    """
    state = host.get_fact(SecretFile, path=path)
    wanted = (MODE.lstrip("0"), user, group)
    if (
        state is not None
        and (state.mode, state.user, state.group) == wanted
        and not differs(path, state.sha256, content)
    ):
        host.noop(f"{path} holds {content.label}")
        return
    yield write(path, content, user, group)


def outdated(path: str, known: Known | None, content: Secret) -> bool:
    """Whether the file must be written, as a fact knows it; without the key, said and yes."""
    if known is None or known.mode != MODE.lstrip("0"):
        return True
    return differs(path, known.sha256, content)


def differs(
    what: str,
    present_hash: str,
    content: Secret,
    hashed: Callable[[Secret], str] | None = None,
) -> bool:
    """Whether a secret is not the one with that sha256; without the key, said and taken as yes.

    Args:
        what: its file or its name.
        hashed: the sha256 of the secret, by default of the file that holds it.
    """
    try:
        return present_hash != (hashed or content_hash)(content)
    except SecretsUnavailable as error:
        host.log(f"{what} cannot be compared without the key: {error}")
        return True


def value_hash(content: Secret) -> str:
    """Sha256 of the secret itself, without the newline of a file; raises SecretsUnavailable."""
    return hashlib.sha256(content.unmask().encode()).hexdigest()


def content_hash(content: Secret) -> str:
    """Sha256 of the file that `write` makes of the secret; raises SecretsUnavailable."""
    text = content.unmask()
    # pyinfra ends what it writes to standard input with a newline.
    return hashlib.sha256((text if text.endswith("\n") else f"{text}\n").encode()).hexdigest()


def write(path: str, content: Secret, user: str = "root", group: str = "root") -> StringCommand:
    """The command that puts the secret in place in one step; it reads the secret when it runs."""
    new, final = shlex.quote(f"{path}.new"), shlex.quote(path)
    return StringCommand(
        f"install -D -m {MODE} -o {shlex.quote(user)} -g {shlex.quote(group)} /dev/stdin {new}"
        f" && mv -f {new} {final}",
        _stdin=content,  # type: ignore[arg-type]  # file-like: it has readlines
    )
