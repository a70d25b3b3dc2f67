"""Every pinned version, and the legal steps between K3s releases."""

from __future__ import annotations

import re
from typing import NamedTuple

from semver import Version

K3S_DEFAULT = "v1.36.3+k3s1"

# The last patch of each minor in K3s' stable channel: Kubernetes allows no skipped minor, so an
# upgrade walks these rungs.
K3S_LADDER: tuple[str, ...] = (
    "v1.30.14+k3s2",
    "v1.31.14+k3s1",
    "v1.32.13+k3s1",
    "v1.33.13+k3s2",
    "v1.34.10+k3s1",
    "v1.35.7+k3s1",
    "v1.36.3+k3s1",
)
# Further releases a cluster may be pinned to.
K3S_RELEASES: tuple[str, ...] = (*K3S_LADDER, "v1.36.2+k3s1")

# sha256 of the release's binary by version and architecture. A release without an entry is
# checked against the list that the release itself publishes (`sha256sum-<arch>.txt`).
K3S_SHA256: dict[str, dict[str, str]] = {
    "v1.33.13+k3s2": {
        "amd64": "1572f0f23bd5a844bd405b71875877aacacc7ab79e279d3d73735654c37c7735",
        "arm64": "cf6afb3944f9ecf120fa2837b542479018c08f9ea1d1d181d4a68445e7717a8d",
    },
    "v1.34.10+k3s1": {
        "amd64": "e63a3511b2603fd1436a1ea8d228348a3b47334b45024801d41a8c0e2d22e8c4",
        "arm64": "e96eb8b095600cb790f776ae3c619d266ad83a3c3d7b56166f8f2605ca898d65",
    },
    "v1.35.7+k3s1": {
        "amd64": "5fc25309c53031e0cf03f7ee85f6f60969381ff3649039ffda19e30f5c26947a",
    },
    "v1.36.3+k3s1": {
        "amd64": "2f98a9f8fe5782479ee2d54e70a1b10a7f6fd4cae8d38ed3098452dc6eed76b5",
        "arm64": "c9a209103f480f163b7c6a56f00862b4481927b284dc29a3716bb70d886691a8",
    },
}

K3S_ASSET = {"amd64": "k3s", "arm64": "k3s-arm64"}


HELM = "4.2.4"  # the program that the servers run

# sha256 of Helm's archive by version and architecture. One without an entry is checked against
# what the release publishes beside it (`<archive>.sha256sum`).
HELM_SHA256: dict[str, dict[str, str]] = {
    "4.2.4": {
        "amd64": "c306b46f719b0a4da32d0f78ee21bf90ce8d602f15b22ab753f0674d1670a7f3",
        "arm64": "564de2191b881e9f71b5606b25345821ea1682f06ab90499d3ab22b530176da1",
    },
}
# The digest is of the list of images of all architectures.
KUBE_VIP_IMAGE = (
    "ghcr.io/kube-vip/kube-vip:v1.2.1"
    "@sha256:49b77655f9f109bedc5eb25723bb0e4c57d8513ba33cc69c31be3f243eb2386d"
)
VERSITYGW = "1.8.0"  # the S3 server

# The same of its archives; one without an entry is checked against the release's checksums.txt.
VERSITYGW_SHA256: dict[str, dict[str, str]] = {
    "1.8.0": {
        "amd64": "2ba2c734d10d2c4e651d03182cb4b246656bc735a2f282db7b0b73fba6073467",
        "arm64": "b34051d33f5a9c457f790896acb7bd7d7e15ad8d92efb70616b924f37e401910",
    },
}
ELASTIC = "8.19.20"  # Elasticsearch and Kibana; the operator takes any version it knows
KEYCLOAK = "26.5.6"  # the image that the chart below has


class Chart(NamedTuple):
    """A pinned chart.

    repo: URL of its repository; an `oci://` URL names the chart itself.
    kubernetes: the chart's own range of Kubernetes versions, empty when it states none.
    arm64: whether all its images exist for arm64.
    """

    name: str
    repo: str
    version: str
    kubernetes: str = ""
    arm64: bool = True


