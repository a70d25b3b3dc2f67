"""Certificates outside the cluster: certbot installed, told, run, and its results handed on."""

from __future__ import annotations

import shlex
from collections.abc import Generator
from datetime import UTC, datetime

from pyinfra import host
from pyinfra.api import FunctionCommand, Host, State, StringCommand, operation
from pyinfra.api.command import PyinfraCommand, QuoteString
from pyinfra.api.exceptions import PyinfraError

from cluster.managed import UNITS
from cluster.services import certbot
from facts.certbot import Certbot, CertbotState
from facts.node import host_state
from operations import config_files, flow, text
from runtime import cache
from runtime.endpoint import quietly
from runtime.run import cluster

Commands = Generator[PyinfraCommand, None, None]

INSTALL_LIMIT = 1800  # seconds; a Pi with an SD card is slow
ISSUE_LIMIT = 7200  # seconds; a record may take an hour to be seen


def state_of(one: Host) -> CertbotState:
    """What there is on a host, read once a phase; raises PyinfraError when it cannot be read."""
    model = cluster()
    paths = certbot.paths(model, model.host(one.name))
    found = cache.cached(one, Certbot, paths=paths)
    if found is None:
        raise PyinfraError(f"{one.name}: its certificates cannot be read")
    return found


@operation()
def program() -> Commands:
    """certbot and its plugin in an environment of their own, each file checked by its checksum.

    Nothing vouches for the packages of a plugin of the user's, as `services.certbot.plugin` has it.
    Another set of packages is installed beside the old one, which goes when the new one runs; an
    environment of a Python that an upgrade of the system has taken away is made anew.
    """
    wanted = certbot.program(cluster())
    if state_of(host).program == wanted.digest:
        host.noop("certbot is installed")
        return
    index = certbot.section(cluster()).index or ""
    yield StringCommand(
        *("sh", "-c", QuoteString(certbot.INSTALL), "install", wanted.digest, QuoteString(index)),
        *(QuoteString(release) for release in wanted.further),
        _stdin=wanted.requirements,
        _timeout=INSTALL_LIMIT,
    )


@operation()
def settings() -> Commands:
    """certbot's settings, scripts, hooks and units; hooks of certificates that are gone go too."""
    model, now = cluster(), host_state(host, cluster())
    me = model.host(host.name)
    hooks = certbot.deploy_hooks(model, me)
    changed = yield from config_files.write(now, certbot.plain_files(model))
    units = changed
    changed = (yield from config_files.write(now, certbot.scripts(model), "755")) or changed
    changed = (yield from config_files.write(now, certbot.hook_files(model), "700")) or changed
    changed = (yield from config_files.write(now, hooks, "755")) or changed
    stale = [f"{certbot.HOOKS}/{name}" for name in state_of(host).hooks]
    if not certbot.section(model).ca and certbot.CA in now.files:
        stale.append(certbot.CA)
    for path in stale:
        if path not in hooks:
            changed = True
            yield text.remove(path)
    if units:
        yield StringCommand("systemctl", "daemon-reload")
    if not changed:
        host.noop("certbot's settings are as wanted")


@operation()
def issue() -> Commands:
    """Issue what is missing, has other names or has moved to another server; never what is valid.

    A failure is said with its cause; a certificate that there was stays as it is.
    """
    model, known, now = cluster(), state_of(host), host_state(host, cluster())
    server, changed = certbot.directory(model), False
    for one in certbot.certificates(model, model.host(host.name)):
        found = known.certificates.get(one.name)
        reason = certbot.due(one, found, server, now.clock.at)
        if reason:
            changed = True
            host.log(f"certificate {one.name}: {reason}")
            yield FunctionCommand(_issue, (one.name, certbot.arguments(model, one, found)), {})
        elif found and certbot.kept(found, server):
            host.log(f"certificate {one.name}: kept, it is valid and of {found.server}")
    if changed or certbot.EXPIRY_METRIC not in now.files:
        yield StringCommand(certbot.REPORT)
    else:
        host.noop("the certificates are there")


def _issue(state: State, host: Host, name: str, arguments: tuple[str, ...]) -> bool:
    command = StringCommand(certbot.COMMAND, *map(shlex.quote, arguments))
    done, output = quietly(host, command, _timeout=ISSUE_LIMIT)
    if done:
        return True
    why = certbot.cause(cluster(), output.output_lines)
    return flow.ended(host, f"certificate {name}: {why}")


@operation()
def deploy() -> Commands:
    """Hand certificates on to services that have not got them, as after a broken-off run."""
    model, known = cluster(), state_of(host)
    changed = False
    for one in certbot.certificates(model, model.host(host.name)):
        found = known.certificates.get(one.name)
        if found and certbot.undeployed(one, found, known.copies, known.marks):
            changed = True
            yield StringCommand(
                f"RENEWED_LINEAGE={certbot.CONFIG}/live/{one.name}", f"{certbot.HOOKS}/{one.name}"
            )
    if not changed:
        host.noop("services have their certificates")


@operation()
def timer() -> Commands:
    """Renew twice a day, at a moment of the host's own."""
    now = host_state(host, cluster())
    found = now.unit(certbot.TIMER)
    if found.enabled != "enabled" or not found.running:
        yield StringCommand("systemctl", "enable", "--now", certbot.TIMER)
    elif now.stale(certbot.TIMER, f"{UNITS}/{certbot.TIMER}"):
        yield StringCommand("systemctl", "restart", certbot.TIMER)
    else:
        host.noop("certificates are renewed twice a day")


def doubts(one: Host) -> list[str]:
    """What the operator should know of the host's certificates."""
    known, at = state_of(one), host_state(one, cluster()).clock.at
    lines = []
    if known.result not in ("", "success"):
        lines.append(
            f"the last renewal of certificates failed ({known.result}): "
            f"journalctl -u {certbot.SERVICE}"
        )
    for name, found in known.certificates.items():
        if found.ends is not None and found.ends < at + certbot.SOON:
            day = datetime.fromtimestamp(found.ends, UTC)
            lines.append(f"the certificate {name} ends on {day:%Y-%m-%d}")
    return lines
