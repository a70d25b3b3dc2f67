"""Backups of hosts with restic: their section of the model and what follows from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import Field

from cluster import kinds
from cluster.answer import Absent, Answer, Forbidden, Present, Unreachable
from cluster.frozen import Model
from cluster.managed import MANAGED, METRICS, UNITS
from cluster.question import Question
from cluster.services import s3

if TYPE_CHECKING:
    from cluster.model import Cluster, Host

Job = Literal["backup", "prune", "check", "restore"]
JOBS: tuple[Job, ...] = get_args(Job)

PACKAGE = "restic"
PACKAGES = (PACKAGE, "python3")  # the tool's, which a minimal Debian lacks
FOLDER = "/etc/picluster/backup"
ENVIRONMENT = f"{FOLDER}/environment"  # holds the password and the keys
SETTINGS = f"{FOLDER}/settings.json"
CA = f"{FOLDER}/ca.pem"
TOOL = "/usr/local/lib/picluster/backup.py"
COMMAND = "/usr/local/sbin/picluster-restic"  # restic with the environment, for people
STATE = "/var/lib/picluster/backup"
CACHE = "/var/cache/picluster-backup"
METRICS_FILE = f"{METRICS}/picluster_backup.prom"
SERVICE = "picluster-backup@.service"

# Sources: K3s' documentation (architecture, backup and restore) for what makes a server; what
# is left out can be fetched or made again, or changes while it is read.
_SERVER = (
    "/var/lib/rancher/k3s/server/token",
    "/var/lib/rancher/k3s/server/tokens",
    "/var/lib/rancher/k3s/server/cred",
    "/var/lib/rancher/k3s/server/tls",
    "/var/lib/rancher/k3s/server/manifests",
    "/var/lib/rancher/k3s/server/db/snapshots",
    "/var/backups/picluster",
)
_EVERYWHERE = ("/etc", "/root", "/home")
EXCLUDED = (
    "/var/lib/rancher/k3s/agent/containerd",
    "/var/lib/rancher/k3s/server/db/etcd",
    "/var/lib/kubelet/pods",
    "/var/lib/longhorn",
    "/root/.cache",
    "/home/*/.cache",
    CACHE,
)


class Keep(Model):
    """How many backups of each host are kept."""

    daily: kinds.Whole = Field(7, ge=0)
    weekly: kinds.Whole = Field(4, ge=0)
    monthly: kinds.Whole = Field(6, ge=0)


class HostBackup(Model):
    """Backups of hosts; moments are systemd's calendar events, in the hosts' time zone."""

    hosts: tuple[kinds.HostName, ...] = ()  # empty: all
    # A folder of each host, or what restic takes, such as sftp:...; None: the S3 service's bucket.
    repository: kinds.Repository | None = None
    paths: tuple[kinds.Folder, ...] = ()  # beyond those of a host's role
    paths_of: dict[kinds.HostName, tuple[kinds.Folder, ...]] = Field(default_factory=dict)
    exclude: tuple[str, ...] = ()  # restic's patterns, beyond those built in
    keep: Keep = Keep()
    schedule: kinds.Calendar = "*-*-* 02:00:00"
    delay: kinds.Whole = Field(3600, ge=0)  # seconds over which hosts are spread
    keeper: kinds.HostName | None = None  # the one that prunes and checks; None: the first
    prune_schedule: kinds.Calendar = "Sun *-*-* 05:00:00"
    check_schedule: kinds.Calendar = "*-*-01 06:00:00"
    check_share: kinds.Whole = Field(5, ge=1, le=100)  # percent of the data that a check reads
    restore_schedule: kinds.Calendar = "*-*-15 04:00:00"  # of the test


def hosts(cluster: Cluster) -> tuple[Host, ...]:
    """The hosts that are backed up, in the order of the inventory."""
    section = cluster.services.backup
    if section is None:
        return ()
    return tuple(one for one in cluster.hosts if not section.hosts or one.name in section.hosts)


def keeper(cluster: Cluster) -> str | None:
    """Name of the one host that prunes and checks: two at a time would lock each other out."""
    section, found = cluster.services.backup, hosts(cluster)
    if section is None or not found:
        return None
    return section.keeper or found[0].name


def repository(cluster: Cluster) -> str:
    """The repository, as restic names it."""
    section = cluster.services.backup
    if section and section.repository:
        return section.repository
    return f"s3:https://{cluster.backup.s3_endpoint}/{cluster.backup.buckets.restic}"


def in_s3(cluster: Cluster) -> bool:
    """Whether it is the bucket of the cluster's S3 service."""
    return s3.keeps_hosts(cluster)


