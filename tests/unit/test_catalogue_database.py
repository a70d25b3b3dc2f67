"""PostgreSQL by CloudNativePG: archived, backed up, watched, recovered."""

from __future__ import annotations

from typing import Any

import pytest

from catalogue import barman_plugin, cloudnative_pg, keycloak_db, longhorn
from cluster import secret_table
from cluster.component import Object
from cluster.model import Cluster
from cluster.readiness import Condition, Webhook
from tests.unit.cluster_example import example

STACK = {
    "storage": "longhorn",
    "database": "cloudnative-pg",
    "identity": "keycloak",
    "certificates": "cert-manager",
    "metrics": "kube-prometheus-stack",
}
S3 = {"s3_endpoint": "s3.example.com:9091"}
CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
PLUGIN = "barman-cloud.cloudnative-pg.io"


def cluster(servers: int = 3, agents: int = 2, **changes: Any) -> Cluster:
    return example(servers, agents, **{"stack": STACK, "backup": S3} | changes)


def find(objects: Any, kind: str) -> Object:
    (found,) = [item for item in objects if item["kind"] == kind]
    return dict(found)


# ---- which way backups go


@pytest.mark.parametrize(
    ("operator", "plugin"),
    [("1.23.1", False), ("1.26.0", False), ("1.29.2", False), ("1.30.0", True), ("1.31.0", True)],
)
def test_the_operators_version_decides_who_makes_backups(operator: str, plugin: bool) -> None:
    assert cloudnative_pg.backs_up_by_plugin(operator) is plugin


def test_the_pinned_operator_uses_the_plugin() -> None:
    here = cluster()
    spec = find(keycloak_db.objects(here), "Cluster")["spec"]
    (plugin,) = spec["plugins"]
    assert (plugin["name"], plugin["isWALArchiver"]) == (PLUGIN, True)
    assert "backup" not in spec  # both together are refused
    store = find(keycloak_db.objects(here), "ObjectStore")
    assert plugin["parameters"]["barmanObjectName"] == store["metadata"]["name"]
    assert store["metadata"]["namespace"] == "keycloak"
    assert barman_plugin.wanted(here)
    assert "barman-plugin" in keycloak_db.component.needs


def test_an_older_operator_backs_up_itself() -> None:
    spec = keycloak_db.postgres(cluster(), by_plugin=False)["spec"]
    assert "plugins" not in spec
    assert spec["backup"]["retentionPolicy"] == "30d"
    store = spec["backup"]["barmanObjectStore"]
    assert store["destinationPath"] == "s3://k3s-barman/"
    assert store["serverName"] == "keycloak-db"


# ---- what can be restored


def test_there_is_a_base_backup_every_day() -> None:
    """Defect 17: the log was archived, but there was nothing to replay it onto."""
    spec = find(keycloak_db.objects(cluster()), "ScheduledBackup")["spec"]
    assert spec["schedule"] == "0 0 3 * * *"  # seconds first
    assert spec["immediate"] is True
    assert (
        spec["cluster"]["name"]
        == find(keycloak_db.objects(cluster()), "Cluster")["metadata"]["name"]
    )
    assert (spec["method"], spec["pluginConfiguration"]["name"]) == ("plugin", PLUGIN)


@pytest.mark.parametrize(
    ("given", "expected"), [("30 2 * * 0", "0 30 2 * * 0"), ("@daily", "@daily")]
)
def test_a_schedule_gets_its_field_of_seconds(given: str, expected: str) -> None:
    here = cluster(backup=S3 | {"database_schedule": given})
    assert find(keycloak_db.objects(here), "ScheduledBackup")["spec"]["schedule"] == expected


def test_the_store_is_the_external_service_with_its_ca() -> None:
    here = cluster(backup=S3 | {"ca": CA, "keep_days": 7})
    spec = find(keycloak_db.objects(here), "ObjectStore")["spec"]
    configuration = spec["configuration"]
    assert configuration["endpointURL"] == "https://s3.example.com:9091"
    assert spec["retentionPolicy"] == "7d"
    _, secret = keycloak_db.secrets(here)
    assert configuration["endpointCA"] == {"name": secret.name, "key": "ca.crt"}
    assert secret.plain["ca.crt"] == CA
    keys = {ref["key"] for ref in configuration["s3Credentials"].values()}
    assert keys <= {*secret.data, *secret.plain}
    assert (
        "endpointCA"
        not in find(keycloak_db.objects(cluster()), "ObjectStore")["spec"]["configuration"]
    )


def test_without_s3_nothing_promises_a_backup() -> None:
    objects = keycloak_db.objects(cluster(backup={}))
    assert {item["kind"] for item in objects} == {"Cluster", "PodMonitor", "PrometheusRule"}
    assert "plugins" not in find(objects, "Cluster")["spec"]
    assert len(keycloak_db.secrets(cluster(backup={}))) == 1


