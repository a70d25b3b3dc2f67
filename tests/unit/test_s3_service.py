"""The S3 server: what its host is given follows from the cluster; an account has one bucket."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cluster import secret_table
from cluster.model import Cluster
from cluster.services import s3, s3_unit, tls
from tests.unit.cluster_example import example

NOW = datetime(2026, 11, 26, tzinfo=UTC)
HOSTS = [
    {"name": "node1", "role": "servers", "ip": "10.0.0.11", "arch": "arm64"},
    {"name": "nas", "role": "external", "ip": "10.0.0.9", "arch": "arm64"},
]
CA = tls.new_ca(NOW)


def cluster(**changes: Any) -> Cluster:
    parts: dict[str, Any] = {"hosts": HOSTS, "services": {"s3": {}}}
    return s3.derived(example(**(parts | changes)), CA.certificate)


FULL = cluster(
    stack={"storage": "longhorn", "backup": "velero", "database": "cloudnative-pg", "logs": "loki"},
    platform={"logs": {"in_s3": True}},
    services={"s3": {}, "backup": {}},
    k3s={"snapshots": {"s3": {"endpoint": "10.0.0.9:9000", "bucket": "k3s-etcd"}}},
)
VALUES = {
    f"{account.secrets}.{key}": f"{account.name}-{key}"
    for account in s3.accounts(FULL)
    for key in ("access_key", "secret_key")
}


def test_the_address_for_clients_and_the_ca_follow_from_the_host() -> None:
    assert cluster().backup.s3_endpoint == "10.0.0.9:9000"
    assert cluster().backup.ca == CA.certificate
    named = cluster(services={"s3": {"name": "s3.example.com", "port": 9091}})
    assert named.backup.s3_endpoint == "s3.example.com:9091"
    assert "s3.example.com" in s3.names(named)


def test_a_certificate_of_certbots_needs_no_ca_of_ours() -> None:
    files = {"certificate": "/etc/tls/fullchain.pem", "key": "/etc/tls/privkey.pem"}
    found = cluster(services={"s3": files})
    assert found.backup.ca is None
    assert "LoadCredential=tls.key:/etc/tls/privkey.pem" in unit(found)


def test_a_service_of_somebody_elses_is_left_as_it_is() -> None:
    before = {"backup": {"s3_endpoint": "s3.example.com"}}
    found = cluster(services={"s3": {"product": "external"}}, **before)
    assert found.backup.s3_endpoint == "s3.example.com"
    assert (s3.home(found), s3.asks(found).units) == (None, ())


def test_there_is_an_account_for_each_that_keeps_something_and_for_nobody_else() -> None:
    names = [account.name for account in s3.accounts(FULL)]
    assert names == ["longhorn", "velero", "database", "loki", "restic", "etcd"]
    assert s3.accounts(cluster()) == ()
    elsewhere = {"snapshots": {"s3": {"endpoint": "s3.example.com", "bucket": "k3s-etcd"}}}
    assert s3.accounts(cluster(k3s=elsewhere)) == ()


def test_a_policy_lets_one_account_into_one_bucket_and_not_change_it() -> None:
    account = s3.accounts(FULL)[0]
    statements = s3.policy(account, "longhorn-1")["Statement"]
    assert {one["Effect"] for one in statements} == {"Allow"}
    assert all(one["Principal"] == {"AWS": ["longhorn-1"]} for one in statements)
    resources = {resource for one in statements for resource in one["Resource"]}
    assert resources == {"arn:aws:s3:::k3s-longhorn", "arn:aws:s3:::k3s-longhorn/*"}
    actions = {action for one in statements for action in one["Action"]}
    assert not any("*" in action or "Policy" in action for action in actions)
    assert not {"s3:DeleteBucket", "s3:CreateBucket", "s3:ListAllMyBuckets"} & actions


def test_accounts_are_users_without_rights_of_their_own() -> None:
    found = json.loads(s3.users(FULL, VALUES))["accessAccounts"]
    assert {one["role"] for one in found.values()} == {"user"}
    assert found["etcd-access_key"]["secret"] == "etcd-secret_key"
    assert len(found) == len(s3.accounts(FULL))


def unit(model: Cluster) -> str:
    section = s3.server(model)
    assert section
    return s3_unit.unit(model, section)


def test_the_unit_holds_no_secret_and_writes_nowhere_but_to_its_data() -> None:
    text = unit(FULL)
    assert not any(value in text for value in VALUES.values())
    assert "ReadWritePaths=/var/lib/s3\n" in text
    assert "ProtectSystem=strict" in text and "User=s3\n" in text
    assert "CapabilityBoundingSet=\n" in text


def test_only_a_port_below_1024_gives_the_server_a_capability() -> None:
    text = unit(cluster(services={"s3": {"port": 443}}))
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" in text


def test_secrets_of_accounts_are_made_where_the_server_is_ours() -> None:
    made = {kind.name for kind in secret_table.wanted(FULL) if kind.make}
    assert {"s3.longhorn.access_key", "etcd_s3.secret_key", "ca.key", "restic.password"} <= made
    elsewhere = example(
        stack={"storage": "longhorn"}, backup={"s3_endpoint": "s3.example.com:9000"}
    )
    asked = {kind.name: kind.make for kind in secret_table.wanted(elsewhere)}
    assert asked["s3.longhorn.access_key"] is None
    assert "s3.root.access_key" not in asked


def test_what_is_made_for_an_account_has_the_right_shape() -> None:
    for kind in secret_table.wanted(FULL):
        assert kind.make is None or kind.fits(kind.make())


# ---- certificates


def test_an_issued_certificate_is_good_until_it_has_to_be_renewed() -> None:
    pair = tls.issue(CA, s3.names(FULL), NOW)
    assert tls.flaw(pair.certificate, CA.certificate, s3.names(FULL), NOW) is None
    late = NOW + timedelta(days=tls.DAYS - tls.RENEW_DAYS + 1)
    assert tls.flaw(pair.certificate, CA.certificate, s3.names(FULL), late) == "ends 2028-11-25"


@pytest.mark.parametrize(
    ("certificate", "names", "why"),
    [
        ("", ["nas"], "missing"),
        ("rubbish", ["nas"], "unreadable"),
        (tls.issue(tls.new_ca(NOW), ["nas"], NOW).certificate, ["nas"], "of another CA"),
        (tls.issue(CA, ["nas"], NOW).certificate, ["nas", "10.0.0.9"], "not for 10.0.0.9"),
    ],
)
def test_a_certificate_that_does_not_fit_is_replaced(
    certificate: str, names: list[str], why: str
) -> None:
    assert tls.flaw(certificate, CA.certificate, names, NOW) == why


def test_a_ca_with_another_ones_key_signs_nothing() -> None:
    mixed = tls.Pair(CA.certificate, tls.new_ca(NOW).key)
    with pytest.raises(tls.TlsError, match="not the key"):
        tls.issue(mixed, ["nas"], NOW)
