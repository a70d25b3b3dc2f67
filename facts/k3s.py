"""What K3s is on a node, read by one command."""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml
from pyinfra.api import FactBase, Host, Inventory
from pyinfra.api.exceptions import FactProcessError, PyinfraError

from cluster import k3s_config, restore
from cluster.k3s_plan import Seen
from cluster.k3s_token import Held
from cluster.model import Cluster
from facts.tagged import HEAD, LIMIT, words
from runtime.cache import cached
from runtime.inventory import node_name

UNITS = ("k3s", "k3s-agent")
FILES = (
    k3s_config.CONFIG,
    k3s_config.JOIN,
    k3s_config.S3_KEYS,
    k3s_config.KUBELET,
    k3s_config.REGISTRIES,
    k3s_config.SERVER_TOKEN,
    k3s_config.AGENT_TOKEN,
    *(f"/etc/systemd/system/{unit}.service" for unit in UNITS),
)

# Secret values of a config.yaml that somebody else wrote do not leave the node in the form that
# people write; YAML has more forms, in which they come as far as `_yaml`.
_SECRET_KEYS = (
    "token",
    "agent-token",
    "etcd-s3-access-key",
    "etcd-s3-secret-key",
    "etcd-s3-session-token",
    "vpn-auth",
    "datastore-endpoint",
)
_REDACT = f"sed -E 's/^([[:space:]]*({'|'.join(_SECRET_KEYS)})[+]?:[[:space:]]*).*/\\1x/'"


_SCRIPT = (
    HEAD
    + r"""
target=$(readlink @LINK@ 2>/dev/null)
say link "$target"
case $target in
  @RELEASES@/*/k3s) rest=${target#@RELEASES@/}; say version "${rest%/k3s}" ;;
  *) [ -x @LINK@ ] &&
    say version "$(limited 'k3s --version' @LINK@ --version | awk 'NR==1 {print $3}')" ;;
esac
for d in @RELEASES@/*/; do
  [ -x "${d}k3s" ] || continue
  v=${d%/}; say release "${v##*/}" "$(cat "${d}k3s.sha256" 2>/dev/null)"
  for i in "$d"k3s-airgap-images-*.zst; do [ -f "$i" ] && say images "${v##*/}"; done
done
for f in @FILES@; do
  [ -f "$f" ] && say file "$f" "$(stat -c %a "$f")" "$(sha256sum < "$f" | cut -d' ' -f1)"
done
for f in @READABLE@; do
  [ -f "$f" ] && say text "$f" "$(@REDACT@ "$f" | base64 | tr -d '\n')"
done
for u in @UNITS@; do
  said=$(limited 'systemctl show' systemctl show "$u.service" -p ActiveState -p UnitFileState)
  if [ "$said" ]; then printf '%s\n' "$said" | sed "s/^/unit\t$u\t/"
  elif have systemctl; then say late 'systemctl show says nothing'; fi
done
db=@DATA@/server/db
if [ -d $db/etcd/member/wal ]; then say datastore etcd
elif [ -f $db/state.db ]; then say datastore sqlite; fi
[ -f $db/etcd/name ] && say member "$(cat $db/etcd/name)"
[ -f @DATA@/agent/client-kubelet.crt ] && say registered yes
[ -f /etc/rancher/node/password ] && say password yes
ca=@DATA@/server/tls/server-ca.crt
[ -f $ca ] && say ca "$(sha256sum < $ca | cut -d' ' -f1)"
say revision "$(@REVISION_COMMAND@)" "$(cat @REVISION@ 2>/dev/null)"
[ -f @MARK@ ] && say restoring "$(head -n 1 @MARK@)"
own=@DATA@/server/token
[ -s $own ] && say token "$(sed 's/^K10[^:]*::[^:]*://' $own | sha256sum | cut -d' ' -f1)"
say end
"""
)


def script() -> str:
    """The shell text of the fact."""
    text = _SCRIPT
    for name, value in {
        "LINK": k3s_config.LINK,
        "RELEASES": k3s_config.RELEASES,
        "FILES": " ".join(FILES),
        "READABLE": f"{k3s_config.CONFIG} {k3s_config.JOIN}",
        "REDACT": _REDACT,
        "UNITS": " ".join(UNITS),
        "DATA": k3s_config.DATA,
        "MARK": restore.MARK,
        "REVISION_COMMAND": k3s_config.REVISION_COMMAND,
        "REVISION": k3s_config.REVISION,
    }.items():
        text = text.replace(f"@{name}@", value)
    return text.strip()


@dataclass(frozen=True)
class File:
    """A file on the node: mode in octal as text, sha256 of its content."""

    mode: str
    sha256: str


@dataclass(frozen=True)
class Unit:
    """A systemd unit, in systemd's own words."""

    active: str = "inactive"
    enabled: str = ""

    @property
    def running(self) -> bool:
        """Whether the main process runs and said it is ready."""
        return self.active == "active"

    @property
    def down(self) -> bool:
        """Whether systemd neither runs it nor is about to."""
        return self.active in ("inactive", "failed")


