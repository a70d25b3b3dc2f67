"""The cluster as immutable typed data, and everything that follows from it."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

from pydantic import Field, model_validator

from cluster import kinds, versions
from cluster.boot.settings import Boot
from cluster.first_boot.settings import FirstBoot
from cluster.frozen import Model
from cluster.services.api_address import API_PORT, Carrier, Haproxy, KubeVip
from cluster.services.backup import HostBackup
from cluster.services.certbot import Certbot
from cluster.services.gateway import Gateway
from cluster.services.s3 import S3Server
from cluster.services.san import San
from cluster.services.telemetry import Telemetry


class Role(StrEnum):
    """What a host is for; the name of its inventory group."""

    SERVERS = "servers"
    AGENTS = "agents"
    GATEWAY = "gateway"
    EXTERNAL = "external"


class Arch(StrEnum):
    """CPU architectures K3s is released for and this project supports."""

    AMD64 = "amd64"
    ARM64 = "arm64"


class Taint(Model):
    """A node taint."""

    key: kinds.LabelKey
    value: kinds.LabelValue = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return kinds.taint_parts(value)

    def __str__(self) -> str:
        key = f"{self.key}={self.value}" if self.value else self.key
        return f"{key}:{self.effect}"


# Source: kubernetes.io/docs/reference/labels-annotations-taints: what keeps pods off servers.
CONTROL_PLANE = Taint(key="node-role.kubernetes.io/control-plane", effect="NoSchedule")


class Host(Model):
    """One computer; `name` is its host name and its node name."""

    name: kinds.HostName
    role: Role
    ip: kinds.Address
    arch: Arch
    mac: kinds.Mac | None = None
    model: str | None = None  # pi4, pi5, or free text for a PC
    boot_disk: kinds.Disk | None = None  # e.g. /dev/sda
    data_disk: kinds.Disk | None = None  # e.g. /dev/sda3
    labels: dict[kinds.LabelKey, kinds.LabelValue] = Field(default_factory=dict)
    taints: tuple[Taint, ...] = ()

    @property
    def in_cluster(self) -> bool:
        """Whether the host is a Kubernetes node."""
        return self.role in (Role.SERVERS, Role.AGENTS)

    @property
    def is_server(self) -> bool:
        """Whether the host runs the control plane."""
        return self.role is Role.SERVERS


class Api(Model):
    """The Kubernetes API endpoint: a server's address until a virtual IP is configured."""

    vip: kinds.Address | None = None
    names: tuple[kinds.DnsName, ...] = ()  # further names of the API, for its certificate
    carrier: Carrier = "none"  # of the virtual address; none: somebody else, such as a router
    kube_vip: KubeVip = KubeVip()
    haproxy: Haproxy = Haproxy()


class Network(Model):
    """Addresses of the LAN and of the cluster."""

    lan: kinds.Lan
    gateway: kinds.Address
    dns: tuple[kinds.Address, ...] = Field(min_length=1)
    ntp: tuple[kinds.DnsNameOrAddress, ...] = ()  # empty: the gateway
    dhcp_range: kinds.Range | None = None
    load_balancer_pool: kinds.Range | None = None
    pod_cidr: kinds.Cidr = IPv4Network("10.42.0.0/16")
    service_cidr: kinds.Cidr = IPv4Network("10.43.0.0/16")
    cilium_cidr: kinds.Cidr = IPv4Network("10.44.0.0/16")
    cluster_domain: kinds.DnsName = "cluster.local"
    api: Api = Api()

    @property
    def cluster_dns(self) -> IPv4Address:
        """Address of the cluster's DNS Service: the tenth of the service network, as in K3s."""
        return self.service_cidr[10]

    @property
    def time_servers(self) -> tuple[str, ...]:
        """NTP servers of the nodes."""
        return self.ntp or (str(self.gateway),)


class Stack(Model):
    """Which product plays each role of the platform."""

    preset: Literal["v1_5", "v1_8", "v1_9"] | None = None
    cni: Literal["flannel", "cilium"] = "flannel"
    kube_proxy: Literal["k3s", "cilium"] = "k3s"
    load_balancer: Literal["servicelb", "metallb", "cilium", "none"] = "servicelb"
    ingress: Literal["k3s-traefik", "traefik", "nginx", "envoy", "none"] = "k3s-traefik"
    certificates: Literal["cert-manager", "none"] = "none"
    mesh: Literal["linkerd", "istio", "none"] = "none"
    storage: Literal["local-path", "longhorn"] = "local-path"
    snapshots: Literal["external-snapshotter", "none"] = "none"
    backup: Literal["velero", "none"] = "none"
    database: Literal["cloudnative-pg", "none"] = "none"
    identity: Literal["keycloak", "keycloak-bitnami", "none"] = "none"
    logs: Literal["elasticsearch", "loki", "none"] = "none"
    metrics: Literal["kube-prometheus-stack", "none"] = "none"
    gitops: Literal["flux", "argocd", "none"] = "none"

    @property
    def own_addresses(self) -> bool:
        """Whether the load balancer gives a Service an address of its own, a chosen one too."""
        return self.load_balancer in ("metallb", "cilium")


