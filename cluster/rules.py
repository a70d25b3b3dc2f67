"""What the inputs must fulfil together: one small function a rule. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address
from itertools import combinations
from typing import Any

from cluster import k3s_settings, versions
from cluster.boot import cmdline as boot_cmdline
from cluster.boot.config_txt import KERNEL_KEYS
from cluster.component import EXCLUSIVE
from cluster.model import Cluster, Host, Role, Stack
from cluster.problem import Given, Problem, meant
from cluster.services import api_address, backup, certbot, gateway, s3, san, telemetry
from cluster.text.cmdline import PROTECTED, QUIRKS

Rule = Callable[[Cluster, Given], Iterable[Problem]]


def _with(cluster: Cluster, *keys: str) -> list[Host]:
    """The hosts whose keys could be read and are set."""
    return [host for host in cluster.hosts if all(host.__dict__.get(key) for key in keys)]


def _strangers(cluster: Cluster, where: str, names: Iterable[str]) -> Iterator[Problem]:
    """Names that are no host's."""
    known = [host.name for host in _with(cluster, "name")]
    for name in names:
        if name not in known:
            yield Problem(where, name, "a host of the inventory", meant(name, known))


def _strange_keys(
    cluster: Cluster, given: Given, path: str, keys: Iterable[str]
) -> Iterator[Problem]:
    """Keys of a table by host that are no host's."""
    for one in _strangers(cluster, path, keys):
        where = given.at(f"{path}.{one.found}")
        yield Problem(where, "no host of the inventory", suggestion=one.suggestion)


# ---- hosts


def _owners(hosts: Iterable[Host], key: str) -> dict[Any, list[str]]:
    owners: dict[Any, list[str]] = defaultdict(list)
    for host in hosts:
        owners[getattr(host, key)].append(host.name)
    return owners


def addresses_are_unique(cluster: Cluster, given: Given) -> Iterator[Problem]:
    for key, what in (("ip", "address"), ("mac", "network card")):
        for value, names in _owners(_with(cluster, "name", key), key).items():
            for name in names[1:]:
                found = f"{value} belongs to {names[0]} too"
                yield Problem(given.at_host(name, key), found, f"one {what} a host")


def hosts_are_inside_lan(cluster: Cluster, given: Given) -> Iterator[Problem]:
    lan = cluster.network.lan
    for host in _with(cluster, "name", "ip"):
        where = given.at_host(host.name, "ip")
        if host.ip not in lan:
            if host.role is not Role.EXTERNAL:
                yield Problem(where, str(host.ip), f"an address of network.lan {lan}")
        elif host.ip in (lan.network_address, lan.broadcast_address) and lan.prefixlen < 31:
            found = f"{host.ip} is the network's own or its broadcast address"
            yield Problem(where, found, f"an address of a host in network.lan {lan}")


def hosts_keep_out_of_ranges(cluster: Cluster, given: Given) -> Iterator[Problem]:
    network = cluster.network
    for host in _with(cluster, "name", "ip"):
        for key in ("dhcp_range", "load_balancer_pool"):
            taken = getattr(network, key)
            if taken and taken.holds(host.ip):
                found = f"{host.ip} lies in network.{key} {taken}"
                yield Problem(given.at_host(host.name, "ip"), found, "an address outside of it")


def only_gateway_has_its_address(cluster: Cluster, given: Given) -> Iterator[Problem]:
    for host in _with(cluster, "name", "ip"):
        if host.ip == cluster.network.gateway and host.role is not Role.GATEWAY:
            found = f"{host.ip} is network.gateway"
            yield Problem(given.at_host(host.name, "ip"), found, "an address of its own")


# ---- servers and datastore


def there_is_a_server(cluster: Cluster, given: Given) -> Iterator[Problem]:
    if not cluster.servers:
        yield Problem(given.at_group("servers"), "no host", "one, three or five hosts")


def etcd_has_odd_members(cluster: Cluster, given: Given) -> Iterator[Problem]:
    count = len(cluster.servers)
    if count and cluster.datastore == "etcd" and count % 2 == 0:
        found = f"{count} hosts: etcd with {count} members survives the loss of {(count - 1) // 2}"
        if given.repair:
            found += f", as with {count - 1}"
            yield Problem(given.at_group("servers"), found, warning=True)
        else:
            allowed = f"{count - 1} or {count + 1} (--data repair=true lets a repair pass)"
            yield Problem(given.at_group("servers"), found, allowed)


