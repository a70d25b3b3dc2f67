"""A cluster back from a snapshot: what was asked for, which snapshot, which steps are done. Pure.

The steps: K3s documentation, `k3s etcd-snapshot`, restoring with several servers. Each server
carries a mark with the step it has reached, so that a run which was killed is continued by the
next one with the same snapshot.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import StringIO
from pathlib import PurePosixPath
from typing import NamedTuple

from cluster import k3s_config
from cluster.k3s_plan import Seen
from cluster.leftovers import KEPT, RESTORE_UNIT
from cluster.model import Cluster
from cluster.problem import hint

SNAPSHOTS = f"{k3s_config.DATA}/server/db/snapshots"
MARK = f"{k3s_config.DATA}/restore"
FLAG = f"{k3s_config.DATA}/server/db/reset-flag"
S3 = "s3://"
# In the order in which a server reaches them: the one that restores, and the others.
STEPS = ("stopped", "restoring", "restored", "started")
OTHERS_STEPS = ("stopped", "cleared", "joined")


class BadRequest(ValueError):
    """The options on the command line make no sense; the text says why."""


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


class Snapshot(NamedTuple):
    """One snapshot; size in bytes, time in seconds since 1970."""

    name: str
    node: str
    size: int
    time: int
    location: str  # path on the node, or s3://bucket/folder/name
    datastore: str = "etcd"

    @property
    def taken(self) -> str:
        """When, in UTC."""
        return _utc(self.time)

    @property
    def in_s3(self) -> bool:
        """Whether it lies in a bucket."""
        return self.location.startswith(S3)


class Mark(NamedTuple):
    """What a server says about a restore; `id`: when it began, in seconds since 1970."""

    id: str
    step: str
    location: str


@dataclass(frozen=True)
class Server:
    """What one server has that matters for a restore.

    Args:
        snapshots: on its disks.
        mark: None when no restore is under way.
        tokens: sha256 of the tokens that were kept, by path.
        token: sha256 of the token in use, empty when there is none.
    """

    snapshots: tuple[Snapshot, ...] = ()
    mark: Mark | None = None
    tokens: Mapping[str, str] = field(default_factory=dict)
    token: str = ""


@dataclass(frozen=True)
class Request:
    """What `--data` says.

    Args:
        server: its key `from`.
        again: whether a restore that all servers have done begins anew (True) or only ends (False).
    """

    listing: bool = False
    snapshot: str = ""
    server: str = ""
    confirm: str = ""
    again: bool | None = None


@dataclass(frozen=True)
class Plan:
    """One restore: on which server, from what.

    Args:
        token: sha256 of the server token that opens the snapshot; empty when that is unknown.
        token_file: path of it on the server that restores; empty when it is the one in use.
        goes_on: whether an earlier run began it.
    """

    id: str
    server: str
    location: str
    datastore: str = "etcd"
    token: str = ""
    token_file: str = ""
    goes_on: bool = False

    @property
    def begun(self) -> str:
        """When it began, in UTC."""
        return _utc(int(self.id))

    @property
    def in_s3(self) -> bool:
        """Whether the snapshot lies in a bucket."""
        return self.location.startswith(S3)


def request(data: Mapping[str, object]) -> Request:
    """Read the options; raises BadRequest."""
    for key in ("list", "again"):
        if not isinstance(value := data.get(key, False), bool):
            raise BadRequest(f"{key}: {value!r}: expected true or false")
    listing = bool(data.get("list"))
    snapshot, server, confirm = (str(data.get(key, "")) for key in ("snapshot", "from", "confirm"))
    again = bool(data["again"]) if "again" in data else None
    wanted = Request(listing, snapshot, server, confirm, again)
    if not listing and not wanted.snapshot:
        raise BadRequest(
            "which snapshot? --data list=true shows them, --data snapshot=NAME restores one"
        )
    return wanted


def choose(wanted: Request, servers: Mapping[str, Server], s3: Sequence[Snapshot] = ()) -> Snapshot:
    """The snapshot that is meant: by name, by path, or `s3://…`.

    servers: the servers that were reached. s3: snapshots in the bucket, as far as they are known.
    Raises BadRequest.
    """
    local = [one for server in servers.values() for one in server.snapshots]
    if wanted.snapshot.startswith(S3):
        known = [one for one in s3 if one.location == wanted.snapshot]
        name = PurePosixPath(wanted.snapshot).name
        found = known[:1] or [Snapshot(name, "", 0, 0, wanted.snapshot)]
    else:
        found = [one for one in local if wanted.snapshot in (one.name, one.location)]
        found = found or [one for one in s3 if wanted.snapshot == one.name]
    if wanted.server and not (found and found[0].in_s3):
        found = [one for one in found if one.node == wanted.server] or _elsewhere(wanted, found)
    if not found:
        close = hint(wanted.snapshot, [one.name for one in (*local, *s3)])
        raise BadRequest(
            f"snapshot: {wanted.snapshot}: not on any server that was reached{close} "
            "(--data list=true shows them)"
        )
    if len(found) > 1:
        places = ", ".join(f"{one.node}:{one.location}" for one in found)
        raise BadRequest(
            f"snapshot: {wanted.snapshot}: there are {len(found)}, name the path: {places}"
        )
    return found[0]


def _elsewhere(wanted: Request, found: Sequence[Snapshot]) -> list[Snapshot]:
    if found:
        raise BadRequest(
            f"snapshot: {wanted.snapshot} lies on {found[0].node}, not on {wanted.server}: leave "
            f"from= out, or copy it to {wanted.server} first"
        )
    return []


def plan(
    cluster: Cluster, wanted: Request, snapshot: Snapshot, servers: Mapping[str, Server], new: str
) -> Plan:
    """The restore of this snapshot, the one under way when it is the same on the same server.

    new: identity of the restore when none is under way.
    """
    known, restorer = _under_way(snapshot, servers)
    server = wanted.server or snapshot.node or restorer or cluster.servers[0].name
    own = servers.get(server, Server())
    goes_on = bool(
        not wanted.again and own.mark and own.mark.id == known and restorer in ("", server)
    )
    path = token_of(snapshot, own.tokens)
    digest = own.tokens.get(path, "")
    return Plan(
        id=known if goes_on else new,
        server=server,
        location=snapshot.location,
        datastore=snapshot.datastore,
        token=digest,
        token_file=path if digest not in ("", own.token) else "",
        goes_on=goes_on,
    )


def _under_way(snapshot: Snapshot, servers: Mapping[str, Server]) -> tuple[str, str]:
    """Identity of the newest restore of a snapshot, and the server it began to restore on.

    Empty where servers know of none.
    """
    marks = {
        name: server.mark
        for name, server in servers.items()
        if server.mark and server.mark.location == snapshot.location
    }
    newest = max((mark.id for mark in marks.values()), key=int, default="")
    restorers = [
        name for name, mark in marks.items() if mark.id == newest and mark.step in STEPS[1:]
    ]
    return newest, restorers[0] if restorers else ""


def refusals(
    cluster: Cluster,
    wanted: Request,
    snapshot: Snapshot,
    plan: Plan,
    survey: Mapping[str, Seen],
    servers: Mapping[str, Server],
    taking_part: frozenset[str],
) -> list[str]:
    """Why the restore must not begin, one line each."""
    names = [server.name for server in cluster.servers]
    if plan.server not in names:
        return [f"from: {plan.server}: expected a server ({', '.join(names)})"]
    found = [
        f"{name} was not reached ({survey[name].reason}): a server that is left out would go on "
        "with the old state; all must take part"
        for name in names
        if not survey[name].reached
    ]
    found += [
        f"{name} is not part of this run: all servers must take part"
        for name in names
        if survey[name].reached and name not in taking_part
    ]
    found += _fit(cluster, snapshot, plan, survey, servers)
    found += _again(wanted, snapshot, plan, survey, servers)
    if not found and wanted.confirm != cluster.name:
        found += _unconfirmed(cluster, wanted, snapshot, plan)
    return found


def _fit(
    cluster: Cluster,
    snapshot: Snapshot,
    plan: Plan,
    survey: Mapping[str, Seen],
    servers: Mapping[str, Server],
) -> list[str]:
    found = []
    if snapshot.datastore != cluster.datastore:
        found.append(
            f"{snapshot.name} is of {snapshot.datastore}, and the cluster's datastore is "
            f"{cluster.datastore} (k3s.datastore)"
        )
    if snapshot.size == 0 and not snapshot.in_s3:
        found.append(f"{snapshot.name} is empty")
    if snapshot.in_s3 and not cluster.k3s.snapshots.s3:
        found.append("k3s.snapshots.s3 is not set, so K3s cannot read from a bucket")
    if survey[plan.server].reached and not survey[plan.server].version:
        found.append(f"{plan.server} has no K3s; run deploys/k3s.py first")
    return found + [
        f"{name} has no copy of the token of {snapshot.name}'s time: copy "
        f"{plan.server}:{plan.token_file or k3s_config.SERVER_TOKEN} to "
        f"{name}:{k3s_config.TOKENS}/{_time_in(snapshot.name) or snapshot.time}-{name} (0600) first"
        for name, server in servers.items()
        if plan.token and survey[name].version and not token_file(plan, server)
    ]


def _again(
    wanted: Request,
    snapshot: Snapshot,
    plan: Plan,
    survey: Mapping[str, Seen],
    servers: Mapping[str, Server],
) -> list[str]:
    """What only the operator can say: whether a restore that all servers have done goes on.

    Its marks stay when an agent does not come back, and look the same years later.
    """
    if wanted.again is False and not plan.goes_on:
        return [f"again: false: no restore of {snapshot.name} is under way; leave it out"]
    if wanted.again is not None or not plan.goes_on:
        return []
    for name, server in servers.items():
        last = "started" if name == plan.server else "joined"
        member = server.mark or survey[name].datastore
        if member and not reached(plan, server.mark, last):
            return []
    return [
        f"{snapshot.name} is back on all servers since the restore that began {plan.begun} UTC and "
        "did not end: --data again=false restarts the agents and ends it; --data again=true puts "
        "the snapshot back once more, and what was written since then is lost"
    ]


def token_of(snapshot: Snapshot, tokens: Mapping[str, str]) -> str:
    """Path of the kept token that was in force when a snapshot was taken; empty when unknown.

    tokens: as in `Server`; their files are named as `k3s_config.KEEP_TOKEN` says.
    """
    taken = _time_in(snapshot.name) or snapshot.time  # a copied file has the time of its copy
    before = [
        (int(since[1]), path)
        for path in tokens
        if (since := re.match(r"(\d+)-", PurePosixPath(path).name)) and int(since[1]) <= taken
    ]
    return max(before)[1] if before else ""


def _time_in(name: str) -> int:
    """When a snapshot was taken, as K3s' name for it tells; 0 when it does not."""
    found = re.search(r"-(\d{10})(\.zip)?$", name)
    return int(found[1]) if found else 0


