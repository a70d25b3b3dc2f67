"""Elasticsearch and Kibana: who may do what, how long logs stay, how people see them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from catalogue import monitors, pods, script_job, web
from cluster.component import Component, Endpoint, Object, SecretObject
from cluster.model import Cluster
from cluster.readiness import Check, Completed, Field
from cluster.versions import ELASTIC

NAMESPACE = "elastic"
NAME = "efk"  # of both resources
SERVICE, PORT = f"{NAME}-es-http", 9200
KIBANA_SERVICE, KIBANA_PORT = f"{NAME}-kb-http", 5601
# Plain HTTP, as the ingress speaks it to what is behind; the mesh encrypts between pods.
URL = f"http://{SERVICE}.{NAMESPACE}:{PORT}"

ES_API = "elasticsearch.k8s.elastic.co/v1"
KIBANA_API = "kibana.k8s.elastic.co/v1"

# Data streams that Fluentd writes. Two, not one a namespace: each keeps shards of its own for each
# day, and a node with 1 GiB of heap has room for few. Their fields cannot collide: Fluent Bit
# leaves an application's JSON as text.
STREAM_PREFIX = "fluentd"
CONTAINERS_STREAM = f"{STREAM_PREFIX}-containers"
HOSTS_STREAM = f"{STREAM_PREFIX}-hosts"
PATTERN = f"{STREAM_PREFIX}-*"
POLICY = "fluentd-policy"
TEMPLATE = "fluentd"

IMAGE = f"docker.elastic.co/elasticsearch/elasticsearch:{ELASTIC}"

# Role of each account, as Elasticsearch's roles.yml has it; admin is Elasticsearch's own superuser.
ROLES: dict[str, dict[str, Any]] = {
    "fluentd_role": {
        "cluster": ["monitor"],
        "indices": [{"names": [PATTERN], "privileges": ["create_doc", "auto_configure"]}],
    },
    "prometheus_role": {
        "cluster": ["monitor", "read_ilm"],
        "indices": [{"names": ["*"], "privileges": ["monitor", "view_index_metadata"]}],
    },
    "grafana_role": {
        "cluster": ["monitor"],
        "indices": [{"names": [PATTERN], "privileges": ["read", "view_index_metadata"]}],
    },
}
ROLES_SECRET = "elasticsearch-roles"


def user_secret(user: str) -> str:
    """Name of the Secret of an account."""
    return f"elasticsearch-user-{user}"


def users(cluster: Cluster) -> dict[str, tuple[str, str]]:
    """Role and name of the password in the secrets file, by user."""
    found = {
        "admin": ("superuser", "elasticsearch.admin_password"),
        "fluentd": ("fluentd_role", "elasticsearch.fluentd_password"),
    }
    if monitors.wanted(cluster):
        found["exporter"] = ("prometheus_role", "elasticsearch.exporter_password")
        found["grafana"] = ("grafana_role", "elasticsearch.grafana_password")
    return found


def credentials(cluster: Cluster, user: str, namespace: str = NAMESPACE) -> SecretObject:
    """An account as a Secret that the operator reads, or that a client in `namespace` does."""
    role, password = users(cluster)[user]
    return SecretObject(
        user_secret(user),
        namespace,
        {"password": password},
        {"username": user, **({"roles": role} if namespace == NAMESPACE else {})},
        type="kubernetes.io/basic-auth",
    )


def secrets(cluster: Cluster) -> list[SecretObject]:
    """The accounts and what they may do: the file realm needs neither a licence nor an API call."""
    # YAML is a superset of JSON.
    roles = SecretObject(ROLES_SECRET, NAMESPACE, {}, {"roles.yml": json.dumps(ROLES, indent=2)})
    return [roles, *(credentials(cluster, user) for user in users(cluster))]


def replicas(cluster: Cluster) -> int:
    """Elasticsearch's nodes: one, as logs are no reason to spend three Pis."""
    return 1


def _injected(cluster: Cluster) -> bool:
    """Whether pods need a token, which the operator denies them: Linkerd leaves such pods out."""
    return cluster.stack.mesh == "linkerd"


