"""Metrics: each series of K3s once, everything of the model watched, people let in by role."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from catalogue import CATALOGUE, grafana, host_jobs, k3s_metrics, kube_prometheus_stack, monitors
from cluster import k3s_config, prometheus_rules
from cluster.component import Object
from cluster.managed import METRICS
from cluster.model import Cluster
from cluster.presets import fill
from cluster.versions import CHARTS
from tests.contracts import contract as contracts
from tests.contracts.clusters import CLUSTERS, of_preset

FULL = CLUSTERS["v1_9"]
FLANNEL = CLUSTERS["v1_5"]
OUTSIDE = of_preset(
    "v1_9",
    hosts=[
        {"name": "gateway", "role": "gateway", "ip": "10.0.0.1", "arch": "arm64"},
        {"name": "store", "role": "external", "ip": "10.0.0.9", "arch": "arm64"},
        *(
            {"name": f"node{number}", "role": role, "ip": f"10.0.0.1{number}", "arch": "arm64"}
            for number, role in enumerate(("servers", "servers", "servers", "agents", "agents"), 1)
        ),
    ],
)


def stack(**changes: str) -> Cluster:
    return of_preset("v1_9", stack=fill({"preset": "v1_9", **changes}))


def values(cluster: Cluster = FULL) -> Any:
    return kube_prometheus_stack.values(cluster)


def of_kind(objects: list[Object], kind: str) -> list[Any]:
    return [obj for obj in objects if obj["kind"] == kind]


class TestK3s:
    def test_only_the_kubelets_endpoint_is_scraped(self) -> None:
        found = values(FLANNEL)
        for part in ("kubeApiServer", "kubeControllerManager", "kubeScheduler", "kubeProxy"):
            assert found[part]["serviceMonitor"] == {"enabled": False}, part
        for part in ("kubeControllerManager", "kubeScheduler", "kubeProxy"):
            assert found[part]["service"] == {"enabled": False}, part

    def test_rules_and_dashboards_of_the_rest_ask_for_that_job(self) -> None:
        found = values(FLANNEL)
        jobs = {
            found[part]["jobNameOverride"]
            for part in (
                "kubelet",
                "kubeApiServer",
                "kubeControllerManager",
                "kubeScheduler",
                "kubeProxy",
            )
        }
        assert jobs == {"kubelet"}
        # `enabled: false` would take their rules and dashboards away.
        assert "enabled" not in found["kubeApiServer"]

    def test_where_the_cni_takes_its_place_there_is_no_kube_proxy(self) -> None:
        assert values(FULL)["kubeProxy"] == {"enabled": False}

    def test_no_list_of_nodes_is_kept_by_hand(self) -> None:
        """The old one lacked a node: the operator keeps the kubelets' list itself."""
        operator = values()["prometheusOperator"]
        assert "kubeletService" not in operator  # the chart's own default is to keep it
        assert "10.0.0.14" not in json.dumps(values()["kubelet"])

    @pytest.mark.parametrize("cluster", [FULL, OUTSIDE])
    def test_a_node_of_the_model_that_is_not_scraped_is_an_alert(self, cluster: Cluster) -> None:
        (group,) = k3s_metrics.rules(cluster)
        watched = [re.findall(r'node="([^"]+)"', rule["expr"])[0] for rule in group["rules"]]
        assert watched == [host.name for host in cluster.members]

    def test_a_host_whose_job_never_ran_is_an_alert(self) -> None:
        """Its metric is absent then, which no comparison with a time sees."""
        assert host_jobs.rules(OUTSIDE) == []
        services = {"backup": {"hosts": ["gateway", "node4"]}}
        cluster = of_preset("v1_9", hosts=OUTSIDE.hosts, services=services)
        (group,) = host_jobs.rules(cluster)
        assert {rule["alert"] for rule in group["rules"]} == {"HostBackupMissing"}
        watched = {rule["labels"]["host"]: rule["expr"] for rule in group["rules"]}
        assert list(watched) == ["gateway", "node4"]
        for address, expression in zip(("10.0.0.1", "10.0.0.14"), watched.values(), strict=True):
            assert f'task="backup",instance="{address}:9100"' in expression
            assert expression.startswith("absent(picluster_backup_last_success_timestamp_seconds{")
        assert prometheus_rules.flaws(yaml.safe_dump({"groups": [group]})) == []
        objects = kube_prometheus_stack.objects(cluster)
        assert "HostBackupMissing" in json.dumps(of_kind(objects, "PrometheusRule")[0])

    def test_etcd_is_scraped_on_every_server_for_what_is_etcds(self) -> None:
        etcd = values(FULL)["kubeEtcd"]
        assert etcd["endpoints"] == [str(server.ip) for server in FULL.servers]
        (kept,) = etcd["serviceMonitor"]["metricRelabelings"]
        assert kept["action"] == "keep"
        for name in ("etcd_server_has_leader", "grpc_server_handled_total"):
            assert re.fullmatch(kept["regex"], name)
        for name in ("process_cpu_seconds_total", "go_goroutines", "etcd_requests_total"):
            assert not re.fullmatch(kept["regex"], name)

    def test_what_is_kept_there_is_dropped_here(self) -> None:
        (kept,) = values(FULL)["kubeEtcd"]["serviceMonitor"]["metricRelabelings"]
        rules = values(FULL)["kubelet"]["serviceMonitor"]["metricRelabelings"]
        dropped = [rule["regex"] for rule in rules if rule["action"] == "drop"]
        assert kept["regex"] in dropped

    def test_no_token_travels_over_plain_http(self) -> None:
        assert values(FULL)["kubeEtcd"]["serviceMonitor"]["bearerTokenFile"] is None

    def test_k3s_shows_etcds_metrics_exactly_when_somebody_reads_them(self) -> None:
        server = FULL.servers[0]
        assert k3s_config.config(FULL, server)["etcd-expose-metrics"] is True
        assert "etcd-expose-metrics" not in k3s_config.config(stack(metrics="none"), server)
        single = of_preset("v1_9", k3s={"datastore": "sqlite"}, hosts=[FULL.servers[0]])
        assert "etcd-expose-metrics" not in k3s_config.config(single, single.servers[0])
        assert values(single)["kubeEtcd"] == {"enabled": False}