def token_file(plan: Plan, server: Server) -> str:
    """Path on a server of the token that the snapshot needs; empty when it has none."""
    if server.token == plan.token:
        return k3s_config.SERVER_TOKEN
    return next((path for path, digest in server.tokens.items() if digest == plan.token), "")


def _unconfirmed(cluster: Cluster, wanted: Request, snapshot: Snapshot, plan: Plan) -> list[str]:
    typed = f"{wanted.confirm!r} is not its name" if wanted.confirm else "its name is not typed"
    others = [server.name for server in cluster.servers if server.name != plan.server]
    when = f", taken {snapshot.taken} UTC" if snapshot.time else ""
    lines = [
        f"restore of cluster {cluster.name} from {snapshot.name}{when}: {typed}; it would",
        course(plan),
        f"stop K3s on {', '.join(server.name for server in cluster.servers)}; pods go on running",
        f"put the snapshot in place of the datastore of {plan.server}: what was written since "
        "then is lost",
    ]
    if others:
        lines.append(f"delete the datastore of {', '.join(others)} and let them join again")
    if plan.token_file:
        lines.append(
            f"put the server token of that time in force again, kept on {plan.server} in "
            f"{plan.token_file}; deploys/tokens.py then rotates to that of the secrets "
            "(k3s.server_token)"
        )
    return [*lines, f"to do it, add --data confirm={cluster.name}"]