def _elasticsearch(cluster: Cluster) -> Object:
    return {
        "apiVersion": ES_API,
        "kind": "Elasticsearch",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "version": ELASTIC,
            "http": {"tls": {"selfSignedCertificate": {"disabled": True}}},
            "auth": {
                "roles": [{"secretName": ROLES_SECRET}],
                "fileRealm": [{"secretName": user_secret(user)} for user in users(cluster)],
            },
            # Volumes outlive the resource.
            "volumeClaimDeletePolicy": "DeleteOnScaledownOnly",
            "nodeSets": [
                {
                    "name": "default",
                    "count": replicas(cluster),
                    # Without it the node's vm.max_map_count would have to be raised.
                    "config": {"node.store.allow_mmap": False},
                    "podTemplate": {
                        "spec": {
                            "automountServiceAccountToken": _injected(cluster),
                            "containers": [
                                {
                                    "name": "elasticsearch",
                                    # Elasticsearch takes half of the limit as heap.
                                    "resources": pods.resources("2Gi", "2Gi", "250m"),
                                }
                            ],
                        }
                    },
                    "volumeClaimTemplates": [
                        {
                            "metadata": {"name": "elasticsearch-data"},
                            "spec": {
                                "accessModes": ["ReadWriteOnce"],
                                "storageClassName": cluster.stack.storage,
                                "resources": {"requests": {"storage": cluster.platform.logs.size}},
                            },
                        }
                    ],
                }
            ],
        },
    }


def _kibana(cluster: Cluster) -> Object:
    return {
        "apiVersion": KIBANA_API,
        "kind": "Kibana",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "version": ELASTIC,
            "count": 1,
            "elasticsearchRef": {"name": NAME},
            "http": {"tls": {"selfSignedCertificate": {"disabled": True}}},
            "config": {
                "server.publicBaseUrl": web.url(cluster, "kibana", "").rstrip("/"),
                "telemetry.optIn": False,
                "telemetry.allowChangingOptInStatus": False,
            },
            "podTemplate": {
                "spec": {
                    "automountServiceAccountToken": _injected(cluster),
                    "containers": [
                        {
                            "name": "kibana",
                            "resources": pods.resources("768Mi", "1Gi", "100m"),
                        }
                    ],
                }
            },
        },
    }


def policy(cluster: Cluster) -> dict[str, Any]:
    """How long logs stay; a day is the grain, as what is deleted is a whole index."""
    return {
        "policy": {
            "phases": {
                "hot": {
                    "actions": {
                        "rollover": {"max_age": "1d", "max_primary_shard_size": "2gb"},
                        "set_priority": {"priority": 100},
                    }
                },
                "delete": {
                    "min_age": f"{cluster.platform.logs.keep_days}d",
                    "actions": {"delete": {}},
                },
            }
        }
    }


def template(cluster: Cluster) -> dict[str, Any]:
    """How logs are stored.

    Labels of pods are one field: `app` beside `app.kubernetes.io/name` cannot be two.
    """
    return {
        "index_patterns": [PATTERN],
        "data_stream": {},
        "priority": 200,
        "template": {
            "settings": {
                "index.lifecycle.name": POLICY,
                "index.number_of_shards": 1,
                "index.number_of_replicas": min(1, replicas(cluster) - 1),
                "index.codec": "best_compression",
                "index.refresh_interval": "10s",
            },
            "mappings": {
                "dynamic_templates": [
                    {
                        "texts": {
                            "match_mapping_type": "string",
                            "mapping": {"type": "keyword", "ignore_above": 1024},
                        }
                    }
                ],
                "properties": {
                    "@timestamp": {"type": "date"},
                    "message": {"type": "text"},
                    "kubernetes": {
                        "properties": {
                            "labels": {"type": "flattened"},
                            "annotations": {"type": "flattened"},
                        }
                    },
                },
            },
        },
    }


DATA_VIEW = {
    "override": True,
    "data_view": {
        "id": STREAM_PREFIX,
        "name": "Logs",
        "title": PATTERN,
        "timeFieldName": "@timestamp",
    },
}

