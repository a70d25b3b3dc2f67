"""Collects logs on every node: containers, and the node's journal with K3s' own lines in it."""

from __future__ import annotations

from typing import Any

from catalogue import forward, loki, monitors, pods
from cluster.component import Component, Object, Release, SecretObject, Values
from cluster.model import Cluster
from cluster.readiness import Check, Rollout
from cluster.versions import CHARTS

STATE = "/var/lib/fluent-bit"  # on the node: positions, and what could not be sent yet
CERTIFICATE = "/fluent-bit/tls"
SELECTOR = {"app.kubernetes.io/name": "fluent-bit", "app.kubernetes.io/instance": "fluent-bit"}
STORAGE_LIMIT = "1G"  # of each output; then its oldest logs go

# With growing pauses of at most five minutes these are about 16 hours.
RETRIES = 200

SERVICE = f"""\
[SERVICE]
    Daemon Off
    Flush {{{{ .Values.flush }}}}
    Log_Level {{{{ .Values.logLevel }}}}
    Parsers_File /fluent-bit/etc/parsers.conf
    Parsers_File /fluent-bit/etc/conf/custom_parsers.conf
    HTTP_Server On
    HTTP_Listen 0.0.0.0
    HTTP_Port {{{{ .Values.metricsPort }}}}
    Health_Check On
    scheduler.cap 300
    storage.path {STATE}/storage
    storage.sync normal
    storage.backlog.mem_limit 5M
    storage.metrics On
"""


def _journal(cluster: Cluster) -> str:
    """Where journald keeps the journal."""
    kept = cluster.nodes.journal_storage
    return "/run/log/journal" if kept == "volatile" else "/var/log/journal"


def inputs(cluster: Cluster) -> str:
    """Containers and journal.

    The journal has every line of the host once, K3s' too, with its absolute time: the files that
    rsyslog writes from it have another form in each release of Ubuntu, and local time.
    """
    own = ",".join(
        f"/var/log/containers/{name}-*_{forward.NAMESPACE}_*.log"
        for name in ("fluent-bit", "fluentd")
    )
    outside = _outside(cluster) if cluster.stack.logs == "loki" else ""
    return f"""\
[INPUT]
    Name tail
    Alias containers
    Path /var/log/containers/*.log
    Exclude_Path {own}
    multiline.parser docker, cri
    Tag kube.*
    DB {STATE}/containers.db
    DB.locking true
    Mem_Buf_Limit 5MB
    Skip_Long_Lines On
    storage.type filesystem

[INPUT]
    Name systemd
    Alias journal
    Path {_journal(cluster)}
    Tag host.journal
    DB {STATE}/journal.db
    Read_From_Tail On
    Strip_Underscores On
    Lowercase On
    storage.type filesystem
{outside}"""


def _outside(cluster: Cluster) -> str:
    """What hosts outside send, where no Fluentd takes it: they tag it host.*."""
    tls = f"""\
    tls On
    tls.verify Off
    tls.crt_file {CERTIFICATE}/tls.crt
    tls.key_file {CERTIFICATE}/tls.key
"""
    return f"""
[INPUT]
    Name forward
    Alias outside
    Listen 0.0.0.0
    Port {forward.PORT}
    Self_Hostname {forward.hostname(cluster)}
    Shared_Key ${{{forward.KEY_VARIABLE}}}
    storage.type filesystem
{tls if forward.secured(cluster) else ""}"""


# Pods of Elasticsearch have more metadata than the 32 KB of Buffer_Size' default. Merge_Log would
# make a field of everything an application writes as JSON, and two applications rarely agree.
FILTERS = """\
[FILTER]
    Name multiline
    Match kube.*
    multiline.key_content log
    multiline.parser java, python, go

[FILTER]
    Name kubernetes
    Match kube.*
    Buffer_Size 512k
    Merge_Log Off
    Keep_Log On
    K8S-Logging.Parser On
    K8S-Logging.Exclude On
    Labels On
    Annotations Off

[FILTER]
    Name modify
    Match kube.*
    Rename log message

[FILTER]
    Name record_modifier
    Match host.journal
    Allowlist_key message
    Allowlist_key hostname
    Allowlist_key systemd_unit
    Allowlist_key syslog_identifier
    Allowlist_key priority
    Allowlist_key pid
"""


def outputs(cluster: Cluster) -> str:
    """To Fluentd, which writes into Elasticsearch; to Loki without a step between."""
    if cluster.stack.logs == "loki":
        return _to_loki("kube.*", _LABELS) + "\n" + _to_loki("host.*", _HOST_LABELS)
    tls = f"""\
    tls On
    tls.verify On
    tls.ca_file {CERTIFICATE}/ca.crt
    tls.vhost {forward.hostname(cluster)}
"""
    return f"""\
[OUTPUT]
    Name forward
    Alias fluentd
    Match *
    Host {forward.HOST}.{forward.NAMESPACE}.svc.{cluster.network.cluster_domain}
    Port {forward.PORT}
    Self_Hostname ${{NODE_NAME}}
    Shared_Key ${{{forward.KEY_VARIABLE}}}
    Require_ack_response On
    Retry_Limit {RETRIES}
    storage.total_limit_size {STORAGE_LIMIT}
{tls if forward.secured(cluster) else ""}"""


