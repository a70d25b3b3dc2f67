"""Logging: who may do what, what survives, and defects of the old cluster that must not return."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from catalogue import (
    elasticsearch,
    elasticsearch_exporter,
    fluent_bit,
    fluentd,
    forward,
    loki,
)
from cluster.component import Object
from cluster.model import Cluster
from cluster.presets import fill
from cluster.readiness import Address, Completed
from tests.contracts.clusters import CLUSTERS, of_preset

HEAVY = CLUSTERS["v1_9"]
LIGHT = of_preset("v1_9", stack=fill({"preset": "v1_9", "logs": "loki"}))


def one(objects: list[Object], kind: str) -> Any:
    (found,) = (obj for obj in objects if obj["kind"] == kind)
    return found


def with_logs(preset: str = "v1_9", **logs: Any) -> Cluster:
    return of_preset(preset, platform={"logs": logs})


def release(component: Any, cluster: Cluster) -> Any:
    return component.release.values(cluster)


class TestElasticsearch:
    def test_accounts_come_from_the_secrets_file_and_none_may_more_than_its_work(self) -> None:
        made = {secret.name: secret for secret in elasticsearch.component.secrets(HEAVY)}
        spec = one(elasticsearch.objects(HEAVY), "Elasticsearch")["spec"]
        named = {ref["secretName"] for ref in spec["auth"]["fileRealm"] + spec["auth"]["roles"]}
        assert named == set(made)
        assert "efk-es-elastic-user" not in made  # the operator's own, not ours to make
        roles = yaml.safe_load(made["elasticsearch-roles"].plain["roles.yml"])
        for user in ("fluentd", "exporter", "grafana"):
            secret = made[elasticsearch.user_secret(user)]
            assert secret.type == "kubernetes.io/basic-auth"
            assert secret.plain["username"] == user
            assert secret.plain["roles"] in roles
            assert secret.data == {"password": f"elasticsearch.{user}_password"}
        writer = roles["fluentd_role"]["indices"]
        assert writer == [{"names": ["fluentd-*"], "privileges": ["create_doc", "auto_configure"]}]

    def test_logs_end_after_the_days_of_the_model(self) -> None:
        phases = elasticsearch.policy(with_logs(keep_days=3))["policy"]["phases"]
        assert phases["delete"]["min_age"] == "3d"

    def test_the_volume_outlives_the_resource(self) -> None:
        cluster = with_logs(size="50Gi")
        spec = one(elasticsearch.objects(cluster), "Elasticsearch")["spec"]
        assert spec["volumeClaimDeletePolicy"] == "DeleteOnScaledownOnly"
        (claim,) = spec["nodeSets"][0]["volumeClaimTemplates"]
        assert claim["spec"]["storageClassName"] == cluster.stack.storage
        assert claim["spec"]["resources"]["requests"]["storage"] == "50Gi"

    def test_it_asks_for_no_change_of_the_nodes_kernel(self) -> None:
        (nodes,) = one(elasticsearch.objects(HEAVY), "Elasticsearch")["spec"]["nodeSets"]
        assert nodes["config"]["node.store.allow_mmap"] is False

    def test_setup_is_a_new_job_when_and_only_when_something_changes(self) -> None:
        again, other = of_preset("v1_9"), with_logs(keep_days=30)
        assert elasticsearch.setup_name(HEAVY) == elasticsearch.setup_name(again)
        assert elasticsearch.setup_name(HEAVY) != elasticsearch.setup_name(other)
        job = one(elasticsearch.objects(HEAVY), "Job")
        assert Completed(job["metadata"]["name"], "elastic") in elasticsearch.ready(HEAVY)

    def test_the_job_shows_no_password_in_its_arguments(self) -> None:
        job = one(elasticsearch.objects(HEAVY), "Job")
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert "$PASSWORD" not in " ".join(container["command"])
        config = one(elasticsearch.objects(HEAVY), "ConfigMap")
        for line in config["data"]["setup.sh"].splitlines():
            assert "PASSWORD" not in line or line.lstrip().startswith("printf")

    def test_labels_of_pods_cannot_make_two_fields_of_one(self) -> None:
        fields = elasticsearch.template(HEAVY)["template"]["mappings"]["properties"]
        assert fields["kubernetes"]["properties"]["labels"] == {"type": "flattened"}

    def test_without_metrics_nobody_gets_an_account_for_them(self) -> None:
        bare = of_preset("v1_9", stack=fill({"preset": "v1_9", "metrics": "none"}))
        assert set(elasticsearch.users(bare)) == {"admin", "fluentd"}
        assert not elasticsearch_exporter.component.wanted(bare)

    def test_the_exporter_reads_with_its_own_account(self) -> None:
        given = release(elasticsearch_exporter.component, HEAVY)["extraEnvSecrets"]
        assert {entry["secret"] for entry in given.values()} == {"elasticsearch-user-exporter"}


class TestFluentd:
    def test_what_it_could_not_write_survives_its_restart(self) -> None:
        values = release(fluentd.component, HEAVY)
        assert values["kind"] == "StatefulSet"
        assert values["persistence"]["enabled"]
        paths = re.findall(r"@type file\n\s+path (\S+)", values["fileConfigs"]["04_outputs.conf"])
        assert len(paths) == 2
        assert all(path.startswith("/var/log/fluent/") for path in paths)

    def test_retries_have_an_end_and_a_full_buffer_blocks_nobody(self) -> None:
        outputs = fluentd.outputs()
        assert "retry_forever" not in outputs
        assert outputs.count("retry_timeout 24h") == 2
        assert outputs.count("overflow_action drop_oldest_chunk") == 2

    def test_buffers_fit_on_the_volume(self) -> None:
        limits = re.findall(r"total_limit_size (\d+)GB", fluentd.outputs())
        assert sum(map(int, limits)) * 10**9 < int(fluentd.BUFFER_SIZE[:-2]) * 2**30

    def test_it_is_not_scaled_by_load(self) -> None:
        values = release(fluentd.component, HEAVY)
        assert "autoscaling" not in values
        assert values["resources"]["requests"]["cpu"]

    def test_the_typing_errors_of_the_old_configuration_are_gone(self) -> None:
        text = json.dumps(release(fluentd.component, HEAVY))
        assert "idex_app_name" not in text
        assert "PASSWORDD" not in text
        # What is asked for is what is given.
        asked = set(re.findall(r"ENV\['(\w+)'\]", text))
        given = {entry["name"] for entry in release(fluentd.component, HEAVY)["env"]}
        assert asked == given

    def test_counters_have_no_label_that_grows_with_every_pod(self) -> None:
        assert "${tag}" not in fluentd.DISPATCH

    def test_senders_show_a_key_over_tls(self) -> None:
        sources = fluentd.sources(HEAVY)
        assert "<transport tls>" in sources
        assert "shared_key \"#{ENV['FORWARD_SHARED_KEY']}\"" in sources
        (certificate,) = fluentd.component.before(HEAVY)
        assert certificate["spec"]["dnsNames"][0] == "fluentd.picluster.example.com"

    def test_a_renewed_certificate_ends_the_pod_that_knows_the_old_one(self) -> None:
        values = release(fluentd.component, HEAVY)
        assert values["livenessProbe"]["httpGet"] is None
        assert "-nt /tmp/started" in values["livenessProbe"]["exec"]["command"][-1]
        assert "touch /tmp/started" in str(values["lifecycle"]["postStart"])

    @pytest.mark.parametrize(
        ("preset", "annotation"),
        [("v1_5", "metallb.io/loadBalancerIPs"), ("v1_9", "lbipam.cilium.io/ips")],
    )
    def test_hosts_outside_find_it_at_the_address_of_the_model(
        self, preset: str, annotation: str
    ) -> None:
        cluster = with_logs(preset, address="10.0.0.101")
        service = one(fluentd.objects(cluster), "Service")
        assert service["metadata"]["annotations"] == {annotation: "10.0.0.101"}
        assert fluentd.component.ready(cluster) == [Address("fluentd-ext", "fluent", "10.0.0.101")]


class TestFluentBit:
    def test_it_runs_on_servers_too(self) -> None:
        assert release(fluent_bit.component, HEAVY)["tolerations"] == [{"operator": "Exists"}]

    def test_no_container_prepares_its_folders(self) -> None:
        volumes = release(fluent_bit.component, HEAVY)["daemonSetVolumes"]
        state = next(volume for volume in volumes if volume["name"] == "state")
        assert state["hostPath"]["type"] == "DirectoryOrCreate"
        assert "/var/lib/docker/containers" not in json.dumps(volumes)

    def test_hosts_logs_have_absolute_times(self) -> None:
        """The journal's, not text in local time that a filter has to guess."""
        config = release(fluent_bit.component, HEAVY)["config"]
        assert "Name systemd" in config["inputs"]
        assert "syslog" not in config["inputs"]
        assert "lua" not in config["filters"]

    def test_a_journal_in_memory_is_read_where_it_is(self) -> None:
        volatile = of_preset("v1_9", nodes={"journal_storage": "volatile"})
        values = release(fluent_bit.component, volatile)
        assert "Path /run/log/journal" in values["config"]["inputs"]
        mounts = {mount["mountPath"] for mount in values["daemonSetVolumeMounts"]}
        assert "/run/log/journal" in mounts

    def test_pods_with_much_metadata_keep_it(self) -> None:
        filters = release(fluent_bit.component, HEAVY)["config"]["filters"]
        assert "Buffer_Size 512k" in filters
        assert "Labels On" in filters
        assert "Merge_Log Off" in filters

    def test_its_own_and_fluentds_logs_make_no_loop(self) -> None:
        inputs = release(fluent_bit.component, HEAVY)["config"]["inputs"]
        assert "/var/log/containers/fluent-bit-*_fluent_*.log" in inputs
        assert "/var/log/containers/fluentd-*_fluent_*.log" in inputs

    def test_the_receiver_is_checked_and_only_its_ca_is_given(self) -> None:
        values = release(fluent_bit.component, HEAVY)
        assert "tls.verify On" in values["config"]["outputs"]
        (volume,) = values["extraVolumes"]
        assert [item["key"] for item in volume["secret"]["items"]] == ["ca.crt"]

    def test_what_waits_is_bounded(self) -> None:
        for cluster in (HEAVY, LIGHT):
            outputs = release(fluent_bit.component, cluster)["config"]["outputs"]
            names = outputs.count("[OUTPUT]")
            assert outputs.count("Retry_Limit 200") == names
            assert outputs.count("storage.total_limit_size 1G") == names

    def test_its_storage_is_seen(self) -> None:
        config = release(fluent_bit.component, HEAVY)["config"]
        assert "storage.metrics On" in config["service"]
        assert config["inputs"].count("storage.type filesystem") == config["inputs"].count(
            "[INPUT]"
        )

    def test_without_certificates_it_asks_for_none(self) -> None:
        stack = fill({"preset": "v1_9", "certificates": "none"})
        values = release(fluent_bit.component, of_preset("v1_9", stack=stack))
        assert "extraVolumes" not in values
        assert "tls" not in values["config"]["outputs"]