def sqlite_has_one_server(cluster: Cluster, given: Given) -> Iterator[Problem]:
    if cluster.datastore == "sqlite" and len(cluster.servers) > 1:
        found = f"sqlite with {len(cluster.servers)} servers"
        yield Problem(given.at("k3s.datastore"), found, "etcd, or one server")


def pods_have_a_place(cluster: Cluster, given: Given) -> Iterator[Problem]:
    if cluster.k3s.control_plane_taint and cluster.servers and not cluster.agents:
        found = "True without agents, so pods have no place"
        yield Problem(given.at("k3s.control_plane_taint"), found, "False, or hosts in agents")


# ---- network


def gateway_is_inside_lan(cluster: Cluster, given: Given) -> Iterator[Problem]:
    network = cluster.network
    if network.gateway not in network.lan:
        allowed = f"an address of network.lan {network.lan}"
        yield Problem(given.at("network.gateway"), str(network.gateway), allowed)


def _free(
    cluster: Cluster, given: Given, key: str, address: IPv4Address | None, *ranges: str
) -> Iterator[Problem]:
    """Why nobody may have the address; ranges: keys of the network it must lie outside of."""
    network = cluster.network
    if address is None:
        return
    taken = []
    if address not in network.lan:
        taken.append(f"lies outside network.lan {network.lan}")
    if address == network.gateway:
        taken.append("is network.gateway")
    hosts = _with(cluster, "ip")
    taken += [f"is the address of {host.name}" for host in hosts if host.ip == address]
    for range_key in ranges:
        addresses = network.__dict__.get(range_key)
        if addresses and addresses.holds(address):
            taken.append(f"lies in network.{range_key} {addresses}")
    for reason in taken:
        allowed = f"a free address of network.lan {network.lan}"
        yield Problem(given.at(key), f"{address} {reason}", allowed)


def vip_has_a_carrier(cluster: Cluster, given: Given) -> Iterator[Problem]:
    api = cluster.network.api
    if api.carrier != "none" and api.vip is None:
        found = f"missing, but network.api.carrier is {api.carrier}"
        yield Problem(given.at("network.api.vip"), found, "a free address of network.lan")


def haproxy_has_hosts(cluster: Cluster, given: Given) -> Iterator[Problem]:
    api = cluster.network.api
    if api.carrier != "haproxy":
        return
    where = given.at("network.api.haproxy.hosts")
    yield from _strangers(cluster, where, api.haproxy.hosts)
    if api.haproxy.health_port == api.haproxy.port:
        found = f"{api.haproxy.port} is network.api.haproxy.port too"
        yield Problem(given.at("network.api.haproxy.health_port"), found, "another port")
    carriers = api_address.haproxy_hosts(cluster)
    if not carriers and not api.haproxy.hosts:
        yield Problem(where, "no host has the role gateway", "names of hosts")
    for host in carriers:
        if host.role is Role.AGENTS:
            yield Problem(where, f"{host.name} is an agent", "gateways, external hosts or servers")
        if host.ip not in cluster.network.lan:
            found = f"{host.name} is outside network.lan {cluster.network.lan}"
            yield Problem(where, found, "hosts that can have network.api.vip")
        if host.is_server and api.haproxy.port == api_address.API_PORT:
            found = f"{api.haproxy.port}, where K3s listens on {host.name}"
            yield Problem(given.at("network.api.haproxy.port"), found, "another port")


def vip_is_free(cluster: Cluster, given: Given) -> Iterator[Problem]:
    vip = cluster.network.api.vip
    yield from _free(cluster, given, "network.api.vip", vip, "dhcp_range", "load_balancer_pool")


def _chosen(
    cluster: Cluster, given: Given, key: str, address: IPv4Address | None, other: str
) -> Iterator[Problem]:
    """Why a Service cannot have the address that was chosen for it; other: what else there is."""
    yield from _free(cluster, given, key, address, "dhcp_range")
    if address and address == cluster.network.api.vip:
        yield Problem(given.at(key), f"{address} is network.api.vip", "an address of its own")
    if address and not cluster.stack.own_addresses:
        found = f"{address} with stack.load_balancer {cluster.stack.load_balancer}"
        allowed = f"metallb or cilium, which can give a chosen address{other}"
        yield Problem(given.at(key), found, allowed)


def ingress_address_is_free(cluster: Cluster, given: Given) -> Iterator[Problem]:
    address = cluster.platform.ingress_address
    yield from _chosen(cluster, given, "platform.ingress_address", address, "")


def logs_address_is_free(cluster: Cluster, given: Given) -> Iterator[Problem]:
    key, address = "platform.logs.address", cluster.platform.logs.address
    yield from _chosen(cluster, given, key, address, ", or services.telemetry.address")
    if address and address == cluster.ingress_address:
        found = f"{address} is the address of the ingress"
        yield Problem(given.at(key), found, "an address of its own")


