"""K3s on a node: its release, its files, its process."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pyinfra import host, inventory
from pyinfra.api import FileUploadCommand, FunctionCommand, StringCommand, operation
from pyinfra.api.command import PyinfraCommand

from cluster import k3s_config, k3s_plan, k3s_release, k3s_settings, marks, versions
from cluster.answer import Present
from cluster.model import Cluster, Host
from facts.k3s import K3s, k3s_state, survey, taking_part
from facts.kube import read_nodes
from operations import k3s_process, k3s_token, node_actions, secret, text
from runtime.api import api
from runtime.cache import made
from runtime.run import cluster
from runtime.secrets import Secret, SecretsUnavailable
from runtime.secrets import secret as named_secret

Commands = Generator[PyinfraCommand, None, None]
S3_CONFIG = "etcd_s3.config"  # the secret that is the file of the bucket's keys


@operation()
def release(version: str) -> Commands:
    """Put the binary of a K3s release on the node, verified, beside the ones already there.

    Which release runs is not touched. Fetched from the release, a mirror or a folder of the
    operator's machine as `k3s.source` says.

    + version: the release, such as v1.36.3+k3s1
    """
    model, state = cluster(), k3s_state(host)
    me = model.host(host.name)
    changed = False
    if version not in state.releases:
        changed = True
        item = k3s_release.asset(model.k3s.source, version, me.arch)
        yield from _install(item, k3s_config.binary_path(version), "0755")
    if model.k3s.source.airgap_images and version not in state.images:
        changed = True
        name = k3s_release.images(me.arch)
        item = k3s_release.asset(model.k3s.source, version, me.arch, name)
        yield from _install(item, k3s_config.images_path(version, name), "0644")
        if state.version in (None, version):  # else when the node moves to that release
            yield _images(me, version)
    if not changed:
        host.noop(f"K3s {version} is on the node")


def _install(item: k3s_release.Asset, path: str, mode: str) -> Commands:
    if item.folder:
        part = k3s_release.part(path)
        yield StringCommand("mkdir", "-p", str(Path(path).parent))
        yield FileUploadCommand(f"{item.folder}/{item.name}", part)
        if item.sha256 is None:
            yield FileUploadCommand(f"{item.folder}/{item.sums}", f"{part}.sums")
    yield StringCommand("sh", "-s", _stdin=k3s_release.install_script(item, path, mode))


@dataclass(frozen=True)
class Work:
    """What differs on one node; nothing when all of it is empty."""

    files: dict[str, str | None] = field(default_factory=dict)  # path → content, None: remove
    secrets: dict[str, Secret] = field(default_factory=dict)  # path → content
    unit: str | None = None
    link: str | None = None  # target
    enable: bool = False
    restart: bool = False
    version_change: tuple[str, str] | None = None  # installed, wanted

    @property
    def empty(self) -> bool:
        """Whether the node is as it should be."""
        return not (
            self.files or self.secrets or self.unit or self.link or self.enable or self.restart
        )


def work(model: Cluster, me: Host, state: K3s, version: str) -> Work:
    """What must be done on a node to run `version` with the model's configuration."""
    name = k3s_config.unit_name(me)
    unit = state.unit(name)
    files = {
        path: content
        for path, content in k3s_config.files(model, me).items()
        if text.differs(state.files.get(path), content, "600")
    }
    wanted_unit = k3s_config.unit(me)
    unit_differs = text.differs(state.files.get(k3s_config.unit_path(me)), wanted_unit, "644")
    target = k3s_config.binary_path(version)
    stale = bool(state.started_with) and state.started_with != state.revision
    secrets = {
        path: content
        for path, content in secret_files(model, me).items()
        if secret.outdated(path, state.files.get(path), content)
    }
    other = bool(files or secrets or unit_differs or state.link != target or stale)
    moved = state.version is not None and state.version != version
    return Work(
        files=files,
        secrets=secrets,
        unit=wanted_unit if unit_differs else None,
        link=target if state.link != target else None,
        enable=unit.enabled != "enabled",
        restart=other or not unit.running,
        version_change=(str(state.version), version) if moved else None,
    )


def secret_files(model: Cluster, me: Host) -> dict[str, Secret]:
    """The files of a node that hold secrets and may change, by path."""
    found: dict[str, Secret] = {}
    if k3s_config.keeps_s3_keys(model, me):
        found[k3s_config.S3_KEYS] = named_secret(S3_CONFIG)
    if k3s_config.keeps_registry_keys(model):
        found[k3s_config.REGISTRIES] = Secret(
            "k3s.registries", lambda: k3s_config.registries(model, lambda one: one.unmask())
        )
    return found


