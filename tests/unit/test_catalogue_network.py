"""CNI, load balancer and ingress: what the catalogue says of them."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Any

import pytest

from catalogue import CATALOGUE, certificates, cilium, envoy_gateway, forward, metallb, web
from cluster.component import Component, Object
from cluster.graph import graph, select
from cluster.model import Cluster
from cluster.presets import fill
from cluster.readiness import Address, Established, Webhook
from tests.unit.catalogued import named, values_of
from tests.unit.cluster_example import example

POOL = "10.0.0.100-10.0.0.200"
NETWORK = {
    "lan": "10.0.0.0/24",
    "gateway": "10.0.0.1",
    "dns": ("10.0.0.1",),
    "load_balancer_pool": POOL,
}
CILIUM = {"cni": "cilium", "kube_proxy": "cilium", "load_balancer": "cilium"}


def _cluster(servers: int = 3, agents: int = 2, **changes: Any) -> Cluster:
    stack = changes.pop("stack", {})
    return example(servers, agents, network=NETWORK, stack=stack, **changes)


def _preset(name: str, **changes: Any) -> Cluster:
    return _cluster(stack=fill({"preset": name}), **changes)


def _only(found: Iterable[Object], kind: str) -> Object:
    (one,) = named(found, kind).values()
    return one


# ---- all of it


@pytest.mark.parametrize("preset", ["v1_5", "v1_8", "v1_9"])
def test_components_of_a_preset_can_be_put_in_order(preset: str) -> None:
    chosen = select(CATALOGUE, _preset(preset))
    order = [step.component for step in graph(chosen).order if step.half == "objects"]
    first = {"v1_5": "metallb", "v1_8": "metallb", "v1_9": "cilium"}[preset]
    ingress = {"v1_5": "traefik", "v1_8": "ingress-nginx", "v1_9": "envoy-gateway"}[preset]
    assert order.index(first) < order.index(ingress) < order.index("longhorn")
    assert order.index("cert-manager") < order.index(ingress)


@pytest.mark.parametrize("preset", ["v1_5", "v1_8", "v1_9"])
def test_pods_come_up_only_after_the_injector(preset: str) -> None:
    chosen = select(CATALOGUE, _preset(preset))
    order = [step.component for step in graph(chosen).order if step.half == "release"]
    mesh = "istiod" if preset == "v1_9" else "linkerd"
    late = ("elasticsearch", "kube-prometheus-stack", "grafana", "oauth2-proxy")
    assert all(order.index(mesh) < order.index(name) for name in late if name in order)


@pytest.mark.parametrize("preset", ["v1_5", "v1_8", "v1_9"])
def test_there_is_one_announcer(preset: str) -> None:
    cluster = _preset(preset)
    names = {component.name for component in select(CATALOGUE, cluster)}
    metallbs = "metallb" in names
    ciliums = "cilium" in names and values_of("cilium", cluster)["l2announcements"]["enabled"]
    assert metallbs != ciliums


def test_cilium_beside_metallb_hands_out_nothing() -> None:
    cluster = _cluster(stack=CILIUM | {"load_balancer": "metallb"})
    values = values_of("cilium", cluster)
    assert values["enableLBIPAM"] is False
    assert values["defaultLBServiceIPAM"] == "none"
    assert cilium.objects(cluster) == []


# ---- Cilium


def test_cilium_asks_the_api_by_k3s_own_balancer() -> None:
    values = values_of("cilium", _cluster(stack=CILIUM))
    assert (values["k8sServiceHost"], values["k8sServicePort"]) == ("127.0.0.1", 6444)
    assert values["kubeProxyReplacement"] is True


def test_cilium_leaves_kube_proxy_in_place_when_it_is_k3s() -> None:
    values = values_of("cilium", _cluster(stack={"cni": "cilium"}))
    assert values["kubeProxyReplacement"] is False
    assert "kubeProxyReplacementHealthzBindAddr" not in values


def test_cilium_differs_from_flannel_in_network_and_port() -> None:
    """So that a migrated cluster and a new one have the same values."""
    cluster = _cluster(stack=CILIUM)
    values = values_of("cilium", cluster)
    pools = values["ipam"]["operator"]["clusterPoolIPv4PodCIDRList"]
    assert pools == [str(cluster.network.cilium_cidr)]
    assert str(cluster.network.pod_cidr) not in pools
    assert values["tunnelPort"] != 8472  # Flannel's


@pytest.mark.parametrize(("servers", "replicas"), [(1, 1), (3, 2)])
def test_operators_of_cilium_have_a_server_each(servers: int, replicas: int) -> None:
    operator = values_of("cilium", _cluster(servers, stack=CILIUM))["operator"]
    assert operator["replicas"] == replicas
    assert operator["nodeSelector"]["node-role.kubernetes.io/control-plane"] == "true"


@pytest.mark.parametrize("mesh", ["none", "linkerd", "istio"])
def test_cilium_makes_room_for_any_mesh(mesh: str) -> None:
    values = values_of("cilium", _cluster(stack=CILIUM | {"mesh": mesh}))
    meshed = mesh != "none"
    assert values["cni"]["exclusive"] is not meshed
    assert values.get("socketLB") == ({"hostNamespaceOnly": True} if meshed else None)
    assert values["bpf"]["masquerade"] is False


@pytest.mark.parametrize("mesh", ["none", "linkerd", "istio"])
def test_probes_of_ambient_pods_pass_every_policy(mesh: str) -> None:
    """Defect 18: the policy was commented out."""
    found = cilium.objects(_cluster(stack=CILIUM | {"mesh": mesh}))
    policies = named(found, "CiliumClusterwideNetworkPolicy")
    assert list(policies) == (["allow-ambient-hostprobes"] if mesh == "istio" else [])
    for policy in policies.values():
        assert policy["spec"]["ingress"] == [{"fromCIDR": ["169.254.7.127/32"]}]
        assert policy["spec"]["enableDefaultDeny"] == {"egress": False, "ingress": False}


def test_cilium_runs_no_envoy() -> None:
    values = values_of("cilium", _cluster(stack=CILIUM))
    assert values["l7Proxy"] is False
    assert values["envoy"]["enabled"] is False


def test_pools_are_sent_when_the_operator_has_registered_their_kind() -> None:
    checks = cilium.release_ready(_cluster(stack=CILIUM))
    (crds,) = [check for check in checks if isinstance(check, Established)]
    assert "ciliumloadbalancerippools.cilium.io" in crds.names
    assert "ciliuml2announcementpolicies.cilium.io" in crds.names


def test_any_node_may_announce() -> None:
    policy = _only(cilium.objects(_cluster(stack=CILIUM)), "CiliumL2AnnouncementPolicy")
    assert policy["apiVersion"] == "cilium.io/v2alpha1"
    assert policy["spec"] == {"externalIPs": True, "loadBalancerIPs": True}


def test_hubbles_page_is_guarded_and_nobody_waits_for_it() -> None:
    cluster = _preset("v1_9")
    chosen = select(CATALOGUE, cluster)
    assert "SecurityPolicy" in [one["kind"] for one in CATALOGUE["hubble"].objects(cluster)]
    assert not any("hubble" in component.needs for component in chosen)


@pytest.mark.parametrize("metrics", ["none", "kube-prometheus-stack"])
def test_cilium_is_measured_when_there_is_a_prometheus(metrics: str) -> None:
    values = values_of("cilium", _cluster(stack=CILIUM | {"metrics": metrics}))
    on = metrics != "none"
    assert values["prometheus"]["serviceMonitor"]["enabled"] is on
    assert values["hubble"]["relay"]["prometheus"]["enabled"] is on
    assert ("enabled" in values["hubble"]["metrics"]) is on


# ---- addresses


@pytest.mark.parametrize(
    ("address", "own", "rest"),
    [
        (None, "10.0.0.100", ["10.0.0.101-10.0.0.200"]),
        ("10.0.0.150", "10.0.0.150", ["10.0.0.100-10.0.0.149", "10.0.0.151-10.0.0.200"]),
        ("10.0.0.200", "10.0.0.200", ["10.0.0.100-10.0.0.199"]),
        ("10.0.0.30", "10.0.0.30", [POOL]),
    ],
)
def test_nobody_else_is_given_the_address_of_the_ingress(
    address: str | None, own: str, rest: list[str]
) -> None:
    """Defect 15: it had its address only when it was the first to ask."""
    cluster = _announced("metallb", ingress_address=address)
    assert cluster.ingress_address == IPv4Address(own)
    pools = named(metallb.objects(cluster), "IPAddressPool")
    assert pools["lan"]["spec"] == {"addresses": rest, "autoAssign": True}
    assert pools[f"ingress-{own}"]["spec"] == {"addresses": [f"{own}-{own}"], "autoAssign": False}


def _announced(load_balancer: str, **platform: Any) -> Cluster:
    stack = {"load_balancer": load_balancer, "ingress": "traefik", "logs": "loki"}
    return _cluster(stack=CILIUM | stack, platform=platform)


@pytest.mark.parametrize(
    ("logs", "rest"),
    [
        ("10.0.0.101", ["10.0.0.102-10.0.0.200"]),
        ("10.0.0.150", ["10.0.0.101-10.0.0.149", "10.0.0.151-10.0.0.200"]),
        ("10.0.0.30", ["10.0.0.101-10.0.0.200"]),
    ],
)
def test_nobody_else_is_given_the_address_for_logs(logs: str, rest: list[str]) -> None:
    """Istio's gateway asks long before for any, and Cilium's pools give the lowest first."""
    pools = named(metallb.objects(_announced("metallb", logs={"address": logs})), "IPAddressPool")
    assert pools["lan"]["spec"] == {"addresses": rest, "autoAssign": True}
    assert pools[f"logs-{logs}"]["spec"] == {"addresses": [f"{logs}-{logs}"], "autoAssign": False}
    found = cilium.objects(_announced("cilium", logs={"address": logs}))
    pools = named(found, "CiliumLoadBalancerIPPool")
    blocks = [dict(zip(("start", "stop"), one.split("-"), strict=True)) for one in rest]
    assert pools["lan"]["spec"] == {"blocks": blocks}
    assert pools[f"logs-{logs}"]["spec"] == {
        "blocks": [{"start": logs, "stop": logs}],
        "serviceSelector": {"matchLabels": {"io.kubernetes.service.namespace": "fluent"}},
    }


@pytest.mark.parametrize(("load_balancer", "logs"), [("servicelb", "loki"), ("metallb", "none")])
def test_no_address_for_logs_is_kept_where_nobody_asks_for_it(
    load_balancer: str, logs: str
) -> None:
    stack = {"load_balancer": load_balancer, "logs": logs}
    cluster = _cluster(stack=stack, platform={"logs": {"address": "10.0.0.101"}})
    pools = named(metallb.objects(cluster), "IPAddressPool")
    assert {name: pool["spec"]["addresses"] for name, pool in pools.items()} == {"lan": [POOL]}
    (check,) = forward.external_ready(cluster)
    assert isinstance(check, Address)
    assert check.address is None


def test_a_pool_without_addresses_is_not_sent() -> None:
    """MetalLB's webhook refuses it."""
    network = NETWORK | {"load_balancer_pool": "10.0.0.100-10.0.0.100"}
    stack = {"load_balancer": "metallb", "ingress": "traefik"}
    found = metallb.objects(example(network=network, stack=stack))
    assert named(found, "IPAddressPool").keys() == {"ingress-10.0.0.100"}
    assert _only(found, "L2Advertisement")["spec"]["ipAddressPools"] == ["ingress-10.0.0.100"]


