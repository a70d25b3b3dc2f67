"""Helm on the servers: each function runs the pinned helm there, over pyinfra's connection."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from gevent.lock import BoundedSemaphore
from paramiko import SSHException
from pyinfra.api import Host, State, StringCommand

from cluster import chart_values, helm_text, k3s_config, programs, versions
from cluster.answer import Present
from cluster.component import COMPONENT
from cluster.helm_release import (
    RECORDS,
    RELEASE_NAME,
    RELEASE_NAMESPACE,
    Action,
    HelmRelease,
    RecordError,
    Wanted,
    decode,
    failed,
    latest,
)
from cluster.helm_text import Rendered as Rendered
from cluster.manifest import ManifestError, load
from cluster.objects import ref
from cluster.probe import Done, Failed, Pending, Probe
from cluster.readiness import Completed
from cluster.versions import Chart
from facts.helm import read_release
from facts.live import Live
from operations import chart_crds, kube_ready
from runtime import signals, trace
from runtime.api import SECRET, SERVERS, Api, Kind, Object, api_of
from runtime.endpoint import ApiError, connect, quietly, value_of
from runtime.wait import wait

Say = Callable[[str], None]
Observer = Callable[[str, tuple[str, ...]], None]  # server, argv


def _traced(server: str, argv: tuple[str, ...]) -> None:
    trace.note({"server": server, "helm": argv})


observers: list[Observer] = [_traced]  # called with every helm that is started

CHARTS = "/var/lib/picluster/charts"
HOME = "/var/lib/picluster/helm"
PROGRAM = programs.HELM.path(versions.HELM)
LOCKS = "/run/lock/picluster"
ADOPTED = "picluster.io/adopted"  # label of a release that has taken objects over
JOURNAL = "picluster-helm"  # what journalctl -t calls the servers' record of every helm
READ_TIMEOUT = 120.0  # seconds for a chart to be fetched or rendered
SPARE = 30.0  # seconds a helm gets beyond its own limit
AT_ONCE = 3  # helms on one server: each takes about 100 MB
READY_WAIT = 60.0  # seconds in which a server has to be ready
STALE_WAIT = 120.0  # seconds a helm of a run that is gone may still need
FOREIGN_AGE = 300.0  # seconds after which a helm of somebody else is taken for dead
BUSY, MISSING = 75, 127  # exit codes of the script below
TIMED_OUT, KILLED = 124, 137  # and of timeout(1)
_ENDED = "#helm-ended:"

# Arguments: name of the lock or "", seconds, path of helm, its arguments. The lock is held by helm
# itself, so it lasts as long as helm does, whatever becomes of the connection.
_SCRIPT = f"""
umask 077
lock=$1 limit=$2; shift 2
if [ -n "$lock" ]; then
  mkdir -p {LOCKS}; exec 9> "{LOCKS}/$lock"
  flock -n 9 || {{ echo "{_ENDED}{BUSY}" >&2; exit {BUSY}; }}
