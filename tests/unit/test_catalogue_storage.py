"""Longhorn, snapshots and Velero: where data lies, how it is copied, who gets at it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from catalogue import longhorn, snapshot_controller, velero
from cluster import k3s_config, secret_table
from cluster.model import Cluster
from cluster.readiness import Established, Exists, Field, Rollout
from tests.unit.catalogued import find
from tests.unit.cluster_example import example

STACK = {
    "storage": "longhorn",
    "snapshots": "external-snapshotter",
    "backup": "velero",
    "ingress": "traefik",
    "certificates": "cert-manager",
    "metrics": "kube-prometheus-stack",
}
S3 = {"s3_endpoint": "s3.example.com:9091"}
CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEYS = {"s3.velero.access_key": "velero", "s3.velero.secret_key": "pass=word"}


def cluster(stack: dict[str, str] | None = None, **changes: Any) -> Cluster:
    return example(**{"stack": STACK | (stack or {}), "backup": S3} | changes)


def names(objects: Any, kind: str) -> list[str]:
    return [item["metadata"]["name"] for item in objects if item["kind"] == kind]


# ---- Longhorn


@pytest.mark.parametrize(
    ("servers", "agents", "changes", "replicas"),
    [
        (3, 2, {}, 3),
        (1, 1, {}, 2),
        (1, 0, {}, 1),
        (3, 2, {"k3s": {"control_plane_taint": True}}, 2),
        (3, 2, {"platform": {"storage": {"replicas": 2}}}, 2),
    ],
)
def test_a_volume_has_no_more_copies_than_nodes_that_store_some(
    servers: int, agents: int, changes: dict[str, Any], replicas: int
) -> None:
    here = example(servers, agents, **{"stack": STACK, "backup": S3} | changes)
    values = longhorn.values(here)
    assert values["persistence"]["defaultClassReplicaCount"] == replicas
    assert f'"v1": "{replicas}"' in values["defaultSettings"]["defaultReplicaCount"]


def test_a_tainted_node_stores_nothing() -> None:
    hosts = [
        {
            "name": f"node{n}",
            "role": "servers",
            "ip": f"10.0.0.{10 + n}",
            "arch": "arm64",
            "taints": ["dedicated=db:NoSchedule"] if n == 3 else ["slow=yes:PreferNoSchedule"],
        }
        for n in (1, 2, 3)
    ]
    assert longhorn.volume_replicas(cluster(hosts=hosts)) == 2


def test_paths_and_policies_come_from_the_model() -> None:
    storage = {"path": "/storage", "node_drain_policy": "always-allow"}
    settings = longhorn.values(cluster(platform={"storage": storage}))["defaultSettings"]
    assert (settings["defaultDataPath"], settings["nodeDrainPolicy"]) == (
        "/storage",
        "always-allow",
    )
    # A volume of one replica would hold its node for ever.
    default = longhorn.values(cluster())["defaultSettings"]["nodeDrainPolicy"]
    assert default == "block-for-eviction-if-contains-last-replica"


def test_the_backup_target_ends_with_a_slash() -> None:
    store = longhorn.values(cluster())["defaultBackupStore"]
    assert store["backupTarget"] == "s3://k3s-longhorn@eu-west-1/"
    (secret,) = longhorn.secrets(cluster())
    assert store["backupTargetCredentialSecret"] == secret.name
    assert secret.plain == {"AWS_ENDPOINTS": "https://s3.example.com:9091"}
    assert set(secret.data) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_an_own_ca_of_the_s3_service_is_handed_on() -> None:
    here = cluster(backup=S3 | {"ca": CA})
    assert longhorn.secrets(here)[0].plain["AWS_CERT"] == CA
    (location,) = velero.values(here)["configuration"]["backupStorageLocation"]
    assert base64.b64decode(location["caCert"]).decode() == CA
    assert "insecureSkipTLSVerify" not in location["config"]


def test_without_s3_volumes_have_no_target_and_no_secret() -> None:
    here = cluster({"backup": "none"}, backup={})
    assert "defaultBackupStore" not in longhorn.values(here)
    assert longhorn.secrets(here) == []
    assert "longhorn-backup-vsc" not in names(longhorn.objects(here), "VolumeSnapshotClass")
    assert not any(kind.name.startswith("s3.") for kind in secret_table.wanted(here))


def test_what_longhorn_makes_by_itself_is_waited_for() -> None:
    """Defect 5: its check gave up in silence. The release ends before CSI and classes are there."""
    checks = longhorn.release_ready(cluster())
    made = ("csi-attacher", "csi-provisioner", "csi-resizer", "csi-snapshotter")
    for name in made:
        assert Rollout("Deployment", name, "longhorn-system") in checks
    assert Rollout("DaemonSet", "longhorn-csi-plugin", "longhorn-system") in checks
    assert Exists("storage.k8s.io/v1", "StorageClass", "longhorn") in checks
    assert Exists("storage.k8s.io/v1", "CSIDriver", "driver.longhorn.io") in checks


def test_there_is_one_default_class() -> None:
    """K3s brings another; two defaults make volumes of either kind."""
    assert longhorn.values(cluster())["persistence"]["defaultClass"] is True
    assert "local-storage" in k3s_config.disabled(cluster())
    single = find(longhorn.objects(cluster()), "StorageClass", "longhorn-single")
    assert "annotations" not in single["metadata"]
    assert single["parameters"]["numberOfReplicas"] == "1"


def test_snapshot_classes_say_where_a_snapshot_goes() -> None:
    classes = {
        item["metadata"]["name"]: item
        for item in [*longhorn.objects(cluster()), *velero.objects(cluster())]
        if item["kind"] == "VolumeSnapshotClass"
    }
    kinds = {
        name: (item["deletionPolicy"], item.get("parameters")) for name, item in classes.items()
    }
    assert kinds == {
        "longhorn": ("Delete", None),
        "longhorn-snapshot-vsc": ("Delete", {"type": "snap"}),
        "longhorn-backup-vsc": ("Delete", {"type": "bak"}),
        "velero-longhorn-backup-vsc": ("Retain", {"type": "bak"}),
    }
    labels = classes["velero-longhorn-backup-vsc"]["metadata"]["labels"]
    assert labels == {"velero.io/csi-volumesnapshot-class": "true"}
    assert not names(longhorn.objects(cluster({"snapshots": "none"})), "VolumeSnapshotClass")


def test_prometheus_gets_through_the_policies_that_hold_off_all_others() -> None:
    """Since 1.12.1 the chart's own policies let nobody scrape."""
    objects = longhorn.objects(cluster())
    spec = find(objects, "NetworkPolicy", "allow-metrics")["spec"]
    assert longhorn.values(cluster())["networkPolicies"]["restrictInternalTraffic"] is True
    assert longhorn.values(cluster())["metrics"]["serviceMonitor"]["enabled"] is True
    assert spec["podSelector"]["matchLabels"] == {"app": "longhorn-manager"}
    assert _sources(spec) == ["monitoring"]
    bare = longhorn.objects(cluster({"metrics": "none"}))
    assert "allow-metrics" not in names(bare, "NetworkPolicy")