def test_all_pools_are_announced() -> None:
    cluster = _cluster(stack={"load_balancer": "metallb", "ingress": "traefik"})
    found = metallb.objects(cluster)
    announced = _only(found, "L2Advertisement")["spec"]["ipAddressPools"]
    assert announced == list(named(found, "IPAddressPool"))


def test_ciliums_pool_of_the_ingress_is_for_its_namespace() -> None:
    cluster = _cluster(stack=CILIUM | {"ingress": "envoy"})
    pool = named(cilium.objects(cluster), "CiliumLoadBalancerIPPool")["ingress-10.0.0.100"]
    assert pool["apiVersion"] == "cilium.io/v2"
    assert pool["spec"] == {
        "blocks": [{"start": "10.0.0.100", "stop": "10.0.0.100"}],
        "serviceSelector": {
            "matchLabels": {"io.kubernetes.service.namespace": "envoy-gateway-system"}
        },
    }


@pytest.mark.parametrize(
    ("load_balancer", "key"),
    [("metallb", "metallb.io/loadBalancerIPs"), ("cilium", "lbipam.cilium.io/ips")],
)
@pytest.mark.parametrize("ingress", ["traefik", "nginx", "envoy"])
def test_ingress_asks_for_its_address_where_the_chart_looks(
    ingress: str, load_balancer: str, key: str
) -> None:
    """Defect 15: the annotation stood at the root of the values, where nothing read it."""
    stack = CILIUM | {"load_balancer": load_balancer, "ingress": ingress}
    cluster = _cluster(stack=stack)
    if ingress == "envoy":
        proxy = _only(envoy_gateway.objects(cluster), "EnvoyProxy")
        service = proxy["spec"]["provider"]["kubernetes"]["envoyService"]
    elif ingress == "nginx":
        service = values_of("ingress-nginx", cluster)["controller"]["service"]
    else:
        service = values_of("traefik", cluster)["service"]
    assert service["annotations"] == {key: "10.0.0.100"}


