"""Every key of K3s' config.yaml this project accepts, with the class that says how it changes.

Source of names, types and releases: K3s' server and agent flags, documentation pages
`cli/server.md` and `cli/agent.md`. A key that is not listed is refused: a server skips an unknown
key silently and an agent dies of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from cluster import versions
from cluster.problem import hint


class Change(StrEnum):
    """How the value of a key can be changed on a living cluster."""

    FIXED = "fixed at first start"
    PROCEDURE = "needs a procedure of its own"
    ROLLING = "rolling restart"
    API = "changed through the API only"


class Setting(NamedTuple):
    """One key: value type, whether agents know it too, and how it changes."""

    kind: type
    agent: bool
    change: Change
    since: str = "1.30"  # as `versions.has` takes it


_BOOL = frozenset(
    "debug alsologtostderr tls-san-security flannel-ipv6-masq flannel-external-ip "
    "secrets-encryption etcd-disable-snapshots etcd-expose-metrics etcd-snapshot-compress etcd-s3 "
    "etcd-s3-skip-ssl-verify etcd-s3-insecure disable-scheduler disable-cloud-controller "
    "disable-network-policy disable-helm-controller disable-kube-proxy embedded-registry "
    "supervisor-metrics cluster-init with-node-id disable-default-registry-endpoint "
    "nonroot-devices protect-kernel-defaults enable-pprof prefer-bundled-bin selinux".split()
)
_INT = frozenset(
    "v https-listen-port advertise-port etcd-snapshot-retention etcd-s3-retention "
    "lb-server-port".split()
)
_LIST = frozenset(
    "tls-san cluster-cidr service-cidr cluster-dns kube-apiserver-arg etcd-arg "
    "kube-controller-manager-arg kube-scheduler-arg kube-cloud-controller-manager-arg disable "
    "node-label node-taint node-ip node-external-ip node-internal-dns node-external-dns "
    "kubelet-arg kube-proxy-arg helm-controller-arg airgap-extra-registry".split()
)
_AGENT_TOO = frozenset(
    "debug v vmodule log alsologtostderr token token-file server data-dir bind-address "
    "node-name with-node-id node-label node-taint node-ip node-external-ip node-internal-dns "
    "node-external-dns image-credential-provider-bin-dir image-credential-provider-config "
    "container-runtime-endpoint image-service-endpoint default-runtime "
    "disable-default-registry-endpoint nonroot-devices pause-image snapshotter private-registry "
    "airgap-extra-registry resolv-conf flannel-iface flannel-conf flannel-cni-conf vpn-auth-file "
    "kubelet-arg kube-proxy-arg protect-kernel-defaults enable-pprof prefer-bundled-bin selinux "
    "lb-server-port".split()
)
_BY_CHANGE: dict[Change, str] = {
    Change.FIXED: (
        "data-dir cluster-cidr service-cidr cluster-dns cluster-domain https-listen-port "
        "node-name with-node-id"
    ),
    Change.PROCEDURE: (
        "token token-file agent-token agent-token-file server cluster-init datastore-endpoint "
        "datastore-cafile datastore-certfile datastore-keyfile secrets-encryption "
        "secrets-encryption-provider node-ip advertise-address flannel-backend flannel-ipv6-masq "
        "flannel-external-ip disable-kube-proxy disable-network-policy disable-cloud-controller "
        "vpn-auth-file"
    ),
    Change.API: "node-label node-taint",
    Change.ROLLING: (
        "debug v vmodule log alsologtostderr bind-address advertise-port tls-san tls-san-security "
        "service-node-port-range egress-selector-mode servicelb-namespace write-kubeconfig "
        "write-kubeconfig-mode write-kubeconfig-group helm-job-image helm-controller-arg "
        "kube-apiserver-arg etcd-arg kube-controller-manager-arg kube-scheduler-arg "
        "kube-cloud-controller-manager-arg etcd-disable-snapshots etcd-expose-metrics "
        "etcd-snapshot-name etcd-snapshot-schedule-cron etcd-snapshot-reconcile-interval "
        "etcd-snapshot-retention etcd-snapshot-dir etcd-snapshot-compress etcd-s3 "
        "etcd-s3-skip-ssl-verify etcd-s3-insecure etcd-s3-endpoint etcd-s3-endpoint-ca "
        "etcd-s3-access-key etcd-s3-secret-key etcd-s3-session-token etcd-s3-bucket "
        "etcd-s3-bucket-lookup-type etcd-s3-region etcd-s3-folder etcd-s3-retention "
        "etcd-s3-proxy etcd-s3-config-secret etcd-s3-timeout default-local-storage-path disable "
        "disable-scheduler disable-helm-controller embedded-registry supervisor-metrics "
        "node-external-ip node-internal-dns node-external-dns image-credential-provider-bin-dir "
        "image-credential-provider-config container-runtime-endpoint image-service-endpoint "
        "default-runtime disable-default-registry-endpoint nonroot-devices pause-image "
        "snapshotter private-registry system-default-registry airgap-extra-registry resolv-conf "
        "flannel-iface flannel-conf flannel-cni-conf kubelet-arg kube-proxy-arg "
        "protect-kernel-defaults enable-pprof prefer-bundled-bin selinux lb-server-port"
    ),
}
_SINCE = {
    "etcd-snapshot-reconcile-interval": "1.32",
    "etcd-s3-session-token": "1.32",
    "etcd-s3-bucket-lookup-type": "1.33",
    "etcd-s3-retention": "1.34",
    "nonroot-devices": "1.31",
    "node-internal-dns": "1.31",
    "node-external-dns": "1.31",
    "secrets-encryption-provider": "1.32.4/1.31.8/1.30.12",
    "helm-controller-arg": "1.36.3/1.35.7/1.34.10/1.33.13",
}


def _kind(key: str) -> type:
    for kind, keys in ((bool, _BOOL), (int, _INT), (list, _LIST)):
        if key in keys:
            return kind
    return str


SETTINGS: dict[str, Setting] = {
    key: Setting(_kind(key), key in _AGENT_TOO, change, _SINCE.get(key, "1.30"))
    for change, keys in _BY_CHANGE.items()
    for key in keys.split()
}

# Keys the model writes, with the place where a person sets them instead.
FROM_MODEL: dict[str, str] = {
    "cluster-cidr": "network.pod_cidr",
    "service-cidr": "network.service_cidr",
    "cluster-dns": "network.service_cidr",
    "cluster-domain": "network.cluster_domain",
    "node-name": "the host's name in the inventory",
    "node-ip": "the host's ip in the inventory",
    "tls-san": "k3s.tls_san",
    "token": "secrets (k3s.server_token)",
    "token-file": "secrets (k3s.server_token)",
    "agent-token": "secrets (k3s.agent_token)",
    "agent-token-file": "secrets (k3s.agent_token)",
    "server": "network.api",
    "cluster-init": "the number of hosts in the group servers",
    "flannel-backend": "stack.cni",
    "disable-network-policy": "stack.cni",
    "disable-kube-proxy": "stack.kube_proxy",
    "disable": "stack",
    "secrets-encryption": "k3s.secrets_encryption",
    "etcd-snapshot-schedule-cron": "k3s.snapshots.schedule",
    "etcd-snapshot-retention": "k3s.snapshots.retention",
    "etcd-s3": "k3s.snapshots.s3",
    "etcd-s3-endpoint": "k3s.snapshots.s3.endpoint",
    "etcd-s3-bucket": "k3s.snapshots.s3.bucket",
    "etcd-s3-region": "k3s.snapshots.s3.region",
    "etcd-s3-folder": "k3s.snapshots.s3.folder",
    "etcd-s3-access-key": "secrets (etcd_s3.access_key)",
    "etcd-s3-secret-key": "secrets (etcd_s3.secret_key)",
    "private-registry": "k3s.registries",
    "node-label": "the host's labels in the inventory",
    "node-taint": "the host's taints in the inventory",
}


_NEW = "only in a new cluster; see docs/run.md"
# What is done instead, by key of the class PROCEDURE; docs/run.md has the steps in full.
PROCEDURES: dict[str, str] = {
    **dict.fromkeys(
        ("token", "token-file", "agent-token", "agent-token-file"), "deploys/tokens.py rotates them"
    ),
    **dict.fromkeys(
        ("node-ip", "advertise-address"),
        "the node leaves (deploys/reset.py --data node=NAME), and joins under the new one",
    ),
    "secrets-encryption": (
        "by hand: k3s secrets-encrypt enable or disable on a server, this key in config.yaml and a "
        "restart on each, k3s secrets-encrypt reencrypt --force --skip; see docs/run.md"
    ),
}


def _value_problem(key: str, value: Any, kind: type) -> str | None:
    ok = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if kind is list:
        ok = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    if ok:
        return None
    names = {bool: "true or false", int: "a number", list: "a list of texts", str: "a text"}
    return f"{key}: {value!r}: expected {names[kind]}"


def _key_problem(key: str, value: Any, version: str, agent: bool) -> str | None:
    setting = SETTINGS.get(key.removesuffix("+"))
    if setting is None:
        return f"{key}: not a setting of K3s that this project manages{hint(key, SETTINGS)}"
    if place := FROM_MODEL.get(key):
        return f"{key}: set by {place}, not here"
    if agent and not setting.agent:
        return f"{key}: agents do not know it (an agent stops at an unknown key)"
    if not versions.has(version, setting.since):
        since = setting.since.replace("/", ", ")
        return f"{key}: needs K3s {since} or newer, pinned is {version}"
    if setting.change is not Change.ROLLING:
        return f"{key}: {setting.change}, it cannot be set here"
    return _value_problem(key, value, setting.kind)


def problems(
    server_config: Mapping[str, Any], agent_config: Mapping[str, Any], version: str
) -> list[str]:
    """What is wrong with the user's own keys, one line each, `server_config.<key>: <why>`."""
    found: list[str] = []
    for name, config, agent in (
        ("server_config", server_config, False),
        ("agent_config", agent_config, True),
    ):
        for key, value in config.items():
            if problem := _key_problem(key, value, version, agent):
                found.append(f"{name}.{problem}")
    return found


