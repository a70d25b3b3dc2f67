"""What K3s' log lines mean for the person who runs the deploy. Pure text.

Texts: K3s' sources of `pkg/clientaccess`, `pkg/etcd`, `pkg/cluster`, `pkg/agent/config`; matched
by their tails, since prefixes change between minors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class Cause(NamedTuple):
    """Why K3s does not start; `final` when waiting longer cannot help."""

    text: str
    final: bool


class _Rule(NamedTuple):
    pattern: str
    says: str
    final: bool = True


_FORGET = "pyinfra INVENTORY deploys/reset.py --data forget={name}"
_LEAVE = "pyinfra INVENTORY deploys/reset.py --data node={name}"
_RULES: tuple[_Rule, ...] = (
    _Rule(
        r"not yet valid|is not valid before",
        "the cluster's certificate lies in the future for this node: its clock is behind "
        "(compare `date` on the nodes, then chronyc sources)",
    ),
    _Rule(
        r"certificate has expired",
        "a certificate has expired, or this node's clock is ahead (k3s certificate check)",
    ),
    _Rule(
        r"duplicate node name found",
        "etcd still has a member of this node's former life; clear it with: " + _FORGET,
    ),
    _Rule(
        r"Node password rejected|unable to verify node password",
        "the cluster knows another node of this name (re-flashed host?); clear it with: " + _FORGET,
    ),
    _Rule(
        r"token CA hash does not match",
        "the token belongs to another cluster: its CA hash differs",
    ),
    _Rule(
        r"encrypted with different token",
        "the datastore was made with another server token than /etc/rancher/k3s/server-token; "
        "former ones are in /var/lib/rancher/k3s/server/tokens, and deploys/tokens.py ends a "
        "rotation that was broken off",
    ),
    _Rule(
        r"newer than datastore",
        "a file of this server is newer than the copy that all servers share",
    ),
    _Rule(
        r"not authorized|401 Unauthorized|invalid token format",
        "the token was refused (k3s.agent_token for agents, k3s.server_token for servers)",
    ),
    _Rule(
        r"critical configuration (value )?mismatch",
        "this server's critical settings differ from the cluster's",
    ),
    _Rule(r"etcd disabled", "the server to join runs sqlite, not etcd"),
    _Rule(
        r"failed to find (memory|cpuset) cgroup|memory cgroup",
        "the kernel's memory cgroup is off; the boot parameters need cgroup_enable=memory",
    ),
    _Rule(r"address already in use", "another program listens on one of K3s' ports"),
    _Rule(r"no space left on device", "the disk is full"),
    _Rule(r"flag provided but not defined", "config.yaml holds a key this version does not know"),
    _Rule(
        r"member has been permanently removed|must be removed",
        "this server was removed from etcd; clear its data with: " + _LEAVE,
    ),
    _Rule(
        r"too many learner members",
        "another server is still joining etcd",
        final=False,
    ),
    _Rule(
        r"failed to get CA certs|Failed to validate connection to cluster",
        "the server to join does not answer",
        final=False,
    ),
)
_FIELD = re.compile(r'(?:msg|error)="((?:[^"\\]|\\.)*)"')
_SECRET = re.compile(r"K10[0-9a-f]{64}::\S+|(?<=token=)\S+", re.IGNORECASE)


def message(line: str) -> str:
    """The message of a logrus line, else the line; tokens are masked."""
    found = _FIELD.search(line)
    text = found.group(1).replace('\\"', '"').replace("\\n", " ") if found else line
    return _SECRET.sub("***", text).strip()


def explain(lines: Iterable[str], name: str) -> Cause | None:
    """The cause that the newest telling line gives, else K3s' last error, None without one.

    lines: of the unit's journal, oldest first. name: the node, for commands in the text.
    """
    worst: dict[str, str] = {}
    for line in reversed(list(lines)):
        for rule in _RULES:
            if re.search(rule.pattern, line):
                says = rule.says.format(name=name)
                return Cause(f"{says} — K3s: {message(line)}", rule.final)
        for level in ("fatal", "error"):
            if f"level={level}" in line:
                worst.setdefault(level, message(line))
    told = worst.get("fatal") or worst.get("error")
    return Cause(f"K3s: {told}", final=False) if told else None
