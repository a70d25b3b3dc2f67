"""cert-manager: who signs, how long the CA lives, how a domain is proved, how expiry is seen."""

from __future__ import annotations

from typing import Any

import pytest

from catalogue import acme, cert_manager, cert_manager_webhook_ionos, certificates
from cluster import secret_table
from cluster.model import Cluster
from cluster.readiness import Condition, Webhook
from tests.unit.catalogued import find
from tests.unit.cluster_example import example

PRODUCTION = {"email": "ada@example.com", "dns_provider": "ionos", "server": "production"}
PROVIDERS = ("ionos", "cloudflare", "route53", "rfc2136")


def cluster(account: dict[str, Any] | None = None, **changes: Any) -> Cluster:
    stack = {"certificates": "cert-manager", "metrics": "kube-prometheus-stack"}
    return example(**{"stack": stack, "acme": account or {}} | changes)


def account(provider: str, server: str = "production") -> dict[str, Any]:
    server_of_zone = {"server": "10.0.0.1:53", "key_name": "picluster"}
    extra = {"rfc2136": server_of_zone} if provider == "rfc2136" else {}
    return PRODUCTION | {"dns_provider": provider, "server": server} | extra


# ---- the cluster's own CA


def test_the_ca_outlives_what_holds_a_copy_of_it() -> None:
    """Defect 22: with the defaults it ended after 90 days, and since 1.18 with a new key."""
    spec = find(cert_manager.objects(cluster()), "Certificate", cert_manager.CA)["spec"]
    assert spec["isCA"] is True
    assert spec["duration"] == f"{10 * 365 * 24}h0m0s"
    assert spec["privateKey"] == {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Never"}
    assert spec["issuerRef"]["name"] == certificates.SELF_SIGNED
    assert "dnsNames" not in spec


def test_the_ca_issuer_signs_with_the_secret_of_the_ca() -> None:
    objects = cert_manager.objects(cluster())
    issuer = find(objects, "ClusterIssuer", certificates.CA_ISSUER)
    made = find(objects, "Certificate", cert_manager.CA)
    assert issuer["spec"]["ca"]["secretName"] == made["spec"]["secretName"]
    assert made["metadata"]["namespace"] == cert_manager.component.namespace


def test_an_own_ca_takes_the_place_of_the_made_one() -> None:
    own = cluster(platform={"own_ca": True})
    assert [item["kind"] for item in cert_manager.objects(own)] == [
        "ClusterIssuer",
        "PrometheusRule",
    ]
    (secret,) = cert_manager.secrets(own)
    assert (secret.name, secret.type) == (certificates.CA_SECRET, "kubernetes.io/tls")
    assert secret.data == {"tls.crt": "ca.certificate", "tls.key": "ca.key"}
    assert {"ca.certificate", "ca.key"} <= {kind.name for kind in secret_table.wanted(own)}
    assert not any(
        isinstance(check, Condition) and check.kind == "Certificate"
        for check in cert_manager.ready(own)
    )


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("ca.certificate", "-----BEGIN CERTIFICATE-----\nMIIB+/=\n-----END CERTIFICATE-----\n"),
        ("ca.key", "-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----\n"),
        ("ca.key", "-----BEGIN PRIVATE KEY-----\nMHcC\n-----END PRIVATE KEY-----"),
    ],
)
def test_pem_texts_are_known(name: str, good: str) -> None:
    (kind,) = (kind for kind in secret_table.TABLE if kind.name == name)
    assert kind.fits(good)
    assert not kind.fits("MHcC")
    assert not kind.fits(good.replace("END", "START"))


# ---- who signs


@pytest.mark.parametrize(
    ("given", "issuer"),
    [
        ({}, "ca-issuer"),
        (PRODUCTION, "letsencrypt-production"),
        (PRODUCTION | {"server": "staging"}, "ca-issuer"),
    ],
)
def test_what_people_open_is_signed_by(given: dict[str, Any], issuer: str) -> None:
    here = cluster(given)
    assert certificates.issuer(here) == issuer
    made = certificates.certificate(here, "web", "default", ["a.example.com"])
    assert made["spec"]["issuerRef"]["name"] == issuer
    assert Condition(certificates.API, "ClusterIssuer", issuer) in cert_manager.ready(here)


def test_programs_get_the_ca_only_where_it_is_needed() -> None:
    (copy,) = certificates.trust(cluster(), "oauth2-proxy")
    assert copy.source == ("cert-manager", "root-secret", "tls.crt")
    assert copy.target == ("oauth2-proxy", "cluster-ca", "ca.crt")
    assert certificates.trust(cluster(PRODUCTION), "oauth2-proxy") == ()
    assert certificates.trust(example(), "oauth2-proxy") == ()