# Few labels: each combination is a stream of its own. A pod's name is found as metadata.
_LABELS = """\
    Labels job=containers, namespace=$kubernetes['namespace_name'], \
container=$kubernetes['container_name'], app=$kubernetes['labels']['app.kubernetes.io/name']
    Structured_Metadata pod=$kubernetes['pod_name'], node=$kubernetes['host']
    Remove_Keys kubernetes, stream, logtag, _p, time
    Drop_Single_Key raw
"""
_HOST_LABELS = """\
    Labels job=hosts, host=$hostname, unit=$systemd_unit
"""


def _to_loki(match: str, labels: str) -> str:
    return f"""\
[OUTPUT]
    Name loki
    Match {match}
    Host {loki.SERVICE}.{loki.NAMESPACE}
    Port {loki.PORT}
    Line_Format json
{labels}\
    Retry_Limit {RETRIES}
    storage.total_limit_size {STORAGE_LIMIT}
"""


def values(cluster: Cluster) -> Values:
    """A pod on every node, servers too, whatever their taints."""
    metrics = monitors.wanted(cluster)
    takes_logs = cluster.stack.logs == "loki"
    return {
        "testFramework": {"enabled": False},
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "system-node-critical",
        # Files of logs belong to root; more it does not need.
        "securityContext": {
            **pods.UNPRIVILEGED,
            "runAsUser": 0,
            "readOnlyRootFilesystem": True,
        },
        "resources": pods.resources("64Mi", "256Mi", "50m"),
        "env": [
            forward.key_variable(),
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        **_volumes(cluster),
        **(
            {
                "extraPorts": [
                    {
                        "name": "forward",
                        "port": forward.PORT,
                        "containerPort": forward.PORT,
                        "protocol": "TCP",
                    }
                ]
            }
            if takes_logs
            else {}
        ),
        "serviceMonitor": {"enabled": metrics},
        "dashboards": {
            "enabled": metrics,
            "annotations": {"grafana_folder": "Logs"},
            "deterministicUid": True,
        },
        "config": {
            "service": SERVICE,
            "inputs": inputs(cluster),
            "filters": FILTERS,
            "outputs": outputs(cluster),
        },
    }


def _volumes(cluster: Cluster) -> Values:
    """The node's logs and journal, our state on it, and the certificate with what watches it."""
    journal = _journal(cluster)
    # The journal of a node that keeps it in memory is not below /var/log.
    further = [] if journal.startswith("/var/log") else [("journal", journal, None, True)]
    mounts: list[tuple[str, str, str | None, bool]] = [
        ("varlog", "/var/log", None, True),
        ("machine-id", "/etc/machine-id", "File", True),
        ("state", STATE, "DirectoryOrCreate", False),
        *further,
    ]
    result: dict[str, Any] = {
        "daemonSetVolumes": [
            {"name": name, "hostPath": {"path": path, **({"type": kind} if kind else {})}}
            for name, path, kind, _ in mounts
        ],
        "daemonSetVolumeMounts": [
            {"name": name, "mountPath": path, **({"readOnly": True} if fixed else {})}
            for name, path, _, fixed in mounts
        ],
    }
    if not forward.secured(cluster):
        return result
    secret: dict[str, Any] = {"secretName": forward.TLS}
    if cluster.stack.logs != "loki":  # who only sends has no business with the key
        secret["items"] = [{"key": "ca.crt", "path": "ca.crt"}]
    return result | {
        "extraVolumes": [{"name": "tls", "secret": secret}],
        "extraVolumeMounts": [{"name": "tls", "mountPath": CERTIFICATE, "readOnly": True}],
        # A renewed certificate is read anew.
        "hotReload": {
            "enabled": True,
            "extraWatchVolumes": ["tls"],
            "resources": pods.resources("16Mi", "32Mi", "5m"),
        },
    }


def _alone(cluster: Cluster) -> bool:
    """Whether no Fluentd runs, whose component has key, certificate and address otherwise."""
    return cluster.stack.logs == "loki"


def secrets(cluster: Cluster) -> list[SecretObject]:
    """The key senders show, unless Fluentd's component has it."""
    return [forward.shared_key()] if _alone(cluster) else []


def before(cluster: Cluster) -> list[Object]:
    """The receiver's certificate, unless Fluentd's component has it."""
    return forward.certificate(cluster) if _alone(cluster) else []


def release_ready(cluster: Cluster) -> list[Check]:
    """A pod runs on every node."""
    certificate = forward.certificate_ready(cluster) if _alone(cluster) else []
    return [*certificate, Rollout("DaemonSet", "fluent-bit", forward.NAMESPACE)]


def objects(cluster: Cluster) -> list[Object]:
    """The address for hosts outside, unless Fluentd's component has it, and rules."""
    service = forward.external_service(cluster, SELECTOR) if _alone(cluster) else []
    return [*service, *monitors.own(cluster, "fluent-bit", forward.NAMESPACE)]


def ready(cluster: Cluster) -> list[Check]:
    """The address has been given."""
    return forward.external_ready(cluster) if _alone(cluster) else []


component = Component(
    name="fluent-bit",
    namespace=forward.NAMESPACE,
    wanted=lambda cluster: cluster.stack.logs != "none",
    needs=("logs", "log-aggregation", "certificates", "load-balancer", "mesh", "metrics-crds"),
    secrets=secrets,
    before=before,
    release=Release(CHARTS["fluent-bit"], values),
    release_ready=release_ready,
    objects=objects,
    ready=ready,
)