def ranges_are_inside_lan(cluster: Cluster, given: Given) -> Iterator[Problem]:
    lan = cluster.network.lan
    for key in ("dhcp_range", "load_balancer_pool"):
        addresses = cluster.network.__dict__.get(key)
        if addresses and not (addresses.first in lan and addresses.last in lan):
            yield Problem(
                given.at(f"network.{key}"), str(addresses), f"a range of network.lan {lan}"
            )


def ranges_keep_apart(cluster: Cluster, given: Given) -> Iterator[Problem]:
    dhcp, pool = cluster.network.dhcp_range, cluster.network.load_balancer_pool
    if dhcp and pool and dhcp.overlaps(pool):
        found = f"{pool} overlaps network.dhcp_range {dhcp}"
        yield Problem(given.at("network.load_balancer_pool"), found, "addresses outside of it")


def ranges_spare_gateway(cluster: Cluster, given: Given) -> Iterator[Problem]:
    gateway = cluster.network.gateway
    if any(host.ip == gateway for host in _with(cluster, "ip")):
        return  # said of the host
    for key in ("dhcp_range", "load_balancer_pool"):
        addresses = cluster.network.__dict__.get(key)
        if addresses and addresses.holds(gateway):
            found = f"{addresses} holds network.gateway {gateway}"
            yield Problem(given.at(f"network.{key}"), found, "addresses without it")


def networks_keep_apart(cluster: Cluster, given: Given) -> Iterator[Problem]:
    keys = ("lan", "pod_cidr", "service_cidr", "cilium_cidr")
    known = [(key, cluster.network.__dict__.get(key)) for key in keys]
    for (first, one), (second, other) in combinations(known, 2):
        if one and other and one.overlaps(other):
            found = f"{other} overlaps network.{first} {one}"
            yield Problem(given.at(f"network.{second}"), found, "networks that share no address")


def pod_cidr_is_large_enough(cluster: Cluster, given: Given) -> Iterator[Problem]:
    keys = ("pod_cidr", "cilium_cidr") if cluster.stack.cni == "cilium" else ("pod_cidr",)
    for key in keys:
        pods, nodes = getattr(cluster.network, key), len(cluster.members)
        # Each node gets a /24 of it: the controller manager's --node-cidr-mask-size, and Cilium's.
        if pods.prefixlen > 24 or 2 ** (24 - pods.prefixlen) < nodes:
            found = f"{pods} has no /24 for each of {nodes} nodes"
            yield Problem(given.at(f"network.{key}"), found, "a larger network, such as a /16")


def service_cidr_fits(cluster: Cluster, given: Given) -> Iterator[Problem]:
    services = cluster.network.service_cidr
    # Source: kube-apiserver refuses more than 20 bits; the DNS Service has the tenth address.
    if not 12 <= services.prefixlen <= 24:
        allowed = "a network between /12 and /24"
        yield Problem(given.at("network.service_cidr"), str(services), allowed)


# ---- stack


def _needs(stack: Stack, key: str, value: str, other: str, needed: str, why: str) -> str | None:
    if getattr(stack, key) == value and getattr(stack, other) != needed:
        return f"{value} with stack.{other} {getattr(stack, other)}: {why}"
    return None


def cilium_comes_whole(cluster: Cluster, given: Given) -> Iterator[Problem]:
    for key, other, why in (
        ("kube_proxy", "cni", "Cilium replaces kube-proxy only where it is the CNI"),
        ("load_balancer", "cni", "Cilium announces addresses only where it is the CNI"),
        ("load_balancer", "kube_proxy", "its L2 announcements need its kube-proxy replacement"),
    ):
        if found := _needs(cluster.stack, key, "cilium", other, "cilium", why):
            yield Problem(given.at(f"stack.{key}"), found, f"stack.{other} cilium, or another")


def load_balancer_has_pool(cluster: Cluster, given: Given) -> Iterator[Problem]:
    stack = cluster.stack
    if stack.own_addresses and cluster.network.load_balancer_pool is None:
        found = f"missing, but stack.load_balancer is {stack.load_balancer}"
        allowed = "a range of free addresses such as 10.0.0.100-10.0.0.200"
        yield Problem(given.at("network.load_balancer_pool"), found, allowed)


def ingress_has_load_balancer(cluster: Cluster, given: Given) -> Iterator[Problem]:
    stack = cluster.stack
    if stack.ingress != "none" and stack.load_balancer == "none":
        found = f"none, but stack.ingress is {stack.ingress}"
        allowed = "a load balancer that gives it an address, or stack.ingress none"
        yield Problem(given.at("stack.load_balancer"), found, allowed)


