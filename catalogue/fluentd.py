"""The aggregator: takes logs from Fluent Bit and from hosts outside, keeps them on its own volume
until Elasticsearch has them.
"""

from __future__ import annotations

from catalogue import elasticsearch, forward, monitors, pods
from cluster.component import Component, Object, Release, SecretObject, Values
from cluster.model import Cluster
from cluster.readiness import Rollout
from cluster.versions import CHARTS

BUFFER = "/var/log/fluent"  # where the chart mounts the volume
BUFFER_SIZE = "5Gi"
CERTIFICATE = "/fluentd/tls"
SELECTOR = {"app.kubernetes.io/name": "fluentd", "app.kubernetes.io/instance": "fluentd"}

_TLS = f"""\
  <transport tls>
    cert_path {CERTIFICATE}/tls.crt
    private_key_path {CERTIFICATE}/tls.key
  </transport>
"""


def sources(cluster: Cluster) -> str:
    """What it listens to."""
    return f"""\
<source>
  @type forward
  @id forward
  @label @DISPATCH
  bind 0.0.0.0
  port {forward.PORT}
{_TLS if forward.secured(cluster) else ""}\
  <security>
    self_hostname {forward.hostname(cluster)}
    shared_key "#{{ENV['{forward.KEY_VARIABLE}']}}"
  </security>
</source>
<source>
  @type prometheus
  @id metrics
  bind 0.0.0.0
  port 24231
  metrics_path /metrics
</source>
<source>
  @type prometheus_monitor
  @id metrics_monitor
</source>
<source>
  @type prometheus_output_monitor
  @id metrics_output
</source>
"""


# Counted by namespace: a label with the tag would make new series for every pod that ever ran.
DISPATCH = """\
<label @DISPATCH>
  <filter kube.**>
    @type prometheus
    @id count_containers
    <metric>
      name fluentd_input_status_num_records_total
      type counter
      desc The total number of incoming records
      <labels>
        namespace ${$.kubernetes.namespace_name}
      </labels>
    </metric>
  </filter>
  <filter host.**>
    @type prometheus
    @id count_hosts
    <metric>
      name fluentd_input_status_num_records_total
      type counter
      desc The total number of incoming records
      <labels>
        namespace host
      </labels>
    </metric>
  </filter>
  # The same record gets the same id, so that one that is sent twice is stored once.
  <filter **>
    @type elasticsearch_genid
    @id ids
    hash_id_key _hash
    include_tag_in_seed true
    include_time_in_seed true
    use_record_as_seed true
    use_entire_record true
  </filter>
  <match **>
    @type relabel
    @label @OUTPUT
  </match>
</label>
"""


def _output(name: str, pattern: str, stream: str) -> str:
    return f"""\
  <match {pattern}>
    @type elasticsearch
    @id {name}
    host {elasticsearch.SERVICE}.{elasticsearch.NAMESPACE}
    port {elasticsearch.PORT}
    scheme http
    user "#{{ENV['ELASTICSEARCH_USER']}}"
    password "#{{ENV['ELASTICSEARCH_PASSWORD']}}"
    index_name {stream}
    write_operation create
    id_key _hash
    remove_keys _hash
    include_timestamp true
    suppress_type_name true
    verify_es_version_at_startup false
    default_elasticsearch_version 8
    reload_connections false
    reload_on_failure true
    reconnect_on_error true
    log_es_400_reason true
    request_timeout 30s
    <buffer>
      @type file
      path {BUFFER}/{name}
      chunk_limit_size 8MB
      total_limit_size 2GB
      flush_mode interval
      flush_interval 5s
      flush_thread_count 2
      overflow_action drop_oldest_chunk
      retry_type exponential_backoff
      retry_wait 1s
      retry_max_interval 60s
      retry_timeout 24h
    </buffer>
  </match>
"""


