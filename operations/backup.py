"""Backups of a host with restic: the repository, once, and what each host has for them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from shlex import quote

from pyinfra import host
from pyinfra.api import FunctionCommand, Host, State, StringCommand, operation
from pyinfra.api.command import PyinfraCommand, QuoteString

from cluster.answer import Absent, Answer, Present
from cluster.host_state import HostState
from cluster.managed import METRICS, UNITS
from cluster.model import Cluster
from cluster.services import backup
from facts.node import host_state
from operations import config_files, secret, text
from operations.flow import ended
from runtime.endpoint import quietly
from runtime.run import cluster
from runtime.secrets import Secret, SecretsUnavailable, rendered

Commands = Generator[PyinfraCommand, None, None]

TOOL = Path(__file__).with_name("tools") / "backup.py"
READ_LIMIT = 60  # seconds restic may try to reach the repository
# The last one belongs to the node exporter where that is installed: only made, never changed.
FOLDERS = {backup.STATE: "0700", backup.CACHE: "0700", METRICS: "0755"}

# Password and keys come by standard input and stay nowhere; the CA is public.
_RESTIC = r"""umask 077
if [ -n "$CA" ]; then
  file=$(mktemp); trap 'rm -f "$file"' EXIT
  printf '%s\n' "$CA" > "$file"; set -- --cacert "$file" "$@"
fi
set -a; . /dev/stdin; set +a
timeout "$LIMIT" restic --no-cache "$@"
"""


def environment(model: Cluster) -> Secret:
    """The environment file of a host."""
    return rendered(
        "the repository's password and keys", lambda values: backup.environment(model, values)
    )


@operation()
def repository() -> Commands:
    """The repository, made only where the answer is that there is none.

    One host asks for all of them. A repository with another password, or one that cannot be
    reached, ends the run before any host has got new keys.
    """
    now = host_state(host, cluster())
    if not now.installed(backup.PACKAGE):
        host.log("the repository can be looked at when restic is installed")
        yield FunctionCommand(make_repository, (), {})
        return
    try:
        found = look(host)
    except SecretsUnavailable as error:
        host.log(f"the repository cannot be looked at without the key: {error}")
        return
    if isinstance(found, Present):
        host.noop("the repository is there")
        return
    host.log(f"the repository: {found}")
    yield FunctionCommand(make_repository, (), {})


def make_repository(state: State, host: Host) -> bool:
    """Look at the repository and make it when it is absent; False with the cause otherwise."""
    where = backup.repository(cluster())
    match look(host):
        case Present():
            return True
        case Absent():
            host.log(f"makes the repository {where}")
            code, said = _restic(host, "init")
            return ended(host, f"{where}: {said.strip()}" if code else None)
        case other:
            return ended(host, f"{where}: {other}; nothing was made there")


def look(host: Host) -> Answer[None]:
    """What the host sees of the repository with the keys of the secrets."""
    return backup.answer(*_restic(host, "cat", "config"))


def _restic(host: Host, *words: str) -> tuple[int, str]:
    """Run restic with the keys of the secrets; exit code, and what it complained about."""
    model = cluster()
    given = environment(model)
    given.unmask()  # without the key it fails here, not on the host
    ca = (model.backup.ca or "").strip() if backup.needs_ca(model) else ""
    script = f"LIMIT={READ_LIMIT} CA={quote(ca)}\n({_RESTIC}); echo $?"
    command = StringCommand("sh", "-c", QuoteString(script), "sh", *map(QuoteString, words))
    _, output = quietly(host, command, _stdin=given, _timeout=READ_LIMIT + 30)
    lines = output.stdout_lines
    code = int(lines[-1]) if lines and lines[-1].isdigit() else 1
    return code, "\n".join(output.stderr_lines)


@operation()
def on_host() -> Commands:
    """What the host needs to be backed up: keys, settings, the tool and its timers.

    Timers run from now on; one that another host has taken over is removed.
    """
    model, now = cluster(), host_state(host, cluster())
    me = model.host(host.name)
    folders = {path: mode for path, mode in FOLDERS.items() if path not in now.files}
    for path, mode in folders.items():
        yield StringCommand("install", "-d", "-m", mode, path)
    keys = environment(model)
    new_keys = secret.outdated(backup.ENVIRONMENT, now.files.get(backup.ENVIRONMENT), keys)
    if new_keys:
        yield secret.write(backup.ENVIRONMENT, keys)
    jobs = backup.jobs(model, me)
    files = backup.files(model, me)
    for job, when in jobs.items():
        if _differs(now, files, backup.timer(job)):  # systemd's own judgement, before it counts
            yield StringCommand("systemd-analyze", "calendar", QuoteString(when), "> /dev/null")
    programs = {backup.TOOL: TOOL.read_text(), backup.COMMAND: backup.command()}
    new_programs = yield from config_files.write(now, programs, "755")
    new_files = yield from config_files.write(now, files)
    old_ca = backup.CA in now.files and backup.CA not in files
    if old_ca:  # the command for people would trust it alone
        yield text.remove(backup.CA)
    surplus = [name for name in backup.surplus(model, me) if _path(name) in now.files]
    for name in surplus:
        yield StringCommand("systemctl", "disable", "--now", name)
        yield text.remove(_path(name))
    if new_files or surplus:
        yield StringCommand("systemctl", "daemon-reload")
    todo = _timers(now, files, [backup.timer(job) for job in jobs])
    for verb, names in todo.items():
        yield StringCommand("systemctl", *verb, *names)
    if not (folders or new_keys or new_programs or new_files or old_ca or surplus or todo):
        host.noop("backups of this host are set up")


def _timers(
    now: HostState, files: Mapping[str, str], timers: list[str]
) -> dict[tuple[str, ...], list[str]]:
    """What systemctl has to do with which timers."""
    start = [one for one in timers if now.unit(one).enabled != "enabled"]
    start += [one for one in timers if one not in start and not now.unit(one).running]
    changed = [one for one in timers if one not in start and _differs(now, files, one)]
    todo = {("enable", "--now"): start, ("restart",): changed}
    return {verb: names for verb, names in todo.items() if names}


def _differs(now: HostState, files: Mapping[str, str], unit: str) -> bool:
    return text.differs(now.files.get(_path(unit)), files[_path(unit)], config_files.MODE)


def _path(unit: str) -> str:
    return f"{UNITS}/{unit}"
