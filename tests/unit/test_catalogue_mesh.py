"""Linkerd, Istio and Kiali: what the catalogue says of them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from catalogue import CATALOGUE, kiali, linkerd, linkerd_viz, mesh, namespaces, realm
from cluster.component import Copy
from cluster.graph import select
from cluster.model import Cluster
from cluster.presets import fill
from cluster.readiness import Address, Webhook
from tests.unit.catalogued import named, values_of
from tests.unit.cluster_example import example

NETWORK = {
    "lan": "10.0.0.0/24",
    "gateway": "10.0.0.1",
    "dns": ("10.0.0.1",),
    "load_balancer_pool": "10.0.0.100-10.0.0.200",
}


def _cluster(preset: str = "v1_9", **changes: Any) -> Cluster:
    stack = fill({"preset": preset}) | changes.pop("stack", {})
    return example(network=NETWORK, stack=stack, **changes)


# ---- Linkerd


def test_identity_of_linkerd_is_renewed_by_cert_manager() -> None:
    issuer = named(linkerd.before(_cluster("v1_5")), "Certificate")["linkerd-identity-issuer"]
    spec = issuer["spec"]
    assert (spec["duration"], spec["renewBefore"]) == ("48h0m0s", "25h0m0s")
    assert spec["isCA"] is True
    assert {key: spec["privateKey"][key] for key in ("algorithm", "size")} == {
        "algorithm": "ECDSA",
        "size": 256,
    }
    assert spec["commonName"] == "identity.linkerd.cluster.local"
    identity = values_of("linkerd", _cluster("v1_5"))["identity"]
    assert identity == {"externalCA": True, "issuer": {"scheme": "kubernetes.io/tls"}}


def test_trust_anchor_is_copied_when_the_secret_is_there() -> None:
    """Defect 5: the Secret was read without waiting for it."""
    assert linkerd.copies(_cluster("v1_5")) == [
        Copy(
            ("linkerd", "linkerd-identity-issuer", "ca.crt"),
            ("linkerd", "linkerd-identity-trust-roots", "ca-bundle.crt"),
        )
    ]


@pytest.mark.parametrize("name", ["linkerd", "linkerd-viz"])
def test_webhooks_of_linkerd_have_certificates_that_are_renewed(name: str) -> None:
    """Helm's end after a year, and differ each time."""
    cluster = _cluster("v1_5")
    component = CATALOGUE[name]
    made = named(component.before(cluster), "Certificate")
    places = [
        value["injectCaFrom"]
        for value in values_of(name, cluster).values()
        if isinstance(value, dict) and value.get("externalSecret")
    ]
    assert len(places) == {"linkerd": 3, "linkerd-viz": 2}[name]
    for place in places:
        namespace, certificate = place.split("/")
        found = made[certificate]
        assert found["metadata"]["namespace"] == namespace
        assert found["spec"]["secretName"] == f"{certificate}-k8s-tls"
        assert found["spec"]["dnsNames"] == [f"{certificate}.{namespace}.svc"]


def test_linkerd_leaves_the_gateway_apis_kinds_to_others() -> None:
    assert values_of("linkerd-crds", _cluster("v1_5")) == {"installGatewayAPI": False}


@pytest.mark.parametrize(("cni", "pods"), [("flannel", "10.42.0.0/16"), ("cilium", "10.44.0.0/16")])
def test_linkerd_knows_the_networks_of_the_cluster(cni: str, pods: str) -> None:
    networks = values_of("linkerd", _cluster("v1_5", stack={"cni": cni}))["clusterNetworks"]
    assert networks.split(",") == [pods, "10.43.0.0/16", "10.0.0.0/24"]


def test_linkerds_series_have_the_jobs_that_dashboards_ask_for() -> None:
    monitors = named(linkerd.objects(_cluster("v1_5")), "PodMonitor")
    assert monitors.keys() == {"linkerd-controller", "linkerd-proxy"}
    for name, monitor in monitors.items():
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["relabelings"][-1] == {"targetLabel": "job", "replacement": name}
    assert linkerd.pod_monitors(_cluster("v1_5", stack={"metrics": "none"})) == []