def course(plan: Plan) -> str:
    """Whether the restore begins or goes on."""
    if not plan.goes_on:
        return "begin with the first step"
    return f"go on with the one that began {plan.begun} UTC, without the steps that are done"


def reached(plan: Plan, mark: Mark | None, step: str) -> bool:
    """Whether a server has done a step of this very restore."""
    if mark is None or mark.id != plan.id:
        return False
    return any(
        {step, mark.step} <= set(steps) and steps.index(mark.step) >= steps.index(step)
        for steps in (STEPS, OTHERS_STEPS)
    )


def is_stopped(plan: Plan, mark: Mark | None, down: bool) -> bool:
    """Whether a server must not be stopped in this restore: it is down, or beyond its old state.

    The mark alone does not say so: somebody may have started K3s again after a restore that failed.
    down: whether K3s does not run there.
    """
    beyond = reached(plan, mark, "restored") or reached(plan, mark, "cleared")
    return beyond or (down and reached(plan, mark, "stopped"))


def strangers(cluster: Cluster, nodes: Mapping[str, object]) -> list[str]:
    """Nodes that came back with the snapshot but are not in the inventory."""
    return [
        f"{name} is in the snapshot but not in the inventory; if it is gone for good: "
        f"pyinfra INVENTORY deploys/reset.py --data forget={name}"
        for name in sorted(nodes)
        if cluster.member(name) is None
    ]