def linkerd_has_certificates(cluster: Cluster, given: Given) -> Iterator[Problem]:
    why = "cert-manager renews the identity of the mesh"
    if found := _needs(cluster.stack, "mesh", "linkerd", "certificates", "cert-manager", why):
        yield Problem(given.at("stack.mesh"), found, "stack.certificates cert-manager")


def snapshots_have_a_driver(cluster: Cluster, given: Given) -> Iterator[Problem]:
    stack = cluster.stack
    if stack.snapshots == "external-snapshotter" and stack.storage == "local-path":
        found = "external-snapshotter with stack.storage local-path, which takes no snapshots"
        yield Problem(given.at("stack.snapshots"), found, "none, or stack.storage longhorn")


def preset_is_not_undone(cluster: Cluster, given: Given) -> Iterator[Problem]:
    if cluster.stack.preset == "v1_8" and cluster.servers and cluster.datastore == "sqlite":
        found = "v1_8 is highly available, but the datastore is sqlite"
        yield Problem(given.at("stack.preset"), found, "three servers with etcd")


def components_are_known(cluster: Cluster, given: Given) -> Iterator[Problem]:
    known = sorted(given.components)
    for name in dict.fromkeys([*cluster.platform.components, *cluster.platform.values]):
        if name not in known:
            key = "components" if name in cluster.platform.components else f"values.{name}"
            allowed = f"one of {', '.join(known)}"
            yield Problem(given.at(f"platform.{key}"), name, allowed, meant(name, known))


def components_follow_stack(cluster: Cluster, given: Given) -> Iterator[Problem]:
    for name in cluster.platform.components:
        component = given.components.get(name)
        role = component.role if component else None
        if component is None or role not in EXCLUSIVE or component.wanted(cluster):
            continue
        chosen = getattr(cluster.stack, role.replace("-", "_"))
        found = f"{name} beside stack.{role.replace('-', '_')} {chosen}"
        allowed = f"one product for the role {role.replace('-', ' ')}"
        yield Problem(given.at("platform.components"), found, allowed)


# ---- K3s


def version_is_pinned(cluster: Cluster, given: Given) -> Iterator[Problem]:
    version, source = cluster.k3s.version, cluster.k3s.source
    where, releases = given.at("k3s.version"), ", ".join(versions.K3S_RELEASES)
    if versions.minor(version) < versions.minor(versions.K3S_LADDER[0]):
        allowed = f"{versions.K3S_LADDER[0]} or newer"
        yield Problem(where, f"{version} is older than what upgrades start from", allowed)
    elif not versions.known(version) and source.checksums == "pinned":
        unpinned = sorted({host.arch for host in cluster.members} - source.sha256.keys())
        if unpinned:
            allowed = f"one of {releases}, or k3s.source.sha256 for {', '.join(unpinned)}"
            close = meant(version, versions.K3S_RELEASES)
            yield Problem(where, f"{version} has no pinned checksum", allowed, close)


def k3s_settings_are_ours_to_set(cluster: Cluster, given: Given) -> Iterator[Problem]:
    k3s = cluster.k3s
    for line in (
        *k3s_settings.problems(k3s.server_config, k3s.agent_config, k3s.version),
        *k3s_settings.registry_problems(k3s.registries),
    ):
        path, _, found = line.partition(": ")
        yield Problem(given.at(f"k3s.{path}"), found)


def shutdown_leaves_time(cluster: Cluster, given: Given) -> Iterator[Problem]:
    kubelet = cluster.k3s.kubelet
    whole, critical = kubelet.shutdown_grace_period, kubelet.shutdown_grace_period_critical_pods
    if critical > whole:
        found = f"{critical}, more than shutdown_grace_period {whole}"
        where = given.at("k3s.kubelet.shutdown_grace_period_critical_pods")
        yield Problem(where, found, "a part of the whole period")
    elif (whole == 0) != (critical == 0):
        # Source: kubelet's validation of its configuration.
        where = given.at("k3s.kubelet.shutdown_grace_period_critical_pods")
        yield Problem(where, f"{critical} of {whole}", "both above 0, or both 0 to switch it off")


def binary_has_one_source(cluster: Cluster, given: Given) -> Iterator[Problem]:
    source = cluster.k3s.source
    if source.mirror and source.folder:
        found = f"mirror {source.mirror} and folder {source.folder}"
        yield Problem(given.at("k3s.source"), found, "one of the two")
    if source.checksums == "beside" and not (source.mirror or source.folder):
        allowed = "pinned, or a mirror or folder of your own"
        yield Problem(given.at("k3s.source.checksums"), "beside for the public release", allowed)


