"""Keycloak's database: three PostgreSQL instances, archived to S3 without a gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from catalogue import barman_plugin, cloudnative_pg, longhorn, monitors, s3
from catalogue.pods import replicas, resources
from cluster.component import Component, Object, SecretObject
from cluster.model import Cluster
from cluster.readiness import Check, Condition
from cluster.versions import IMAGES

NAME = "keycloak-db"
NAMESPACE = "keycloak"
API = "postgresql.cnpg.io/v1"
DATABASE = "keycloak"  # and its owner
SECRET = "keycloak-db-secret"
S3_SECRET = "keycloak-db-s3"
HOST = f"{NAME}-rw"  # Service in front of the primary
ORIGIN = "origin"

BY_PLUGIN = cloudnative_pg.backs_up_by_plugin(cloudnative_pg.OPERATOR)

# boto3 asks every S3 service for checksums that only Amazon's knows; source: the plugin's
# documentation, object stores, S3-compatible ones.
CHECKSUMS = [
    {"name": f"AWS_{name}", "value": "when_required"}
    for name in ("REQUEST_CHECKSUM_CALCULATION", "RESPONSE_CHECKSUM_VALIDATION")
]


def wanted(cluster: Cluster) -> bool:
    """Whether Keycloak's chart brings no database of its own."""
    return cluster.stack.identity == "keycloak"


def secrets(cluster: Cluster) -> Sequence[SecretObject]:
    """The database's owner, and the account of the bucket."""
    owner = SecretObject(
        SECRET,
        NAMESPACE,
        {"password": "keycloak.database_password"},
        plain={"username": DATABASE},
        type="kubernetes.io/basic-auth",
        labels={"cnpg.io/reload": "true"},  # a new password goes into the database
    )
    if not s3.wanted(cluster):
        return [owner]
    ca = cluster.backup.ca
    account = SecretObject(
        S3_SECRET,
        NAMESPACE,
        {
            "AWS_ACCESS_KEY_ID": "s3.database.access_key",
            "AWS_SECRET_ACCESS_KEY": "s3.database.secret_key",
        },
        plain={"AWS_REGION": cluster.backup.region, **({"ca.crt": ca} if ca else {})},
    )
    return [owner, account]


def objects(cluster: Cluster) -> Sequence[Object]:
    """The PostgreSQL cluster, its archive and backups, and how it is watched."""
    return [
        *(_store(cluster) if BY_PLUGIN else []),
        postgres(cluster),
        *_scheduled_backup(cluster, BY_PLUGIN),
        *monitors.pod_monitor(cluster, NAME, NAMESPACE, {"cnpg.io/cluster": NAME}, "metrics"),
        *monitors.rules(cluster, NAME, NAMESPACE, _rules(cluster, BY_PLUGIN)),
    ]


def postgres(cluster: Cluster, by_plugin: bool = BY_PLUGIN) -> Object:
    """The PostgreSQL cluster, new and empty, or recovered where the inputs say from what."""
    return {
        "apiVersion": API,
        "kind": "Cluster",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "instances": replicas(cluster, 3),
            "imageName": IMAGES["postgresql"],
            # It copies its data itself: replicated volumes would hold each row nine times.
            "storage": {
                "size": "10Gi",
                "storageClass": (
                    longhorn.SINGLE_CLASS if longhorn.wanted(cluster) else "local-path"
                ),
            },
            "resources": resources("256Mi", "1Gi", cpu="100m"),
            **_bootstrap(cluster, by_plugin),
            **_archive(cluster, by_plugin),
        },
    }


def recovery(cluster: Cluster, source: str, archive: str, until: str | None = None) -> Object:
    """The PostgreSQL cluster that starts from an archive, see docs/recovery.md.

    Args:
        source: folder in the bucket with the archive.
        archive: folder for the new one's archive, which must not exist.
        until: moment up to which it recovers, RFC 3339; None for the last one kept.
    """
    changes = {
        "database_recover_from": source,
        "database_archive": archive,
        "database_recover_until": until,
    }
    backup = cluster.backup.model_copy(update=changes)
    return postgres(cluster.model_copy(update={"backup": backup}))


def _bootstrap(cluster: Cluster, by_plugin: bool) -> dict[str, Any]:
    """How its first instance begins; read only when the cluster is made."""
    owner = {"database": DATABASE, "owner": DATABASE, "secret": {"name": SECRET}}
    backup = cluster.backup
    if not backup.database_recover_from:
        return {"bootstrap": {"initdb": owner}}
    until = backup.database_recover_until
    target = {"recoveryTarget": {"targetTime": until}} if until else {}
    server = {"serverName": backup.database_recover_from}
    origin: dict[str, Any] = {"barmanObjectStore": _s3(cluster) | server}
    if by_plugin:
        parameters = {"barmanObjectName": NAME, **server}
        origin = {"plugin": {"name": barman_plugin.PLUGIN, "parameters": parameters}}
    return {
        "bootstrap": {"recovery": {"source": ORIGIN, **owner, **target}},
        "externalClusters": [{"name": ORIGIN, **origin}],
    }