def _kept(relabelings: list[dict[str, Any]], labels: dict[str, str]) -> bool:
    """What Prometheus does with `keep` and `drop`."""
    for rule in relabelings:
        if rule.get("action") not in ("keep", "drop"):
            continue
        value = ";".join(labels.get(name, "") for name in rule["sourceLabels"])
        hit = re.fullmatch(rule["regex"], value) is not None
        if hit == (rule["action"] == "drop"):
            return False
    return True


@pytest.mark.parametrize(
    ("monitor", "container", "port", "namespace", "kept"),
    [
        ("linkerd-controller", "identity", "admin-http", "linkerd", True),
        ("linkerd-controller", "identity", "ident-admin", "linkerd", True),
        ("linkerd-controller", "linkerd-proxy", "linkerd-admin", "linkerd", False),
        ("linkerd-controller", "identity", "grpc", "linkerd", False),
        ("linkerd-proxy", "linkerd-proxy", "linkerd-admin", "linkerd", True),
        ("linkerd-proxy", "linkerd-proxy", "linkerd-admin", "other", False),
        ("linkerd-proxy", "grafana", "http", "linkerd", False),
    ],
)
def test_each_program_of_linkerd_is_scraped_once(
    monitor: str, container: str, port: str, namespace: str, kept: bool
) -> None:
    found = named(linkerd.objects(_cluster("v1_5")), "PodMonitor")[monitor]
    prefix = "__meta_kubernetes_pod_"
    labels = {
        f"{prefix}container_name": container,
        f"{prefix}container_port_name": port,
        f"{prefix}label_linkerd_io_control_plane_ns": namespace,
    }
    assert _kept(found["spec"]["podMetricsEndpoints"][0]["relabelings"], labels) is kept


@pytest.mark.parametrize("metrics", ["kube-prometheus-stack", "none"])
def test_linkerds_page_uses_the_clusters_prometheus(metrics: str) -> None:
    values = values_of("linkerd-viz", _cluster("v1_5", stack={"metrics": metrics}))
    if metrics == "none":
        assert "prometheusUrl" not in values and "enabled" not in values["prometheus"]
    else:
        assert values["prometheus"] == {"enabled": False}
        assert values["prometheusUrl"] == (
            "http://kube-prometheus-stack-prometheus.monitoring.svc.cluster.local:9090"
        )


@pytest.mark.parametrize(
    ("host", "answers"),
    [
        ("linkerd.picluster.example.com", True),
        ("linkerd.picluster.example.com:443", True),
        ("localhost:50750", True),
        ("web.linkerd-viz.svc.cluster.local:8084", True),
        ("linkerdXpicluster.example.com", False),
        ("evil.example.com", False),
        ("", False),
    ],
)
def test_linkerds_page_answers_under_its_own_names(host: str, answers: bool) -> None:
    pattern = values_of("linkerd-viz", _cluster("v1_5"))["dashboard"]["enforcedHostRegexp"]
    assert bool(re.search(pattern, host)) is answers


def test_linkerds_page_is_guarded() -> None:
    (route,) = linkerd_viz.objects(_cluster("v1_5"))
    assert "traefik-login@kubernetescrd" in str(route["metadata"]["annotations"])


@pytest.mark.parametrize("preset", ["v1_5", "v1_8"])
def test_ingress_in_linkerd_leaves_the_choice_of_pods_to_it(preset: str) -> None:
    cluster = _cluster(preset)
    if preset == "v1_5":
        values = values_of("traefik", cluster)
        assert all(
            values["providers"][one] == {"nativeLBByDefault": True} for one in values["providers"]
        )
        annotations = values["deployment"]["podAnnotations"]
    else:
        controller = values_of("ingress-nginx", cluster)["controller"]
        assert controller["config"]["service-upstream"] == "true"
        annotations = controller["podAnnotations"]
    assert "config.linkerd.io/skip-inbound-ports" in annotations
    assert namespaces.in_mesh(cluster, {"v1_5": "traefik", "v1_8": "nginx"}[preset])


@pytest.mark.parametrize(("preset", "token"), [("v1_5", True), ("v1_9", False)])
def test_linkerd_does_not_leave_elasticsearch_out(preset: str, token: bool) -> None:
    found = CATALOGUE["elasticsearch"].objects(_cluster(preset))
    (nodes,) = named(found, "Elasticsearch")["efk"]["spec"]["nodeSets"]
    page = named(found, "Kibana")["efk"]["spec"]
    for pods in (nodes, page):
        assert pods["podTemplate"]["spec"]["automountServiceAccountToken"] is token