@pytest.mark.parametrize("name", ["traefik", "ingress-nginx"])
def test_ingress_is_done_when_it_has_that_address(name: str) -> None:
    product = {"traefik": "traefik", "ingress-nginx": "nginx"}[name]
    cluster = _cluster(stack={"load_balancer": "metallb", "ingress": product})
    (check,) = CATALOGUE[name].ready(cluster)
    assert isinstance(check, Address)
    assert check.address == "10.0.0.100"


def test_metallb_has_no_bgp_daemon_beside_its_speakers() -> None:
    assert values_of("metallb", _preset("v1_5"))["speaker"]["frr"] == {"enabled": False}


@pytest.mark.parametrize("name", ["metallb", "ingress-nginx"])
def test_objects_wait_for_the_webhook_that_judges_them(name: str) -> None:
    checks = CATALOGUE[name].release_ready(_preset("v1_8"))
    assert [check for check in checks if isinstance(check, Webhook)]


# ---- ingress


@pytest.mark.parametrize(("name", "product"), [("traefik", "traefik"), ("ingress-nginx", "nginx")])
@pytest.mark.parametrize(("servers", "agents", "pods"), [(1, 0, 1), (3, 2, 2)])
def test_ingress_has_as_many_pods_as_fit(
    name: str, product: str, servers: int, agents: int, pods: int
) -> None:
    cluster = _cluster(servers, agents, stack={"ingress": product, "load_balancer": "metallb"})
    values = values_of(name, cluster)
    assert (values.get("controller") or values["deployment"]).get(
        "replicaCount", values.get("deployment", {}).get("replicas")
    ) == pods