def paths(cluster: Cluster, host: Host) -> tuple[str, ...]:
    """What of the host is backed up; what does not exist there is skipped."""
    section = cluster.services.backup or HostBackup()
    wanted = [*_EVERYWHERE, *(_SERVER if host.is_server else ())]
    wanted += [*section.paths, *section.paths_of.get(host.name, ())]
    return tuple(dict.fromkeys(wanted))


def excluded(cluster: Cluster, host: Host) -> tuple[str, ...]:
    """Patterns of what is left out."""
    section = cluster.services.backup or HostBackup()
    wanted = [*EXCLUDED, cluster.platform.storage.path, *section.exclude]
    if (home := s3.home(cluster)) and home.name == host.name and (server := s3.server(cluster)):
        wanted.append(server.path)  # the repository itself
    if repository(cluster).startswith("/"):
        wanted.append(repository(cluster))
    return tuple(dict.fromkeys(wanted))


def jobs(cluster: Cluster, host: Host) -> dict[Job, str]:
    """The host's timers: calendar event by job."""
    section = cluster.services.backup or HostBackup()
    found: dict[Job, str] = {"backup": section.schedule, "restore": section.restore_schedule}
    if host.name == keeper(cluster):
        found |= {"prune": section.prune_schedule, "check": section.check_schedule}
    return found


def environment(cluster: Cluster, values: Mapping[str, str]) -> str:
    """The environment of restic, for a file that root alone reads.

    values: secrets by name; raises KeyError for one that is missing.
    """
    found = {"RESTIC_REPOSITORY": repository(cluster), "RESTIC_PASSWORD": values["restic.password"]}
    if in_s3(cluster):
        found |= {
            "AWS_ACCESS_KEY_ID": values["s3.restic.access_key"],
            "AWS_SECRET_ACCESS_KEY": values["s3.restic.secret_key"],
            "AWS_DEFAULT_REGION": cluster.backup.region,
        }
    return "".join(f"{name}='{value}'\n" for name, value in found.items())


def settings(cluster: Cluster, host: Host) -> str:
    """What the tool on the host is told: no secrets."""
    section = cluster.services.backup or HostBackup()
    keep = section.keep
    return (
        json.dumps(
            {
                "host": host.name,
                "paths": paths(cluster, host),
                "exclude": excluded(cluster, host),
                "keep": {"daily": keep.daily, "weekly": keep.weekly, "monthly": keep.monthly},
                "check_share": section.check_share,
                "ca": CA if needs_ca(cluster) else None,
                "cache": CACHE,
                "state": STATE,
                "metrics": METRICS_FILE,
            },
            indent=2,
        )
        + "\n"
    )


def needs_ca(cluster: Cluster) -> bool:
    """Whether the service's certificate is of a CA that hosts do not know."""
    return in_s3(cluster) and cluster.backup.ca is not None


def files(cluster: Cluster, host: Host) -> dict[str, str]:
    """Every text file of the host but the tool, by path; none holds a secret."""
    found = {SETTINGS: settings(cluster, host), f"{UNITS}/{SERVICE}": service(cluster)}
    if needs_ca(cluster) and cluster.backup.ca:
        found[CA] = cluster.backup.ca.strip() + "\n"
    delay = (cluster.services.backup or HostBackup()).delay
    for job, when in jobs(cluster, host).items():
        found[f"{UNITS}/{timer(job)}"] = timer_text(job, when, delay)
    return found