@pytest.mark.parametrize(
    ("ingress", "asked", "shared"),
    [("traefik", False, False), ("traefik", True, True), ("envoy", False, True)],
)
def test_a_wildcard_is_the_ingress_default(ingress: str, asked: bool, shared: bool) -> None:
    stack = {"certificates": "cert-manager", "ingress": ingress}
    here = cluster(PRODUCTION | {"wildcard": asked}, stack=stack)
    made = certificates.default_certificate(here, "traefik")
    assert certificates.wildcard(here) is shared
    assert made["spec"]["dnsNames"] == ["picluster.example.com", "*.picluster.example.com"]
    expected = "letsencrypt-production" if shared else "ca-issuer"
    assert made["spec"]["issuerRef"]["name"] == expected


# ---- Let's Encrypt


@pytest.mark.parametrize("provider", PROVIDERS)
def test_both_servers_are_there_with_the_provider_of_the_domain(provider: str) -> None:
    here = cluster(account(provider))
    for server, url in (("staging", "acme-staging-v02"), ("production", "acme-v02")):
        issuer = find(cert_manager.objects(here), "ClusterIssuer", f"letsencrypt-{server}")
        spec = issuer["spec"]["acme"]
        assert url in spec["server"]
        assert spec["email"] == "ada@example.com"
        (solver,) = spec["solvers"]
        assert list(solver["dns01"]) == ["webhook" if provider == "ionos" else provider]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_solver_refers_to_keys_that_its_secret_has(provider: str) -> None:
    here = cluster(account(provider))
    (secret,) = cert_manager.secrets(here)
    solver, _ = acme.PROVIDERS[provider]
    assert set(_refs(solver(here))) == {(secret.name, key) for key in secret.data}
    assert secret.namespace == "cert-manager"
    wanted = {kind.name for kind in secret_table.wanted(here)}
    assert set(secret.data.values()) <= wanted
    others = {name for _, names in acme.PROVIDERS.values() for name in names.values()}
    assert not wanted & (others - set(secret.data.values()))


def _refs(data: Any) -> list[tuple[str, str]]:
    if isinstance(data, dict):
        if {"name", "key"} == data.keys():
            return [(data["name"], data["key"])]
        return [found for value in data.values() for found in _refs(value)]
    return []


def test_the_staging_server_gives_a_trial_that_nobody_waits_for() -> None:
    here = cluster(account("ionos", "staging"))
    trial = find(cert_manager.objects(here), "Certificate", acme.TRIAL)
    assert trial["spec"]["issuerRef"]["name"] == "letsencrypt-staging"
    assert certificates.issued(acme.TRIAL, "cert-manager") not in cert_manager.ready(here)
    kinds = [item["metadata"]["name"] for item in cert_manager.objects(cluster(PRODUCTION))]
    assert acme.TRIAL not in kinds


def test_the_webhook_serves_the_group_that_issuers_ask() -> None:
    here = cluster(PRODUCTION)
    assert cert_manager_webhook_ionos.wanted(here)
    assert not cert_manager_webhook_ionos.wanted(cluster(account("cloudflare")))
    values = cert_manager_webhook_ionos.values(here)
    issuer = find(cert_manager.objects(here), "ClusterIssuer", "letsencrypt-production")
    webhook = issuer["spec"]["acme"]["solvers"][0]["dns01"]["webhook"]
    assert values["groupName"] == webhook["groupName"] == "acme.picluster.example.com"
    assert values["image"]["tag"] not in ("", "latest")
    service = Condition(
        "apiregistration.k8s.io/v1",
        "APIService",
        "v1alpha1.acme.picluster.example.com",
        type="Available",
    )
    assert service in cert_manager_webhook_ionos.release_ready(here)


def test_a_split_horizon_asks_servers_that_answer_as_the_public_does() -> None:
    here = cluster(PRODUCTION | {"name_servers": ["9.9.9.9", "1.1.1.1"]})
    values = cert_manager.values(here)
    assert values["dns01RecursiveNameservers"] == "9.9.9.9:53,1.1.1.1:53"
    assert values["dns01RecursiveNameserversOnly"] is True
    dns = cert_manager_webhook_ionos.values(here)
    assert (dns["dnsPolicy"], dns["dnsConfig"]["nameservers"]) == ("None", ["9.9.9.9", "1.1.1.1"])
    assert "dns01RecursiveNameservers" not in cert_manager.values(cluster(PRODUCTION))


# ---- order and sight


def test_no_issuer_is_sent_before_the_webhook_admits_it() -> None:
    checks = cert_manager.release_ready(cluster())
    for kind in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
        webhook = "cert-manager-webhook"
        assert Webhook(kind, webhook, webhook, "cert-manager") in checks


def test_expiry_is_seen_before_it_happens() -> None:
    rule = find(cert_manager.objects(cluster()), "PrometheusRule", "certificates")
    alerts = {alert["alert"]: alert["expr"] for alert in rule["spec"]["groups"][0]["rules"]}
    assert "certmanager_certificate_expiration_timestamp_seconds" in alerts["CertificateNotRenewed"]
    assert cert_manager.values(cluster())["prometheus"]["servicemonitor"]["enabled"] is True
    bare = example(stack={"certificates": "cert-manager"})
    assert "PrometheusRule" not in [item["kind"] for item in cert_manager.objects(bare)]
    assert cert_manager.values(bare)["prometheus"]["servicemonitor"]["enabled"] is False
