"""What K3s reads on a node: config.yaml, kubelet configuration, registries, units. Pure text."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from cluster.managed import MANAGED
from cluster.model import Cluster, Host

CONFIG = "/etc/rancher/k3s/config.yaml"
JOIN = "/etc/rancher/k3s/config.yaml.d/50-join.yaml"
S3_KEYS = "/etc/rancher/k3s/config.yaml.d/60-etcd-s3.yaml"
KUBELET = "/etc/rancher/k3s/kubelet.yaml"
REGISTRIES = "/etc/rancher/k3s/registries.yaml"
SERVER_TOKEN = "/etc/rancher/k3s/server-token"
AGENT_TOKEN = "/etc/rancher/k3s/agent-token"
DATA = "/var/lib/rancher/k3s"
KUBECONFIG = "/etc/rancher/k3s/k3s.yaml"
LINK = "/usr/local/bin/k3s"
TOKENS = f"{DATA}/server/tokens"  # every server token that was in force, to open snapshots
RELEASES = "/usr/local/lib/k3s"  # one folder a version
REVISION = "/run/picluster/k3s.revision"  # what the running process was started with

# Run before each start of a server, so that no snapshot outlives the token that opens it: K3s
# encrypts what is in a snapshot with the token in force. A file is named `<unix time it came in
# force>-<first 12 digits of its sha256>`; 0: it was in force already when the first was kept.
KEEP_TOKEN = (
    f"umask 077; mkdir -p {TOKENS} && cd {TOKENS} && f=$(sha256sum < {SERVER_TOKEN} | cut -c1-12); "
    "last=$(ls | sort -n | tail -n 1); "
    'case $last in *-"$f") ;; *) since=$(date +%s); '
    'if [ -z "$last" ] && [ -e ../db ]; then since=0; fi; '
    f'cp {SERVER_TOKEN} .new && mv .new "$since-$f" ;; esac'
)


# What the revision covers, in this order. The join file is left out: K3s reads it only once.
REVISION_COMMAND = (
    f"{{ for f in {CONFIG} {S3_KEYS} {KUBELET} {REGISTRIES}; do "
    'echo "$f"; cat "$f" 2>/dev/null; done; '
    f"readlink {LINK}; }} | sha256sum"
)


def unit_name(host: Host) -> str:
    """The systemd unit of the host's K3s process."""
    return "k3s" if host.is_server else "k3s-agent"


def unit_path(host: Host) -> str:
    """Path of that unit."""
    return f"/etc/systemd/system/{unit_name(host)}.service"


def binary_path(version: str) -> str:
    """Path of the binary of one release; the link in PATH points to one of them."""
    return f"{RELEASES}/{version}/k3s"


def images_path(version: str, asset: str) -> str:
    """Path of the tarball with the images of a release."""
    return f"{RELEASES}/{version}/{asset}"


def disabled(cluster: Cluster) -> list[str]:
    """Packaged components of K3s that the stack replaces."""
    stack = cluster.stack
    wanted = [
        ("servicelb", stack.load_balancer == "servicelb"),
        ("traefik", stack.ingress == "k3s-traefik"),
        ("local-storage", stack.storage == "local-path"),
    ]
    return [name for name, kept in wanted if not kept]


def _network(cluster: Cluster) -> dict[str, Any]:
    network = cluster.network
    config: dict[str, Any] = {
        "cluster-cidr": str(network.pod_cidr),
        "service-cidr": str(network.service_cidr),
        "cluster-dns": str(network.cluster_dns),
        "cluster-domain": network.cluster_domain,
    }
    if cluster.stack.cni != "flannel":
        config |= {"flannel-backend": "none", "disable-network-policy": True}
    if cluster.stack.kube_proxy != "k3s":
        config["disable-kube-proxy"] = True
    return config


def _metrics(cluster: Cluster) -> dict[str, Any]:
    """etcd's own figures, which Prometheus cannot get by way of the kubelet."""
    shown = cluster.stack.metrics != "none" and cluster.datastore == "etcd"
    return {"etcd-expose-metrics": True} if shown else {}


def _snapshots(cluster: Cluster) -> dict[str, Any]:
    if cluster.datastore != "etcd":
        return {}
    snapshots = cluster.k3s.snapshots
    config: dict[str, Any] = {
        "etcd-snapshot-schedule-cron": snapshots.schedule,
        "etcd-snapshot-retention": snapshots.retention,
    }
    if s3 := snapshots.s3:
        backup = cluster.backup if s3.endpoint == cluster.backup.s3_endpoint else None
        config |= {
            "etcd-s3": True,
            "etcd-s3-endpoint": s3.endpoint,
            "etcd-s3-bucket": s3.bucket,
            # A request signed for another region than the server's is refused.
            "etcd-s3-region": s3.region or (backup.region if backup else "us-east-1"),
        }
        if s3.folder:
            config["etcd-s3-folder"] = s3.folder
        if backup and backup.ca:
            # K3s takes the path of a file or, as here, the text itself (its pkg/etcd/s3).
            config["etcd-s3-endpoint-ca"] = b64encode(backup.ca.encode()).decode()
    return config