# ---- recovery


def test_a_recovered_cluster_reads_one_archive_and_writes_another() -> None:
    made = keycloak_db.recovery(cluster(), "keycloak-db", "keycloak-db-2", "2026-03-31T04:00:00Z")
    spec = made["spec"]
    recovery = spec["bootstrap"]["recovery"]
    assert "initdb" not in spec["bootstrap"]
    assert recovery["recoveryTarget"] == {"targetTime": "2026-03-31T04:00:00Z"}
    assert (recovery["database"], recovery["secret"]["name"]) == ("keycloak", "keycloak-db-secret")
    (origin,) = spec["externalClusters"]
    assert origin["name"] == recovery["source"]
    assert origin["plugin"]["parameters"]["serverName"] == "keycloak-db"
    assert spec["plugins"][0]["parameters"]["serverName"] == "keycloak-db-2"


def test_the_same_manifest_comes_of_the_inputs() -> None:
    """So that a run after the recovery finds nothing to change."""
    inputs = {"database_recover_from": "keycloak-db", "database_archive": "keycloak-db-2"}
    here = cluster(backup=S3 | inputs)
    made = keycloak_db.recovery(cluster(), "keycloak-db", "keycloak-db-2")
    assert find(keycloak_db.objects(here), "Cluster") == made
    assert "recoveryTarget" not in made["spec"]["bootstrap"]["recovery"]


def test_an_older_operator_recovers_by_itself_too() -> None:
    inputs = {"database_recover_from": "keycloak-db", "database_archive": "keycloak-db-2"}
    spec = keycloak_db.postgres(cluster(backup=S3 | inputs), by_plugin=False)["spec"]
    (origin,) = spec["externalClusters"]
    assert origin["barmanObjectStore"]["serverName"] == "keycloak-db"
    assert spec["backup"]["barmanObjectStore"]["serverName"] == "keycloak-db-2"


# ---- the cluster itself


@pytest.mark.parametrize(("servers", "agents", "instances"), [(3, 2, 3), (1, 1, 2), (1, 0, 1)])
def test_no_node_has_two_instances(servers: int, agents: int, instances: int) -> None:
    spec = find(keycloak_db.objects(cluster(servers, agents)), "Cluster")["spec"]
    assert spec["instances"] == instances


def test_three_copies_are_not_copied_again_by_the_storage() -> None:
    spec = find(keycloak_db.objects(cluster()), "Cluster")["spec"]
    assert spec["storage"]["storageClass"] == longhorn.SINGLE_CLASS
    local = cluster(stack=STACK | {"storage": "local-path"})
    spec = find(keycloak_db.objects(local), "Cluster")["spec"]
    assert spec["storage"]["storageClass"] == "local-path"


def test_the_owner_logs_in_with_the_generated_password() -> None:
    owner = keycloak_db.secrets(cluster())[0]
    initdb = find(keycloak_db.objects(cluster()), "Cluster")["spec"]["bootstrap"]["initdb"]
    assert initdb == {"database": "keycloak", "owner": "keycloak", "secret": {"name": owner.name}}
    assert owner.type == "kubernetes.io/basic-auth"
    assert owner.plain == {"username": "keycloak"}
    (kind,) = (kind for kind in secret_table.TABLE if kind.name == owner.data["password"])
    assert kind.make is not None and kind.fits(kind.make())


def test_it_is_scraped_and_its_backups_raise_alarms() -> None:
    objects = keycloak_db.objects(cluster())
    monitor = find(objects, "PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"] == {"cnpg.io/cluster": "keycloak-db"}
    alerts = {
        rule["alert"]: rule["expr"]
        for rule in find(objects, "PrometheusRule")["spec"]["groups"][0]["rules"]
    }
    # The operator's own metric stands still when the plugin makes the backups.
    assert "barman_cloud_cloudnative_pg_io_last_failed" in alerts["DatabaseBackupFailed"]


def test_no_cluster_is_sent_before_the_operator_admits_it() -> None:
    for kind in ("Mutating", "Validating"):
        webhook = Webhook(
            f"{kind}WebhookConfiguration",
            f"cnpg-{kind.lower()}-webhook-configuration",
            "cnpg-webhook-service",
            "cnpg-system",
        )
        assert webhook in cloudnative_pg.release_ready(cluster())
    assert "cloudnative-pg" in keycloak_db.component.needs
    healthy = Condition("postgresql.cnpg.io/v1", "Cluster", "keycloak-db", "keycloak")
    assert healthy in keycloak_db.ready(cluster())


def test_the_plugin_has_its_certificates_first() -> None:
    assert "cert-manager" in barman_plugin.component.needs
    assert barman_plugin.component.namespace == cloudnative_pg.component.namespace