fi
export KUBECONFIG={k3s_config.KUBECONFIG} HOME={HOME} HELM_CACHE_HOME={HOME}/cache
export HELM_CONFIG_HOME={HOME}/config HELM_DATA_HOME={HOME}/data
mkdir -p {HOME}
[ -x "$1" ] || {{ echo "{_ENDED}{MISSING}" >&2; exit {MISSING}; }}
logger -t {JOURNAL} -- "$*" || true
exec 3<&0  # a shell takes standard input from what it starts in the background
timeout --kill-after=10 "$limit" "$@" <&3 3<&- &
child=$!
[ -z "$lock" ] || echo "$child" > "{LOCKS}/$lock.pid"
wait "$child"; code=$?
echo "{_ENDED}$code" >&2
exit "$code"
"""


class HelmError(Exception):
    """Helm failed, or could not be run; the text is the cause, one line."""


class ServerLost(HelmError):
    """The server went away while helm ran, or could not be asked."""


@dataclass(frozen=True)
class Result:
    """How a helm ended."""

    code: int
    out: str
    error: str


class _Places:
    """Where helms run in a run."""

    def __init__(self) -> None:
        self.busy: Counter[str] = Counter()
        self.turn = 0
        self.slots: dict[str, BoundedSemaphore] = {}

    def slot(self, name: str) -> BoundedSemaphore:
        return self.slots.setdefault(name, BoundedSemaphore(AT_ONCE))

    def order(self, hosts: Sequence[Host]) -> list[Host]:
        """The servers, those with fewest helms first, and in turn among equals."""
        first = self.turn % max(len(hosts), 1)
        self.turn += 1
        return sorted((*hosts[first:], *hosts[:first]), key=lambda host: self.busy[host.name])


_PLACES: WeakKeyDictionary[State, _Places] = WeakKeyDictionary()


def _places(state: State) -> _Places:
    return _PLACES.setdefault(state, _Places())


def pick_server(state: State, avoid: Sequence[str] = (), say: Say = lambda line: None) -> Host:
    """A server whose API is ready and that can be reached, one with few helms.

    Waits up to READY_WAIT: when a server dies, etcd on the others is not ready for some seconds.

    Args:
        avoid: names of servers that were lost.
        say: gets a line while none is ready.

    Raises: HelmError.
    """
    api, places = api_of(state), _places(state)
    found: list[Host] = []

    def look() -> Probe:
        causes = []
        for host in places.order(state.inventory.get_group(SERVERS)):
            if host.name in avoid:
                continue
            match api.ready(host.name):
                case Present():
                    found.append(host)
                    return Done()
                case answer:
                    causes.append(answer.reason)
        return Pending("; ".join(causes)) if causes else Failed("all were lost")

    if cause := wait(look, timeout=READY_WAIT, say=say):
        raise HelmError(f"no server can run helm: {cause}")
    return found[0]


def run(
    server: Host,
    argv: Sequence[str],
    stdin: str = "",
    *,
    timeout: float = READ_TIMEOUT,
    lock: str = "",
) -> Result:
    """Run `helm <argv>` on a server as root; it ends within the time-out, come what may.

    When the run is broken off, a helm with a lock is ended as well.

    Args:
        stdin: what helm reads, e.g. values.
        timeout: seconds.
        lock: name of what nobody else may work on at the same time on this server.

    Raises: ServerLost; HelmError when the lock is held or helm is not there.
    """
    places = _places(server.state)
    key = f"helm {server.name} {lock}"
    with places.slot(server.name):
        for observer in observers:
            observer(server.name, tuple(argv))
        places.busy[server.name] += 1
        if lock:
            signals.push(key, f"ending helm on {server.name}", partial(cancel, server, lock))
        try:
            result = _run(server, argv, stdin, timeout, lock)
        except Exception:
            signals.drop(key)  # not when the greenlet is killed: then it has to be ended
            raise
        finally:
            places.busy[server.name] -= 1
        signals.drop(key)
    if result.code == BUSY and lock:
        raise HelmError(f"another helm is at work on {lock} on {server.name}")
    if result.code == MISSING:
        raise HelmError(f"{PROGRAM} is not on {server.name}")
    return result


def _run(server: Host, argv: Sequence[str], stdin: str, timeout: float, lock: str) -> Result:
    arguments = (lock, str(int(timeout)), PROGRAM, *argv)
    out, error = _shell(server, _SCRIPT, arguments, stdin, timeout + SPARE)
    for number, line in enumerate(error):
        if line.startswith(_ENDED):
            code = int(line.removeprefix(_ENDED))
            text = "\n".join(error[:number] + error[number + 1 :])
            return Result(code, "\n".join(out), text)
    raise ServerLost(f"{server.name} was lost while helm ran")


def _shell(
    server: Host, script: str, arguments: Iterable[str], stdin: str, timeout: float
) -> tuple[list[str], list[str]]:
    """Run a script on a server as root without showing it; the lines of its two outputs."""
    words = [shlex.quote(word) for word in (script, "helm", *arguments)]
    try:
        connect(server)
        command = StringCommand("sh", "-c", *words)
        _, output = quietly(server, command, _stdin=stdin or None, _timeout=int(timeout))
    except ApiError as error:
        raise ServerLost(str(error)) from None
    except TimeoutError:
        raise ServerLost(f"{server.name} did not answer within {timeout:.0f} s") from None
    except (SSHException, OSError, EOFError) as error:
        raise ServerLost(f"{server.name} was lost: {error}") from None
    return list(output.stdout_lines), list(output.stderr_lines)


def cancel(server: Host, lock: str) -> None:
    """End the helm that holds a lock on a server, as Ctrl-C would."""
    file = f"{LOCKS}/{lock}"
    script = f'flock -n "{file}" true || kill -TERM "$(cat "{file}.pid")"'
    _shell(server, script, (), "", SPARE)


def _done(result: Result, what: str) -> str:
    """What a helm printed; raises HelmError when it failed."""
    if result.code == 0:
        return result.out
    if result.code == TIMED_OUT:
        raise HelmError(f"{what}: helm did not end in time")
    if result.code == KILLED:
        raise HelmError(f"{what}: helm was killed, for want of memory or because it did not end")
    raise HelmError(f"{what}: {helm_text.failure(result.error or result.out)}")


# --- charts


def pull_chart(server: Host, chart: Chart, repository: str | None = None) -> str:
    """Path of the chart's archive on the server, fetched when it is not there.

    Args:
        repository: a repository that has all charts, in place of the chart's own.

    Raises: HelmError.
    """
    reference, options = helm_text.source(chart, repository)
    folder = f"{CHARTS}/{helm_text.place(reference, options)}"
    path, part = f"{folder}/{chart.name}-{chart.version}.tgz", f"{folder}/{chart.version}.part"
    there = f'[ -s "{path}" ] && echo there || {{ rm -rf "{part}"; mkdir -p "{part}"; }}'
    if "there" in _shell(server, there, (), "", SPARE)[0]:
        return path
    argv = ["pull", reference, *options, "--version", chart.version, "--destination", part]
    what = f"chart {chart.name} {chart.version} from {repository or chart.repo}"
    _done(run(server, argv, lock=f"chart.{chart.name}"), what)
    moved = f'mv -f "{part}"/*.tgz "{path}" && rm -rf "{part}" && echo moved'
    if "moved" not in _shell(server, moved, (), "", SPARE)[0]:
        raise HelmError(f"{what}: {path} cannot be written")
    return path


def render(server: Host, archive: str, wanted: Wanted, kubernetes: str) -> Rendered:
    """What helm would apply, without asking the cluster.

    Args:
        kubernetes: version of the cluster, e.g. v1.36.3.

    Raises: HelmError.
    """
    argv = [
        *("template", wanted.name, archive, "--namespace", wanted.namespace, "--values", "-"),
        *("--include-crds", "--no-hooks", "--skip-tests", "--kube-version", kubernetes),
    ]
    what = f"{wanted.chart.name} {wanted.chart.version}"
    text = _done(run(server, argv, helm_text.values(wanted.values)), what)
    try:
        return helm_text.rendered(text)
    except ManifestError as error:
        raise HelmError(f"{what}: its manifest cannot be read: {error}") from None


def known_values(server: Host, archive: str) -> dict[str, Any]:
    """The chart's default values, with an empty map for each chart it contains.

    Raises: HelmError.
    """
    what = f"chart {archive.rpartition('/')[2]}"
    try:
        values = next(load(_done(run(server, ["show", "values", archive]), what)), None) or {}
        about = next(load(_done(run(server, ["show", "chart", archive]), what)), None) or {}
    except ManifestError as error:
        raise HelmError(f"{what}: {error}") from None
    parts = about.get("dependencies") or ()
    return {str(part.get("alias") or part["name"]): {} for part in parts} | values


# --- releases


def _limit(seconds: float) -> float:
    """What helm may take when its hooks before and those after may take so many seconds each."""
    return 2 * seconds + SPARE


def upgrade(server: Host, archive: str, wanted: Wanted, *, adopt: bool = False) -> None:
    """Install or upgrade a release without waiting for its pods; hand edits are put back.

    Args:
        adopt: take over objects that are there without the release.

    Raises: HelmError.
    """
    labels = [f"{COMPONENT}={wanted.component}", *([f"{ADOPTED}=true"] if adopt else [])]
    argv = [
        *("upgrade", wanted.name, archive, "--install", "--namespace", wanted.namespace),
        *("--values", "-", "--reset-values", "--skip-crds", "--server-side=true"),
        *("--force-conflicts", "--history-max", "3", "--hide-notes"),
        *("--labels", ",".join(labels), "--timeout", f"{wanted.timeout}s"),
        *(["--take-ownership"] if adopt else []),
    ]
    values = helm_text.values(wanted.values)
    result = run(server, argv, values, timeout=_limit(wanted.timeout), lock=_lock(wanted))
    _done(result, f"helm upgrade of {wanted.name}")


def rollback(server: Host, wanted: Wanted, revision: int) -> None:
    """Go back to a revision, for components that say so, and never with objects taken over.

    Raises: HelmError.
    """
    if wanted.on_failure != "rollback" or _has_adopted(server, wanted):
        raise HelmError(f"{wanted.name} is never rolled back")
    argv = [
        *("rollback", wanted.name, str(revision), "--namespace", wanted.namespace),
        *("--server-side=true", "--force-conflicts", "--history-max", "3"),
        *("--timeout", f"{wanted.timeout}s"),
    ]
    result = run(server, argv, timeout=_limit(wanted.timeout), lock=_lock(wanted))
    _done(result, f"helm rollback of {wanted.name}")


def _has_adopted(server: Host, wanted: Wanted) -> bool:
    """Whether the release has taken objects over, or may have."""
    found = _recorded(api_of(server.state), wanted)
    return found is None or ADOPTED in found.labels


def uninstall(server: Host, namespace: str, name: str, timeout: float = 300.0) -> None:
    """Remove a release whose removal was asked for. Raises: HelmError."""
    argv = ["uninstall", name, "--namespace", namespace, "--timeout", f"{timeout:.0f}s"]
    result = run(server, argv, timeout=_limit(timeout), lock=f"{namespace}.{name}")
    _done(result, f"helm uninstall of {name}")


def repair(state: State, wanted: Wanted, say: Say) -> None:
    """Let a release that was left pending be upgraded again; nothing of it is removed.

    Helm refuses a pending release and goes on from a failed one, so its record is marked failed,
    once no helm of ours works on it any more. Raises: HelmError.
    """
    api = api_of(state)
    found = _recorded(api, wanted)
    if found is None or not found.pending:
        return
    _wait_for_helms(state, wanted, say)
    _refuse_foreign(found)
    try:
        secret = _record(api, wanted)
        if not decode(secret).pending:
            return
        marked = failed(secret, f"was broken off as {found.status}")
        metadata = marked["metadata"]
        body = {
            "metadata": {key: metadata[key] for key in ("labels", "resourceVersion")},
            "data": marked["data"],
        }
        api.patch(SECRET, metadata["name"], body, wanted.namespace)
    except (ApiError, RecordError) as error:
        raise HelmError(f"record of {wanted.name}: {error}") from None
    say(f"revision {found.revision} was left {found.status}: it is marked failed")


def _recorded(api: Api, wanted: Wanted) -> HelmRelease | None:
    """The newest revision; raises HelmError."""
    try:
        return value_of(read_release(api, wanted.namespace, wanted.name))
    except ApiError as error:
        raise HelmError(f"record of {wanted.name}: {error}") from None


def _record(api: Api, wanted: Wanted) -> Object:
    """The record of the newest revision; raises ApiError, KeyError."""
    match api.list(SECRET, wanted.namespace, labels=f"{RECORDS},name={wanted.name}"):
        case Present(value=secrets):
            return latest(secrets)[wanted.namespace, wanted.name]
        case answer:
            raise ApiError(answer)


def _wait_for_helms(state: State, wanted: Wanted, say: Say) -> None:
    """Until no server that can be asked has a helm of ours at work on the release."""
    script = f'mkdir -p {LOCKS}; flock -n "{LOCKS}/{_lock(wanted)}" echo free'
    deadline = time.monotonic() + STALE_WAIT
    for server in state.inventory.get_group(SERVERS):
        said = False
        while True:
            try:
                if "free" in _shell(server, script, (), "", SPARE)[0]:
                    break
            except ServerLost:
                break
            if signals.stopping() or time.monotonic() > deadline:
                raise HelmError(f"a helm still works on {wanted.name} on {server.name}")
            if not said:
                say(f"waiting for the helm of an earlier run on {server.name}")
                said = True
            time.sleep(1)


def _refuse_foreign(found: HelmRelease) -> None:
    """Leave somebody else's helm alone while it may be alive."""
    age = time.time() - found.modified
    if COMPONENT not in found.labels and found.modified and age < FOREIGN_AGE:
        raise HelmError(
            f"{found.namespace}/{found.name} is {found.status} for {age:.0f} s and was not begun "
            f"by us: somebody may be at work; run again after {FOREIGN_AGE / 60:.0f} minutes"
        )


