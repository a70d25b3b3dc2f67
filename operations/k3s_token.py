"""Other join tokens for a living cluster: what K3s is told, and the restarts that follow."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host, inventory
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.command import PyinfraCommand, QuoteString

from cluster import k3s_config, k3s_token
from cluster.k3s_token import Held
from cluster.model import Cluster, Host
from cluster.services.api_address import API_PORT
from facts.k3s import K3s, held, held_by, k3s_state
from operations import k3s_process, secret, text
from runtime.run import cluster
from runtime.secrets import SecretsUnavailable
from runtime.secrets import secret as named_secret

Commands = Generator[PyinfraCommand, None, None]


def wanted() -> Held:
    """The tokens of the secrets; raises SecretsUnavailable."""
    server, agent = (
        secret.content_hash(named_secret(name)) for name in (k3s_token.SERVER, k3s_token.AGENT)
    )
    return Held(server, agent, server)


def refusals(state: K3s) -> list[str]:
    """Tokens of a member that are not those of the secrets, one line each.

    None without the key to the secrets.
    """
    try:
        names = k3s_token.differing(held_by(state), wanted())
    except SecretsUnavailable:
        return []
    return [
        f"{name}: the secrets hold another one than the cluster: {k3s_token.DEPLOY} puts it in "
        "force; or put the former one back"
        for name in names
    ]


def unknown() -> list[str]:
    """Why the tokens of the secrets are not known; nothing when they are."""
    try:
        wanted()
    except SecretsUnavailable as error:
        return [str(error)]
    return []


@operation()
def rotate() -> Commands:
    """Let K3s take the server token of the secrets; for the whole cluster, by one server.

    From then on the former token opens only older snapshots; it stays in `server/tokens`. Where
    the agents' token changes too, this server starts with it before, as it is stored on the way.
    """
    model, state, new = cluster(), k3s_state(host), wanted()
    me = model.host(host.name)
    if k3s_token.begun(held(model, inventory), new):
        host.noop("K3s has this server token")
        return
    if state.unit(k3s_config.unit_name(me)).running:
        yield _before(model, me)
    else:  # it started again after it had the agents' token and before K3s was told
        yield text.remove(k3s_token.UNSTORED)
        yield from _restart(model, me, state)
    if held_by(state).agent != new.agent:
        yield from _restart(model, me, state, k3s_config.AGENT_TOKEN)
    script = QuoteString(k3s_token.rotate_script(API_PORT))
    yield StringCommand("sh", "-c", script, _stdin=named_secret(k3s_token.SERVER))  # type: ignore[arg-type]


@operation()
def revive() -> Commands:
    """Let the servers that a broken off rotation left down start with the tokens of the secrets.

    All at once and without a gate before: a server that is down has no vote to lose, and where
    several are down, as after a power cut, none of them comes up before the others.
    """
    model, state, new = cluster(), k3s_state(host), wanted()
    me = model.host(host.name)
    if not _left_down(model, me, state, new):
        host.noop("is not down for its tokens")
        return
    yield from _restart(model, me, state, *k3s_token.FILES)


@operation()
def adopt() -> Commands:
    """Let a member start with the tokens of the secrets, safely for the others."""
    model, state, new = cluster(), k3s_state(host), wanted()
    me, own = model.host(host.name), held_by(state)
    if not (state.datastore or state.registered):
        host.noop("is not a member yet")
        return
    same = own.agent == new.agent
    if me.is_server:
        same = own == new
    if same or (not host.state.is_executing and _left_down(model, me, state, new)):
        host.noop("starts with these tokens")
        return
    files = k3s_token.FILES if me.is_server else [k3s_config.AGENT_TOKEN]
    yield _before(model, me)
    yield from _restart(model, me, state, *files)


def _left_down(model: Cluster, me: Host, state: K3s, new: Held) -> bool:
    down = state.datastore and not state.unit(k3s_config.unit_name(me)).running
    return bool(down) and held_by(state) != new and k3s_token.begun(held(model, inventory), new)


def _before(model: Cluster, me: Host) -> FunctionCommand:
    return FunctionCommand(k3s_process.before, (me.name, False, model.k3s.drain_timeout), {})


def _restart(model: Cluster, me: Host, state: K3s, *files: str) -> Commands:
    """Put tokens on the node, start K3s anew, and wait until it counts again."""
    limit, version = model.k3s.start_timeout, str(state.version)
    for path in files:
        yield secret.write(path, named_secret(k3s_token.FILES[path]))
    start = (k3s_config.unit_name(me), version, limit, k3s_process.NO_WAY_BACK)
    yield FunctionCommand(k3s_process.run, start, {})
    yield FunctionCommand(k3s_process.after, (me.name, version), {})
