"""cert-manager, the cluster's own CA, and Let's Encrypt."""

from __future__ import annotations

from collections.abc import Sequence

from catalogue import acme, certificates, monitors
from catalogue.pods import resources
from cluster.component import Component, Object, Release, SecretObject, Values
from cluster.model import Cluster
from cluster.readiness import Check, Condition, Rollout, Webhook
from cluster.versions import CHARTS

NAMESPACE = certificates.NAMESPACE
CA = "picluster-ca"
TEN_YEARS = "87600h0m0s"

METRIC = "certmanager_certificate"
RULES = [
    {
        "name": "certificates",
        "rules": [
            {
                "alert": "CertificateNotRenewed",
                # Half of the time between renewal and expiry is gone: so it fits certificates of
                # three months and those of two days.
                "expr": (
                    f"{METRIC}_expiration_timestamp_seconds - time() < "
                    f"({METRIC}_expiration_timestamp_seconds"
                    f" - {METRIC}_renewal_timestamp_seconds) / 2"
                ),
                "for": "15m",
                "labels": {"severity": "critical"},
                "annotations": {
                    "summary": "Certificate {{ $labels.exported_namespace }}/{{ $labels.name }}"
                    " expires in {{ $value | humanizeDuration }} and was not renewed"
                },
            },
            {
                "alert": "CertificateNotReady",
                "expr": f'{METRIC}_ready_status{{condition!="True"}} == 1',
                "for": "1h",
                "labels": {"severity": "warning"},
                "annotations": {
                    "summary": "Certificate {{ $labels.exported_namespace }}/{{ $labels.name }}"
                    " cannot be issued"
                },
            },
        ],
    }
]


def values(cluster: Cluster) -> Values:
    """Values of the chart."""
    servers = ",".join(f"{address}:53" for address in cluster.acme.name_servers)
    recursive = {"dns01RecursiveNameservers": servers, "dns01RecursiveNameserversOnly": True}
    return {
        "crds": {"enabled": True, "keep": True},
        # Its Job only waits for the webhook, which we do ourselves and say why when it fails.
        "startupapicheck": {"enabled": False},
        **(recursive if servers else {}),
        "resources": resources("64Mi", "256Mi"),
        "webhook": {"resources": resources("32Mi", "128Mi")},
        "cainjector": {"resources": resources("64Mi", "256Mi")},
        "prometheus": {"servicemonitor": {"enabled": monitors.wanted(cluster)}},
    }


def secrets(cluster: Cluster) -> Sequence[SecretObject]:
    """The user's own CA and the account at the DNS provider, where there are."""
    own = SecretObject(
        certificates.CA_SECRET,
        NAMESPACE,
        {"tls.crt": "ca.certificate", "tls.key": "ca.key"},
        type="kubernetes.io/tls",
    )
    return [*([own] if cluster.platform.own_ca else []), *acme.secrets(cluster)]


def release_ready(cluster: Cluster) -> Sequence[Check]:
    """Its programs run, and its webhook admits objects."""
    names = ("cert-manager", "cert-manager-cainjector", "cert-manager-webhook")
    kinds = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    webhook = "cert-manager-webhook"
    return [
        *(Rollout("Deployment", name, NAMESPACE) for name in names),
        *(Webhook(kind, webhook, webhook, NAMESPACE) for kind in kinds),
    ]


def objects(cluster: Cluster) -> Sequence[Object]:
    """Issuers, the CA's certificate, and alerts."""
    return [
        *([] if cluster.platform.own_ca else _made_ca(cluster)),
        _issuer(certificates.CA_ISSUER, {"ca": {"secretName": certificates.CA_SECRET}}),
        *acme.objects(cluster),
        *monitors.rules(cluster, "certificates", NAMESPACE, RULES),
    ]


def _made_ca(cluster: Cluster) -> list[Object]:
    """A CA that signs itself.

    It lives ten years and keeps its key: clients, browsers and Linkerd hold a copy, which must not
    go bad every three months.
    """
    return [
        _issuer(certificates.SELF_SIGNED, {"selfSigned": {}}),
        certificates.certificate(
            cluster,
            CA,
            NAMESPACE,
            (),
            issuer=certificates.SELF_SIGNED,
            secret=certificates.CA_SECRET,
            isCA=True,
            commonName=CA,
            duration=TEN_YEARS,
            privateKey=certificates.ECDSA | {"rotationPolicy": "Never"},
        ),
    ]


def _issuer(name: str, spec: Object) -> Object:
    return {
        "apiVersion": certificates.API,
        "kind": "ClusterIssuer",
        "metadata": {"name": name},
        "spec": spec,
    }


def ready(cluster: Cluster) -> Sequence[Check]:
    """The CA has signed itself, and the issuers that are used can sign."""
    names = dict.fromkeys((certificates.CA_ISSUER, certificates.issuer(cluster)))
    return [
        *([] if cluster.platform.own_ca else [certificates.issued(CA, NAMESPACE)]),
        *(Condition(certificates.API, "ClusterIssuer", name) for name in names),
    ]


component = Component(
    name="cert-manager",
    namespace=NAMESPACE,
    role="certificates",
    wanted=certificates.wanted,
    needs=("cni", "metrics-crds"),
    secrets=secrets,
    release=Release(CHARTS["cert-manager"], values),
    release_ready=release_ready,
    objects=objects,
    ready=ready,
    holds_data=("cert-manager.io",),
)
