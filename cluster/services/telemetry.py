"""Metrics and logs of hosts outside the cluster: node exporter, and Fluent Bit to the aggregator.

The cluster's side of both is in catalogue/kube_prometheus_stack.py and catalogue/forward.py, which
take their ports from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field

from cluster import kinds
from cluster.frozen import Model
from cluster.managed import MANAGED, METRICS, UNITS
from cluster.question import Question
from cluster.services.placement import placed

if TYPE_CHECKING:
    from cluster.host_state import HostState
    from cluster.model import Cluster, Host

EXPORTER_PORT = 9100  # of node exporter
FORWARD_PORT = 24224  # of the Forward protocol

EXPORTER_PACKAGE = "prometheus-node-exporter"
EXPORTER = f"{EXPORTER_PACKAGE}.service"
EXPORTER_ARGUMENTS = f"/etc/default/{EXPORTER_PACKAGE}"
EXPORTER_UNIT = f"{UNITS}/{EXPORTER}.d/10-picluster.conf"

PACKAGE = "fluent-bit"
SENDER = "fluent-bit.service"
PROGRAM = "/opt/fluent-bit/bin/fluent-bit"  # of the packages of its makers
CONFIG = "/etc/fluent-bit/picluster.yaml"
CA = "/etc/fluent-bit/picluster-ca.pem"
KEY_FILE = "/etc/fluent-bit/picluster.env"
SENDER_UNIT = f"{UNITS}/{SENDER}.d/10-picluster.conf"
STATE = "/var/lib/fluent-bit"  # positions, and what could not be sent yet
SOURCES = "/etc/apt/sources.list.d/picluster-fluent-bit.sources"
KEYRINGS = "/etc/apt/keyrings"
KEY_VARIABLE = "FORWARD_SHARED_KEY"
RETRIES = 200  # with growing pauses of at most five minutes: about 16 hours

# Debian and Ubuntu name their releases in archives by word.
CODENAMES = {
    "22.04": "jammy",
    "24.04": "noble",
    "26.04": "resolute",
    "12": "bookworm",
    "13": "trixie",
}


class Repository(Model):
    """The apt repository of Fluent Bit's makers, or a mirror of it."""

    url: kinds.Url = "https://packages.fluentbit.io"
    # Source: docs.fluentbit.io, "GPG key updates", of releases from 1.9 on.
    fingerprint: kinds.Fingerprint = "C3C0A28534B9293EAF51FABD9F9DDC083888C1CD"
    suite: kinds.HostName | None = None  # None: the code name of the host's release


class Telemetry(Model):
    """Metrics and logs of hosts outside the cluster."""

    hosts: tuple[kinds.HostName, ...] = ()  # empty: every host outside the cluster
    metrics: bool = True
    logs: bool = True  # where the stack keeps logs
    address: kinds.DnsNameOrAddress | None = None  # None: platform.logs.address
    ca: kinds.Pem | None = None  # of the cluster's CA; None: the secrets' (platform.own_ca)
    buffer: kinds.Size = "512M"  # of what could not be sent; then the oldest goes
    repository: Repository = Field(default_factory=Repository)


def section(cluster: Cluster) -> Telemetry:
    """The section of a cluster that has one."""
    found = cluster.services.telemetry
    assert found is not None, "asked only where the service is wanted"
    return found


def hosts(cluster: Cluster) -> tuple[Host, ...]:
    """The hosts it is for."""
    wanted = cluster.services.telemetry
    if wanted is None:
        return ()
    if wanted.hosts:
        return placed(cluster, wanted.hosts, "")
    return tuple(host for host in cluster.hosts if not host.in_cluster)


def sends_logs(cluster: Cluster) -> bool:
    """Whether there is an aggregator to send to."""
    return section(cluster).logs and cluster.stack.logs != "none"


def secured(cluster: Cluster) -> bool:
    """Whether the aggregator has a certificate."""
    return cluster.stack.certificates == "cert-manager"


def forward_name(cluster: Cluster) -> str:
    """The name in the aggregator's certificate."""
    return f"fluentd.{cluster.domain}"


def asks(cluster: Cluster) -> Question:
    """What the node fact reads for it."""
    if cluster.services.telemetry is None:
        return Question()
    wanted = section(cluster).repository
    return Question(
        packages=(EXPORTER_PACKAGE, PACKAGE, "gpg", "curl"),
        files=(
            *(EXPORTER_ARGUMENTS, EXPORTER_UNIT, METRICS),
            *(CONFIG, CA, KEY_FILE, SENDER_UNIT, SOURCES, keyring(wanted)),
        ),
        units=(EXPORTER, SENDER),
    )


# ---- metrics