def _lock(wanted: Wanted) -> str:
    return f"{wanted.namespace}.{wanted.name}"


def carry_out(
    state: State,
    wanted: Wanted,
    action: Action,
    say: Say,
    *,
    repository: str | None = None,
    given: Mapping[str, Any] | None = None,
    before: Callable[[Rendered], str | None] = lambda rendered: None,
) -> str | None:
    """Do what was decided on a healthy server, on the next one when it is lost.

    Args:
        repository: a repository that has all charts, in place of their own.
        given: the user's own part of the values; a key that the chart does not know is refused.
        before: called with what the chart makes, before helm changes anything: applies CRDs;
            returns a cause to stop, None to go on.

    Returns: None when it is done, else the cause, one line.
    """
    if not action.changes:
        return None
    for reason in action.reasons:
        say(f"{action.kind}: {reason}")
    lost: list[str] = []
    while True:
        try:
            server = pick_server(state, lost, say)
            try:
                return _carry_out(state, server, wanted, action, say, repository, given, before)
            except ServerLost as error:
                say(f"{error}; trying another server")
                lost.append(server.name)
        except HelmError as error:
            return str(error)


def _carry_out(
    state: State,
    server: Host,
    wanted: Wanted,
    action: Action,
    say: Say,
    repository: str | None,
    given: Mapping[str, Any] | None,
    before: Callable[[Rendered], str | None],
) -> str | None:
    api = api_of(state)
    if action.kind == "uninstall":
        uninstall(server, wanted.namespace, wanted.name, wanted.timeout)
        _noted(lambda: chart_crds.forget(api, wanted.namespace, wanted.name))
        return None
    archive = pull_chart(server, wanted.chart, repository)
    if given:
        known = known_values(server, archive)
        if wrong := chart_values.problems(wanted.component, given, known):
            raise HelmError("; ".join(map(str, wrong)))
    match api.version():
        case Present(value=kubernetes):
            pass
        case answer:
            raise HelmError(str(answer))
    made = render(server, archive, wanted, kubernetes)
    if cause := before(made):
        return cause
    _noted(lambda: chart_crds.remember(api, wanted, made.crds))
    if action.kind == "crds":
        return None
    repair(state, wanted, say)
    good = _deployed(api, wanted)
    # Helm refuses what is there without it, also after a first install that broke off.
    taken = _existing(api, made, wanted) if good is None else []
    if taken:
        say(f"takes over what exists already: {', '.join(taken)}")
    try:
        upgrade(server, archive, wanted, adopt=bool(taken))
    except ServerLost:
        raise
    except HelmError as error:
        why = "; ".join([str(error), *_behind_hooks(api, wanted)])
        if wanted.on_failure != "rollback" or good is None:
            raise HelmError(why) from None
        rollback(server, wanted, good)
        return f"{why}; rolled back to revision {good}"
    return None