def test_initiators_on_the_nodes_reach_their_volumes() -> None:
    def cidrs(here: Cluster) -> list[str]:
        spec = find(longhorn.objects(here), "NetworkPolicy", "allow-initiators")["spec"]
        (rule,) = spec["ingress"]
        assert rule["ports"] == [{"protocol": "TCP", "port": 3260}]
        return [source["ipBlock"]["cidr"] for source in rule["from"]]

    assert cidrs(cluster()) == [f"10.0.0.{n}/32" for n in range(11, 16)]
    assert "169.254.7.127/32" in cidrs(cluster({"mesh": "istio", "cni": "cilium"}))


@pytest.mark.parametrize(("ingress", "namespace"), [("traefik", "traefik"), ("nginx", "nginx")])
def test_only_the_ingress_opens_the_dashboard_that_has_no_login(
    ingress: str, namespace: str
) -> None:
    spec = find(
        longhorn.objects(cluster({"ingress": ingress})), "NetworkPolicy", "allow-dashboard"
    )["spec"]
    assert spec["podSelector"]["matchLabels"] == {"app": "longhorn-ui"}
    assert _sources(spec) == [namespace]


def _sources(spec: dict[str, Any]) -> list[str]:
    return [
        source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for rule in spec["ingress"]
        for source in rule["from"]
    ]