def timer(job: Job) -> str:
    """Name of a job's timer."""
    return f"picluster-backup@{job}.timer"


def surplus(cluster: Cluster, host: Host) -> tuple[str, ...]:
    """Timers that the host must not have: another one is the keeper."""
    return tuple(timer(job) for job in JOBS if job not in jobs(cluster, host))


def service(cluster: Cluster) -> str:
    """The unit of all jobs; `%i` is the job. It yields to whatever else wants disk or processor."""
    writable = [STATE, CACHE, METRICS]
    if repository(cluster).startswith("/"):
        writable.append(repository(cluster))
    return f"""\
{MANAGED}[Unit]
Description=Backup of this host with restic: %i
Documentation=https://restic.readthedocs.io
Wants=network-online.target
After=network-online.target time-sync.target

[Service]
Type=oneshot
EnvironmentFile={ENVIRONMENT}
ExecStart=/usr/bin/python3 -I {TOOL} %i
ExecStopPost=/usr/bin/python3 -I {TOOL} ended %i
TimeoutStartSec=12h
Nice=19
CPUSchedulingPolicy=batch
IOSchedulingClass=idle

NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={" ".join(f"-{path}" for path in writable)}
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictNamespaces=yes
RestrictRealtime=yes
LockPersonality=yes
"""


def timer_text(job: Job, when: str, delay: int) -> str:
    """A timer: hosts at different moments, and what was missed while the host was off is done."""
    return f"""\
{MANAGED}[Unit]
Description=Backup of this host with restic: {job}

[Timer]
OnCalendar={when}
RandomizedDelaySec={delay}
Persistent=true

[Install]
WantedBy=timers.target
"""


def command() -> str:
    """The command that lets a person use restic on the repository: `picluster-restic snapshots`."""
    return f"""\
#!/bin/sh
{MANAGED}# restic with this host's repository, as root.
set -e; set -a; . {ENVIRONMENT}; set +a
[ ! -f {CA} ] || set -- --cacert {CA} "$@"
exec restic --cache-dir {CACHE} "$@"
"""


# What restic says of a repository, by what it means; seen with 0.14 and versitygw. From 0.17 on it
# has exit codes as well (its manual, scripting).
_ABSENT = ("specified key does not exist", "no such file or directory", "does not exist")
_FORBIDDEN = (
    "access denied", "invalidaccesskeyid", "signature we calculated", "permission denied", "x509",
)  # fmt: skip
CODE_ABSENT, CODE_PASSWORD = 10, 12


def answer(code: int, said: str) -> Answer[None]:
    """What `restic cat config` says of the repository; unknown is never absent.

    code: its exit code; said: what it wrote to standard error.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    cause = lines[0].removeprefix("Fatal: ") if lines else f"restic ended with {code}"
    lower = cause.lower()
    if code == 0:
        return Present(None)
    if code == CODE_PASSWORD or "wrong password" in lower:
        return Forbidden("it was made with another password than restic.password of the secrets")
    if any(words in lower for words in _FORBIDDEN):
        return Forbidden(cause)
    if code == CODE_ABSENT or any(words in lower for words in _ABSENT):
        return Absent(cause)
    return Unreachable(cause)


def asks(cluster: Cluster) -> Question:
    """What the fact of a host is asked for it."""
    if cluster.services.backup is None:
        return Question()
    timers = tuple(timer(job) for job in JOBS)
    units = tuple(f"{UNITS}/{name}" for name in (SERVICE, *timers))
    folders = (STATE, CACHE, METRICS)
    return Question(
        packages=PACKAGES,
        units=timers,
        files=(ENVIRONMENT, SETTINGS, CA, TOOL, COMMAND, *units, *folders),
    )