@operation()
def tokens() -> Commands:
    """Put the tokens on the node, 0600; one that a member has is never replaced in passing.

    The tokens come from the secrets `k3s.server_token` and `k3s.agent_token`. What a run that was
    broken off has left on a node that is no member yet may be a token from before a rotation.
    """
    state, me = k3s_state(host), cluster().host(host.name)
    wanted = {k3s_config.AGENT_TOKEN: named_secret("k3s.agent_token")}
    if me.is_server:
        wanted[k3s_config.SERVER_TOKEN] = named_secret("k3s.server_token")
    member = state.datastore or state.registered
    lacking = {
        path: content
        for path, content in wanted.items()
        if path not in state.files
        or (not member and secret.outdated(path, state.files[path], content))
    }
    for path, content in lacking.items():
        yield secret.write(path, content)
    open_ = [path for path in wanted if path not in lacking and state.files[path].mode != "600"]
    for path in open_:
        yield StringCommand("chmod", "600", path)
    if not (lacking or open_):
        host.noop("the tokens are there")


def _start(model: Cluster, me: Host, version: str, back: k3s_process.Fallback) -> PyinfraCommand:
    unit = k3s_config.unit_name(me)
    return FunctionCommand(k3s_process.run, (unit, version, model.k3s.start_timeout, back), {})


@operation()
def enter(version: str) -> Commands:
    """Make a node without K3s data a member: it creates the cluster or joins it.

    The first server creates only when every other server was reached and none has a datastore. A
    server has entered when etcd counts it as a voter, an agent when its node is registered.
    Reads the combined K3s fact of every server.

    + version: the release the cluster runs
    """
    model, state = cluster(), k3s_state(host)
    me = model.host(host.name)
    entry = k3s_plan.enter(model, survey(model, inventory), me)
    if isinstance(entry, k3s_plan.Stay):
        host.noop("is a member of the cluster")
        return
    if isinstance(entry, k3s_plan.Refuse):
        yield FunctionCommand(k3s_process.refuse, (entry.reason,), {})
        return
    if isinstance(entry, k3s_plan.Join):
        yield text.write(k3s_config.JOIN, k3s_config.join(entry.url), "600")
    elif model.datastore == "etcd":  # without the order K3s takes sqlite
        yield text.write(k3s_config.JOIN, k3s_config.join(None), "600")
    yield from _write(model, me, work(model, me, state, version))
    yield _start(model, me, version, k3s_process.NO_WAY_BACK)
    yield FunctionCommand(k3s_process.entered, (me.name,), {})


@operation()
def roll(version: str) -> Commands:
    """Bring a member to a release and to the model's configuration, safely for the others.

    Gates before and after; drained before when the minor changes and K3s runs; a node that does
    not come up gets its previous binary back where the datastore allows it. A cordon that a run of
    ours left behind when it was broken off is undone once the gates have passed.

    + version: the release of this step of the upgrade path
    """
    model, state = cluster(), k3s_state(host)
    me = model.host(host.name)
    if not isinstance(k3s_plan.enter(model, survey(model, inventory), me), k3s_plan.Stay):
        host.noop("is not a member yet")
        return
    if state.version and versions.compare(state.version, version) > 0:
        host.noop(f"is past this step, at {state.version}")
        return
    todo = work(model, me, state, version)
    if todo.empty and _left_cordoned(me.name):
        yield FunctionCommand(k3s_process.after, (me.name, version), {})
        return
    if todo.empty:
        host.noop(f"runs K3s {version} as configured")
        return
    change = todo.version_change
    runs = state.unit(k3s_config.unit_name(me)).running  # else its pods cannot be moved
    drain = bool(runs and change and not versions.same_minor(*change))
    yield FunctionCommand(k3s_process.before, (me.name, drain, model.k3s.drain_timeout), {})
    yield from _write(model, me, todo)
    if todo.restart:
        back = k3s_process.fallback(me.is_server, state.link, change)
        yield _start(model, me, version, back)
    yield FunctionCommand(k3s_process.after, (me.name, version), {})


def _left_cordoned(name: str) -> bool:
    """Whether a run of ours that was broken off has left the node cordoned."""
    match made(host.state, "nodes", lambda: read_nodes(api())):
        case Present(value=nodes):
            return name in nodes and marks.uncordon_change(nodes[name]) is not None
        case _:
            return False


@operation()
def settle() -> Commands:
    """Leave a member with a way to join, never with the order to create a cluster.

    K3s reads it only when its datastore is gone: a server that lost its disk then tries to join
    its cluster instead of starting a second one.
    """
    model, state = cluster(), k3s_state(host)
    me = model.host(host.name)
    known = {k3s_plan.server_url(server) for server in model.servers if server.name != me.name}
    if not me.is_server or model.network.api.vip:
        known.add(model.api_url)
    joins = isinstance(k3s_plan.enter(model, survey(model, inventory), me), k3s_plan.Join)
    if not known or joins or state.join.get("server") in known:
        host.noop("knows where to join")
        return
    url = sorted(known)[0]
    yield text.write(k3s_config.JOIN, k3s_config.join(url), "600")