# By component of the catalogue.
CHARTS: dict[str, Chart] = {
    "cert-manager-webhook-ionos": Chart(
        "cert-manager-webhook-ionos",
        "https://fabmade.github.io/cert-manager-webhook-ionos",
        "1.3.0",
    ),
    "cert-manager": Chart(
        "cert-manager",
        "oci://quay.io/jetstack/charts/cert-manager",
        "v1.21.1",
        kubernetes=">= 1.22.0-0",
    ),
    "cilium": Chart("cilium", "https://helm.cilium.io", "1.20.0", kubernetes=">= 1.21.0-0"),
    "cloudnative-pg": Chart(
        "cloudnative-pg",
        "https://cloudnative-pg.github.io/charts",
        "0.29.0",
        kubernetes=">=1.29.0-0",
    ),
    "eck-operator": Chart(
        "eck-operator", "https://helm.elastic.co", "3.5.0", kubernetes=">=1.21.0-0"
    ),
    "envoy-gateway": Chart("gateway-helm", "oci://docker.io/envoyproxy/gateway-helm", "v1.9.0"),
    "fluent-bit": Chart("fluent-bit", "https://fluent.github.io/helm-charts", "0.58.1"),
    "fluentd": Chart("fluentd", "https://fluent.github.io/helm-charts", "0.6.0"),
    "grafana": Chart(
        "grafana",
        "https://grafana-community.github.io/helm-charts",
        "12.11.1",
        kubernetes="^1.25.0-0",
    ),
    "ingress-nginx": Chart(
        "ingress-nginx",
        "https://kubernetes.github.io/ingress-nginx",
        "4.15.1",
        kubernetes=">=1.21.0-0",
    ),
    "istio-base": Chart("base", "https://istio-release.storage.googleapis.com/charts", "1.30.3"),
    "istio-cni": Chart("cni", "https://istio-release.storage.googleapis.com/charts", "1.30.3"),
    "istio-gateway": Chart(
        "gateway", "https://istio-release.storage.googleapis.com/charts", "1.30.3"
    ),
    "istiod": Chart("istiod", "https://istio-release.storage.googleapis.com/charts", "1.30.3"),
    "ztunnel": Chart("ztunnel", "https://istio-release.storage.googleapis.com/charts", "1.30.3"),
    "keycloak-bitnami": Chart(
        "keycloak", "oci://registry-1.docker.io/bitnamicharts/keycloak", "21.8.0", arm64=False
    ),
    "keycloak": Chart("keycloakx", "oci://ghcr.io/codecentric/helm-charts/keycloakx", "7.1.11"),
    "kiali": Chart("kiali-operator", "https://kiali.org/helm-charts", "2.29.0"),
    "kube-prometheus-stack": Chart(
        "kube-prometheus-stack",
        "https://prometheus-community.github.io/helm-charts",
        "88.3.0",
        kubernetes=">=1.25.0-0",
    ),
    "linkerd": Chart(
        "linkerd-control-plane", "https://helm.linkerd.io/edge", "2026.8.3", kubernetes=">=1.31.0-0"
    ),
    "linkerd-crds": Chart(
        "linkerd-crds", "https://helm.linkerd.io/edge", "2026.8.3", kubernetes=">=1.31.0-0"
    ),
    "linkerd-viz": Chart(
        "linkerd-viz", "https://helm.linkerd.io/edge", "2026.8.3", kubernetes=">=1.31.0-0"
    ),
    "loki": Chart(
        "loki",
        "https://grafana-community.github.io/helm-charts",
        "18.11.0",
        kubernetes=">=1.25.0-0",
    ),
    "longhorn": Chart("longhorn", "https://charts.longhorn.io", "1.12.1", kubernetes=">=1.25.0-0"),
    "metallb": Chart(
        "metallb", "https://metallb.github.io/metallb", "0.15.3", kubernetes=">= 1.19.0-0"
    ),
    "oauth2-proxy": Chart(
        "oauth2-proxy",
        "https://oauth2-proxy.github.io/manifests",
        "10.7.0",
        kubernetes=">=1.16.0-0",
    ),
    "barman-plugin": Chart(
        "plugin-barman-cloud",
        "https://cloudnative-pg.github.io/charts",
        "0.7.0",
        kubernetes=">=1.29.0-0",
    ),
    "elasticsearch-exporter": Chart(
        "prometheus-elasticsearch-exporter",
        "https://prometheus-community.github.io/helm-charts",
        "7.4.0",
        kubernetes=">=1.19.0-0",
    ),
    "prometheus-operator-crds": Chart(
        "prometheus-operator-crds",
        "https://prometheus-community.github.io/helm-charts",
        "31.0.1",
        kubernetes=">=1.16.0-0",
    ),
    "snapshot-controller": Chart(
        "snapshot-controller", "https://piraeus.io/helm-charts", "5.2.0", kubernetes=">= 1.25.0-0"
    ),
    "traefik": Chart(
        "traefik", "https://traefik.github.io/charts", "41.3.0", kubernetes=">=1.25.0-0"
    ),
    "velero": Chart(
        "velero", "https://vmware-tanzu.github.io/helm-charts", "12.1.0", kubernetes=">=1.16.0-0"
    ),
}