class TestLoki:
    def test_the_volume_outlives_the_release(self) -> None:
        """The chart's own value removes the claim with the StatefulSet."""
        persistence = release(loki.component, LIGHT)["singleBinary"]["persistence"]
        assert persistence["enableStatefulSetAutoDeletePVC"] is False

    def test_the_light_stack_has_no_step_between(self) -> None:
        assert not fluentd.component.wanted(LIGHT)
        assert fluent_bit.component.wanted(LIGHT)
        outputs = release(fluent_bit.component, LIGHT)["config"]["outputs"]
        assert outputs.count("Name loki") == 2
        assert "Host loki.loki" in outputs

    def test_hosts_outside_send_to_the_same_name_in_both_stacks(self) -> None:
        inputs = release(fluent_bit.component, LIGHT)["config"]["inputs"]
        assert "Name forward" in inputs
        assert one(list(fluent_bit.objects(LIGHT)), "Service")["metadata"]["name"] == "fluentd-ext"
        assert [secret.name for secret in fluent_bit.component.secrets(LIGHT)] == [forward.KEY]
        assert not fluent_bit.component.secrets(HEAVY)  # Fluentd's component has it

    def test_logs_in_s3_have_an_account_of_their_own_and_no_key_in_the_values(self) -> None:
        assert loki.secrets(LIGHT) == []
        assert release(loki.component, LIGHT)["loki"]["storage"] == {"type": "filesystem"}
        ca = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        model = of_preset(
            "v1_9",
            stack=fill({"preset": "v1_9", "logs": "loki"}),
            platform={"logs": {"in_s3": True}},
            backup={"s3_endpoint": "10.0.0.9:9000", "ca": ca},
        )
        values = release(loki.component, model)
        assert values["loki"]["storage"]["s3"]["endpoint"] == "10.0.0.9:9000"
        stores = values["loki"]["schemaConfig"]["configs"][0]["object_store"]
        assert (stores, values["loki"]["compactor"]["delete_request_store"]) == ("s3", "s3")
        (secret,) = loki.secrets(model)
        named = [env["valueFrom"]["secretKeyRef"] for env in values["singleBinary"]["extraEnv"]]
        assert [ref["key"] for ref in named] == list(secret.data)
        assert {ref["name"] for ref in named} == {secret.name}
        mount = values["singleBinary"]["extraVolumeMounts"][0]["mountPath"]
        assert values["loki"]["storage"]["s3"]["http_config"]["ca_file"] == f"{mount}/ca.crt"
        assert secret.plain == {"ca.crt": ca}

    def test_it_forgets_and_asks_for_no_memory_of_servers(self) -> None:
        values = release(loki.component, LIGHT)
        assert values["loki"]["compactor"]["retention_enabled"] is True
        assert values["loki"]["limits_config"]["retention_period"] == "168h"
        for part in ("chunksCache", "resultsCache", "lokiCanary", "gateway", "test"):
            assert values[part]["enabled"] is False
