"""Which secrets a cluster has, what they look like, and who makes them. Pure but for randomness."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import yaml

from cluster.model import Cluster


@dataclass(frozen=True)
class SecretKind:
    """One secret: `make` is None for what only the user knows, as an account elsewhere."""

    name: str  # dotted, as in the file
    purpose: str
    pattern: str  # of the whole value
    shape: str  # the same in words
    make: Callable[[], str] | None = None
    wanted: Callable[[Cluster], bool] = lambda cluster: True

    def fits(self, value: str) -> bool:
        """Whether the value has the right shape."""
        return re.fullmatch(self.pattern, value) is not None


def _token() -> str:
    return secrets.token_hex(32)


def _has_s3(cluster: Cluster) -> bool:
    return cluster.k3s.snapshots.s3 is not None


def guards_dashboards(cluster: Cluster) -> bool:
    """Whether the ingress leads to something without a login of its own."""
    stack = cluster.stack
    return stack.ingress != "none" and (
        stack.ingress == "traefik"
        or stack.cni == "cilium"
        or stack.mesh == "linkerd"
        or stack.storage == "longhorn"
        or stack.metrics != "none"
    )


def _has_basic_auth(cluster: Cluster) -> bool:
    return guards_dashboards(cluster) and cluster.stack.identity == "none"


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
        "a text without spaces",
        wanted=_has_s3,
    ),
    SecretKind(
        "etcd_s3.secret_key",
        "Password of that account.",
        r"\S+",
        "a text without spaces",
        wanted=_has_s3,
    ),
    SecretKind(
        "ingress.password",
        "The user admin opens with it what has no login of its own, such as Hubble or Longhorn.",
        r"[!-~]{16,}",
        "16 or more printable characters",
        _token,
        wanted=_has_basic_auth,
    ),
)


def wanted(cluster: Cluster) -> tuple[SecretKind, ...]:
    """The secrets this cluster needs, in the order they are written."""
    return tuple(kind for kind in TABLE if kind.wanted(cluster))


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


# Texts made of secrets, by the name under which deploys ask for them.
DERIVED: dict[str, Callable[[Mapping[str, str]], str]] = {
    "etcd_s3.config": etcd_s3_config,
    "ingress.htpasswd": ingress_htpasswd,
}