def s3_has_snapshots(cluster: Cluster, given: Given) -> Iterator[Problem]:
    if cluster.k3s.snapshots.s3 and cluster.servers and cluster.datastore == "sqlite":
        found = "set, but the datastore is sqlite, of which K3s takes no snapshots"
        yield Problem(given.at("k3s.snapshots.s3"), found, "no s3, or k3s.datastore etcd")


# ---- nodes


def users_are_unique(cluster: Cluster, given: Given) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, user in enumerate(cluster.nodes.users):
        if user.name in seen:
            yield Problem(given.at(f"nodes.users[{index}]"), f"{user.name} again", "a user once")
        if user.name == "root":
            found = "root may not log in over SSH"
            yield Problem(given.at(f"nodes.users[{index}]"), found, "another user")
        seen.add(user.name)


def boot_keeps_hosts_booting(cluster: Cluster, given: Given) -> Iterator[Problem]:
    boot = cluster.nodes.boot
    for name, tokens in (
        ("cmdline_add", boot.cmdline_add),
        ("cmdline_remove", boot.cmdline_remove),
    ):
        for token in tokens:
            key, where = boot_cmdline.key(token), given.at(f"nodes.boot.{name}")
            if key == boot_cmdline.key(QUIRKS):
                yield Problem(where, token, "nodes.boot.quirks for USB bridges")
            elif key in PROTECTED and (name == "cmdline_remove" or key != "panic"):
                allowed = "no change of what a host boots from: it goes together with /etc/fstab"
                yield Problem(where, token, allowed if key != "panic" else "panic= to stay")


def config_lines_leave_the_kernel_alone(cluster: Cluster, given: Given) -> Iterator[Problem]:
    for lines in cluster.nodes.boot.config_lines.values():
        for line in lines:
            if line.partition("=")[0] in KERNEL_KEYS:
                allowed = "no change of which kernel and command line are read: Ubuntu does that"
                yield Problem(given.at("nodes.boot.config_lines"), line, allowed)


def ignored_checks_exist(cluster: Cluster, given: Given) -> Iterator[Problem]:
    for name in cluster.nodes.ignore_preflight if given.preflight else ():
        if name not in given.preflight:
            allowed = f"one of {', '.join(sorted(given.preflight))}"
            close = meant(name, given.preflight)
            yield Problem(given.at("nodes.ignore_preflight"), name, allowed, close)


def first_boots_are_of_hosts(cluster: Cluster, given: Given) -> Iterator[Problem]:
    yield from _strange_keys(cluster, given, "first_boot.hosts", cluster.first_boot.hosts)


def acme_has_an_account(cluster: Cluster, given: Given) -> Iterator[Problem]:
    if cluster.acme.dns_provider and not cluster.acme.email:
        found = f"missing, but acme.dns_provider is {cluster.acme.dns_provider}"
        yield Problem(given.at("acme.email"), found, "the e-mail address of the account")


def certificates_have_a_proof(cluster: Cluster, given: Given) -> Iterator[Problem]:
    acme = cluster.acme
    if acme.dns_provider == "rfc2136" and acme.rfc2136 is None:
        found = "missing, but acme.dns_provider is rfc2136"
        yield Problem(given.at("acme.rfc2136"), found, "its server and key_name")


def _has_no_s3(cluster: Cluster) -> bool:
    """Whether nothing says where backups go; what is wrong with a server of ours is said by it."""
    return cluster.services.s3 is None and cluster.backup.s3_endpoint is None


def backup_has_a_place(cluster: Cluster, given: Given) -> Iterator[Problem]:
    if cluster.stack.backup == "velero" and _has_no_s3(cluster):
        found = "missing, but stack.backup is velero"
        allowed = "an S3 service outside the cluster, or stack.backup none"
        yield Problem(given.at("backup.s3_endpoint"), found, allowed)


def recovered_database_has_an_archive(cluster: Cluster, given: Given) -> Iterator[Problem]:
    backup = cluster.backup
    if not backup.database_recover_from:
        return
    where = given.at("backup.database_archive")
    if backup.database_recover_from == backup.database_archive:
        found = f"{backup.database_archive} is what the database recovers from"
        yield Problem(where, found, "a new folder: PostgreSQL archives only into an empty one")
    if backup.s3_endpoint is None:
        where = given.at("backup.database_recover_from")
        yield Problem(where, "set without backup.s3_endpoint", "the service that has the archive")


