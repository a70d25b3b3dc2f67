"""Who carries the virtual address of the API: kube-vip on the servers, or haproxy and keepalived.

The settings stand in `network.api`; here is what follows from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import yaml
from pydantic import Field

from cluster import kinds, versions
from cluster.frozen import Model
from cluster.managed import MANAGED
from cluster.question import Question
from cluster.services.placement import placed

if TYPE_CHECKING:
    from cluster.host_state import HostState
    from cluster.model import Cluster, Host

HAPROXY = "/etc/haproxy/haproxy.cfg"
HAPROXY_UNIT = "haproxy.service"
KEEPALIVED = "/etc/keepalived/keepalived.conf"
# The password alone, so that the rest can be compared and shown.
KEEPALIVED_SECRET = "/etc/keepalived/picluster-authentication.conf"
KEEPALIVED_UNIT = "keepalived.service"
# The configuration of each that may be somebody's; keepalived first: it takes the address along.
UNITS = {KEEPALIVED: KEEPALIVED_UNIT, HAPROXY: HAPROXY_UNIT}
PACKAGES = ("haproxy", "keepalived")
# Says that both programs are ours here: somebody may use them for other things on other hosts.
MARK = "/etc/picluster/api-address"
MARK_TEXT = f"{MANAGED}haproxy and keepalived of this host carry the address of the API.\n"
MANIFEST = "/var/lib/rancher/k3s/server/manifests/picluster-kube-vip.yaml"
# Where it says which objects must still be deleted; K3s applies nothing from there.
UNWANTED = "/var/lib/rancher/k3s/server/picluster-kube-vip.yaml"
PASSWORD = "api_address.vrrp_password"
# Of K3s on every server. With another `https-listen-port` its API server would not be at
# 127.0.0.1:6444 of the servers, where Cilium looks for it.
API_PORT = 6443

Carrier = Literal["none", "kube-vip", "haproxy"]


class KubeVip(Model):
    """kube-vip as a DaemonSet on the servers."""

    image: str = versions.KUBE_VIP_IMAGE
    interface: kinds.Interface | None = None  # None: the one with the default route


class Haproxy(Model):
    """haproxy before the servers, and keepalived for its address."""

    hosts: tuple[kinds.HostName, ...] = ()  # empty: every host of the role gateway
    port: kinds.Whole = Field(6443, ge=1, le=65535)  # of the address; on a server not K3s' own
    interface: kinds.Interface | None = None  # None: the one that has the host's address
    router_id: kinds.Whole = Field(51, ge=1, le=255)  # of VRRP, unique on the LAN
    health_port: kinds.Whole = Field(8405, ge=1, le=65535)  # on 127.0.0.1, for keepalived


def haproxy_hosts(cluster: Cluster) -> tuple[Host, ...]:
    """The hosts that carry the address by turns, the one that has it by preference first."""
    from cluster.model import Role

    api = cluster.network.api
    if api.carrier != "haproxy":
        return ()
    return placed(cluster, api.haproxy.hosts, Role.GATEWAY)


def peers(cluster: Cluster, me: Host) -> tuple[Host, ...]:
    """The other hosts that may have the address."""
    return tuple(host for host in haproxy_hosts(cluster) if host.name != me.name)


def needs_password(cluster: Cluster) -> bool:
    """Whether several hosts talk about who has the address."""
    return len(haproxy_hosts(cluster)) > 1


# ---- haproxy


def haproxy(cluster: Cluster) -> str:
    """haproxy's configuration: TCP to the servers whose API is ready.

    K3s answers 401 to a question without a certificate once its API server works, and 503 before
    that. Watches are silent for long; those to a dead server are closed when it is found.
    A connection that one server does not take goes to another one at the first retry.
    """
    api = cluster.network.api
    servers = "".join(
        f"    server {server.name} {server.ip}:{API_PORT}\n" for server in cluster.servers
    )
    return f"""\
{MANAGED}global
    log /dev/log local0
    user haproxy
    group haproxy
    maxconn 4096
    stats socket /run/haproxy/admin.sock mode 660 level admin

defaults
    log global
    mode tcp
    option dontlognull
    option tcplog
    option redispatch 1
    option clitcpka
    option srvtcpka
    retries 3
    timeout connect 2s
    timeout check 2s
    timeout client 1h
    timeout server 1h

frontend api
    bind :{api.haproxy.port}
    default_backend servers

backend servers
    balance leastconn
    option httpchk GET /readyz
    http-check expect status 200,401
    default-server check check-ssl verify none inter 2s fastinter 500ms fall 2 rise 2
    default-server on-marked-down shutdown-sessions
{servers}
frontend health
    bind 127.0.0.1:{api.haproxy.health_port}
    mode http
    option httplog
    timeout client 5s
    monitor-uri /
    monitor fail if {{ nbsrv(servers) lt 1 }}
"""


# ---- keepalived


def keepalived(cluster: Cluster, me: Host, interface: str) -> str:
    """keepalived's configuration: the first host whose haproxy reaches a server has the address.

    A host that fails its check steps behind the others but does not let go when all fail.
    Peers are told one by one (unicast): some switches and Wi-Fi bridges swallow multicast.
    """
    wanted, carriers = cluster.network.api.haproxy, haproxy_hosts(cluster)
    others = "".join(f"        {peer.ip}\n" for peer in peers(cluster, me))
    unicast = (
        f"    unicast_src_ip {me.ip}\n    unicast_peer {{\n{others}    }}\n"
        f"    include {KEEPALIVED_SECRET}\n"
        if others
        else ""
    )
    return f"""\
{MANAGED.replace("#", "!", 1)}global_defs {{
    router_id {me.name}
    enable_script_security
    script_user nobody
    vrrp_garp_master_refresh 60
}}

