"""One host's network: link, routes, addresses, names, ports."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from cluster.doctor.check import Answer, Verdict, check, failed, passed, unknown, warned, worst
from cluster.doctor.node import NOT_ASKED, Node
from cluster.services import gateway as router
from cluster.services.api_address import API_PORT

_WARN = Verdict.WARN
_PROXY_HEALTH = 10256
_AGENT_PORTS = (6444, 10250, _PROXY_HEALTH)
_SERVER_PORTS = (2379, 2380, API_PORT, 10257, 10258, 10259)
_TUNNELS = {8472: "flannel's VXLAN", 51820: "WireGuard"}
_OURS = "k3s"  # how the names of K3s' processes start
REGISTRY = "registry-1.docker.io"
RESOLVED, RESOLV = "/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"


@check(
    "address",
    "the host has its `ip`",
    why="certificates, firewall rules and the other nodes are told the inventory's address",
    remedy="give it that address by netplan or a reservation of the DHCP server, or correct `ip`",
)
def address(node: Node) -> Answer:
    me, state = node.me, node.state
    if str(me.ip) in state.addresses:
        return passed(str(me.ip))
    others = [one for one in state.addresses if not one.startswith("127.")]
    return failed(f"does not have its address {me.ip} (it has {', '.join(others) or 'none'})")


@check(
    "address-fixed",
    "a server's address does not come from a DHCP lease",
    why="etcd and the API's certificate do not survive another address",
    remedy="set it by netplan, or reserve it at the DHCP server and ignore this check",
    worst=_WARN,
    members=True,
)
def address_fixed(node: Node) -> Answer | None:
    if not node.me.is_server:
        return None
    if node.home is None:
        return unknown("its address is on none of its interfaces")
    if node.home.dynamic:
        return warned(f"{node.me.ip} is a lease")
    return passed("static")


@check(
    "default-route",
    "there is a default route",
    why="K3s does not start without one",
    remedy="set the gateway by netplan, then sudo netplan apply",
    members=True,
)
def default_route(node: Node) -> Answer:
    routes = node.state.routes
    if not routes:
        gateway = node.model.network.gateway
        return failed(f"has no default route, which K3s needs: expected one via {gateway}")
    best = min(map(_metric, routes))
    used = [one for one in routes if _metric(one) == best]
    if len(used) > 1:
        return warned(f"{len(used)} default routes of equal weight: {'; '.join(used)}")
    if node.me.is_server and (name := _after(used[0], "dev")).startswith("wl"):
        return warned(f"a server on Wi-Fi ({name})", "use the cable")
    return passed(used[0])


def _after(route: str, word: str) -> str:
    words = route.split()
    return words[words.index(word) + 1] if word in words[:-1] else ""


def _metric(route: str) -> int:
    number = _after(route, "metric")
    return int(number) if number.isdigit() else 0


@check(
    "gateway",
    "the default route leads to `network.gateway`",
    why="what the inventory says of the gateway (DNS, time, the way out) is then untrue",
    remedy="correct network.gateway, or the route by netplan",
    worst=_WARN,
    members=True,
)
def gateway(node: Node) -> Answer | None:
    via = [_after(route, "via") for route in node.state.routes]
    if not any(via):
        return None
    wanted = str(node.model.network.gateway)
    if wanted not in via:
        return warned(f"via {', '.join(filter(None, via))}; network.gateway is {wanted}")
    return passed(f"via {wanted}")


@check(
    "router-interfaces",
    "a gateway has the interfaces that `services.gateway` names",
    why="rules for a name that no interface has let nobody out, and say nothing of it",
    remedy="correct the name, or plug the card in",
)
def router_interfaces(node: Node) -> Answer | None:
    if node.me not in router.hosts(node.model):
        return None
    wanted, there = router.section(node.model), node.seen.interfaces
    named = {"wan_interface": wanted.wan_interface, "lan_interface": wanted.lan_interface}
    given = {name: f"services.gateway.{key}" for key, name in named.items() if name}
    if not given:
        return None
    if not there:
        return unknown("/sys/class/net does not list its interfaces")
    missing = [f"{name} ({key})" for name, key in given.items() if name not in there]
    if missing:
        has = ", ".join(one for one in there if one != "lo") or "none"
        return failed(f"has no interface {' and no '.join(missing)}: it has {has}")
    return passed(", ".join(given))


@check(
    "link",
    "the network cable carries 1 Gb/s, full duplex",
    why="volumes are copied over the network: below 1 Gb/s a rebuild takes hours",
    remedy="another cable or port of the switch; ethtool INTERFACE shows what was agreed",
    physical=True,
    members=True,
)
def link(node: Node) -> Answer:
    found = node.link
    if found is None or node.home is None:
        return unknown("its address is on none of its interfaces")
    name = node.home.interface
    if found.carrier is False:
        return failed(f"{name} has no link")
    if found.speed is None or found.speed < 0:
        return unknown(f"{name} does not say how fast it is")
    text = f"{name}: {found.speed} Mb/s, {found.duplex or 'unknown'} duplex"
    if found.speed < 1000 or found.duplex == "half":
        return warned(text)
    return passed(text)


@check(
    "path-mtu",
    "whole packets reach the gateway",
    why="a smaller packet size on the way makes large answers hang, worse inside tunnels",
    remedy="the same MTU on switch, gateway and hosts",
    worst=_WARN,
    members=True,
    extra=True,
)
def path_mtu(node: Node) -> Answer:
    if node.probes is None:
        return unknown(NOT_ASKED)
    if node.probes.path_mtu is None or node.link is None:
        return unknown("the gateway does not answer ping, or there is no ping")
    if not node.probes.path_mtu:
        return warned(f"a packet of {node.link.mtu} bytes does not reach the gateway")
    return passed(f"{node.link.mtu} bytes")


@check(
    "dns-servers",
    "pods can use the host's name servers",
    why="K3s gives pods 8.8.8.8 where the host has only a loopback one: names of the LAN fail",
    remedy="set name servers by netplan; or another file for pods: server_config and agent_config: "
    '{"resolv-conf": FILE}',
    members=True,
)
def dns_servers(node: Node) -> Answer:
    k3s = node.model.k3s
    own = (k3s.server_config if node.me.is_server else k3s.agent_config).get("resolv-conf")
    if own:
        return passed(f"{own}, by resolv-conf")
    lists = [node.seen.resolvers.get(path, ()) for path in (RESOLV, RESOLVED)]
    if not any(lists):
        if not node.seen.resolvers:
            return unknown("/etc/resolv.conf cannot be read")
        return failed("no name server at all")
    # K3s takes the second file where the first one has only resolved's own address.
    usable = next((servers for servers in lists if servers and not any(map(_local, servers))), None)
    if usable is None:
        return failed(f"only {', '.join(next(filter(None, lists)))}")
    if zoned := [server for server in usable if _link_local(server)]:
        return warned(f"{', '.join(zoned)} is link-local: K3s gives pods 8.8.8.8 instead of all")
    if len(usable) > 3:
        return warned(f"{len(usable)} name servers, of which only three are used")
    return passed(", ".join(usable))


def _local(server: str) -> bool:
    try:
        return ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _link_local(server: str) -> bool:
    """Whether it needs an interface, as some routers announce themselves (fe80::1%eth0)."""
    try:
        return "%" in server or ip_address(server).is_link_local
    except ValueError:
        return False


@check(
    "dns-answers",
    "name servers answer, and know where images come from",
    why="nothing can be pulled without names",
    remedy="resolvectl query " + REGISTRY + " on the host; check network.dns",
    extra=True,
)
def dns_answers(node: Node) -> Answer:
    probes, model = node.probes, node.model
    if probes is None:
        return unknown(NOT_ASKED)
    silent = [str(one) for one in model.network.dns if str(one) not in probes.dns]
    parts = []
    if "bash" not in probes.tools:
        return unknown("bash is missing, which asks them")
    if silent:
        quiet = len(silent) == len(model.network.dns)
        text = f"no answer from {', '.join(silent)}"
        parts.append(failed(text) if quiet else warned(text))
    if node.me.in_cluster and pulls_from_outside(node):
        found = probes.names.get(REGISTRY)
        if found is None:
            parts.append(unknown(f"{REGISTRY}: nobody answered in time"))
        else:
            text = f"{REGISTRY} is {found or 'not found'}"
            parts.append(passed(text) if found else failed(text))
    good = passed(", ".join(map(str, model.network.dns)))
    return worst([good, *parts]) or good


def pulls_from_outside(node: Node) -> bool:
    """Whether the images of this cluster come from the public registry."""
    k3s = node.model.k3s
    mirrors = k3s.registries.get("mirrors") or {}
    return not (k3s.source.airgap_images or "*" in mirrors or "docker.io" in mirrors)


@check(
    "ports",
    "nobody else listens on K3s' ports",
    why="K3s does not start, or its kubelet cannot be reached",
    remedy="sudo ss -lntup shows who listens: stop that service",
    members=True,
)
def ports(node: Node) -> Answer:
    me = node.me
    wanted = {*_AGENT_PORTS, *(_SERVER_PORTS if me.is_server else ())}
    if node.model.stack.kube_proxy == "cilium":
        wanted.discard(_PROXY_HEALTH)  # Cilium's agent answers there in the place of kube-proxy
    taken = sorted(
        {
            (one.port, one.process)
            for one in node.state.listeners
            if one.process and not one.process.startswith(_OURS)
            if one.port in (wanted if one.protocol == "tcp" else _TUNNELS)
        }
    )
    if taken:
        return failed(
            "; ".join(
                f"{process} listens on port {port}, which K3s needs" for port, process in taken
            )
        )
    return passed("free" if not node.has_k3s else "free or K3s' own")


@check(
    "ports-ingress",
    "nobody else listens on the ports of ingress and load balancer",
    why="the host's own web server would answer in the place of the cluster's",
    remedy="sudo systemctl disable --now nginx apache2, or whoever is named",
    worst=_WARN,
    members=True,
)
def ports_ingress(node: Node) -> Answer | None:
    stack = node.model.stack
    wanted = {80, 443} if stack.load_balancer == "servicelb" and stack.ingress != "none" else set()
    if stack.load_balancer == "metallb":
        wanted |= {7946}
    taken = sorted(
        f"{one.process} on port {one.port}"
        for one in node.state.listeners
        if one.protocol == "tcp" and one.port in wanted and one.process not in ("", "speaker")
        if not one.process.startswith(_OURS)
    )
    if not wanted:
        return None
    return warned(", ".join(dict.fromkeys(taken))) if taken else passed("free")


@check(
    "firewall",
    "no firewall of the host stands between nodes and pods",
    why="ufw drops what pods and nodes say to each other unless each port is opened",
    remedy="sudo ufw disable, or open 6443, 10250, 8472/udp and the networks of pods and services",
    worst=_WARN,
    members=True,
)
def firewall(node: Node) -> Answer:
    said = node.seen.firewall.lower()
    if said == "yes":
        return warned("ufw is on")
    if "firewalld.service" in node.seen.running:
        return warned("firewalld runs", "sudo systemctl disable --now firewalld")
    if late := node.late("systemctl"):
        return unknown(late[0])
    return passed("ufw is off" if said else "ufw is not installed")


@check(
    "networks",
    "the host's networks keep apart from those of pods and services",
    why="packets to pods would leave by Docker's bridge or the VPN instead",
    remedy="another network.pod_cidr or network.service_cidr before the cluster is made; or move "
    "the other network (Docker: bip in /etc/docker/daemon.json)",
    members=True,
)
def networks(node: Node) -> Answer:
    if not node.seen.addresses:
        return unknown("ip does not list its addresses")
    clashes = list(_clashes(node))
    if clashes:
        return failed("; ".join(clashes))
    return passed(", ".join(str(one.network.network) for one in node.own_networks) or "none")


def _clashes(node: Node) -> Iterator[str]:
    network = node.model.network
    ours = [("network.pod_cidr", network.pod_cidr), ("network.service_cidr", network.service_cidr)]
    if node.model.stack.cni == "cilium":
        ours.append(("network.cilium_cidr", network.cilium_cidr))
    for key, cidr in ours:
        for one in node.own_networks:
            if one.network.network.overlaps(cidr):
                yield f"{one.interface} {one.network.network} overlaps {key} {cidr}"


CHECKS = (
    address, address_fixed, default_route, gateway, router_interfaces, link, path_mtu, dns_servers,
    dns_answers, ports, ports_ingress, firewall, networks,
)  # fmt: skip
