"""Which secrets a cluster has, what they look like, and who makes them. Pure but for randomness."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

import yaml

from cluster.model import Cluster
from cluster.services import api_address, certbot, s3, san

if TYPE_CHECKING:
    from cluster.services import tls


@dataclass(frozen=True)
class SecretKind:
    """One secret: `make` is None for what only the user knows, as an account elsewhere."""

    name: str  # dotted, as in the file
    purpose: str
    pattern: str  # of the whole value
    shape: str  # the same in words
    make: Callable[[], str] | None = None
    wanted: Callable[[Cluster], bool] = lambda cluster: True
    # How it is made where the service that it opens is ours as well, though `make` is None.
    make_ours: Callable[[], str] | None = None
    ours: Callable[[Cluster], bool] = lambda cluster: False

    def here(self, cluster: Cluster) -> SecretKind:
        """The same with the way it is made in this cluster."""
        made = self.make_ours if self.ours(cluster) else None
        return replace(self, make=made) if made else self

    def fits(self, value: str) -> bool:
        """Whether the value has the right shape."""
        return re.fullmatch(self.pattern, value) is not None


def _token() -> str:
    return secrets.token_hex(32)


def _short_password() -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(8))


def _account(name: str) -> Callable[[], str]:
    """Makes the name of an account of a service of ours; Amazon's have 16 to 128 characters."""
    return lambda: f"{name}-{secrets.token_hex(6)}"


@cache
def _new_ca() -> tls.Pair:
    """One CA a process: its certificate and its key are two secrets."""
    from cluster.services import tls  # brings cryptography along, which a run seldom needs

    return tls.new_ca(datetime.now(UTC))


def _has_s3(cluster: Cluster) -> bool:
    return cluster.k3s.snapshots.s3 is not None


def _s3_is_ours(cluster: Cluster) -> bool:
    return s3.server(cluster) is not None


def _etcd_s3_is_ours(cluster: Cluster) -> bool:
    return _s3_is_ours(cluster) and any(one.name == "etcd" for one in s3.accounts(cluster))


def _keeps(name: str) -> Callable[[Cluster], bool]:
    """Whether an account of the S3 service is in use, be the service ours or not."""
    return lambda cluster: (
        cluster.backup.s3_endpoint is not None
        and any(one.name == name for one in s3.accounts(cluster))
    )


def guards_dashboards(cluster: Cluster) -> bool:
    """Whether the ingress leads to something without a login of its own."""
    stack = cluster.stack
    return stack.ingress != "none" and (
        stack.ingress == "traefik"
        or stack.cni == "cilium"
        or stack.mesh == "linkerd"
        # Kiali's login is single sign-on.
        or (stack.mesh == "istio" and stack.identity == "none")
        or stack.storage == "longhorn"
        or stack.metrics != "none"
    )


def _has_basic_auth(cluster: Cluster) -> bool:
    return guards_dashboards(cluster) and cluster.stack.identity == "none"


def _own_ca(cluster: Cluster) -> bool:
    return (cluster.platform.own_ca and cluster.stack.certificates != "none") or s3.signed_by_us(
        cluster
    )


def _elasticsearch(cluster: Cluster) -> bool:
    return cluster.stack.logs == "elasticsearch"


def _has_identity(cluster: Cluster) -> bool:
    return cluster.stack.identity != "none"


def _dns(provider: str, name: str) -> Callable[[Cluster], bool]:
    return lambda cluster: (
        (cluster.acme.dns_provider == provider and cluster.stack.certificates != "none")
        or name in certbot.secret_names(cluster)
    )


_PEM = r"\s*(?:-----BEGIN {kind}-----[\s\w+/=]+-----END {kind}-----\s*)+"
_WORD = "a text without spaces"
_PASSWORD = "16 or more printable characters"

# A K3s token must not contain "::", which parts a secure token from the CA's hash before it.
_TOKEN = r"(?!.*::)[!-~]{16,}"
_TOKEN_SHAPE = "16 or more printable characters without '::'"