def test_a_single_proxy_can_be_moved_to_another_node() -> None:
    """A budget that keeps one of one would stop every drain."""
    one = _only(envoy_gateway.objects(_cluster(1, 0, stack={"ingress": "envoy"})), "EnvoyProxy")
    assert "envoyPDB" not in one["spec"]["provider"]["kubernetes"]
    assert values_of("traefik", _cluster(1, 0, stack={"ingress": "traefik"}))[
        "podDisruptionBudget"
    ] == {"enabled": False}


def test_traefiks_dashboard_is_guarded() -> None:
    cluster = _preset("v1_5")
    route = _only(CATALOGUE["traefik"].objects(cluster), "IngressRoute")
    (rule,) = route["spec"]["routes"]
    assert rule["middlewares"] == [{"name": "login"}]
    assert rule["match"] == "Host(`traefik.picluster.example.com`)"
    middlewares = named(CATALOGUE["traefik"].objects(cluster), "Middleware")
    assert {"login", "redirect"} <= middlewares.keys()
    (secret,) = CATALOGUE["traefik"].secrets(cluster)
    assert secret.name == middlewares["login"]["spec"]["basicAuth"]["secret"]


def test_traefik_logs_requests_as_json_to_stdout() -> None:
    assert values_of("traefik", _preset("v1_5"))["accessLog"] == {"enabled": True, "format": "json"}