def _behind_hooks(api: Api, wanted: Wanted) -> list[str]:
    """Why a hook's Job is not done, of which helm only says that its time is over."""
    try:
        found = _recorded(api, wanted)
        jobs = [ref(item) for item in found.hooks if item["kind"] == "Job"] if found else []
        checks = [Completed(job.name, job.namespace or wanted.namespace) for job in jobs]
        why = kube_ready.explain(api, checks)
    except (HelmError, ManifestError, ApiError):
        return []
    return [why.text] if why else []


def _noted(note: Callable[[], None]) -> None:
    try:
        note()
    except ApiError as error:
        raise HelmError(f"CRDs cannot be noted: {error}") from None


def _existing(api: Api, rendered: Rendered, wanted: Wanted) -> list[str]:
    """Live objects of nobody's that the release would make; raises HelmError for another's."""
    live, found = Live(api), []
    for item in rendered.objects:
        which = ref(item)
        if which.namespace is None and api.namespaced(Kind(which.api_version, which.kind)):
            which = which._replace(namespace=wanted.namespace)
        if (there := live.look(which)) is None:
            continue
        notes = there["metadata"].get("annotations") or {}
        owner = (notes.get(RELEASE_NAMESPACE), notes.get(RELEASE_NAME))
        if owner == (wanted.namespace, wanted.name):
            continue
        if any(owner):
            raise HelmError(f"{which} belongs to Helm's release {owner[0]}/{owner[1]}")
        found.append(str(which))
    return found


def _deployed(api: Api, wanted: Wanted) -> int | None:
    """The revision that is deployed."""
    labels = f"owner=helm,status=deployed,name={wanted.name}"
    match api.list(SECRET, wanted.namespace, labels=labels, metadata_only=True):
        case Present(value=secrets):
            found = latest(secrets).get((wanted.namespace, wanted.name))
        case _:
            return None
    return int(found["metadata"]["labels"]["version"]) if found else None