class S3(Model):
    """An S3 bucket; its keys are secrets (`etcd_s3.access_key`, `etcd_s3.secret_key`)."""

    endpoint: kinds.Endpoint  # host[:port], no scheme
    bucket: kinds.Bucket
    region: str | None = None  # None: backup.region at backup.s3_endpoint, us-east-1 elsewhere
    folder: str = ""


class Snapshots(Model):
    """Scheduled etcd snapshots."""

    schedule: kinds.Cron = "0 */12 * * *"  # cron, in the host's time zone
    retention: kinds.Whole = Field(5, ge=1)  # number kept on each server
    s3: S3 | None = None


class Reservations(Model):
    """What the kubelet keeps for the system, as Kubernetes quantities."""

    system: dict[str, kinds.Quantity] = Field(
        default_factory=lambda: {"cpu": "200m", "memory": "300Mi"}
    )
    kube: dict[str, kinds.Quantity] = Field(
        default_factory=lambda: {"cpu": "200m", "memory": "500Mi"}
    )


class Kubelet(Model):
    """Kubelet configuration; times in seconds."""

    reserved: Reservations = Reservations()
    eviction_hard: dict[str, kinds.Threshold] = Field(
        default_factory=lambda: {
            "memory.available": "200Mi",
            "nodefs.available": "10%",
            "imagefs.available": "10%",
        }
    )
    shutdown_grace_period: kinds.Whole = Field(30, ge=0)
    shutdown_grace_period_critical_pods: kinds.Whole = Field(10, ge=0)
    max_pods: kinds.Whole = Field(110, ge=10)


class Source(Model):
    """Where the K3s binary comes from: the GitHub release, a mirror of it, or a local folder.

    `checksums` says who vouches for the binary: `pinned`, the table of `cluster/versions.py` and
    the release's own list for versions the table lacks, or `beside`, the `sha256sum-<arch>.txt`
    that lies beside the binary on a mirror or in a folder of the user's own.
    """

    mirror: kinds.Url | None = None  # base URL in place of https://github.com
    folder: str | None = None  # folder on the operator's machine, <folder>/<version>/<asset>
    checksums: Literal["pinned", "beside"] = "pinned"
    sha256: dict[Arch, kinds.Sha256] = Field(
        default_factory=dict
    )  # of a release without a pin, by arch
    airgap_images: bool = False  # also install the tarball of images of the release


class K3s(Model):
    """K3s itself."""

    version: kinds.K3sVersion = versions.K3S_DEFAULT
    datastore: Literal["sqlite", "etcd"] | None = None  # None: sqlite for one server, else etcd
    source: Source = Source()
    secrets_encryption: bool = True
    snapshots: Snapshots = Snapshots()
    kubelet: Kubelet = Kubelet()
    tls_san: tuple[kinds.DnsNameOrAddress, ...] = ()  # beyond what follows from hosts and network
    registries: dict[str, Any] = Field(default_factory=dict)  # registries.yaml
    server_config: dict[str, Any] = Field(default_factory=dict)  # further keys of config.yaml
    agent_config: dict[str, Any] = Field(default_factory=dict)
    control_plane_taint: bool = False  # keep ordinary pods off the servers
    start_timeout: kinds.Whole = Field(300, ge=10)  # seconds K3s may take to start on a node
    drain_timeout: kinds.Whole = Field(600, ge=30)  # seconds a node may take to drain


class User(Model):
    """A login on every node."""

    name: kinds.UserName
    keys: tuple[kinds.PublicKey, ...] = Field(min_length=1)  # public SSH keys, one line each
    sudo: bool = True
    shell: str = "/bin/bash"


class Parts(Model):
    """Which parts of the Ubuntu base `deploys/nodes.py` manages."""

    hostname: bool = True
    timezone: bool = True
    locale: bool = True
    packages: bool = True
    swap: bool = True
    snapd: bool = True
    kernel_modules: bool = True
    sysctl: bool = True  # net.* keys
    sysctl_machine: bool = True  # kernel.*, vm.* and fs.* keys: a container shares them
    limits: bool = True
    multipath: bool = True
    storage_clients: bool = True
    journald: bool = True
    unattended_upgrades: bool = True
    needrestart: bool = True
    kernel_hold: bool = True
    logind: bool = True
    time_sync: bool = True
    sshd: bool = True
    fstrim: bool = True
    users: bool = True