TABLE: tuple[SecretKind, ...] = (
    SecretKind(
        "k3s.server_token",
        "Servers join with it, and it opens the cluster's snapshots.",
        _TOKEN,
        _TOKEN_SHAPE,
        _token,
    ),
    SecretKind(
        "k3s.agent_token", "Agents join with it; it admits no server.", _TOKEN, _TOKEN_SHAPE, _token
    ),
    SecretKind(
        "etcd_s3.access_key",
        "Account of the bucket for etcd snapshots.",
        r"\S+",
        _WORD,
        None,
        _has_s3,
        _account("etcd"),
        _etcd_s3_is_ours,
    ),
    SecretKind(
        "etcd_s3.secret_key",
        "Password of that account.",
        r"\S+",
        _WORD,
        None,
        _has_s3,
        _token,
        _etcd_s3_is_ours,
    ),
    *(
        SecretKind(
            name,
            purpose,
            _PEM.format(kind=kind),
            f"PEM text of a {shape}",
            None,
            _own_ca,
            make,
            s3.signed_by_us,
        )
        for name, purpose, kind, shape, make in (
            (
                "ca.certificate",
                "Certificate of the cluster's own CA.",
                "CERTIFICATE",
                "certificate",
                lambda: _new_ca().certificate,
            ),
            (
                "ca.key",
                "Its private key.",
                r"(?:EC |RSA )?PRIVATE KEY",
                "private key",
                lambda: _new_ca().key,
            ),
        )
    ),
    *(
        SecretKind(name, purpose, r"\S+", _WORD, wanted=_dns(provider, name))
        for provider, name, purpose in (
            ("ionos", "acme.ionos.public_prefix", "Public prefix of the key of IONOS' DNS API."),
            ("ionos", "acme.ionos.secret", "Secret of that key."),
            ("cloudflare", "acme.cloudflare.token", "API token that edits the zone's records."),
            ("route53", "acme.route53.access_key", "Account that edits the zone's records."),
            ("route53", "acme.route53.secret_key", "Password of that account."),
            ("rfc2136", "acme.rfc2136.secret", "TSIG key of the name server, base64."),
        )
    ),
    *(
        SecretKind(
            f"s3.{user}.{key}", purpose, r"\S+", _WORD, None, _keeps(user), make, _s3_is_ours
        )
        for user, what in (
            ("longhorn", "for backups of volumes"),
            ("velero", "of Velero"),
            ("database", "for backups of PostgreSQL"),
            ("loki", "of Loki"),
            ("restic", "for backups of hosts"),
        )
        for key, purpose, make in (
            ("access_key", f"Account of the bucket {what}.", _account(user)),
            ("secret_key", "Password of that account.", _token),
        )
    ),
    SecretKind(
        "s3.root.access_key",
        "Account of the S3 server that makes buckets and may do everything.",
        r"\S+",
        _WORD,
        _account("root"),
        _s3_is_ours,
    ),
    SecretKind(
        "s3.root.secret_key", "Password of that account.", r"\S+", _WORD, _token, _s3_is_ours
    ),
    SecretKind(
        "restic.password",
        "It opens the backups of hosts; without it they are worthless.",
        r"(?!.*['\"\\$`])[!-~]{16,}",
        "16 or more printable characters without quotes, $ and \\",
        _token,
        lambda cluster: cluster.services.backup is not None,
    ),
    SecretKind(
        api_address.PASSWORD,
        "Hosts that carry the API's address by turns know each other by it.",
        r"[A-Za-z0-9]{8}",
        "8 letters or digits, as VRRP has it",
        _short_password,
        api_address.needs_password,
    ),
    *(
        SecretKind(name, purpose, r"[!-~]{16,}", _PASSWORD, _token, wanted_by)
        for name, purpose, wanted_by in (
            ("keycloak.admin_password", "The user admin manages Keycloak with it.", _has_identity),
            (
                "keycloak.user_password",
                "The user admin of the realm picluster opens everything with it.",
                _has_identity,
            ),
            ("keycloak.database_password", "Keycloak opens its database with it.", _has_identity),
            (
                "keycloak.postgres_password",
                "Superuser of the database that the old chart of Keycloak brings.",
                lambda cluster: cluster.stack.identity == "keycloak-bitnami",
            ),
            ("oidc.oauth2_proxy", "oauth2-proxy is known to Keycloak by it.", _has_identity),
            (
                "oidc.grafana",
                "Grafana is known to Keycloak by it.",
                lambda cluster: _has_identity(cluster) and cluster.stack.metrics != "none",
            ),
            (
                "oidc.kiali",
                "Kiali is known to Keycloak by it.",
                lambda cluster: _has_identity(cluster) and cluster.stack.mesh == "istio",
            ),
        )
    ),
    SecretKind(
        "oauth2_proxy.cookie_secret",
        "oauth2-proxy encrypts sessions with it.",
        r"[\w-]{43}=?",
        "32 bytes in base64 for URLs",
        lambda: secrets.token_urlsafe(32),
        _has_identity,
    ),
    *(
        SecretKind(name, purpose, r"[!-~]{16,}", _PASSWORD, _token, wanted_by)
        for name, purpose, wanted_by in (
            (
                "elasticsearch.admin_password",
                "The user admin opens Kibana and Elasticsearch with it.",
                _elasticsearch,
            ),
            (
                "elasticsearch.fluentd_password",
                "Fluentd writes logs into Elasticsearch with it.",
                _elasticsearch,
            ),
            (
                "elasticsearch.exporter_password",
                "The exporter of Elasticsearch's metrics reads with it.",
                lambda cluster: _elasticsearch(cluster) and cluster.stack.metrics != "none",
            ),
            (
                "elasticsearch.grafana_password",
                "Grafana reads logs in Elasticsearch with it.",
                lambda cluster: _elasticsearch(cluster) and cluster.stack.metrics != "none",
            ),
            (
                "logs.shared_key",
                "Who sends logs shows it, also hosts outside the cluster.",
                lambda cluster: cluster.stack.logs != "none",
            ),
            (
                "grafana.admin_password",
                "The user admin opens Grafana with it.",
                lambda cluster: cluster.stack.metrics != "none" or cluster.stack.logs == "loki",
            ),
        )
    ),
    SecretKind(
        "ingress.password",
        "The user admin opens with it what has no login of its own, such as Hubble or Longhorn.",
        r"[!-~]{16,}",
        "16 or more printable characters",
        _token,
        wanted=_has_basic_auth,
    ),
    SecretKind(
        "first_boot.password_hash",
        "Hash of the password at the screen of a host, as `openssl passwd -6` prints it.",
        # Source: crypt(5): sha512crypt, yescrypt.
        r"\$(?:6|y)\$[A-Za-z0-9./$=]{20,}",
        "a hash that begins with $6$ or $y$, never the password itself",
        wanted=lambda cluster: cluster.first_boot.password,
    ),
)