def exporter_files(cluster: Cluster, me: Host) -> dict[str, str]:
    """Node exporter listens to the LAN alone, and reads the metrics that services leave it."""
    arguments = (
        f"--web.listen-address={me.ip}:{EXPORTER_PORT}",
        f"--collector.textfile.directory={METRICS}",
    )
    return {
        EXPORTER_ARGUMENTS: f'{MANAGED}ARGS="{" ".join(arguments)}"\n',
        # The address is not there at once after a boot.
        EXPORTER_UNIT: (
            f"{MANAGED}[Unit]\nWants=network-online.target\nAfter=network-online.target\n"
            "StartLimitIntervalSec=0\n\n[Service]\nRestart=on-failure\nRestartSec=5\n"
        ),
    }


# ---- logs


def keyring(wanted: Repository) -> str:
    """Where the repository's key lies; another key is another file."""
    return f"{KEYRINGS}/picluster-fluent-bit-{wanted.fingerprint[-16:].lower()}.asc"


def sources(wanted: Repository, state: HostState) -> str:
    """The repository for apt (sources.list(5)), trusted for its own packages alone."""
    suite = wanted.suite or CODENAMES.get(state.release, state.release)
    return (
        f"{MANAGED}Types: deb\nURIs: {wanted.url.rstrip('/')}/{state.os}/{suite}\n"
        f"Suites: {suite}\nComponents: main\nArchitectures: {state.arch}\n"
        f"Signed-By: {keyring(wanted)}\n"
    )


# The key is trusted by its fingerprint, wherever it comes from, and only when it comes alone.
FETCH_KEY = r"""set -eu
umask 022
url=$1 wanted=$2 path=$3
new=$(mktemp); home=$(mktemp -d); trap 'rm -rf "$new" "$home"' EXIT
curl -fsS --retry 3 --max-time 60 -o "$new" "$url"
found=$(GNUPGHOME=$home gpg --batch --show-keys --with-colons "$new" |
  awk -F: '$1 == "pub" {p = 1} $1 == "fpr" && p {printf "%s ", $10; p = 0}')
[ "$found" = "$wanted " ] || {
  echo "$url holds the key ${found:-of nobody}, expected $wanted" >&2; exit 1; }
mkdir -p "${path%/*}"
cat "$new" > "$path.new"; chmod 644 "$path.new"; mv -f "$path.new" "$path"
"""


def receiver(cluster: Cluster) -> str:
    """Where logs are sent to."""
    return str(section(cluster).address or cluster.platform.logs.address)


def sender_config(cluster: Cluster, me: Host) -> str:
    """Fluent Bit's configuration: the journal, its place in it, a buffer on disk, the aggregator.

    Fields and tag are those of the nodes' own journals (catalogue/fluent_bit.py).
    """
    forward: dict[str, Any] = {
        "name": "forward",
        "match": "*",
        "host": receiver(cluster),
        "port": FORWARD_PORT,
        "self_hostname": me.name,
        "shared_key": f"${{{KEY_VARIABLE}}}",
        "require_ack_response": True,
        "retry_limit": RETRIES,
        "storage.total_limit_size": section(cluster).buffer,
    }
    if secured(cluster):
        forward |= {
            "tls": True,
            "tls.verify": True,
            "tls.ca_file": CA,
            "tls.vhost": forward_name(cluster),
        }
    kept = ("message", "hostname", "systemd_unit", "syslog_identifier", "priority", "pid")
    config = {
        "service": {
            "flush": 1,
            "log_level": "info",
            "scheduler.cap": 300,
            "storage.path": f"{STATE}/storage",
            "storage.sync": "normal",
            "storage.backlog.mem_limit": "5M",
        },
        "pipeline": {
            "inputs": [
                {
                    "name": "systemd",
                    "tag": "host.journal",
                    "db": f"{STATE}/journal.db",
                    "read_from_tail": True,
                    "strip_underscores": True,
                    "lowercase": True,
                    "storage.type": "filesystem",
                }
            ],
            "filters": [
                {"name": "record_modifier", "match": "host.journal", "allowlist_key": list(kept)}
            ],
            "outputs": [forward],
        },
    }
    return MANAGED + yaml.safe_dump(config, sort_keys=False)


def sender_unit() -> str:
    """The unit of the package with our configuration and the key; systemd reads the key as root."""
    return (
        f"{MANAGED}[Service]\nEnvironmentFile={KEY_FILE}\nStateDirectory=fluent-bit\n"
        f"ExecStart=\nExecStart={PROGRAM} -c {CONFIG}\nRestart=on-failure\nRestartSec=10\n"
    )


def key_text(key: str) -> str:
    """The shared key as systemd reads it (systemd.exec(5), EnvironmentFile)."""
    escaped = key.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`")
    return f'{KEY_VARIABLE}="{escaped}"\n'


# Words of the command that judges a configuration; it wants the key, whichever it is.
CHECK = ("env", f"{KEY_VARIABLE}=unknown", PROGRAM, "--dry-run", "-c")