def test_traefiks_chart_does_not_ask_the_cluster_for_kinds() -> None:
    """Each helm renders it without the cluster first, and the chart refuses a monitor there."""
    prometheus = values_of("traefik", _preset("v1_5"))["metrics"]["prometheus"]
    assert prometheus["serviceMonitor"] == {"enabled": True}
    assert prometheus["disableAPICheck"] is True


@pytest.mark.parametrize("secure", [True, False])
def test_traefik_redirects_to_https_when_there_is_one(secure: bool) -> None:
    stack = {"ingress": "traefik", "certificates": "cert-manager" if secure else "none"}
    ports = values_of("traefik", _cluster(stack=stack))["ports"]["web"]
    assert bool(ports) is secure


def test_names_without_a_certificate_show_the_default_one() -> None:
    traefik = CATALOGUE["traefik"].objects(_preset("v1_5"))
    store = named(traefik, "TLSStore")["default"]
    assert store["spec"]["defaultCertificate"]["secretName"] == certificates.DEFAULT_NAME
    assert certificates.DEFAULT_NAME in named(traefik, "Certificate")
    nginx = values_of("ingress-nginx", _preset("v1_8"))["controller"]
    assert nginx["extraArgs"]["default-ssl-certificate"] == "nginx/default-certificate"


def test_nginx_is_retired_and_names_what_takes_its_place() -> None:
    assert "stack.ingress envoy" in CATALOGUE["ingress-nginx"].retired


def test_nginx_takes_the_one_password_for_routes_of_all_namespaces() -> None:
    key = "allow-cross-namespace-resources"
    nginx = {"ingress": "nginx", "storage": "longhorn"}
    for identity, allowed in (("none", True), ("keycloak", False)):
        cluster = _cluster(stack=nginx | {"identity": identity})
        assert (key in values_of("ingress-nginx", cluster)["controller"]["config"]) is allowed


# ---- Envoy Gateway


def _envoy(**stack: str) -> list[Object]:
    full = CILIUM | {"ingress": "envoy", "certificates": "cert-manager"} | stack
    return list(envoy_gateway.objects(_cluster(stack=full)))


def test_envoy_has_one_gateway_with_the_default_certificate() -> None:
    http, https = _only(_envoy(), "Gateway")["spec"]["listeners"]
    assert http["allowedRoutes"]["namespaces"]["from"] == "Same"
    assert https["tls"]["certificateRefs"] == [{"kind": "Secret", "name": "default-certificate"}]
    assert https["allowedRoutes"]["namespaces"]["from"] == "All"
    (certificate,) = named(_envoy(), "Certificate").values()
    assert "*.picluster.example.com" in certificate["spec"]["dnsNames"]


def test_envoy_redirects_to_https() -> None:
    (rule,) = _only(_envoy(), "HTTPRoute")["spec"]["rules"]
    assert rule["filters"][0]["requestRedirect"] == {"scheme": "https", "statusCode": 301}


def test_envoy_without_certificates_serves_http() -> None:
    found = _envoy(certificates="none")
    (listener,) = _only(found, "Gateway")["spec"]["listeners"]
    assert listener["allowedRoutes"]["namespaces"]["from"] == "All"
    assert not named(found, "HTTPRoute") and not named(found, "Certificate")