# ---- Istio


def test_istio_comes_in_pieces_that_wait_for_each_other() -> None:
    names = {component.name for component in select(CATALOGUE, _cluster())}
    assert {"istio-base", "istiod", "istio-cni", "ztunnel", "istio-gateway", "kiali"} <= names
    assert "istio-base" in CATALOGUE["istiod"].needs
    assert {"istiod", "istio-cni"} <= set(CATALOGUE["ztunnel"].needs)
    hooks = CATALOGUE["istiod"].release_ready(_cluster())
    assert "istio-sidecar-injector" in [one.name for one in hooks if isinstance(one, Webhook)]


@pytest.mark.parametrize(("cni", "platform"), [("flannel", {"platform": "k3s"}), ("cilium", None)])
def test_istio_writes_where_the_cni_is(cni: str, platform: dict[str, str] | None) -> None:
    values = values_of("istio-cni", _cluster(stack={"cni": cni}))
    assert values["profile"] == "ambient"
    assert values.get("global") == platform


def test_ambient_is_on_for_namespaces_of_components_that_are_there() -> None:
    """Defect 18: the mesh was installed and no namespace was in it."""
    cluster = _cluster()
    chosen = {component.namespace for component in select(CATALOGUE, cluster)}
    meshed = {name for name in chosen if namespaces.in_mesh(cluster, name)}
    assert {"envoy-gateway-system", "keycloak", "monitoring", "elastic", "cnpg-system"} <= meshed
    assert not {"kube-system", "istio-system", "longhorn-system", "velero"} & meshed


def test_users_namespaces_are_sent_with_the_control_plane() -> None:
    for preset, name in (("v1_9", "istiod"), ("v1_5", "linkerd")):
        cluster = _cluster(preset, platform={"mesh_namespaces": ["shop"]})
        assert "shop" in named(CATALOGUE[name].objects(cluster), "Namespace")


def test_pods_in_the_mesh_take_what_comes_from_the_mesh() -> None:
    peers = named(CATALOGUE["istiod"].objects(_cluster()), "PeerAuthentication")["default"]
    assert peers["metadata"]["namespace"] == "istio-system"
    assert peers["spec"] == {"mtls": {"mode": "STRICT"}}


EXCEPTIONS = [
    ("cloudnative-pg", 9443),
    ("eck-operator", 9443),
    ("kube-prometheus-stack", 10250),
    ("envoy-gateway", 10443),
    ("envoy-gateway", 10080),
    ("fluentd", 24224),
]


@pytest.mark.parametrize(("name", "port"), EXCEPTIONS)
def test_strict_peers_let_the_api_server_and_hosts_outside_through(name: str, port: int) -> None:
    component, cluster = CATALOGUE[name], _cluster()
    found = [*component.before(cluster), *component.objects(cluster)]
    (peers,) = named(found, "PeerAuthentication").values()
    assert peers["metadata"]["namespace"] == component.namespace
    assert peers["spec"]["selector"]["matchLabels"]
    assert peers["spec"]["portLevelMtls"][str(port)] == {"mode": "PERMISSIVE"}
    assert peers["spec"]["mtls"] == {"mode": "STRICT"}
    # Its kind must be known by then.
    assert "mesh" in component.needs


def test_every_webhook_in_the_mesh_has_an_exception() -> None:
    cluster = _cluster()
    for component in select(CATALOGUE, cluster):
        checks = [*component.release_ready(cluster), *component.ready(cluster)]
        if not namespaces.in_mesh(cluster, component.namespace):
            continue
        if any(isinstance(check, Webhook) for check in checks):
            assert named(component.before(cluster), "PeerAuthentication"), component.name


@pytest.mark.parametrize("stack", [{"mesh": "none"}, {"mesh": "linkerd"}])
def test_without_istio_there_are_no_exceptions(stack: dict[str, str]) -> None:
    assert mesh.plain_ports(_cluster(stack=stack), "x", "elastic", {"a": "b"}, 80) == []


def test_what_is_outside_the_mesh_needs_no_exception() -> None:
    assert mesh.plain_ports(_cluster(), "x", "longhorn-system", {"a": "b"}, 80) == []