def _archive(cluster: Cluster, by_plugin: bool) -> dict[str, Any]:
    """Where its write-ahead log goes, all the time."""
    if not s3.wanted(cluster):
        return {}
    server = {"serverName": cluster.backup.database_archive}
    if by_plugin:
        parameters = {"barmanObjectName": NAME, **server}
        plugin = {"name": barman_plugin.PLUGIN, "isWALArchiver": True, "parameters": parameters}
        return {"plugins": [plugin]}
    return {
        "env": CHECKSUMS,
        "backup": {
            "barmanObjectStore": _s3(cluster) | server,
            "retentionPolicy": f"{cluster.backup.keep_days}d",
        },
    }


def _s3(cluster: Cluster) -> dict[str, Any]:
    """The bucket, in the words of Barman."""

    def key(name: str) -> dict[str, str]:
        return {"name": S3_SECRET, "key": name}

    return {
        "destinationPath": f"s3://{cluster.backup.buckets.database}/",
        "endpointURL": s3.url(cluster),
        **({"endpointCA": key("ca.crt")} if cluster.backup.ca else {}),
        "s3Credentials": {
            "accessKeyId": key("AWS_ACCESS_KEY_ID"),
            "secretAccessKey": key("AWS_SECRET_ACCESS_KEY"),
            "region": key("AWS_REGION"),
        },
        "data": {"compression": "gzip"},
        "wal": {"compression": "gzip", "maxParallel": 2},
    }


def _store(cluster: Cluster) -> list[Object]:
    """The bucket as the plugin's object."""
    if not s3.wanted(cluster):
        return []
    return [
        {
            "apiVersion": barman_plugin.API,
            "kind": "ObjectStore",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {
                "configuration": _s3(cluster),
                "retentionPolicy": f"{cluster.backup.keep_days}d",
                "instanceSidecarConfiguration": {
                    "env": CHECKSUMS,
                    "resources": resources("64Mi", "512Mi"),
                },
            },
        }
    ]


def _scheduled_backup(cluster: Cluster, by_plugin: bool) -> list[Object]:
    """Base backups; without one, an archive of the log alone cannot be restored."""
    if not s3.wanted(cluster):
        return []
    method: dict[str, Any] = {"method": "barmanObjectStore"}
    if by_plugin:
        method = {"method": "plugin", "pluginConfiguration": {"name": barman_plugin.PLUGIN}}
    schedule = cluster.backup.database_schedule
    return [
        {
            "apiVersion": API,
            "kind": "ScheduledBackup",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {
                # Six fields: the operator's begin with seconds.
                "schedule": schedule if schedule.startswith("@") else f"0 {schedule}",
                "immediate": True,
                "backupOwnerReference": "self",
                "cluster": {"name": NAME},
                **method,
            },
        }
    ]


def _rules(cluster: Cluster, by_plugin: bool) -> list[dict[str, Any]]:
    if not s3.wanted(cluster):
        return []
    prefix = "barman_cloud_cloudnative_pg_io" if by_plugin else "cnpg_collector"
    last = f"max by (namespace) ({prefix}_last_%s_backup_timestamp)"
    return [
        {
            "name": NAME,
            "rules": [
                {
                    "alert": "DatabaseBackupFailed",
                    "expr": f"{last % 'failed'} > {last % 'available'}",
                    "for": "15m",
                    "labels": {"severity": "critical"},
                    "annotations": {"summary": f"The last base backup of {NAME} has failed"},
                },
                {
                    "alert": "DatabaseNotArchived",
                    "expr": (
                        "max by (namespace) (cnpg_pg_stat_archiver_last_failed_time) > "
                        "max by (namespace) (cnpg_pg_stat_archiver_last_archived_time)"
                    ),
                    "for": "15m",
                    "labels": {"severity": "critical"},
                    "annotations": {"summary": f"{NAME} cannot archive its write-ahead log"},
                },
            ],
        }
    ]


def ready(cluster: Cluster) -> Sequence[Check]:
    """All instances run and follow the primary."""
    return [Condition(API, "Cluster", NAME, NAMESPACE)]


component = Component(
    name=NAME,
    namespace=NAMESPACE,
    wanted=wanted,
    needs=(
        "cloudnative-pg",
        *(("barman-plugin",) if BY_PLUGIN else ()),
        "storage",
        "mesh",
        "metrics-crds",
    ),
    secrets=secrets,
    objects=objects,
    ready=ready,
    timeout=1200,
    holds_data=("postgresql.cnpg.io",),
    data_kinds=("Cluster",),  # its volumes go with it
)