class Nodes(Model):
    """The Ubuntu base of the nodes."""

    parts: Parts = Parts()
    boot: Boot = Boot()
    packages: tuple[kinds.Package, ...] = ()  # beyond the base list
    sysctl: dict[kinds.Sysctl, str | int] = Field(default_factory=dict)  # beyond the base table
    users: tuple[User, ...] = ()
    journal_max_use: kinds.Size = "200M"
    journal_storage: Literal["persistent", "volatile", "auto"] = "persistent"
    ignore_preflight: tuple[str, ...] = ()  # ids of preflight checks that may fail


class Buckets(Model):
    """Buckets of the S3 service, each with an account of its own; they must exist elsewhere."""

    longhorn: kinds.Bucket = "k3s-longhorn"
    velero: kinds.Bucket = "k3s-velero"
    database: kinds.Bucket = "k3s-barman"
    loki: kinds.Bucket = "k3s-loki"
    restic: kinds.Bucket = "k3s-restic"  # backups of hosts


class Backup(Model):
    """The S3 service outside the cluster that backups go to."""

    s3_endpoint: kinds.Endpoint | None = None
    region: str = "eu-west-1"
    ca: kinds.Pem | None = None  # of the CA that signed its certificate, None for a public one
    buckets: Buckets = Buckets()
    schedule: kinds.Cron = "0 4 * * *"  # of Velero, in UTC
    keep_days: kinds.Whole = Field(30, ge=1)
    database_schedule: kinds.Cron = "0 3 * * *"  # of base backups, in UTC
    database_archive: kinds.HostName = "keycloak-db"  # folder of Keycloak's database
    database_recover_from: kinds.HostName | None = None  # folder a new database starts from
    database_recover_until: kinds.Instant | None = None  # None: the last moment kept


class Rfc2136(Model):
    """A name server that takes dynamic updates; the key's secret is `acme.rfc2136.secret`."""

    server: kinds.Endpoint
    key_name: kinds.DnsName
    algorithm: Literal["HMACSHA256", "HMACSHA512", "HMACSHA1", "HMACMD5"] = "HMACSHA256"


class Route53(Model):
    """Amazon Route 53."""

    region: str = "us-east-1"
    hosted_zone: str | None = None  # its id, None: found by the domain


class Acme(Model):
    """The ACME account for public certificates."""

    email: kinds.Email | None = None
    dns_provider: Literal["ionos", "cloudflare", "route53", "rfc2136"] | None = None
    server: Literal["staging", "production"] = "staging"
    wildcard: bool = False  # one certificate for all names below the domain
    name_servers: tuple[kinds.Address, ...] = ()  # that answer as the public does
    route53: Route53 = Route53()
    rfc2136: Rfc2136 | None = None


class Storage(Model):
    """Volumes by Longhorn."""

    path: kinds.Folder = "/var/lib/longhorn"  # on each node
    replicas: kinds.Whole = Field(3, ge=1, le=20)  # of a volume; fewer where there are fewer nodes
    node_drain_policy: Literal[
        "block-if-contains-last-replica",
        "allow-if-replica-is-stopped",
        "always-allow",
        "block-for-eviction",
        "block-for-eviction-if-contains-last-replica",
    ] = "block-for-eviction-if-contains-last-replica"  # databases have volumes of one replica


class Logs(Model):
    """Where logs are kept, and for how long."""

    keep_days: kinds.Whole = Field(7, ge=1)
    size: kinds.Quantity = "20Gi"  # of the volume
    address: kinds.Address | None = None  # for hosts outside; None: any of the load balancer's pool
    in_s3: bool = False  # Loki's are kept in the S3 service, its volume holds the newest


class Metrics(Model):
    """How long Prometheus keeps metrics, and what is added to its rules and dashboards.

    rules, dashboards: folders of the user's own, relative to the root of the project.
    """

    keep_days: kinds.Whole = Field(7, ge=1)
    size: kinds.Quantity = "20Gi"  # of the volume
    memory: kinds.Quantity = "2Gi"  # Prometheus' limit
    rules: str | None = None
    dashboards: str | None = None


class Platform(Model):
    """Components on top of K3s: those the stack asks for, and further ones."""

    storage: Storage = Storage()
    logs: Logs = Logs()
    metrics: Metrics = Metrics()
    own_ca: bool = False  # the cluster's CA comes from the secrets file
    components: tuple[str, ...] = ()
    values: dict[str, dict[str, Any]] = Field(default_factory=dict)  # of charts, merged last
    charts: kinds.Url | None = None  # a repository that has all charts, in place of their own
    ingress_address: kinds.Address | None = None  # None: the first of the load balancer's pool
    mesh_namespaces: tuple[kinds.HostName, ...] = ()  # of the user's own, to join the mesh