class TestStack:
    def test_what_backups_of_nodes_tell_is_read_beside_the_charts_own_flags(self) -> None:
        assert "extraArgs" not in values()["prometheus-node-exporter"]
        found = values(of_preset("v1_9", services={"backup": {}}))["prometheus-node-exporter"]
        *kept, ours = found["extraArgs"]
        assert ours == f"--collector.textfile.directory=/host/root{METRICS}"
        chart = contracts.of_chart(CHARTS["kube-prometheus-stack"], contracts.KNOWN)
        if chart:
            assert kept == chart.defaults["prometheus-node-exporter"]["extraArgs"]

    def test_every_monitor_and_rule_of_any_namespace_is_taken(self) -> None:
        spec = values()["prometheus"]["prometheusSpec"]
        for kind in ("rule", "serviceMonitor", "podMonitor", "probe", "scrapeConfig"):
            assert spec[f"{kind}SelectorNilUsesHelmValues"] is False

    def test_the_volume_never_fills_up(self) -> None:
        cluster = of_preset("v1_9", platform={"metrics": {"size": "10Gi", "keep_days": 3}})
        spec = values(cluster)["prometheus"]["prometheusSpec"]
        assert spec["retention"] == "3d"
        assert spec["retentionSize"] == "8192MB"
        claim = spec["storageSpec"]["volumeClaimTemplate"]["spec"]
        assert claim["storageClassName"] == "longhorn"

    def test_the_webhooks_certificate_is_cert_managers_where_there_is_one(self) -> None:
        def hooks(cluster: Cluster) -> Any:
            return values(cluster)["prometheusOperator"]["admissionWebhooks"]

        assert hooks(FULL)["certManager"]["enabled"] is True
        assert hooks(FULL)["patch"]["enabled"] is False
        bare = hooks(stack(certificates="none"))
        assert bare["certManager"]["enabled"] is False
        assert bare["patch"]["enabled"] is True
        assert bare["patch"]["podAnnotations"] == {"linkerd.io/inject": "disabled"}

    def test_hosts_outside_are_targets_by_their_address(self) -> None:
        """Not by a Service of type ExternalName, which has no endpoints and is never scraped."""
        found = of_kind(kube_prometheus_stack.external_hosts(OUTSIDE), "ScrapeConfig")
        targets = {
            one["metadata"]["name"]: one["spec"]["staticConfigs"][0]["targets"] for one in found
        }
        assert targets == {
            "host-gateway": ["10.0.0.1:9100"],
            "host-store": ["10.0.0.9:9100"],
        }
        jobs = {one["spec"]["staticConfigs"][0]["labels"]["job"] for one in found}
        assert jobs == {"node-exporter"}  # the standard rules ask for it

    def test_what_has_no_login_is_guarded(self) -> None:
        objects = kube_prometheus_stack.objects(FULL)
        routes = {one["metadata"]["name"] for one in of_kind(objects, "HTTPRoute")}
        guards = {one["metadata"]["name"] for one in of_kind(objects, "SecurityPolicy")}
        assert routes == guards == {"prometheus", "alertmanager"}

    def test_its_dashboards_come_although_grafana_has_a_chart_of_its_own(self) -> None:
        own = values()["grafana"]
        assert own["enabled"] is False
        assert own["forceDeployDashboards"] is True

    def test_no_two_objects_of_the_catalogue_have_one_name(self) -> None:
        """Two owners of one dashboard overwrite each other."""
        for preset, cluster in CLUSTERS.items():
            names = [
                (obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"])
                for component in CATALOGUE.values()
                if component.wanted(cluster)
                for obj in (*component.before(cluster), *component.objects(cluster))
            ]
            assert len(names) == len(set(names)), preset

    def test_the_users_rules_and_dashboards_are_objects_too(self) -> None:
        board = json.dumps({"title": "Mine", "uid": "mine", "panels": []})
        rule = "groups: [{name: mine, rules: [{alert: A, expr: up == 0}]}]"
        cluster = FULL.model_copy(
            update={"user_rules": {"mine": rule}, "user_dashboards": {"mine": board}}
        )
        found = kube_prometheus_stack.of_user(cluster)
        assert [(one["kind"], one["metadata"]["name"]) for one in found] == [
            ("PrometheusRule", "user-mine"),
            ("ConfigMap", "user-mine"),
        ]

    def test_without_metrics_there_are_no_monitors(self) -> None:
        bare = stack(metrics="none")
        assert monitors.service_monitor(bare, "a", "b", {}, "http") == []
        assert monitors.own(bare, "kube-prometheus-stack", "monitoring") == []
        assert not kube_prometheus_stack.component.wanted(bare)


class TestGrafana:
    def test_its_volume_outlives_the_release(self) -> None:
        kept = grafana.values(FULL)["persistence"]["annotations"]
        assert kept == {"helm.sh/resource-policy": "keep"}

    def test_data_sources_are_those_of_the_stack(self) -> None:
        def uids(cluster: Cluster) -> list[str]:
            return [source["uid"] for source in grafana.data_sources(cluster)]

        assert uids(FULL) == ["prometheus", "alertmanager", "elasticsearch"]
        assert uids(stack(logs="loki")) == ["prometheus", "alertmanager", "loki"]
        assert uids(stack(logs="none")) == ["prometheus", "alertmanager"]
        assert uids(stack(logs="loki", metrics="none")) == ["loki"]

    def test_the_realms_roles_decide_what_somebody_may_do(self) -> None:
        login = grafana.values(FULL)["grafana.ini"]["auth.generic_oauth"]
        assert "contains(roles[*], 'admin') && 'Admin'" in login["role_attribute_path"]
        assert login["role_attribute_path"].endswith("|| 'Viewer'")
        assert "auth.generic_oauth" not in grafana.values(stack(identity="none"))["grafana.ini"]

    def test_no_secret_is_in_its_values(self) -> None:
        text = json.dumps(grafana.values(FULL))
        assert "client_secret" not in text
        names = {secret.name for secret in grafana.secrets(FULL)}
        asked = set(re.findall(r'"secretKeyRef": \{"name": "([^"]+)"', text)) | {"grafana-admin"}
        assert asked == names

    def test_it_trusts_the_clusters_ca_where_that_signs_keycloaks_certificate(self) -> None:
        own = of_preset("v1_9", acme={})
        login = grafana.values(own)["grafana.ini"]["auth.generic_oauth"]
        assert login["tls_client_ca"] == "/etc/grafana/ca/ca.crt"
        assert grafana.component.copies(own)
        assert "tls_client_ca" not in grafana.values(FULL)["grafana.ini"]["auth.generic_oauth"]

    def test_loki_without_metrics_still_has_somebody_to_show_it(self) -> None:
        assert grafana.component.wanted(stack(logs="loki", metrics="none"))
        assert not grafana.component.wanted(stack(logs="elasticsearch", metrics="none"))