@dataclass(frozen=True)
class K3s:
    """K3s on one node; every part may be absent."""

    link: str = ""
    version: str | None = None
    releases: dict[str, str] = field(default_factory=dict)  # version → sha256 it was checked with
    images: tuple[str, ...] = ()  # versions whose image tarball is on the node
    files: dict[str, File] = field(default_factory=dict)
    config: dict[str, Any] | None = None  # secret values redacted; None: absent or not YAML
    join: dict[str, Any] = field(default_factory=dict)
    units: dict[str, Unit] = field(default_factory=dict)
    datastore: str | None = None  # etcd, sqlite
    member: str = ""  # etcd member name
    ca: str = ""  # sha256 of the cluster's CA: the identity of the cluster
    registered: bool = False  # has joined as a node
    password: bool = False  # /etc/rancher/node/password is there
    revision: str = ""  # of what is on disk
    started_with: str = ""  # of what the process was started with
    token: str = ""  # sha256 of the server token that K3s itself has in force
    restoring: str = ""  # snapshot of a restore in which the server has not done its part
    late: tuple[str, ...] = ()  # what did not answer, so that this is not all

    def unit(self, name: str) -> Unit:
        """The unit of that name, a dead one when it does not exist."""
        return self.units.get(name, Unit())

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra --json`."""
        return asdict(self)


def _yaml(encoded: str) -> dict[str, Any] | None:
    """The keys of a file, secrets hidden, none when it is empty; None: it is not YAML with keys."""
    try:
        data = yaml.safe_load(base64.b64decode(encoded))
    except (yaml.YAMLError, binascii.Error, UnicodeDecodeError):
        return None
    if data is None:
        return {}
    if not isinstance(data, dict):
        return None
    secret = {key for key in data if str(key).removesuffix("+") in _SECRET_KEYS}
    return {key: "***" if key in secret and value else value for key, value in data.items()}


def _unit(values: dict[str, str]) -> Unit:
    return Unit(
        active=values.get("ActiveState", "inactive"),
        enabled=values.get("UnitFileState", ""),
    )


def parse(lines: list[str]) -> K3s:
    """Read the script's lines; raises ValueError when they end early."""
    found: dict[str, Any] = {"releases": {}, "files": {}}
    units: dict[str, dict[str, str]] = {}
    for key, rest in words(lines):
        match key:
            case "release":
                found["releases"][rest[0]] = rest[1]
            case "images" | "late":
                found[key] = (*found.get(key, ()), rest[0])
            case "file":
                found["files"][rest[0]] = File(mode=rest[1], sha256=rest[2])
            case "text" if rest[0] == k3s_config.CONFIG:
                found["config"] = _yaml(rest[1])
            case "text":
                found["join"] = _yaml(rest[1]) or {}
            case "unit":
                name, _, value = rest[1].partition("=")
                units.setdefault(rest[0], {})[name] = value
            case "revision":
                found["revision"], found["started_with"] = rest
            case "restoring":
                found[key] = restore.unfinished(rest[0])
            case "registered" | "password":
                found[key] = True
            case "link" | "version" | "datastore" | "member" | "ca" | "token":
                found[key] = rest[0]
    found["units"] = {name: _unit(values) for name, values in units.items()}
    found["version"] = found.get("version") or None
    return K3s(**found)


class K3sState(FactBase[K3s | None]):
    """K3s on the node: binary, files, units, datastore, and what the process was started with.

    ```
    pyinfra inventories/home.py fact facts.k3s.K3sState
    ```
    """

    def command(self) -> str:
        """One shell script; exits 0 on a bare host too."""
        return script()

    def process(self, output: list[str]) -> K3s:
        """The script's lines as a `K3s`."""
        try:
            return parse(output)
        except ValueError as error:
            raise FactProcessError(f"K3s on the host: {error}") from error


def k3s_state(host: Host) -> K3s:
    """K3s on a host, read once a phase.

    Raises PyinfraError when it cannot be read as a whole, which is not "nothing is there".
    """
    state = cached(host, K3sState, _ignore_errors=True, _timeout=LIMIT)
    if state is None or state.late:
        cause = f": {state.late[0]}" if state else ""
        raise PyinfraError(f"{host.name}: its K3s state cannot be read{cause}")
    return state


def seen(name: str, state: K3s) -> Seen:
    """What the plan needs of one node."""
    units = [state.unit(unit) for unit in UNITS]
    return Seen(
        name=name,
        datastore=state.datastore,
        running=any(unit.running for unit in units),
        version=state.version,
        ca=state.ca,
        registered=state.registered,
        password=state.password,
        restoring=state.restoring,
    )


def look(host: Host) -> Seen:
    """One node as it is now; unreached when it does not answer, which is not "absent"."""
    name = node_name(host)
    try:
        return seen(name, k3s_state(host))
    except PyinfraError as error:
        return Seen(name=name, reached=False, reason=str(error).removeprefix(f"{host.name}: "))


def taking_part(inventory: Inventory) -> set[str]:
    """Names of the hosts of this run."""
    return {node_name(host) for host in inventory.state.activated_hosts}


def survey(model: Cluster, inventory: Inventory) -> dict[str, Seen]:
    """Every server, inside --limit or not, and the agents of this run, by name."""
    active = taking_part(inventory)
    hosts = {node_name(host): host for host in inventory}
    names = [member.name for member in model.members if member.is_server or member.name in active]
    return {name: look(hosts[name]) for name in names}


def census(model: Cluster, inventory: Inventory) -> dict[str, Seen]:
    """Every member of the inventory, inside --limit or not, by name."""
    hosts = {node_name(host): host for host in inventory}
    return {member.name: look(hosts[member.name]) for member in model.members}


def held_by(state: K3s) -> Held:
    """The join tokens of a node."""
    server, agent = (
        state.files[path].sha256 if path in state.files else ""
        for path in (k3s_config.SERVER_TOKEN, k3s_config.AGENT_TOKEN)
    )
    return Held(server, agent, state.token)


def held(model: Cluster, inventory: Inventory) -> dict[str, Held]:
    """The join tokens of every server that can be read, inside --limit or not, by name."""
    hosts = {node_name(host): host for host in inventory}
    return {
        server.name: held_by(k3s_state(hosts[server.name]))
        for server in model.servers
        if look(hosts[server.name]).reached
    }