@operation()
def snapshot(version: str) -> Commands:
    """Keep the datastore as it is before the cluster moves to another release.

    Nothing happens when no member moves. With etcd a snapshot `before-<version>`; with sqlite a
    copy of the database files beside them, for which K3s is down for a moment. The token that opens
    it is kept in `server/tokens`.

    + version: the release the cluster is about to move to
    """
    model = cluster()
    members = survey(model, inventory).values()
    if not any(one.datastore and one.version and one.version != version for one in members):
        host.noop("no server changes its version")
        return
    script = k3s_config.snapshot_script(model.datastore, version)
    if model.datastore == "etcd":
        yield StringCommand("sh", "-s", _stdin=script)
    else:
        words = (host.name, script, model.k3s.start_timeout)
        yield FunctionCommand(k3s_process.keep_copy, words, {})


def _write(model: Cluster, me: Host, todo: Work) -> Commands:
    for path, content in todo.files.items():
        yield text.write(path, content, "600") if content is not None else text.remove(path)
    for path, hidden in todo.secrets.items():
        yield secret.write(path, hidden)
    if todo.link and model.k3s.source.airgap_images:
        yield _images(me, Path(todo.link).parent.name)
    if todo.link:
        yield text.link(todo.link, k3s_config.LINK)
        for tool in ("kubectl", "crictl", "ctr"):
            yield StringCommand(f"[ -e /usr/local/bin/{tool} ] || ln -s k3s /usr/local/bin/{tool}")
    if todo.unit:
        yield text.write(k3s_config.unit_path(me), todo.unit, "644")
        yield StringCommand("systemctl", "daemon-reload")
    if todo.enable:
        yield StringCommand("systemctl", "enable", "--quiet", k3s_config.unit_name(me))


def _images(me: Host, version: str) -> StringCommand:
    """The release's images where K3s imports them at its start, in place of older ones."""
    name = k3s_release.images(me.arch)
    path, folder = k3s_config.images_path(version, name), f"{k3s_config.DATA}/agent/images"
    return StringCommand(
        f"mkdir -p {folder} && rm -f {folder}/k3s-airgap-images-* && "
        f"{{ ln {path} {folder}/{name} 2>/dev/null || cp {path} {folder}/{name}; }}"
    )


def missing_assets(model: Cluster, me: Host, state: K3s, wanted: Iterable[str]) -> list[str]:
    """Files of releases that a node lacks and `k3s.source.folder` does too, one line each.

    wanted: the releases that this run puts on the node.
    """
    source = model.k3s.source
    names = (None, k3s_release.images(me.arch)) if source.airgap_images else (None,)
    assets = [
        k3s_release.asset(source, version, me.arch, name)
        for version in wanted
        if source.folder and version not in state.releases
        for name in names
    ]
    files = {
        f"{item.folder}/{file}": None
        for item in assets
        for file in (item.name, *([] if item.sha256 else [item.sums]))
    }
    return [
        f"k3s.source.folder: {file}: no such file: expected what the release has under that name"
        for file in files
        if not Path(file).is_file()
    ]


def missing_secrets(model: Cluster, me: Host) -> list[str]:
    """Secrets that files of the node need and the secrets file lacks, one line each."""
    found = []
    for path, hidden in secret_files(model, me).items():
        try:
            hidden.unmask()
        except SecretsUnavailable as error:
            found.append(f"{path}: {error}")
    return found


def class_refusals(model: Cluster, me: Host, state: K3s) -> list[str]:
    """Settings that differ on a living node but that no deploy may change in passing."""
    if not (state.datastore or state.registered):
        return []
    tokens = k3s_token.refusals(state)
    if state.config is None:
        return tokens
    found = k3s_settings.differences(state.config, k3s_config.config(model, me))
    return tokens + [f"{me.name}: {line}" for line in k3s_settings.refusals(found)]


@operation()
def members(ready: bool) -> Commands:
    """Wait until every member is registered and every server votes; undo cordons of ours.

    A cordon of ours that is still there stems from a run that was broken off: all gates have
    passed now, so the node takes pods again. `roll` undoes those of the hosts of this run.

    + ready: also wait for Ready, which needs the pod network
    """
    model = cluster()
    names = [member.name for member in model.members]
    match read_nodes(api()):
        case Present(value=nodes) if k3s_process.settled(model, nodes, ready):
            rolled = set() if host.state.is_executing else taking_part(inventory)
            cordoned = [name for name, n in nodes.items() if marks.uncordon_change(n)]
            cordoned = [name for name in cordoned if name not in rolled]
        case _:
            cordoned = []
            yield FunctionCommand(k3s_process.wait_for_members, (names, ready), {})
    for name in cordoned:
        yield FunctionCommand(node_actions.uncordon, (name,), {})
    host.noop(f"{len(names)} members are in")