class Services(Model):
    """Services around the cluster; one without a section is not ours (`cluster/services/`)."""

    gateway: Gateway | None = None
    certbot: Certbot | None = None
    telemetry: Telemetry | None = None
    san: San | None = None
    s3: S3Server | None = None
    backup: HostBackup | None = None


class Cluster(Model):
    """The whole cluster, read once a run from inventory and group_data."""

    name: kinds.HostName
    domain: kinds.DnsName
    timezone: kinds.Timezone = "Etc/UTC"
    locale: kinds.Locale = "C.UTF-8"
    network: Network
    hosts: tuple[Host, ...]
    k3s: K3s = K3s()
    stack: Stack = Stack()
    first_boot: FirstBoot = FirstBoot()
    nodes: Nodes = Nodes()
    platform: Platform = Platform()
    backup: Backup = Backup()
    acme: Acme = Acme()
    services: Services = Services()
    secrets_file: str  # relative to the root of the project
    age_key_file: str | None = None  # None: where sops looks for it
    # Texts of the user's folders (`platform.metrics`), by file name without its ending.
    user_rules: dict[str, str] = Field(default_factory=dict)
    user_dashboards: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()  # what is allowed but doubtful, one line each

    def host(self, name: str) -> Host:
        """The host of that name, also as pyinfra names it (`@fake/node2`); raises KeyError."""
        return self._by_name[name.rpartition("/")[2]]

    def member(self, name: str) -> Host | None:
        """The Kubernetes node of that name, None for other hosts."""
        host = self._by_name.get(name.rpartition("/")[2])
        return host if host and host.in_cluster else None

    @cached_property
    def _by_name(self) -> dict[str, Host]:
        return {host.name: host for host in self.hosts}

    @cached_property
    def servers(self) -> tuple[Host, ...]:
        """Servers in inventory order."""
        return tuple(host for host in self.hosts if host.role is Role.SERVERS)

    @cached_property
    def agents(self) -> tuple[Host, ...]:
        """Agents in inventory order."""
        return tuple(host for host in self.hosts if host.role is Role.AGENTS)

    @cached_property
    def members(self) -> tuple[Host, ...]:
        """Kubernetes nodes: servers, then agents."""
        return self.servers + self.agents

    @property
    def datastore(self) -> Literal["sqlite", "etcd"]:
        """The datastore: as given, else sqlite for a single server and embedded etcd for more."""
        return self.k3s.datastore or ("sqlite" if len(self.servers) == 1 else "etcd")

    @property
    def api_address(self) -> IPv4Address:
        """Address of the Kubernetes API: the virtual IP, else the first server's."""
        return self.network.api.vip or self.servers[0].ip

    @property
    def ingress_address(self) -> IPv4Address | None:
        """The ingress' own address, None when nobody can choose it.

        K3s' own Traefik takes what comes: its Service is not ours.
        """
        stack, pool = self.stack, self.network.load_balancer_pool
        if stack.ingress in ("none", "k3s-traefik") or not stack.own_addresses:
            return None
        return self.platform.ingress_address or (pool.first if pool else None)

    @property
    def logs_address(self) -> IPv4Address | None:
        """The address for logs of hosts outside, None when any will do or nobody can choose it."""
        stack = self.stack
        if stack.logs == "none" or not stack.own_addresses:
            return None
        return self.platform.logs.address

    @property
    def api_port(self) -> int:
        """Port of the API at its address: haproxy's where haproxy carries it, else K3s'."""
        api = self.network.api
        return api.haproxy.port if api.vip and api.carrier == "haproxy" else API_PORT

    @property
    def api_url(self) -> str:
        """URL of the Kubernetes API as nodes and operators reach it."""
        return f"https://{self.api_address}:{self.api_port}"

    def taints(self, host: Host) -> tuple[Taint, ...]:
        """The node's taints: its own, and that of servers which take no ordinary pods."""
        reserved = host.is_server and self.k3s.control_plane_taint
        return (*host.taints, CONTROL_PLANE) if reserved else host.taints

    def fqdn(self, host: Host) -> str:
        """The host's full DNS name."""
        return f"{host.name}.{self.domain}"

    @cached_property
    def tls_sans(self) -> tuple[str, ...]:
        """Names and addresses the API's certificate must carry."""
        vip = self.network.api.vip
        wanted = [
            *([str(vip)] if vip else []),
            *self.network.api.names,
            *(str(server.ip) for server in self.servers),
            *(name for server in self.servers for name in (server.name, self.fqdn(server))),
            *self.k3s.tls_san,
        ]
        return tuple(dict.fromkeys(wanted))
