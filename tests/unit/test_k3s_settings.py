"""Every key of K3s has a class, and only harmless ones may be set by hand."""

import pytest

from cluster import k3s_config, k3s_settings
from cluster.k3s_settings import Change, differences, problems, refusals
from cluster.versions import K3S_DEFAULT
from tests.unit.cluster_example import example


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            {"kubelet-args": ["a=b"]},
            "server_config.kubelet-args: not a setting of K3s that this project manages; "
            "did you mean kubelet-arg",
        ),
        (
            {"cluster-cidr": ["10.1.0.0/16"]},
            "server_config.cluster-cidr: set by network.pod_cidr, not here",
        ),
        (
            {"data-dir": "/data"},
            "server_config.data-dir: fixed at first start, it cannot be set here",
        ),
        (
            {"datastore-endpoint": "mysql://"},
            "server_config.datastore-endpoint: needs a procedure of its own, it cannot be set here",
        ),
        ({"debug": "yes"}, "server_config.debug: 'yes': expected true or false"),
        ({"v": True}, "server_config.v: True: expected a number"),
        ({"kubelet-arg": "a=b"}, "server_config.kubelet-arg: 'a=b': expected a list of texts"),
    ],
)
def test_a_bad_key_gets_one_line(config: dict[str, object], line: str) -> None:
    assert problems(config, {}, K3S_DEFAULT) == [line]


def test_an_agent_never_gets_a_server_key() -> None:
    assert problems({}, {"etcd-expose-metrics": True}, K3S_DEFAULT) == [
        "agent_config.etcd-expose-metrics: agents do not know it (an agent stops at an unknown key)"
    ]


def test_a_key_of_a_newer_release_is_refused() -> None:
    assert problems({"etcd-s3-bucket-lookup-type": "dns"}, {}, "v1.31.14+k3s1") == [
        "server_config.etcd-s3-bucket-lookup-type: needs K3s 1.33 or newer, pinned is v1.31.14+k3s1"
    ]


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("v1.33.12+k3s1", False),
        ("v1.35.7+k3s1", True),
        ("v1.36.2+k3s1", False),
        ("v1.36.3+k3s1", True),
        ("v1.37.0+k3s1", True),
        ("v1.32.13+k3s1", False),
    ],
)
def test_a_key_that_came_with_patches_is_known_from_each_minors_own_on(
    version: str, known: bool
) -> None:
    refused = [
        "server_config.helm-controller-arg: needs K3s 1.36.3, 1.35.7, 1.34.10, 1.33.13 or newer, "
        f"pinned is {version}"
    ]
    found = problems({"helm-controller-arg": ["a=b"]}, {}, version)
    assert found == ([] if known else refused)


def test_all_that_the_model_writes_is_in_the_table() -> None:
    cluster = example(
        k3s={"version": K3S_DEFAULT, "snapshots": {"s3": {"endpoint": "s", "bucket": "etcd"}}}
    )
    for host in cluster.members:
        for key in k3s_config.config(cluster, host):
            setting = k3s_settings.SETTINGS[key]
            assert host.is_server or setting.agent, key


def test_a_fixed_value_that_differs_is_refused_and_a_rolling_one_is_not() -> None:
    found = differences({"cluster-cidr": "a", "debug": True}, {"cluster-cidr": "b"})
    assert [one.change for one in found] == [Change.FIXED, Change.ROLLING]
    assert refusals(found) == ["cluster-cidr: 'a' → 'b' (fixed at first start)"]


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("node-ip", "deploys/reset.py --data node=NAME"),
        ("secrets-encryption", "k3s secrets-encrypt reencrypt --force --skip"),
        ("token-file", "deploys/tokens.py"),
        ("flannel-backend", "only in a new cluster"),
    ],
)
def test_what_needs_a_procedure_is_refused_with_what_to_do(key: str, what: str) -> None:
    (line,) = refusals(differences({key: "a"}, {key: "b"}))
    assert line.startswith(f"{key}: 'a' → 'b' (needs a procedure of its own: ") and what in line