def token_word(snapshot: Snapshot, server: Server) -> str:
    """Which token opens a snapshot: `in use`, the start of its sha256, or `?`.

    server: what the server that took the snapshot has.
    """
    digest = server.tokens.get(token_of(snapshot, server.tokens), "")
    return "in use" if digest and digest == server.token else digest[:12] or "?"


def table(snapshots: Iterable[Snapshot], servers: Mapping[str, Server], width: int) -> str:
    """Snapshots as a table for people, newest last; width in characters."""
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    rows = Table(box=None, pad_edge=False)
    for title in ("SNAPSHOT", "NODE", "SIZE", "TAKEN (UTC)", "TOKEN", "WHERE"):
        rows.add_column(title, overflow="fold", justify="right" if title == "SIZE" else "left")
    for one in sorted(snapshots, key=lambda one: (one.time, one.node)):
        folder = str(PurePosixPath(one.location).parent)
        where = {SNAPSHOTS: "snapshots", f"{k3s_config.DATA}/server": "copies"}.get(folder, folder)
        size = decimal(one.size) if one.size else "?"
        token = token_word(one, servers.get(one.node, Server()))
        rows.add_row(one.name, one.node, size, one.taken if one.time else "?", token, where)
    out = StringIO()
    Console(file=out, width=width, no_color=True).print(rows)
    return out.getvalue().rstrip()


# --- shell


def find_script(folder: str) -> str:
    """Shell text that tells what a server has; see `facts.snapshots`.

    folder: where K3s writes snapshots.
    """
    return f"""
say() {{ key=$1; shift; printf '%s' "$key"; printf '\\t%s' "$@"; printf '\\n'; }}
for f in {shlex.quote(folder)}/* {KEPT}/*/*; do
  [ -f "$f" ] || continue
  case $f in *.part|*.tmp) continue ;; esac
  say etcd "$(stat -c %s "$f")" "$(stat -c %Y "$f")" "$f"
done
for d in {k3s_config.DATA}/server/db-* {KEPT}/*/db-*; do
  [ -f "$d/state.db" ] || continue
  say sqlite "$(du -sb "$d" | cut -f1)" "$(stat -c %Y "$d/state.db")" "$d"
done
for f in {k3s_config.TOKENS}/* {KEPT}/*/tokens/*; do
  [ -f "$f" ] && say kept "$f" "$(sha256sum < "$f" | cut -d' ' -f1)"
done
t={k3s_config.SERVER_TOKEN}; [ -f $t ] && say token "$(sha256sum < $t | cut -d' ' -f1)"
[ -f {MARK} ] && say mark "$(head -n 1 {MARK})"
echo end
""".strip()