def test_its_class_and_its_proxy_know_each_other() -> None:
    found = _envoy()
    gateway, parameters = _only(found, "Gateway"), _only(found, "GatewayClass")["spec"]
    assert gateway["spec"]["gatewayClassName"] == _only(found, "GatewayClass")["metadata"]["name"]
    assert parameters["parametersRef"]["name"] == _only(found, "EnvoyProxy")["metadata"]["name"]
    config = values_of("envoy-gateway", _cluster())["config"]["envoyGateway"]
    assert parameters["controllerName"] == config["gateway"]["controllerName"]


def test_login_returns_to_where_somebody_wanted_to_go() -> None:
    """By a header that a client cannot set itself."""
    policy = _only(_envoy(), "ClientTrafficPolicy")
    (header,) = policy["spec"]["headers"]["earlyRequestHeaders"]["set"]
    assert header["name"].lower() == "x-auth-request-redirect"
    assert header["value"] == "https://%REQ(:AUTHORITY)%%REQ(:PATH)%"


@pytest.mark.parametrize(("identity", "grants"), [("none", 1), ("keycloak", 0)])
def test_permission_is_given_by_who_is_referred_to(identity: str, grants: int) -> None:
    assert len(named(_envoy(identity=identity), "ReferenceGrant")) == grants
    cluster = _cluster(stack={"ingress": "envoy", "identity": "keycloak"})
    assert named(CATALOGUE["oauth2-proxy"].objects(cluster), "ReferenceGrant")


def test_traffic_is_not_kept_to_the_announcing_node() -> None:
    proxy = _only(_envoy(), "EnvoyProxy")["spec"]["provider"]["kubernetes"]
    assert proxy["envoyService"]["externalTrafficPolicy"] == "Cluster"


# ---- K3s' own Traefik


@pytest.mark.parametrize(
    ("stack", "kept"),
    [
        ({}, None),
        ({"storage": "longhorn"}, {"login", "redirect"}),
        # Routes with a login of their own are redirected too.
        ({"certificates": "cert-manager"}, {"redirect"}),
    ],
)
def test_k3s_own_traefik_gets_what_routes_refer_to(
    stack: dict[str, str], kept: set[str] | None
) -> None:
    component: Component = CATALOGUE["k3s-traefik"]
    cluster = _cluster(stack=stack)
    assert component.release is None
    assert web.NAMESPACES["k3s-traefik"] == component.namespace
    assert component.wanted(cluster) is (kept is not None)
    if kept:
        assert named(component.objects(cluster), "Middleware").keys() == kept
        assert bool(component.secrets(cluster)) is ("login" in kept)


@pytest.mark.parametrize("name", ["k3s-traefik", "traefik"])
def test_traefik_has_the_certificate_that_routes_share(name: str) -> None:
    """Without it a wildcard was no certificate at all with K3s' own."""
    acme = {"email": "a@example.com", "dns_provider": "ionos", "wildcard": True}
    cluster = _cluster(stack={"ingress": name, "certificates": "cert-manager"}, acme=acme)
    component: Component = CATALOGUE[name]
    assert component.wanted(cluster)
    assert "certificates" in component.needs
    found = component.objects(cluster)
    store, certificate = _only(found, "TLSStore"), _only(found, "Certificate")
    assert store["metadata"] == {"name": "default", "namespace": component.namespace}
    assert certificate["metadata"]["namespace"] == component.namespace
    secret = certificate["spec"]["secretName"]
    assert store["spec"] == {"defaultCertificate": {"secretName": secret}}
    assert "*.picluster.example.com" in certificate["spec"]["dnsNames"]


def test_the_default_certificate_of_k3s_own_traefik_is_the_users() -> None:
    found = CATALOGUE["k3s-traefik"].objects(_cluster(stack={"certificates": "cert-manager"}))
    assert not named(found, "TLSStore") and not named(found, "Certificate")