# ---- services around the cluster


def gateway_is_a_machine_of_its_own(cluster: Cluster, given: Given) -> Iterator[Problem]:
    wanted = cluster.services.gateway
    if wanted is None:
        return
    hosts, where = gateway.hosts(cluster), given.at("services.gateway.hosts")
    if not hosts and not wanted.hosts:
        yield Problem(where, "no host has the role gateway", "a host in the group gateway")
    if wanted.dhcp and len(hosts) > 1:
        found = f"{len(hosts)} hosts with services.gateway.dhcp"
        yield Problem(where, found, "one: two DHCP servers give one address to two guests")
    for host in hosts:
        if host.in_cluster and (wanted.firewall or wanted.wan_interface):
            found = f"{host.name} is a node, whose packets Kubernetes forwards"
            yield Problem(where, found, "a host beside the cluster, or firewall False")
        if host.ip not in cluster.network.lan:
            found = f"{host.name} is outside network.lan {cluster.network.lan}"
            yield Problem(where, found, "a host with an address of it")
    if wanted.wan_interface and wanted.wan_interface == wanted.lan_interface:
        found = f"{wanted.wan_interface} is services.gateway.lan_interface too"
        yield Problem(given.at("services.gateway.wan_interface"), found, "another interface")


def gateway_serves_somebody(cluster: Cluster, given: Given) -> Iterator[Problem]:
    wanted, network = cluster.services.gateway, cluster.network
    if wanted is None:
        return
    own = {host.ip for host in gateway.hosts(cluster)}
    if wanted.wan_interface and own and network.gateway not in own:
        found = f"{network.gateway} is no host of services.gateway, which is a router"
        yield Problem(given.at("network.gateway"), found, warning=True)
    if wanted.dns and not own & set(network.dns):
        found = "has no host of services.gateway, so nobody asks its name server"
        yield Problem(given.at("network.dns"), found, warning=True)
    if wanted.time and not {str(ip) for ip in own} & set(network.time_servers):
        found = "has no host of services.gateway, so nobody asks its time server"
        yield Problem(given.at("network.ntp"), found, warning=True)
    if loops := own & set(wanted.upstream_dns):
        found = f"{min(loops)} is the name server itself"
        yield Problem(given.at("services.gateway.upstream_dns"), found, "name servers outside")


def openings_have_two_sides(cluster: Cluster, given: Given) -> Iterator[Problem]:
    wanted = cluster.services.gateway
    for index, one in enumerate(wanted.openings if wanted else ()):
        where = given.at(f"services.gateway.openings[{index}]")
        if one.target and one.way != "wan-to-lan":
            yield Problem(f"{where}.target", f"{one.target} with {one.way}", "wan-to-lan, or none")
        if one.target and one.target not in cluster.network.lan:
            allowed = f"an address of network.lan {cluster.network.lan}"
            yield Problem(f"{where}.target", str(one.target), allowed)
        if one.way != "lan-to-gateway" and wanted and wanted.wan_interface is None:
            found = f"{one.way} without services.gateway.wan_interface"
            yield Problem(f"{where}.way", found, "an interface towards the outside")


def services_have_hosts(cluster: Cluster, given: Given) -> Iterator[Problem]:
    for service in type(cluster.services).model_fields:
        names = getattr(getattr(cluster.services, service), "hosts", ())
        yield from _strangers(cluster, given.at(f"services.{service}.hosts"), names)


def certbot_can_prove_names(cluster: Cluster, given: Given) -> Iterator[Problem]:
    wanted, acme = cluster.services.certbot, cluster.acme
    if wanted is None:
        return
    if not acme.email:
        found = "missing, but services.certbot has certificates"
        yield Problem(given.at("acme.email"), found, "the e-mail address of the account")
    if wanted.plugin and wanted.hooks:
        found = "both plugin and hooks prove names"
        yield Problem(given.at("services.certbot"), found, "one of the two")
    if not (wanted.plugin or wanted.hooks or acme.dns_provider):
        found = "missing, but services.certbot proves names by their DNS"
        allowed = "a provider, or services.certbot.plugin or .hooks"
        yield Problem(given.at("acme.dns_provider"), found, allowed)
    if wanted.ca and not wanted.directory:
        found = "set, but no services.certbot.directory"
        yield Problem(given.at("services.certbot.ca"), found, "the URL of that server too")