class Difference(NamedTuple):
    """One key whose live value differs from the wanted one; None when it is absent."""

    key: str
    live: Any
    wanted: Any

    @property
    def change(self) -> Change:
        """How this key changes; an unlisted live key is removed by a rolling restart."""
        setting = SETTINGS.get(self.key)
        return setting.change if setting else Change.ROLLING

    def __str__(self) -> str:
        how = str(self.change)
        if self.change is Change.PROCEDURE:
            how += f": {PROCEDURES.get(self.key, _NEW)}"
        return f"{self.key}: {_shown(self.live)} → {_shown(self.wanted)} ({how})"


def _shown(value: Any) -> str:
    return "absent" if value is None else repr(value)


def differences(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[Difference]:
    """Keys that differ between two config.yaml contents, in order of name."""
    return [
        Difference(key, live.get(key), wanted.get(key))
        for key in sorted({*live, *wanted})
        if live.get(key) != wanted.get(key)
    ]


def refusals(found: Iterable[Difference]) -> list[str]:
    """The differences that no deploy may apply in passing, one line each."""
    return [str(one) for one in found if one.change in (Change.FIXED, Change.PROCEDURE)]


def registry_problems(registries: Mapping[str, Any]) -> list[str]:
    """What is wrong with registries.yaml, one line each, `registries.<key>: <why>`.

    K3s would skip it silently, or everybody could read it here: a key in plaintext.
    Source: K3s documentation, private registry configuration.
    """
    found = []
    for key, value in registries.items():
        if key not in ("mirrors", "configs"):
            close = hint(key, ("mirrors", "configs"))
            found.append(f"registries.{key}: unknown key: expected mirrors or configs{close}")
        elif not isinstance(value, Mapping):
            found.append(f"registries.{key}: {value!r}: expected keys and values in {{...}}")
        elif key == "configs":
            found += _open_keys(value)
    return found


def _open_keys(configs: Mapping[str, Any]) -> Iterator[str]:
    """Keys to registries that are written out; they are not shown."""
    for registry, config in configs.items():
        auth = config.get("auth") if isinstance(config, Mapping) else None
        for key in ("password", "auth", "identity_token"):
            if isinstance(auth, Mapping) and isinstance(auth.get(key), str):
                where = f"registries.configs.{registry}.auth.{key}"
                yield f'{where}: in plaintext: expected a name in the secrets, secret("...")'