def test_the_dashboard_is_behind_a_login() -> None:
    route = find(longhorn.objects(cluster({"ingress": "nginx"})), "Ingress", "longhorn")
    assert "nginx.ingress.kubernetes.io/auth-secret" in route["metadata"]["annotations"]
    (endpoint,) = longhorn.endpoints(cluster())
    assert endpoint.url == "https://longhorn.picluster.example.com/"
    assert longhorn.endpoints(cluster({"ingress": "none"})) == []


def test_data_forbids_removal() -> None:
    assert longhorn.component.holds_data == ("longhorn.io",)
    assert longhorn.component.driver == "driver.longhorn.io"
    assert snapshot_controller.GROUP in snapshot_controller.component.holds_data


# ---- snapshots


def test_longhorns_chart_is_told_that_its_removal_is_meant() -> None:
    """Its hook refuses without; the contract says so."""
    (flag,) = longhorn.component.removal
    assert (flag["metadata"]["name"], flag["value"]) == ("deleting-confirmation-flag", "true")


def test_snapshot_kinds_are_there_before_longhorn() -> None:
    checks = snapshot_controller.release_ready(cluster())
    (crds,) = (check for check in checks if isinstance(check, Established))
    assert "volumesnapshots.snapshot.storage.k8s.io" in crds.names
    assert "snapshots" in longhorn.component.needs
    assert snapshot_controller.component.role == "snapshots"


# ---- Velero


def test_the_schedule_takes_everything() -> None:
    """Defect 4: `included_resources` was ignored, so the API would have to know the key."""
    spec = find(velero.objects(cluster()), "Schedule", "full")["spec"]
    template = spec["template"]
    assert template["includedResources"] == ["*"]
    assert "included_resources" not in template
    assert template["includedNamespaces"] == ["*"]
    assert template["includeClusterResources"] is True
    assert (spec["schedule"], template["ttl"]) == ("0 4 * * *", "720h0m0s")


def test_how_long_and_when_is_the_users_choice() -> None:
    here = cluster(backup=S3 | {"keep_days": 7, "schedule": "30 1 * * *"})
    spec = find(velero.objects(here), "Schedule", "full")["spec"]
    assert (spec["schedule"], spec["template"]["ttl"]) == ("30 1 * * *", "168h0m0s")


def test_velero_reaches_the_external_service() -> None:
    (location,) = velero.values(cluster())["configuration"]["backupStorageLocation"]
    assert location["bucket"] == "k3s-velero"
    assert location["config"] == {
        "region": "eu-west-1",
        "s3ForcePathStyle": "true",
        "s3Url": "https://s3.example.com:9091",
    }
    available = Field(
        "velero.io/v1", "BackupStorageLocation", "default", "velero", "status.phase", ("Available",)
    )
    assert available in velero.release_ready(cluster())


def test_volumes_are_backed_up_by_csi_and_by_the_node_agent() -> None:
    values = velero.values(cluster())
    assert values["configuration"]["features"] == "EnableCSI"
    assert values["snapshotsEnabled"] is False
    assert values["deployNodeAgent"] is True
    (plugin,) = values["initContainers"]  # a second one for CSI would be the same plugin twice
    assert plugin["image"].startswith("velero/velero-plugin-for-aws:v")


def test_no_job_needs_an_image_of_kubectl() -> None:
    values = velero.values(cluster())
    assert (values["upgradeCRDs"], values["cleanUpCRDs"]) == (False, False)


def test_the_credentials_are_a_file_of_aws() -> None:
    (secret,) = velero.secrets(cluster())
    assert velero.values(cluster())["credentials"]["existingSecret"] == secret.name
    text = secret_table.DERIVED[secret.data["cloud"]](KEYS)
    assert text == "[default]\naws_access_key_id=velero\naws_secret_access_key=pass=word\n"