def certbots_certificates_have_a_place(cluster: Cluster, given: Given) -> Iterator[Problem]:
    wanted = cluster.services.certbot
    if wanted is None:
        return
    seen = set[str]()
    for index, one in enumerate(wanted.certificates):
        where = given.at(f"services.certbot.certificates[{index}]")
        if one.name in seen:
            yield Problem(where, f"{one.name} again", "a name of its own for each")
        seen.add(one.name)
        yield from _strangers(cluster, where, one.hosts)
        count = sum(one in certbot.certificates(cluster, host) for host in cluster.hosts)
        if count == 0:
            found = f"{one.name} is for no host"
            yield Problem(where, found, "hosts of the role external, or names of hosts")
        if count > certbot.SAME_NAMES_A_WEEK:
            found = f"{one.name} on {count} hosts"
            allowed = f"{certbot.SAME_NAMES_A_WEEK} at most, as Let's Encrypt issues a week"
            yield Problem(where, found, allowed)


def s3_server_has_a_host(cluster: Cluster, given: Given) -> Iterator[Problem]:
    section = s3.server(cluster)
    if section is None or s3.home(cluster):
        return
    where = given.at("services.s3.host")
    outside = [host.name for host in _with(cluster, "name") if host.role is Role.EXTERNAL]
    if section.host:
        yield from _strangers(cluster, where, (section.host,))
    elif outside:
        found = f"missing, and {len(outside)} hosts are outside the cluster"
        yield Problem(where, found, f"one of {', '.join(outside)}")
    else:
        found = "missing, and no host is outside the cluster"
        yield Problem(where, found, "a host in the group external, or the name of another")


def s3_server_is_told_once(cluster: Cluster, given: Given) -> Iterator[Problem]:
    section, known = cluster.services.s3, cluster.backup.s3_endpoint
    if section and section.product == "external" and known is None:
        found = "missing, but services.s3.product is external"
        yield Problem(given.at("backup.s3_endpoint"), found, "the address of that service")
    ours = s3.endpoint(cluster)
    if ours and known != ours:
        found = f"{known}, but services.s3 is {ours}"
        yield Problem(given.at("backup.s3_endpoint"), found, "nothing: it follows from services.s3")


def s3_server_has_a_certificate(cluster: Cluster, given: Given) -> Iterator[Problem]:
    section = s3.server(cluster)
    if section and (section.certificate is None) != (section.key is None):
        key = "key" if section.key is None else "certificate"
        yield Problem(given.at(f"services.s3.{key}"), "missing", "both files, or none of the two")
    known = cluster.backup.ca or given.ca
    if s3.signed_by_us(cluster) and not known and given.secrets == "present":
        file = s3.ca_file(cluster.secrets_file)
        command = f"`make secrets INVENTORY=inventories/{given.inventory}.py`"
        yield Problem(file, "missing", f"the CA's certificate, which {command} writes")


def buckets_are_apart(cluster: Cluster, given: Given) -> Iterator[Problem]:
    if cluster.services.s3 is None:
        return
    seen: dict[str, str] = {}
    for account in s3.accounts(cluster):
        other = seen.setdefault(account.bucket, account.name)
        if other != account.name:
            found = f"{account.bucket} is the bucket of {other} and of {account.name}"
            yield Problem(given.at("backup.buckets"), found, "a bucket for each")


def logs_in_s3_have_a_place(cluster: Cluster, given: Given) -> Iterator[Problem]:
    where = given.at("platform.logs.in_s3")
    if cluster.platform.logs.in_s3 and cluster.stack.logs != "loki":
        found = f"True with stack.logs {cluster.stack.logs}"
        yield Problem(where, found, "False: only Loki keeps logs in S3")
    elif cluster.platform.logs.in_s3 and _has_no_s3(cluster):
        yield Problem(where, "True without backup.s3_endpoint", "an S3 service, or False")


def backups_of_hosts_have_a_place(cluster: Cluster, given: Given) -> Iterator[Problem]:
    section, at = cluster.services.backup, given.at
    if section is None:
        return
    if section.repository is None and _has_no_s3(cluster):
        found = "missing, and there is no S3 service either"
        yield Problem(at("services.backup.repository"), found, "services.s3, or a repository")
    names = [host.name for host in backup.hosts(cluster)]
    if section.keeper and section.keeper not in names:
        allowed = "a host that is backed up"
        close = meant(section.keeper, names)
        yield Problem(at("services.backup.keeper"), section.keeper, allowed, close)
    for name in section.paths_of:
        if name not in names:
            where = at(f"services.backup.paths_of.{name}")
            yield Problem(where, "no host that is backed up", suggestion=meant(name, names))
    if not any((section.keep.daily, section.keep.weekly, section.keep.monthly)):
        yield Problem(at("services.backup.keep"), "nothing is kept", "one number above 0")