# Images that no chart names by itself; each exists for arm64 and amd64.
IMAGES: dict[str, str] = {
    "cert-manager-webhook-ionos": "fabmade/cert-manager-webhook-ionos:1.3.0",
    "postgresql": "ghcr.io/cloudnative-pg/postgresql:18.3-202602261638-system-bookworm",
    "velero-plugin-for-aws": "velero/velero-plugin-for-aws:v1.14.2",
}


class Step(NamedTuple):
    """One step of an upgrade; a minor step drains the node first."""

    version: str
    minor: bool


def parse(version: str) -> Version:
    """Read `v1.36.3+k3s1`; raises ValueError."""
    return Version.parse(version.removeprefix("v"))


def _key(version: str) -> tuple[int, int, int, int]:
    parsed = parse(version)
    # semver ignores build metadata when it compares, but k3s2 does follow k3s1.
    build = (parsed.build or "k3s0").removeprefix("k3s")
    return parsed.major, parsed.minor, parsed.patch, int(build) if build.isdigit() else 0


def compare(left: str, right: str) -> int:
    """-1, 0 or 1 as `left` is older than, equal to or newer than `right`."""
    return (_key(left) > _key(right)) - (_key(left) < _key(right))


def minor(version: str) -> tuple[int, int]:
    """Major and minor number."""
    parsed = parse(version)
    return parsed.major, parsed.minor


def same_minor(left: str, right: str) -> bool:
    """Whether two releases share their minor: then a step back is possible."""
    return minor(left) == minor(right)


def has(version: str, since: str) -> bool:
    """Whether a release has what others were the first to have, each in its minor.

    since: those, such as `1.36.3/1.35.7`, or `1.33` for a whole minor; newer minors all have it.
    """
    firsts = [tuple(map(int, one.split("."))) for one in since.split("/")]
    release = _key(version)
    own = [first for first in firsts if first[:2] == release[:2]]
    return release >= (own or [max(firsts)])[0]


def known(version: str) -> bool:
    """Whether the release is pinned here."""
    return version in K3S_RELEASES


def sha256(version: str, arch: str) -> str | None:
    """The pinned checksum of the release's binary, None when the table lacks it."""
    return K3S_SHA256.get(version, {}).get(arch)


def upgrade_path(installed: str, wanted: str) -> tuple[Step, ...]:
    """The legal steps from one release to another, both as `v1.36.3+k3s1`.

    Empty when they are equal. Raises ValueError for a downgrade and when a minor between the two
    is missing on the ladder.
    """
    order = compare(installed, wanted)
    if order == 0:
        return ()
    if order > 0:
        raise ValueError(
            f"K3s {wanted} is older than the installed {installed}: a downgrade needs a restore "
            "of the snapshot taken before the upgrade (deploys/restore.py)"
        )
    steps: list[Step] = []
    major, current = minor(installed)
    while current < minor(wanted)[1] - 1:
        current += 1
        rung = next((v for v in K3S_LADDER if minor(v) == (major, current)), None)
        if rung is None:
            raise ValueError(
                f"no release of {major}.{current} is pinned, and Kubernetes allows no skipped "
                f"minor on the way from {installed} to {wanted}"
            )
        steps.append(Step(rung, minor=True))
    steps.append(Step(wanted, minor=not same_minor(installed, wanted)))
    return tuple(steps)


def skew_problem(server: str, agent: str) -> str | None:
    """Why an agent of one version cannot serve a server of another, None when it can."""
    if compare(agent, server) > 0 and not same_minor(agent, server):
        return f"agent {agent} is newer than the servers' {server}"
    if minor(server)[1] - minor(agent)[1] > 3:
        return f"agent {agent} is more than three minors behind the servers' {server}"
    return None


def fits(kubernetes: str, allowed: str) -> bool:
    """Whether a Kubernetes version is in a chart's range such as `>=1.25.0-0` or `^1.25.0-0`.

    A range is a list of comparisons, by comma or blank, all of which must hold; `-0` lets
    pre-releases in. Raises ValueError for a range that has anything else.
    """
    found = parse(kubernetes).replace(build=None, prerelease=None)
    for operator, version in re.findall(r"([^\d\s,]*)\s*([\w.+-]+)", allowed):
        edge = Version.parse(version.removeprefix("v"), optional_minor_and_patch=True)
        if operator == "^":
            holds = edge <= found < edge.bump_major()
        elif operator == "~":
            holds = edge <= found < edge.bump_minor()
        elif operator in (">=", "<=", ">", "<"):
            holds = found.match(f"{operator}{edge}")
        elif operator in ("", "="):
            holds = found == edge
        else:
            raise ValueError(f"{allowed}: the comparison {operator} is not known")
        if not holds:
            return False
    return True