def mark_command(plan: Plan, step: str) -> str:
    """Shell text that writes the mark of a step."""
    line = shlex.quote(f"{plan.id} {step} {plan.location}")
    return (
        f"umask 077; mkdir -p {k3s_config.DATA}; printf '%s\\n' {line} > {MARK}.new && "
        f"mv -f {MARK}.new {MARK}"
    )


def read_mark(line: str) -> Mark | None:
    """The mark of a line; None when it is not one."""
    id, _, rest = line.partition(" ")
    step, _, location = rest.partition(" ")
    known = id.isdigit() and step in (*STEPS, *OTHERS_STEPS) and location
    return Mark(id, step, location) if known else None


def unfinished(line: str) -> str:
    """The snapshot that the server with this mark waits for; empty when it has done its part."""
    mark = read_mark(line)
    done = (STEPS[-1], OTHERS_STEPS[-1])
    return mark.location if mark and mark.step not in done else ""


def stop_script(plan: Plan) -> str:
    """Stop K3s and keep it down over a reboot: old servers could find a quorum of their own."""
    return (
        f"systemctl stop {RESTORE_UNIT} 2> /dev/null; "
        "systemctl disable --quiet k3s.service 2> /dev/null; systemctl stop k3s.service; "
        f"case $(systemctl is-active k3s.service) in active|deactivating) exit 1 ;; esac; "
        f"{mark_command(plan, 'stopped')}"
    )


def restore_script(plan: Plan) -> str:
    """Start the restore as a unit of its own, which outlives the connection.

    K3s refuses a reset with a server to join, so the one of its configuration is overridden; the
    file stays, since a start after a restore that failed must join and never create. The token is
    read from the file that config.yaml names, or from a kept one, which replaces it only after
    the restore.
    """
    token = f" --token-file={shlex.quote(plan.token_file)}" if plan.token_file else ""
    path = PurePosixPath(plan.location).name if plan.in_s3 else plan.location
    return (
        f"systemctl stop {RESTORE_UNIT} 2> /dev/null; "
        f"systemctl reset-failed {RESTORE_UNIT} 2> /dev/null; "
        f"rm -f {FLAG}; {mark_command(plan, 'restoring')} && "
        f"systemd-run --quiet --no-block --unit={RESTORE_UNIT} "
        "-p Type=oneshot -p RemainAfterExit=yes "
        "-p EnvironmentFile=-/etc/systemd/system/k3s.service.env "
        f"{k3s_config.LINK} server --cluster-reset --server= "
        f"--cluster-reset-restore-path={shlex.quote(path)} --etcd-s3={str(plan.in_s3).lower()}"
        f"{token}"
    )


def token_script(path: str) -> str:
    """Put a kept token in force, the one that is there being kept first."""
    token = k3s_config.SERVER_TOKEN
    return (
        f"({k3s_config.KEEP_TOKEN}) && install -m 600 {shlex.quote(path)} {token}.new && "
        f"mv -f {token}.new {token}"
    )


def copy_script(plan: Plan) -> str:
    """Put a copy of sqlite's files in place of the datastore; the one that is there is kept."""
    db = f"{k3s_config.DATA}/server/db"
    return (
        f"set -e; rm -rf {db}.new; cp -a {shlex.quote(plan.location)} {db}.new; "
        f"if [ -e {db} ]; then mv {db} {db}-replaced-$(date +%s); fi; mv {db}.new {db}; "
        f"{mark_command(plan, 'restored')}"
    )


def clear_script(plan: Plan) -> str:
    """Remove the datastore of another server, and what was made from it; snapshots stay.

    Certificates and keys go as one set: K3s refuses files that are newer than the datastore's.
    """
    server = f"{k3s_config.DATA}/server"
    return (
        f"rm -rf {server}/db/etcd {server}/db/etcd-tmp {FLAG} "
        f"{server}/tls {server}/cred {server}/token {server}/agent-token {server}/node-token; "
        f"{mark_command(plan, 'cleared')}"
    )