def outputs() -> str:
    """Where it writes: a day of retries, then the oldest logs are lost, never the newest."""
    containers = _output("containers", "kube.**", elasticsearch.CONTAINERS_STREAM)
    hosts = _output("hosts", "**", elasticsearch.HOSTS_STREAM)
    return f"<label @OUTPUT>\n{containers}{hosts}</label>\n"


def values(cluster: Cluster) -> Values:
    """One pod with a volume of its own.

    A StatefulSet is not scaled by load, and one pod carries far more than a rack of Pis writes;
    while it is away, Fluent Bit keeps what it could not send.
    """
    tls = forward.secured(cluster)
    volume = {"name": "tls", "secret": {"secretName": forward.TLS}}
    # It reads its certificate once, at its start. So the pod starts anew when that was renewed.
    fresh = ["/bin/sh", "-c", f"! test {CERTIFICATE}/tls.crt -nt /tmp/started"]
    return {
        "kind": "StatefulSet",  # of one pod
        "variant": "elasticsearch8",
        "rbac": {"create": False},
        "podSecurityPolicy": {"enabled": False},
        "podSecurityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "securityContext": pods.UNPRIVILEGED,
        "resources": pods.resources("256Mi", "768Mi", "100m"),
        "mountVarLogDirectory": False,
        "mountDockerContainersDirectory": False,
        "persistence": {
            "enabled": True,
            "storageClass": cluster.stack.storage,
            "size": BUFFER_SIZE,
        },
        "env": [
            forward.key_variable(),
            *(
                {
                    "name": name,
                    "valueFrom": {
                        "secretKeyRef": {
                            "name": elasticsearch.user_secret("fluentd"),
                            "key": key,
                        }
                    },
                }
                for name, key in (
                    ("ELASTICSEARCH_USER", "username"),
                    ("ELASTICSEARCH_PASSWORD", "password"),
                )
            ),
        ],
        **(
            {
                "volumes": [volume],
                "volumeMounts": [{"name": "tls", "mountPath": CERTIFICATE, "readOnly": True}],
                "lifecycle": {
                    "postStart": {"exec": {"command": ["/bin/sh", "-c", "touch /tmp/started"]}}
                },
                "livenessProbe": {
                    "httpGet": None,
                    "exec": {"command": fresh},
                    "initialDelaySeconds": 60,
                    "periodSeconds": 60,
                },
            }
            if tls
            else {}
        ),
        "service": {
            "ports": [{"name": "forward", "protocol": "TCP", "containerPort": forward.PORT}]
        },
        "metrics": {"serviceMonitor": {"enabled": monitors.wanted(cluster)}},
        "dashboards": {"enabled": monitors.wanted(cluster)},
        "fileConfigs": {
            "01_sources.conf": sources(cluster),
            "02_filters.conf": "",  # the chart's own reads the node's files
            "03_dispatch.conf": DISPATCH,
            "04_outputs.conf": outputs(),
        },
    }


def secrets(cluster: Cluster) -> list[SecretObject]:
    """The key senders show, and its account in Elasticsearch."""
    return [
        forward.shared_key(),
        elasticsearch.credentials(cluster, "fluentd", forward.NAMESPACE),
    ]


def objects(cluster: Cluster) -> list[Object]:
    """The address for hosts outside, and rules."""
    return [
        *forward.external_service(cluster, SELECTOR),
        *monitors.own(cluster, "fluentd", forward.NAMESPACE),
    ]


component = Component(
    name="fluentd",
    namespace=forward.NAMESPACE,
    wanted=lambda cluster: cluster.stack.logs == "elasticsearch",
    role="log-aggregation",
    needs=(
        "elasticsearch",
        "storage",
        "load-balancer",
        "certificates",
        "mesh",
        "metrics-crds",
    ),
    secrets=secrets,
    before=forward.certificate,
    release=Release(CHARTS["fluentd"], values),
    release_ready=lambda cluster: [
        *forward.certificate_ready(cluster),
        Rollout("StatefulSet", "fluentd", forward.NAMESPACE),
    ],
    objects=objects,
    ready=forward.external_ready,
)