vrrp_script haproxy {{
    script "/usr/bin/curl -fsS -m 1 -o /dev/null http://127.0.0.1:{wanted.health_port}/"
    interval 1
    timeout 1
    fall 2
    rise 2
    weight -100
}}

vrrp_instance picluster_api {{
    state BACKUP
    interface {interface}
    virtual_router_id {wanted.router_id}
    priority {200 - carriers.index(me)}
    advert_int 1
{unicast}    virtual_ipaddress {{
        {cluster.network.api.vip}/32 dev {interface}
    }}
    track_script {{
        haproxy
    }}
}}
"""


def authentication(password: str) -> str:
    """The part of keepalived's configuration that is secret."""
    return f"authentication {{\n    auth_type PASS\n    auth_pass {password}\n}}\n"


# ---- kube-vip


def kube_vip(cluster: Cluster) -> str:
    """Manifests of kube-vip for the folder that K3s applies by itself.

    Source: kube-vip's documentation of its DaemonSet and its flags (kube-vip.io/docs).
    """
    objects = (*_rbac(), _daemon_set(cluster))
    return MANAGED + "---\n".join(yaml.safe_dump(one, sort_keys=False) for one in objects)


_NAME = "kube-vip"
_NAMESPACE = "kube-system"


def _meta(name: str, namespace: str = "") -> dict[str, object]:
    labels = {"app.kubernetes.io/name": _NAME, "app.kubernetes.io/managed-by": "picluster"}
    return {"name": name, **({"namespace": namespace} if namespace else {}), "labels": labels}


def _rbac() -> tuple[dict[str, object], ...]:
    """What the election of the server that has the address needs, and no more."""
    rbac = "rbac.authorization.k8s.io"
    account = {"kind": "ServiceAccount", "name": _NAME, "namespace": _NAMESPACE}
    nodes = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}]
    rules = [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "list", "watch", "create", "update"],
        },
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
    ]
    return (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(_NAME, _NAMESPACE)},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "Role",
            "metadata": _meta(_NAME, _NAMESPACE),
            "rules": rules,
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": _meta(_NAME, _NAMESPACE),
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": _NAME},
            "subjects": [account],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": _meta(f"picluster:{_NAME}"),
            "rules": nodes,
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": _meta(f"picluster:{_NAME}"),
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": f"picluster:{_NAME}"},
            "subjects": [account],
        },
    )


def _daemon_set(cluster: Cluster) -> dict[str, object]:
    api = cluster.network.api
    settings = {
        "vip_arp": "true",
        "port": str(API_PORT),
        "vip_interface": api.kube_vip.interface or "",
        "vip_subnet": "32",
        "address": str(api.vip),
        "cp_enable": "true",
        "cp_namespace": _NAMESPACE,
        "svc_enable": "false",
        "vip_leaderelection": "true",
        "vip_leasename": "plndr-cp-lock",
        "vip_leaseduration": "15",
        "vip_renewdeadline": "10",
        "vip_retryperiod": "2",
        "prometheus_server": ":2112",
    }
    # The API of its own server: the one of the Service needs the CNI, and agents need the address.
    settings |= {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(API_PORT)}
    node = {"name": "vip_nodename", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    container = {
        "name": _NAME,
        "image": api.kube_vip.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["manager"],
        "env": [node, *({"name": name, "value": value} for name, value in settings.items())],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}},
    }
    labels = {"app.kubernetes.io/name": _NAME}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": _meta(_NAME, _NAMESPACE),
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": _NAME,
                    "hostNetwork": True,
                    "priorityClassName": "system-node-critical",
                    "nodeSelector": {"node-role.kubernetes.io/control-plane": "true"},
                    # It comes before the CNI, and stays while a node is drained.
                    "tolerations": [
                        {"operator": "Exists", "effect": "NoSchedule"},
                        {"operator": "Exists", "effect": "NoExecute"},
                    ],
                    "containers": [container],
                },
            },
        },
    }


def left(cluster: Cluster, host: Host, state: HostState) -> bool:
    """Whether the host has what another choice of carrier set up there."""
    unwanted = cluster.network.api.carrier != "kube-vip" and host.is_server
    balanced = host in haproxy_hosts(cluster)
    return (unwanted and has_kube_vip(state)) or (not balanced and MARK in state.files)


def has_kube_vip(state: HostState) -> bool:
    """Whether a server has manifests of kube-vip, in force or with objects to delete."""
    return not {MANIFEST, UNWANTED}.isdisjoint(state.files)


def foreign_left(host: str, files: Iterable[str]) -> list[str]:
    """What is said of files of somebody else where we had haproxy and keepalived before."""
    return [
        f"{host}: {path} was not written by picluster: it stays, and {UNITS[path]} as it is"
        for path in files
    ]


def foreign_refusals(host: str, files: Iterable[str]) -> list[str]:
    """Why a host cannot become a carrier; files: those of somebody else that we would replace."""
    return [
        f"{host}: {path} was not written by picluster, and would be replaced: move it away "
        f"(sudo mv {path} {path}.before), or name other hosts in network.api.haproxy.hosts"
        for path in files
    ]


def asks(cluster: Cluster) -> Question:
    """What the combined fact is to read; also without an address, to see carriers that are left."""
    return Question(
        packages=PACKAGES,
        files=(HAPROXY, KEEPALIVED, KEEPALIVED_SECRET, MARK, MANIFEST, UNWANTED),
        units=(HAPROXY_UNIT, KEEPALIVED_UNIT),
    )