def wanted(cluster: Cluster) -> tuple[SecretKind, ...]:
    """The secrets this cluster needs, in the order they are written, with how each is made here."""
    known = {kind.name for kind in TABLE}
    named = (name for name in certbot.secret_names(cluster) if name not in known)
    return (
        *(kind.here(cluster) for kind in TABLE if kind.wanted(cluster)),
        *(
            SecretKind(name, "certbot's plugin reads it (services.certbot.plugin).", r"\S+", _WORD)
            for name in dict.fromkeys(named)
        ),
        # Source: RFC 3720 §8.2.1 wants 96 bits or more; some initiators take 16 characters at most.
        *(
            SecretKind(
                name,
                "A node shows it to its target (services.san).",
                r"[A-Za-z0-9]{12,16}",
                "12 to 16 letters and digits",
                lambda: secrets.token_hex(8),
            )
            for name in san.secret_names(cluster)
        ),
    )


def problems(cluster: Cluster, values: Mapping[str, str]) -> list[str]:
    """What is missing or malformed among the decrypted values, one line each, values unseen."""
    found = []
    for kind in wanted(cluster):
        value = values.get(kind.name, "")
        if not value:
            found.append(f"{kind.name}: missing: expected {kind.shape}")
        elif not kind.fits(value):
            found.append(f"{kind.name}: malformed: expected {kind.shape}")
    if values.get("k3s.agent_token", "a") == values.get("k3s.server_token", "b"):
        found.append("k3s.agent_token: equals k3s.server_token: expected a token of its own")
    return found


def etcd_s3_config(values: Mapping[str, str]) -> str:
    """The keys of the snapshot bucket as a part of K3s' config.yaml."""
    return yaml.safe_dump(
        {
            "etcd-s3-access-key": values["etcd_s3.access_key"],
            "etcd-s3-secret-key": values["etcd_s3.secret_key"],
        }
    )


def ingress_htpasswd(values: Mapping[str, str]) -> str:
    """The user admin in htpasswd format, with the hash that Envoy, nginx and Traefik all know.

    SHA-1 has no salt, so the text is the same each time; against guessing, the password is long.
    """
    digest = hashlib.sha1(values["ingress.password"].encode(), usedforsecurity=False).digest()
    return f"admin:{{SHA}}{base64.b64encode(digest).decode()}"


def velero_credentials(values: Mapping[str, str]) -> str:
    """The keys of Velero's bucket as a file of AWS' command line."""
    return (
        "[default]\n"
        f"aws_access_key_id={values['s3.velero.access_key']}\n"
        f"aws_secret_access_key={values['s3.velero.secret_key']}\n"
    )


# Texts made of secrets, by the name under which deploys ask for them.
DERIVED: dict[str, Callable[[Mapping[str, str]], str]] = {
    "etcd_s3.config": etcd_s3_config,
    "ingress.htpasswd": ingress_htpasswd,
    "s3.velero.credentials": velero_credentials,
}