def config(cluster: Cluster, host: Host) -> dict[str, Any]:
    """The keys of the host's config.yaml; secrets are named by file, never by value."""
    common: dict[str, Any] = {
        "node-name": host.name,
        "node-ip": str(host.ip),
        "kubelet-arg": [f"config={KUBELET}"],
    }
    if not host.is_server:
        return common | {"token-file": AGENT_TOKEN} | _merged(common, cluster.k3s.agent_config)
    own: dict[str, Any] = {
        "token-file": SERVER_TOKEN,
        "agent-token-file": AGENT_TOKEN,
        "tls-san": list(cluster.tls_sans),
        "secrets-encryption": cluster.k3s.secrets_encryption,
        "write-kubeconfig-mode": "0600",
    }
    if names := disabled(cluster):
        own["disable"] = names
    whole = common | own | _network(cluster) | _snapshots(cluster) | _metrics(cluster)
    return whole | _merged(whole, cluster.k3s.server_config)


def _merged(ours: dict[str, Any], users: dict[str, Any]) -> dict[str, Any]:
    """The user's keys; their lists extend ours, as kubelet-arg must keep its configuration."""
    return {
        key: [*ours.get(key, []), *value] if isinstance(value, (list, tuple)) else value
        for key, value in users.items()
    }


def join(url: str | None) -> str:
    """The file that says how a node enters the cluster: by creating it (None) or joining `url`."""
    return MANAGED + dump({"cluster-init": True} if url is None else {"server": url})


def kubelet(cluster: Cluster) -> dict[str, Any]:
    """KubeletConfiguration: reservations, eviction, graceful shutdown."""
    wanted = cluster.k3s.kubelet
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "systemReserved": dict(wanted.reserved.system),
        "kubeReserved": dict(wanted.reserved.kube),
        "evictionHard": dict(wanted.eviction_hard),
        "maxPods": wanted.max_pods,
        "shutdownGracePeriod": f"{wanted.shutdown_grace_period}s",
        "shutdownGracePeriodCriticalPods": f"{wanted.shutdown_grace_period_critical_pods}s",
    }


def dump(data: Any) -> str:
    """YAML in a stable form."""
    return yaml.safe_dump(data, sort_keys=True, default_flow_style=False, allow_unicode=True)


def files(cluster: Cluster, host: Host) -> dict[str, str | None]:
    """Content of every file without secrets by path; None where no file belongs."""
    wanted: dict[str, str | None] = {
        CONFIG: MANAGED + dump(config(cluster, host)),
        KUBELET: MANAGED + dump(kubelet(cluster)),
        REGISTRIES: None,
    }
    if not keeps_s3_keys(cluster, host):
        wanted[S3_KEYS] = None
    if keeps_registry_keys(cluster):
        del wanted[REGISTRIES]
    elif cluster.k3s.registries:
        wanted[REGISTRIES] = registries(cluster)
    return wanted


def registries(cluster: Cluster, reveal: Callable[[Any], Any] = lambda value: value) -> str:
    """Content of registries.yaml; reveal: makes a text of a value that is a secret."""
    return MANAGED + dump(_plain(cluster.k3s.registries, reveal))


def keeps_registry_keys(cluster: Cluster) -> bool:
    """Whether registries.yaml holds secrets, such as the password of a registry."""
    secrets: list[Any] = []
    _plain(cluster.k3s.registries, secrets.append)
    return bool(secrets)


def _plain(value: Any, reveal: Callable[[Any], Any]) -> Any:
    """The value with what `reveal` makes of each secret in it."""
    if isinstance(value, Mapping):
        return {key: _plain(one, reveal) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one, reveal) for one in value]
    return value if value is None or isinstance(value, (str, int, float)) else reveal(value)


def keeps_s3_keys(cluster: Cluster, host: Host) -> bool:
    """Whether the host has the file with the keys of the bucket for snapshots."""
    return host.is_server and cluster.datastore == "etcd" and bool(cluster.k3s.snapshots.s3)


def unit(host: Host) -> str:
    """The systemd unit, as K3s' own installer writes it, plus the order after the clock.

    Source: the unit of K3s' `install.sh`. `TimeoutStartSec=0` there lets a start hang for ever,
    so it is started with `--no-block` and watched.
    """
    verb = "server" if host.is_server else "agent"
    name = unit_name(host)
    revision = _in_unit(f"umask 077; mkdir -p /run/picluster; {REVISION_COMMAND} > {REVISION}")
    keep_token = f"ExecStartPre=-{_in_unit(KEEP_TOKEN)}\n" if host.is_server else ""
    return f"""\
{MANAGED}[Unit]
Description=Lightweight Kubernetes ({verb})
Documentation=https://k3s.io
Wants=network-online.target time-sync.target
After=network-online.target time-sync.target

[Service]
Type=notify
EnvironmentFile=-/etc/default/%N
EnvironmentFile=-/etc/sysconfig/%N
EnvironmentFile=-/etc/systemd/system/{name}.service.env
KillMode=process
Delegate=yes
User=root
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStartPre=-/sbin/modprobe overlay
ExecStartPre={revision}
{keep_token}ExecStart={LINK} {verb}

[Install]
WantedBy=multi-user.target
"""


def _in_unit(script: str) -> str:
    """A shell script as a command of a unit, where systemd expands single `$` and `%` itself."""
    return "/bin/sh -c '" + script.replace("$", "$$").replace("%", "%%") + "'"


def snapshot_script(datastore: str, version: str) -> str:
    """Shell text that keeps the datastore before a move to `version`, with its token."""
    name = "before-" + version.replace("+", "-")
    if datastore == "etcd":
        return f"set -e; ({KEEP_TOKEN}); {LINK} etcd-snapshot save --name {name}"
    copy = f"{DATA}/server/db-{name}-$(date +%s)"
    return (
        f"set -e; ({KEEP_TOKEN}); systemctl stop k3s; "
        f"cp -a {DATA}/server/db {copy} || {{ systemctl start --no-block k3s; exit 1; }}; "
        "systemctl start --no-block k3s"
    )
