"""The kernel's command line: tokens of the file and of the running kernel.

Sources: Documentation/admin-guide/kernel-parameters.txt for quotes; canonical's rpi-config-txt:
what the firmware says comes first, the file is the end of /proc/cmdline.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# A quote keeps blanks together; one that is never closed reaches to the end.
TOKEN = re.compile(r'(?:"[^"]*"?|[^\s"])+', re.ASCII)
PADDING = "\0\r\n\t "
# The firmware writes the name that the kernel has for the Pi's first serial port.
_SERIAL = re.compile(r"console=(serial0|ttyS0|ttyAMA0|ttyAMA10)(?=,|$)")


def lines(text: str) -> tuple[str, ...]:
    """The lines of a file that are not empty; only the first is read at boot."""
    return tuple(line.strip(PADDING) for line in re.split(r"[\r\n]+", text) if line.strip(PADDING))


def fault(text: str) -> str:
    """Why a file is no command line that can be edited; empty when it is one.

    The firmware reads up to the first end of a line: root= on a second one is lost, and with it
    the boot.
    """
    found = lines(text)
    if not found:
        return "is empty"
    if len(found) > 1:
        return f"has {len(found)} lines, and only the first is read at boot: make it one line"
    if "\0" in found[0]:
        return "has a NUL character in its line"
    if not re.split(r"[\r\n]", text)[0].strip(PADDING):
        return "begins with an empty line, and only the first is read at boot"
    return ""


def tokens(text: str) -> tuple[str, ...]:
    """The tokens of a command line."""
    return tuple(TOKEN.findall(text.strip(PADDING)))


def key(token: str) -> str:
    """The part before the first `=`; the kernel takes - and _ in names for the same."""
    return token.partition("=")[0].replace("-", "_")


def value(token: str) -> str | None:
    """The part behind it, None for a flag."""
    _, given, found = token.partition("=")
    return found if given else None


def normalise(token: str) -> str:
    """The token with one name for the serial console, whoever wrote it."""
    return _SERIAL.sub("console=serial0", token)


def is_active(file: str, running: str) -> bool:
    """Whether the running kernel was started with what the file says now.

    It is when the file's tokens are the end of /proc/cmdline.
    """
    wanted = [normalise(one) for one in tokens(file)]
    found = [normalise(one) for one in tokens(running)]
    return found[len(found) - len(wanted) :] == wanted if len(wanted) <= len(found) else False


def not_yet_active(file: str, running: str) -> tuple[str, ...]:
    """Tokens of the file that the running kernel does not have."""
    found = {normalise(one) for one in tokens(running)}
    return tuple(one for one in tokens(file) if normalise(one) not in found)


def switches_on(running: Iterable[str]) -> bool | None:
    """What the tokens say about the memory controller: the last word counts, None: nothing.

    It is only what was asked for; whether it is there says cgroup.controllers
    (raspberrypi/linux#6980).
    """
    answer = None
    for token in running:
        name, _, controllers = token.partition("=")
        if name in ("cgroup_enable", "cgroup_disable") and "memory" in controllers.split(","):
            answer = name == "cgroup_enable"
    return answer