def logs_from_outside_have_a_receiver(cluster: Cluster, given: Given) -> Iterator[Problem]:
    if cluster.services.telemetry is None or not telemetry.sends_logs(cluster):
        return
    wanted = cluster.services.telemetry
    if not (wanted.address or cluster.platform.logs.address):
        found = "missing, but services.telemetry sends logs"
        allowed = "an address for them, or services.telemetry.logs False"
        yield Problem(given.at("platform.logs.address"), found, allowed)
    if telemetry.secured(cluster) and not (wanted.ca or cluster.platform.own_ca):
        found = "missing, but the receiver's certificate is of the cluster's own CA"
        allowed = "its PEM text (kubectl -n cert-manager get secret root-secret), or "
        allowed += "platform.own_ca"
        yield Problem(given.at("services.telemetry.ca"), found, allowed)


def san_has_a_host_and_nodes(cluster: Cluster, given: Given) -> Iterator[Problem]:
    wanted = cluster.services.san
    if wanted is None:
        return
    host = san.target_host(cluster)
    if host is None and wanted.host:
        yield from _strangers(cluster, given.at("services.san.host"), (wanted.host,))
    elif host is None:
        allowed = "the name of the host that has the disk"
        yield Problem(given.at("services.san.host"), "missing", allowed)
    elif host.name in wanted.volumes:
        found = f"{host.name} would log in to itself"
        yield Problem(given.at("services.san.volumes"), found, "a host outside of the volumes")
    elif not (wanted.folder or san.disk(cluster)):
        allowed = "a disk for LVM, data_disk of the host, or services.san.folder"
        yield Problem(given.at("services.san.disk"), "missing", allowed)
    if wanted.folder and wanted.disk:
        found = f"disk {wanted.disk} and folder {wanted.folder}"
        yield Problem(given.at("services.san"), found, "one of the two")
    yield from _strange_keys(cluster, given, "services.san.volumes", wanted.volumes)


# ---- secrets


def secrets_are_there(cluster: Cluster, given: Given) -> Iterator[Problem]:
    command = f"`make secrets INVENTORY=inventories/{given.inventory}.py`"
    if given.secrets == "missing":
        yield Problem(cluster.secrets_file, "missing", f"the file that {command} makes")
    if given.secrets == "plaintext":
        allowed = f"a file that sops encrypted (move it away, then {command})"
        yield Problem(cluster.secrets_file, "not encrypted", allowed)
    if given.secrets == "damaged":  # nobody is told to make new ones: these open the snapshots
        yield Problem(cluster.secrets_file, "damaged", "it as sops wrote it, such as from Git")


RULES: tuple[Rule, ...] = (
    addresses_are_unique,
    hosts_are_inside_lan,
    hosts_keep_out_of_ranges,
    only_gateway_has_its_address,
    there_is_a_server,
    etcd_has_odd_members,
    sqlite_has_one_server,
    pods_have_a_place,
    gateway_is_inside_lan,
    vip_has_a_carrier,
    haproxy_has_hosts,
    vip_is_free,
    ingress_address_is_free,
    logs_address_is_free,
    ranges_are_inside_lan,
    ranges_keep_apart,
    ranges_spare_gateway,
    networks_keep_apart,
    pod_cidr_is_large_enough,
    service_cidr_fits,
    cilium_comes_whole,
    load_balancer_has_pool,
    ingress_has_load_balancer,
    linkerd_has_certificates,
    snapshots_have_a_driver,
    preset_is_not_undone,
    components_are_known,
    components_follow_stack,
    version_is_pinned,
    k3s_settings_are_ours_to_set,
    shutdown_leaves_time,
    binary_has_one_source,
    s3_has_snapshots,
    users_are_unique,
    boot_keeps_hosts_booting,
    config_lines_leave_the_kernel_alone,
    ignored_checks_exist,
    first_boots_are_of_hosts,
    acme_has_an_account,
    certificates_have_a_proof,
    backup_has_a_place,
    recovered_database_has_an_archive,
    services_have_hosts,
    gateway_is_a_machine_of_its_own,
    gateway_serves_somebody,
    openings_have_two_sides,
    certbot_can_prove_names,
    certbots_certificates_have_a_place,
    logs_from_outside_have_a_receiver,
    san_has_a_host_and_nodes,
    s3_server_has_a_host,
    s3_server_is_told_once,
    s3_server_has_a_certificate,
    buckets_are_apart,
    logs_in_s3_have_a_place,
    backups_of_hosts_have_a_place,
    secrets_are_there,
)