# The password reaches curl through its standard input: an argument would be seen in a process list.
_SCRIPT = """\
set -eu
call() {
  printf 'header = "Authorization: Basic %s"\\n' "$(printf 'admin:%s' "$PASSWORD" | base64 -w0)" |
    curl --config - --silent --show-error --fail-with-body --max-time 30 \\
      --header 'Content-Type: application/json' --header 'kbn-xsrf: true' "$@"
  echo
}
await() { call --retry 150 --retry-delay 10 --retry-all-errors "$1"; }
await "$ELASTICSEARCH/_cluster/health"
call --request PUT --data @/setup/policy.json "$ELASTICSEARCH/_ilm/policy/$POLICY"
call --request PUT --data @/setup/template.json "$ELASTICSEARCH/_index_template/$TEMPLATE"
await "$KIBANA/api/status"
call --request POST --data @/setup/data-view.json "$KIBANA/api/data_views/data_view"
"""


def _setup(cluster: Cluster) -> list[Object]:
    """Puts policy, template and Kibana's view in place before the first log arrives.

    The operator would do it with a StackConfigPolicy, but that needs a licence; Fluentd's plugin
    would, but only with its write aliases, and its policy could not be changed later. So a Job
    speaks Elasticsearch's own API, with the image that the node has already. Its name follows from
    what it sends: a change makes a new Job, and a converged cluster has nothing to do.
    """
    files = {
        "policy.json": json.dumps(policy(cluster), indent=2),
        "template.json": json.dumps(template(cluster), indent=2),
        "data-view.json": json.dumps(DATA_VIEW, indent=2),
        "setup.sh": _SCRIPT,
    }
    return script_job.objects(setup_name(cluster), NAMESPACE, files, _container(), limit=3600)


def _container() -> dict[str, Any]:
    environment = {
        "ELASTICSEARCH": URL,
        "KIBANA": f"http://{KIBANA_SERVICE}.{NAMESPACE}:{KIBANA_PORT}",
        "POLICY": POLICY,
        "TEMPLATE": TEMPLATE,
    }
    password = {"name": user_secret("admin"), "key": "password"}
    return {
        "name": "setup",
        "image": IMAGE,
        "command": ["/bin/bash", "/setup/setup.sh"],
        "env": [
            *({"name": key, "value": value} for key, value in environment.items()),
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": password}},
        ],
        "resources": pods.resources("32Mi", "128Mi"),
        "securityContext": pods.UNPRIVILEGED,
        "volumeMounts": [{"name": "setup", "mountPath": "/setup"}],
    }


def setup_name(cluster: Cluster) -> str:
    """Name of the Job, from all that it does; its pods cannot be changed."""
    whole = json.dumps([policy(cluster), template(cluster), DATA_VIEW, _SCRIPT, _container()])
    return f"elasticsearch-setup-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def objects(cluster: Cluster) -> list[Object]:
    """Elasticsearch, Kibana with its route, and what is set up in both."""
    return [
        _elasticsearch(cluster),
        _kibana(cluster),
        *_setup(cluster),
        *web.web(
            cluster,
            name="kibana",
            namespace=NAMESPACE,
            service=KIBANA_SERVICE,
            port=KIBANA_PORT,
            host="kibana",
            login="own",
        ),
    ]


def ready(cluster: Cluster) -> list[Check]:
    """Both answer, and the Job is done."""
    return [
        Field(ES_API, "Elasticsearch", NAME, NAMESPACE, "status.phase", ("Ready",)),
        Field(ES_API, "Elasticsearch", NAME, NAMESPACE, "status.health", ("green", "yellow")),
        Field(KIBANA_API, "Kibana", NAME, NAMESPACE, "status.health", ("green",)),
        Completed(setup_name(cluster), NAMESPACE),
    ]


def endpoints(cluster: Cluster) -> list[Endpoint]:
    """Kibana; nothing where no ingress leads to it."""
    return web.opened(cluster, "kibana", login="admin, elasticsearch.admin_password")


component = Component(
    name="elasticsearch",
    namespace=NAMESPACE,
    wanted=lambda cluster: cluster.stack.logs == "elasticsearch",
    role="logs",
    needs=("eck-operator", "storage", "ingress", "certificates", "mesh"),
    secrets=secrets,
    objects=objects,
    ready=ready,
    timeout=1800,  # on a Pi the first start takes long, and the image is large
    holds_data=("elasticsearch.k8s.elastic.co",),
    data_kinds=("Elasticsearch",),
    endpoints=endpoints,
)
