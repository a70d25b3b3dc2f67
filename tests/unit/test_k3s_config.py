"""What K3s reads on a node."""

from base64 import b64decode

import yaml

from cluster import k3s_config
from cluster.versions import K3S_DEFAULT
from tests.unit.cluster_example import example

CLUSTER = example()
SERVER, AGENT = CLUSTER.servers[0], CLUSTER.agents[0]


def test_tokens_are_named_by_file_and_never_by_value() -> None:
    config = k3s_config.config(CLUSTER, SERVER)
    assert config["token-file"] == "/etc/rancher/k3s/server-token"
    assert config["agent-token-file"] == "/etc/rancher/k3s/agent-token"
    assert "token" not in config
    assert k3s_config.config(CLUSTER, AGENT)["token-file"] == "/etc/rancher/k3s/agent-token"


def test_the_certificate_carries_every_server_and_the_virtual_ip() -> None:
    network = {
        "lan": "10.0.0.0/24",
        "gateway": "10.0.0.1",
        "dns": ("10.0.0.1",),
        "api": {"vip": "10.0.0.9", "names": ("k8s.example.com",)},
    }
    sans = k3s_config.config(example(network=network), SERVER)["tls-san"]
    assert sans[:2] == ["10.0.0.9", "k8s.example.com"]
    assert {"10.0.0.11", "10.0.0.13", "node2", "node2.picluster.example.com"} <= set(sans)


def test_what_the_stack_replaces_is_disabled() -> None:
    stack = {"cni": "cilium", "kube_proxy": "cilium", "load_balancer": "cilium", "ingress": "envoy"}
    config = k3s_config.config(example(stack=stack), SERVER)
    assert config["disable"] == ["servicelb", "traefik"]
    assert config["flannel-backend"] == "none"
    assert config["disable-kube-proxy"] is True
    assert config["disable-network-policy"] is True


def test_a_single_server_with_sqlite_has_no_etcd_keys() -> None:
    config = k3s_config.config(example(servers=1), SERVER)
    assert not [key for key in config if key.startswith("etcd")]


def test_snapshots_in_the_s3_service_of_all_backups_trust_its_ca() -> None:
    ca = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

    def config(endpoint: str) -> dict[str, str]:
        bucket = {"endpoint": endpoint, "bucket": "k3s-etcd"}
        backup = {"s3_endpoint": "10.0.0.9:9000", "ca": ca}
        return k3s_config.config(example(k3s={"snapshots": {"s3": bucket}}, backup=backup), SERVER)

    assert b64decode(config("10.0.0.9:9000")["etcd-s3-endpoint-ca"]).decode() == ca
    assert "etcd-s3-endpoint-ca" not in config("s3.example.com")
    assert config("10.0.0.9:9000")["etcd-s3-region"] == example().backup.region
    assert config("s3.example.com")["etcd-s3-region"] == "us-east-1"


def test_the_users_lists_extend_ours() -> None:
    k3s = {"version": K3S_DEFAULT, "agent_config": {"kubelet-arg": ["v=2"]}}
    config = k3s_config.config(example(k3s=k3s), AGENT)
    assert config["kubelet-arg"] == ["config=/etc/rancher/k3s/kubelet.yaml", "v=2"]


def test_the_unit_starts_after_the_clock_and_records_what_it_started_with() -> None:
    unit = k3s_config.unit(AGENT)
    assert "After=network-online.target time-sync.target" in unit
    assert "ExecStart=/usr/local/bin/k3s agent\n" in unit
    record = next(line for line in unit.splitlines() if k3s_config.REVISION in line)
    # systemd would expand a single $ itself.
    assert '"$$f"' in record and " $f" not in record
    assert "50-join" not in record


def test_a_server_keeps_its_token_before_each_start_and_an_agent_has_none_to_keep() -> None:
    keep = next(line for line in k3s_config.unit(SERVER).splitlines() if k3s_config.TOKENS in line)
    assert keep.startswith("ExecStartPre=-/bin/sh -c '") and keep.count("'") == 2
    # systemd would expand a single $ or % itself.
    assert "$$(date +%%s)" in keep
    assert k3s_config.TOKENS not in k3s_config.unit(AGENT)


def test_join_says_create_or_where() -> None:
    assert yaml.safe_load(k3s_config.join(None)) == {"cluster-init": True}
    assert yaml.safe_load(k3s_config.join("https://x:6443")) == {"server": "https://x:6443"}


def test_registries_are_a_file_only_when_configured() -> None:
    assert k3s_config.files(CLUSTER, AGENT)[k3s_config.REGISTRIES] is None
    k3s = {"version": K3S_DEFAULT, "registries": {"mirrors": {"*": {}}}}
    content = k3s_config.files(example(k3s=k3s), AGENT)[k3s_config.REGISTRIES]
    assert content is not None and yaml.safe_load(content) == {"mirrors": {"*": {}}}