@pytest.mark.parametrize(
    ("load_balancer", "ingress", "service"),
    [
        ("metallb", "traefik", "LoadBalancer"),
        # ServiceLB opens its ports on the nodes, where the ingress has them already.
        ("servicelb", "k3s-traefik", "ClusterIP"),
        ("servicelb", "none", "LoadBalancer"),
        ("none", "none", "ClusterIP"),
    ],
)
def test_istios_gateway_waits_for_an_address_where_it_can_have_one(
    load_balancer: str, ingress: str, service: str
) -> None:
    stack = {"mesh": "istio", "load_balancer": load_balancer, "ingress": ingress}
    cluster = example(network=NETWORK, stack=stack)
    assert values_of("istio-gateway", cluster)["service"] == {"type": service}
    checks = CATALOGUE["istio-gateway"].release_ready(cluster)
    waits = any(isinstance(check, Address) for check in checks)
    assert waits is (service == "LoadBalancer")


def test_istiod_is_small_and_can_be_moved() -> None:
    """The chart asks for 2 GiB, and its disruption budget lets nobody drain its node."""
    values = values_of("istiod", _cluster())
    assert values["resources"]["requests"]["memory"] == "192Mi"
    assert values["autoscaleEnabled"] is False
    assert values["global"]["defaultPodDisruptionBudget"] == {"enabled": False}


@pytest.mark.parametrize(
    ("name", "kind"), [("istiod", "ServiceMonitor"), ("ztunnel", "PodMonitor")]
)
def test_istio_is_measured(name: str, kind: str) -> None:
    assert named(CATALOGUE[name].objects(_cluster()), kind)
    without = CATALOGUE[name].objects(_cluster(stack={"metrics": "none"}))
    assert not named(without, kind)


# ---- Kiali


def test_kiali_has_the_secret_it_logs_in_with() -> None:
    """Defect 16: it was made by hand."""
    cluster = _cluster()
    (server,) = named(kiali.objects(cluster), "Kiali").values()
    login = server["spec"]["auth"]
    assert login["strategy"] == "openid"
    assert login["openid"]["issuer_uri"] == realm.issuer_url(cluster)
    assert login["openid"]["client_id"] in realm.clients(cluster)
    secret = next(one for one in kiali.secrets(cluster) if one.name == "kiali")
    assert secret.namespace == server["metadata"]["namespace"]
    assert dict(secret.data) == {"oidc-secret": realm.CLIENTS["kiali"]}


def test_kiali_trusts_the_clusters_own_ca() -> None:
    (copy,) = kiali.copies(_cluster())
    assert copy.target == ("kiali-operator", "kiali-cabundle", "additional-ca-bundle.pem")
    acme = {"email": "a@example.com", "dns_provider": "ionos", "server": "production"}
    assert kiali.copies(_cluster(acme=acme)) == []


def test_kiali_without_single_sign_on_is_guarded() -> None:
    found = kiali.objects(_cluster(stack={"identity": "none"}))
    (server,) = named(found, "Kiali").values()
    assert server["spec"]["auth"] == {"strategy": "anonymous"}
    assert named(found, "SecurityPolicy")
    assert not named(kiali.objects(_cluster()), "SecurityPolicy")


def test_kiali_asks_the_prometheus_and_grafana_that_there_are() -> None:
    cluster = _cluster()
    (server,) = named(kiali.objects(cluster), "Kiali").values()
    services = server["spec"]["external_services"]
    assert services["prometheus"]["url"] == (
        "http://kube-prometheus-stack-prometheus.monitoring.svc.cluster.local:9090"
    )
    assert services["grafana"]["internal_url"] == "http://grafana.monitoring.svc.cluster.local"
    assert services["grafana"]["external_url"] == "https://grafana.picluster.example.com/"
    assert services["tracing"] == {"enabled": False}  # nothing of the stack takes traces
    password = services["grafana"]["auth"]["password"]
    assert password == "secret:kiali-grafana:password"
    assert {one.name for one in kiali.secrets(cluster)} == {"kiali", "kiali-grafana"}
    without = kiali.objects(_cluster(stack={"metrics": "none"}))
    assert "prometheus" not in named(without, "Kiali")["kiali"]["spec"]["external_services"]
