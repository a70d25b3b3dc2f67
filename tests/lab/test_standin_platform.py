"""What the stand-in simulates of operators: a test for each row of its README's platform table.

Small objects stand for charts: an operator is a Deployment of the name by which the table knows it.
The CRDs are the real ones. Each test names the rows (ids of standin/platform.yaml) it rests on.
"""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from tests.contracts.contract import shared
from tests.lab import by_hand
from tests.lab.errors import LabError
from tests.lab.lab import Lab
from tests.lab.living import kubectl, wait_for

pytestmark = [pytest.mark.lab(servers=1, agents=0), pytest.mark.usefixtures("simulated")]

DELAYS = "/var/lib/rancher/k3s/agent/etc/standin/delays.yaml"
SCRATCH = "/var/tmp/objects.json"
LIMIT_S = 60
CONTRACTS = shared()
needs_contracts = pytest.mark.skipif(CONTRACTS is None, reason="the real CRDs are not here")
Object = dict[str, Any]


class Cluster:
    """One server with the stand-in, through kubectl on it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def kubectl(self, arguments: str) -> str:
        return kubectl(self.lab, "node1", arguments)

    def refused(self, *objects: Object) -> str:
        """Apply what must be refused and return the reason."""
        with pytest.raises(LabError) as caught:
            self.apply(*objects)
        return str(caught.value)

    def apply(self, *objects: Object) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.lab.put("node1", SCRATCH, json.dumps(items))
        self.kubectl(f"apply --server-side --force-conflicts -f {SCRATCH}")

    def get(self, kind: str, name: str, namespace: str = "") -> Object:
        """An object, or an empty one when it is not there."""
        place = f"-n {namespace}" if namespace else ""
        text = self.kubectl(f"get {kind} {name} {place} --ignore-not-found -o json")
        return dict(json.loads(text)) if text else {}

    def wait(
        self, kind: str, name: str, namespace: str, what: Callable[[Object], Any], limit: float
    ) -> Object:
        """Wait until `what` holds for an object and return it."""
        last: Object = {}

        def holds() -> bool:
            nonlocal last
            last = self.get(kind, name, namespace)
            return bool(last and what(last))

        try:
            wait_for(holds, f"{kind} {namespace}/{name}", limit)
        except AssertionError as error:
            log = self.lab.run("node1", "journalctl -u k3s -o cat | grep 'platform:' | tail -5")[1]
            raise AssertionError(f"{error}; it is {json.dumps(last)[:3000]}; log: {log}") from error
        return last

    def soon(
        self, kind: str, name: str, namespace: str, what: Callable[[Object], Any] = bool
    ) -> Object:
        return self.wait(kind, name, namespace, what, LIMIT_S)

    def definitions(self, component: str) -> None:
        """Install the real CRDs of a component."""
        assert CONTRACTS is not None
        text = (Path(CONTRACTS) / component / "crds.yaml").read_text()
        names = [one["metadata"]["name"] for one in yaml.safe_load_all(text) if one]
        self.lab.put("node1", "/var/tmp/crds.yaml", text)
        self.kubectl("apply --server-side --force-conflicts -f /var/tmp/crds.yaml")
        self.kubectl(f"wait --for=condition=Established crd {' '.join(names)} --timeout=60s")

    def operator(self, *names: str, namespace: str, kind: str = "Deployment") -> None:
        """Run operators of these names and wait until a pod of each is Ready."""
        self.apply(namespace_of(namespace), *(workload(kind, one, namespace) for one in names))
        for name in names:
            self.soon(kind, name, namespace, running)

    def delays(self, **content: Any) -> None:
        self.lab.check("node1", f"mkdir -p {Path(DELAYS).parent}")
        self.lab.put("node1", DELAYS, json.dumps(content))


def named(kind: str, name: str, namespace: str = "", api: str = "v1", **fields: Any) -> Object:
    place = {"namespace": namespace} if namespace else {}
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name} | place} | fields


def namespace_of(name: str) -> Object:
    return named("Namespace", name)


def workload(kind: str, name: str, namespace: str, **pod: Any) -> Object:
    labels = {"app": name}
    containers = pod.pop("containers", [{"name": "main", "image": "registry.k8s.io/pause:3.10"}])
    tolerations = [{"operator": "Exists"}]
    spec: Object = {
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": containers, "tolerations": tolerations} | pod,
        },
    }
    if kind == "StatefulSet":
        spec["serviceName"] = name
    return named(kind, name, namespace, "apps/v1", spec=spec)


def pod(name: str, **spec: Any) -> Object:
    containers = spec.pop("containers", [{"name": "main", "image": "registry.k8s.io/pause:3.10"}])
    return named("Pod", name, "default", spec={"containers": containers} | spec)


def service(name: str, namespace: str, app: str) -> Object:
    ports = [{"name": "https", "port": 443, "targetPort": 9443}]
    return named("Service", name, namespace, spec={"selector": {"app": app}, "ports": ports})


def running(one: Object) -> bool:
    status = one.get("status", {})
    return bool(status.get("readyReplicas") or status.get("numberReady"))


def is_true(kind: str) -> Callable[[Object], bool]:
    return lambda one: condition(one, kind).get("status") == "True"


def condition(one: Object, kind: str) -> Object:
    found = one.get("status", {}).get("conditions") or ()
    return next((item for item in found if item["type"] == kind), {})


def waiting(one: Object) -> Object:
    statuses = one.get("status", {}).get("containerStatuses") or [{}]
    return dict(statuses[0].get("state", {}).get("waiting", {}))


def data(secret: Object, entry: str) -> bytes:
    return b64decode(secret["data"][entry])


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Cluster:
    if lab.run("node1", "k3s kubectl get --raw /readyz")[0]:
        by_hand.start_cluster(lab, ["node1"])
    found = Cluster(lab)
    found.delays(rollout={"default": 0})
    wait_for(lambda: bool(found.get("serviceaccount", "default", "default")), "service account")
    return found


# ---- pods: rows pod-start, pod-delay, pod-reference, pod-image, pod-claim


def test_pod_waits_for_its_secret_and_says_so(cluster: Cluster) -> None:
    env = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "late", "key": "word"}}}]
    image = "registry.k8s.io/pause:3.10"
    cluster.apply(
        pod("by-env", containers=[{"name": "main", "image": image, "env": env}]),
        pod("by-volume", volumes=[{"name": "v", "configMap": {"name": "late"}}]),
        pod("optional", volumes=[{"name": "v", "secret": {"secretName": "no", "optional": True}}]),
    )
    cluster.soon("pod", "optional", "default", is_true("Ready"))
    told = cluster.soon(
        "pod", "by-env", "default", lambda one: waiting(one).get("message", "").startswith("secret")
    )
    assert waiting(told) == {
        "reason": "CreateContainerConfigError",
        "message": 'secret "late" not found',
    }
    wait_for(
        lambda: 'configmap "late" not found' in cluster.kubectl("get events --no-headers"), "event"
    )
    cluster.apply(
        named("Secret", "late", "default", stringData={"other": "x"}),
        named("ConfigMap", "late", "default", data={}),
    )
    cluster.soon("pod", "by-volume", "default", is_true("Ready"))
    cluster.soon("pod", "by-env", "default", lambda one: "couldn't find key word" in str(one))
    cluster.apply(named("Secret", "late", "default", stringData={"word": "x"}))
    cluster.soon("pod", "by-env", "default", is_true("Ready"))
    cluster.kubectl("delete pod by-env by-volume optional")


def test_pod_becomes_ready_after_its_delay(cluster: Cluster) -> None:
    cluster.delays(rollout={"default/slow": 6, "default": 0})
    cluster.apply(
        workload("Deployment", "slow", "default"), workload("Deployment", "quick", "default")
    )
    cluster.soon("deployment", "quick", "default", running)
    assert not running(cluster.get("deployment", "slow", "default"))
    cluster.soon("deployment", "slow", "default", running)
    pods = json.loads(cluster.kubectl("get pods -l app=slow -o json"))["items"]
    times = {one["type"]: one["lastTransitionTime"] for one in pods[0]["status"]["conditions"]}
    spent = [time.mktime(time.strptime(times[k], "%Y-%m-%dT%H:%M:%SZ")) for k in ("Ready",)]
    bound = time.mktime(time.strptime(times["PodScheduled"], "%Y-%m-%dT%H:%M:%SZ"))
    assert spent[0] - bound >= 5  # both are whole seconds
    cluster.kubectl("delete deployment slow quick")


def test_image_that_never_comes(cluster: Cluster) -> None:
    images = [{"name": "main", "image": "example.org/app:never-ready"}]
    cluster.apply(workload("Deployment", "bad", "default", containers=images))
    wait_for(lambda: "ImagePullBackOff" in cluster.kubectl("get pods -l app=bad"), "back-off")
    assert "Failed to pull image" in cluster.kubectl("get events --no-headers")
    cluster.kubectl("delete deployment bad")


# ---- volumes: rows claim-local-path, claim-longhorn, longhorn-*


def claim(name: str, storage_class: str) -> Object:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": "1Gi"}},
    }
    return named("PersistentVolumeClaim", name, "default", spec=spec)


def bound(one: Object) -> bool:
    return bool(one.get("status", {}).get("phase") == "Bound")


def test_local_path_volume(cluster: Cluster) -> None:
    mount = [{"name": "v", "persistentVolumeClaim": {"claimName": "local"}}]
    cluster.apply(
        claim("local", "local-path"), claim("other", "nobody"), pod("user", volumes=mount)
    )
    cluster.soon("pod", "user", "default", is_true("Ready"))
    volume = cluster.get("pvc", "local", "default")["spec"]["volumeName"]
    assert cluster.get("pv", volume)["spec"]["hostPath"]["path"].startswith("/var/lib/rancher/")
    assert cluster.get("pvc", "other", "default")["status"]["phase"] == "Pending"
    cluster.kubectl("delete pod user")
    cluster.kubectl("delete pvc local other")
    wait_for(lambda: not cluster.get("pv", volume), "the volume to be gone")


@needs_contracts
def test_longhorn(cluster: Cluster) -> None:
    cluster.definitions("longhorn")
    space = "longhorn-system"
    settings = {"default-setting.yaml": "default-replica-count: 2\n"}
    cluster.apply(
        namespace_of(space), named("ConfigMap", "longhorn-default-setting", space, data=settings)
    )
    assert not cluster.get("storageclass", "longhorn")
    cluster.operator("longhorn-manager", namespace=space, kind="DaemonSet")
    cluster.apply(service("longhorn-admission-webhook", space, "longhorn-manager"))
    cluster.soon("storageclass", "longhorn", "")
    cluster.soon("storageclass", "longhorn-static", "")
    cluster.soon("nodes.longhorn.io", "node1", space, is_true("Ready"))
    cluster.soon(
        "settings.longhorn.io",
        "default-replica-count",
        space,
        lambda one: one["value"] == "2" and one.get("status", {}).get("applied"),
    )
    cluster.soon("validatingwebhookconfiguration", "longhorn-webhook-validator", "")
    assert not cluster.get("csidriver", "driver.longhorn.io")
    cluster.operator("longhorn-driver-deployer", namespace=space)
    for name in ("csi-attacher", "csi-provisioner", "csi-resizer", "csi-snapshotter"):
        cluster.soon("deployment", name, space, running)
    cluster.soon("daemonset", "longhorn-csi-plugin", space, running)
    cluster.soon("csidriver", "driver.longhorn.io", "")

    cluster.apply(claim("data", "longhorn"))
    found = cluster.soon("pvc", "data", "default", bound)
    volume = found["spec"]["volumeName"]
    cluster.soon("volumes.longhorn.io", volume, space, lambda v: v["status"]["state"] == "detached")
    mount = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    cluster.apply(pod("writer", volumes=mount))
    seen = cluster.soon(
        "volumes.longhorn.io", volume, space, lambda v: v["status"]["state"] == "attached"
    )
    assert seen["status"]["robustness"] == "healthy"
    assert cluster.get("pv", volume)["spec"]["csi"]["driver"] == "driver.longhorn.io"
    cluster.kubectl("delete pod writer")
    cluster.kubectl("delete pvc data")
    wait_for(lambda: not cluster.get("volumes.longhorn.io", volume, space), "volume to be gone")
    wait_for(lambda: not cluster.get("pv", volume), "PV to be gone")


# ---- certificates: rows issuer, certificate, certificate-shim, webhook-cert-manager, cainjector


@needs_contracts
def test_cert_manager_refuses_before_its_webhook_runs_and_signs_real_chains(
    cluster: Cluster,
) -> None:
    cluster.definitions("cert-manager")
    space, api = "cert-manager", "cert-manager.io/v1"
    hook = {
        "name": "webhook.cert-manager.io",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "clientConfig": {
            "service": {"name": "cert-manager-webhook", "namespace": space, "path": "/validate"}
        },
        "rules": [
            {
                "apiGroups": ["cert-manager.io"],
                "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"],
                "resources": ["*/*"],
            }
        ],
    }
    configuration = named(
        "ValidatingWebhookConfiguration",
        "cert-manager-webhook",
        "",
        "admissionregistration.k8s.io/v1",
        webhooks=[hook],
    )
    configuration["metadata"]["annotations"] = {
        "cert-manager.io/inject-ca-from-secret": f"{space}/cert-manager-webhook-ca"
    }
    cluster.apply(
        namespace_of(space),
        service("cert-manager-webhook", space, "cert-manager-webhook"),
        configuration,
    )
    root = named("ClusterIssuer", "selfsigned", "", api, spec={"selfSigned": {}})
    assert "no endpoints available" in cluster.refused(root)
    cluster.operator("cert-manager", "cert-manager-webhook", namespace=space)
    wait_for(lambda: "unknown authority" in cluster.refused(root), "unknown authority")
    cluster.operator("cert-manager-cainjector", namespace=space)
    cluster.soon(
        "validatingwebhookconfiguration",
        "cert-manager-webhook",
        "",
        lambda one: one["webhooks"][0]["clientConfig"].get("caBundle"),
    )

    def accepted() -> bool:
        try:
            cluster.apply(root)
        except LabError:
            return False
        return True

    wait_for(accepted, "the webhook to answer")
    cluster.soon("clusterissuer", "selfsigned", "", is_true("Ready"))
    issuer = {"name": "selfsigned", "kind": "ClusterIssuer"}
    ca_spec = {"isCA": True, "commonName": "home root", "secretName": "root", "issuerRef": issuer}
    ca_spec["privateKey"] = {"algorithm": "ECDSA", "size": 256}
    acme = {
        "server": "https://acme.example/directory",
        "email": "a@example.org",
        "privateKeySecretRef": {"name": "account"},
        "solvers": [{"dns01": {"webhook": {"groupName": "g", "solverName": "s"}}}],
    }
    cluster.apply(
        named("ClusterIssuer", "home", "", api, spec={"ca": {"secretName": "root"}}),
        named("ClusterIssuer", "public", "", api, spec={"acme": acme}),
    )
    said = cluster.soon("clusterissuer", "home", "", lambda one: condition(one, "Ready"))
    assert condition(said, "Ready")["reason"] == "ErrGetKeyPair"
    cluster.apply(named("Certificate", "root", space, api, spec=ca_spec))
    cluster.soon("certificate", "root", space, is_true("Ready"))
    cluster.soon("clusterissuer", "home", "", is_true("Ready"))
    cluster.soon("clusterissuer", "public", "", is_true("Ready"))
    assert cluster.get("secret", "account", space)

    leaf_spec = {
        "secretName": "web-tls",
        "dnsNames": ["web.example.org"],
        "issuerRef": {"name": "home", "kind": "ClusterIssuer"},
    }
    cluster.apply(named("Certificate", "web", "default", api, spec=leaf_spec))
    cluster.soon("certificate", "web", "default", is_true("Ready"))
    secret = cluster.get("secret", "web-tls", "default")
    leaf = x509.load_pem_x509_certificate(data(secret, "tls.crt"))
    authority = x509.load_pem_x509_certificate(data(secret, "ca.crt"))
    leaf.verify_directly_issued_by(authority)
    assert authority.subject.rfc4514_string() == "CN=home root"
    cluster.kubectl("delete secret web-tls")
    cluster.soon("secret", "web-tls", "default")

    route = named("Ingress", "shop", "default", "networking.k8s.io/v1")
    route["metadata"]["annotations"] = {"cert-manager.io/cluster-issuer": "public"}
    route["spec"] = {
        "defaultBackend": {"service": {"name": "shop", "port": {"number": 80}}},
        "tls": [{"hosts": ["shop.example.org"], "secretName": "shop-tls"}],
    }
    cluster.apply(route)
    cluster.soon("certificate", "shop-tls", "default", is_true("Ready"))
    shop = cluster.get("secret", "shop-tls", "default")
    assert shop["metadata"]["annotations"]["cert-manager.io/issuer-name"] == "public"


# ---- webhooks: rows webhooks (metallb), jobs, defaults


def hook(name: str, service_name: str, namespace: str, group: str, resource: str) -> Object:
    return {
        "name": name,
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {
            "service": {"name": service_name, "namespace": namespace, "path": "/mutate"}
        },
        "rules": [
            {
                "apiGroups": [group],
                "apiVersions": ["*"],
                "operations": ["CREATE", "UPDATE"],
                "resources": [resource],
            }
        ],
    }


def test_hook_jobs_make_and_inject_the_certificate(cluster: Cluster) -> None:
    space, api = "hooks", "admissionregistration.k8s.io/v1"
    job = {
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "registry.k8s.io/pause:3.10"}],
            }
        }
    }
    configuration = named(
        "MutatingWebhookConfiguration",
        "stack-admission",
        "",
        api,
        webhooks=[hook("a.example.org", "stack-operator", space, "", "configmaps")],
    )
    configuration["webhooks"][0]["namespaceSelector"] = {
        "matchLabels": {"kubernetes.io/metadata.name": space}
    }
    cluster.apply(
        namespace_of(space),
        service("stack-operator", space, "stack-operator"),
        configuration,
        named("Job", "stack-admission-create", space, "batch/v1", spec=job),
    )
    cluster.soon("job", "stack-admission-create", space, is_true("Complete"))
    assert data(cluster.get("secret", "stack-admission", space), "ca").startswith(b"-----BEGIN")
    cluster.operator("stack-operator", namespace=space)
    words = named("ConfigMap", "words", space, data={})
    wait_for(lambda: "unknown authority" in cluster.refused(words), "unknown authority")
    cluster.apply(named("Job", "stack-admission-patch", space, "batch/v1", spec=job))
    cluster.soon("job", "stack-admission-patch", space, is_true("Complete"))
    cluster.apply(words)
    cluster.kubectl(f"delete deployment stack-operator -n {space}")

    def away() -> bool:
        try:
            cluster.apply(named("ConfigMap", "more", space, data={}))
        except LabError as error:
            return "no endpoints available" in str(error)
        return False

    wait_for(away, "the webhook to be away with its pods")
    cluster.kubectl("delete mutatingwebhookconfiguration stack-admission")


# ---- addresses: rows lb-metallb, lb-cilium; definitions (cilium)


def balancer(name: str, **annotations: str) -> Object:
    one = service(name, "default", name)
    one["spec"]["type"] = "LoadBalancer"
    one["metadata"]["annotations"] = annotations
    return one


def address(one: Object) -> str:
    found = one.get("status", {}).get("loadBalancer", {}).get("ingress") or [{}]
    return str(found[0].get("ip", ""))


def pool_accepted(cluster: Cluster, namespace: str) -> bool:
    spec = {"addresses": ["192.0.2.200/32"]}
    try:
        cluster.apply(named("IPAddressPool", "probe", namespace, "metallb.io/v1beta1", spec=spec))
    except LabError:
        return False
    return True


@needs_contracts
def test_metallb_gives_addresses_of_announced_pools(cluster: Cluster) -> None:
    cluster.definitions("metallb")
    space, api = "metallb-system", "metallb.io/v1beta1"
    configuration = named(
        "ValidatingWebhookConfiguration",
        "metallb-webhook-configuration",
        "",
        "admissionregistration.k8s.io/v1",
        webhooks=[hook("m.example.org", "metallb-webhook-service", space, "metallb.io", "*")],
    )
    cluster.apply(
        namespace_of(space),
        named("Secret", "metallb-webhook-cert", space),
        service("metallb-webhook-service", space, "metallb-controller"),
        configuration,
    )
    cluster.operator("metallb-controller", namespace=space)
    cluster.soon(
        "validatingwebhookconfiguration",
        "metallb-webhook-configuration",
        "",
        lambda one: one["webhooks"][0]["clientConfig"].get("caBundle"),
    )
    wait_for(lambda: pool_accepted(cluster, space), "the webhook to answer")
    cluster.kubectl(f"delete ipaddresspool probe -n {space}")
    cluster.apply(balancer("one"))
    cluster.apply(
        named("IPAddressPool", "home", space, api, spec={"addresses": ["192.0.2.10-192.0.2.11"]})
    )
    cluster.apply(
        balancer("two", **{"metallb.io/loadBalancerIPs": "192.0.2.11"}),
        balancer("three", **{"metallb.io/loadBalancerIPs": "192.0.2.99"}),
    )
    assert not address(cluster.get("service", "one", "default"))
    cluster.apply(named("L2Advertisement", "home", space, api, spec={"ipAddressPools": ["home"]}))
    one = cluster.soon("service", "one", "default", address)
    assert address(one) == "192.0.2.10"
    assert address(cluster.soon("service", "two", "default", address)) == "192.0.2.11"
    assert one["metadata"]["annotations"]["metallb.io/ip-allocated-from-pool"] == "home"
    wait_for(
        lambda: "Failed to allocate IP" in cluster.kubectl("get events --no-headers"), "the event"
    )
    assert not address(cluster.get("service", "three", "default"))
    cluster.kubectl("delete service one two three")
    cluster.kubectl(f"delete deployment metallb-controller -n {space}")
    cluster.kubectl("delete validatingwebhookconfiguration metallb-webhook-configuration")


def test_cilium_registers_its_definitions_and_gives_addresses(cluster: Cluster) -> None:
    assert not cluster.get("crd", "ciliumloadbalancerippools.cilium.io")
    cluster.operator("cilium-operator", namespace="kube-system")
    cluster.soon("crd", "ciliumloadbalancerippools.cilium.io", "", is_true("Established"))
    wait_for(lambda: cluster.kubectl("get crd").count(".cilium.io") == 20, "20 definitions")
    blocks = [{"cidr": "198.51.100.0/30"}]
    cluster.apply(
        named("CiliumLoadBalancerIPPool", "home", "", "cilium.io/v2", spec={"blocks": blocks}),
        balancer("four", **{"lbipam.cilium.io/ips": "198.51.100.2"}),
        balancer("five", **{"lbipam.cilium.io/ips": "203.0.113.1"}),
    )
    four = cluster.soon("service", "four", "default", address)
    assert address(four) == "198.51.100.2"
    assert condition(four, "cilium.io/IPAMRequestSatisfied")["status"] == "True"
    cluster.soon(
        "service", "five", "default", lambda one: condition(one, "cilium.io/IPAMRequestSatisfied")
    )
    assert not address(cluster.get("service", "five", "default"))
    cluster.kubectl("delete service five")


# ---- rows defaults, cnpg-*, eck-*, prometheus, alertmanager


@needs_contracts
def test_cloudnative_pg(cluster: Cluster) -> None:
    cluster.definitions("cloudnative-pg")
    space, api = "cnpg-system", "postgresql.cnpg.io/v1"
    cluster.delays(rollout={"default": 0}, conditions={"Cluster": 5})
    configuration = named(
        "MutatingWebhookConfiguration",
        "cnpg-mutating-webhook-configuration",
        "",
        "admissionregistration.k8s.io/v1",
        webhooks=[
            hook("c.example.org", "cnpg-webhook-service", space, "postgresql.cnpg.io", "clusters")
        ],
    )
    cluster.apply(
        namespace_of(space),
        service("cnpg-webhook-service", space, "cloudnative-pg"),
        configuration,
    )
    cluster.operator("cloudnative-pg", namespace=space)
    cluster.soon(
        "mutatingwebhookconfiguration",
        "cnpg-mutating-webhook-configuration",
        "",
        lambda one: one["webhooks"][0]["clientConfig"].get("caBundle"),
    )
    storage = {"size": "1Gi", "storageClass": "local-path"}
    spec = {"instances": 3, "storage": storage, "bootstrap": {"initdb": {"database": "shop"}}}
    cluster.apply(named("Cluster", "db", "default", api, spec=spec))
    parameters = cluster.get("cluster.postgresql.cnpg.io", "db", "default")["spec"]["postgresql"]
    assert parameters["parameters"]["wal_level"] == "logical"  # by the webhook, not by us
    cluster.soon("pod", "db-1", "default", is_true("Ready"))
    healthy = cluster.soon(
        "clusters.postgresql.cnpg.io",
        "db",
        "default",
        lambda one: one.get("status", {}).get("phase") == "Cluster in healthy state",
    )
    assert healthy["status"]["readyInstances"] == 3
    assert condition(healthy, "Ready")["status"] == "True"
    secret = cluster.get("secret", "db-app", "default")
    assert data(secret, "dbname") == b"shop"
    assert data(secret, "password") in data(secret, "uri")
    for name in ("db-rw", "db-ro", "db-r"):
        assert cluster.get("service", name, "default")
    plan = {"schedule": "0 0 2 * * *", "immediate": True, "cluster": {"name": "db"}}
    cluster.apply(named("ScheduledBackup", "nightly", "default", api, spec=plan))
    cluster.soon(
        "backups.postgresql.cnpg.io",
        "nightly-simulated",
        "default",
        lambda one: one.get("status", {}).get("phase") == "completed",
    )
    cluster.delays(rollout={"default": 0})


@needs_contracts
def test_elastic(cluster: Cluster) -> None:
    cluster.definitions("eck-operator")
    cluster.operator("elastic-operator", namespace="elastic", kind="StatefulSet")
    sizes = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    nodes = {
        "name": "default",
        "count": 2,
        "volumeClaimTemplates": [{"metadata": {"name": "elasticsearch-data"}, "spec": sizes}],
    }
    cluster.apply(
        named(
            "Elasticsearch",
            "logs",
            "elastic",
            "elasticsearch.k8s.elastic.co/v1",
            spec={"version": "9.2.0", "nodeSets": [nodes]},
        ),
        named(
            "Kibana",
            "logs",
            "elastic",
            "kibana.k8s.elastic.co/v1",
            spec={"version": "9.2.0", "count": 1, "elasticsearchRef": {"name": "logs"}},
        ),
    )
    found = cluster.soon(
        "elasticsearch",
        "logs",
        "elastic",
        lambda one: one.get("status", {}).get("phase") == "Ready",
    )
    assert (found["status"]["health"], found["status"]["availableNodes"]) == ("green", 2)
    assert "elasticsearch.k8s.elastic.co/cluster-uuid" in found["metadata"]["annotations"]
    cluster.soon(
        "kibana", "logs", "elastic", lambda one: one.get("status", {}).get("health") == "green"
    )
    assert data(cluster.get("secret", "logs-es-elastic-user", "elastic"), "elastic")
    public = cluster.get("secret", "logs-es-http-certs-public", "elastic")
    assert data(public, "ca.crt").startswith(b"-----BEGIN CERTIFICATE")


@needs_contracts
def test_prometheus_operator(cluster: Cluster) -> None:
    cluster.definitions("prometheus-operator-crds")
    api = "monitoring.coreos.com/v1"
    cluster.operator("kube-prometheus-stack-operator", namespace="monitoring")
    claim_spec = {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"]}
    storage = {"volumeClaimTemplate": {"spec": claim_spec}}
    cluster.apply(
        named("Prometheus", "main", "monitoring", api, spec={"replicas": 1, "storage": storage}),
        named("Alertmanager", "main", "monitoring", api, spec={"replicas": 1}),
    )
    for kind in ("prometheus", "alertmanager"):
        found = cluster.soon(kind, "main", "monitoring", is_true("Available"))
        assert found["status"]["availableReplicas"] == 1
    cluster.soon("statefulset", "prometheus-main", "monitoring", running)


# ---- rows envoy-*, kiali, velero-location


@needs_contracts
def test_envoy_gateway(cluster: Cluster) -> None:
    cluster.definitions("envoy-gateway")
    space, api = "envoy-gateway-system", "gateway.networking.k8s.io/v1"
    cluster.operator("envoy-gateway", namespace=space)
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    controller = "gateway.envoyproxy.io/gatewayclass-controller"
    cluster.apply(
        named("GatewayClass", "envoy", "", api, spec={"controllerName": controller}),
        named(
            "Gateway",
            "main",
            "default",
            api,
            spec={"gatewayClassName": "envoy", "listeners": [listener]},
        ),
        named(
            "HTTPRoute",
            "web",
            "default",
            api,
            spec={
                "parentRefs": [{"name": "main"}],
                "rules": [{"backendRefs": [{"name": "absent", "port": 80}]}],
            },
        ),
    )
    cluster.soon("gatewayclass", "envoy", "", is_true("Accepted"))
    gateway = cluster.soon("gateway", "main", "default", is_true("Programmed"))
    assert gateway["status"]["addresses"][0]["value"].startswith("198.51.100.")
    assert gateway["status"]["listeners"][0]["attachedRoutes"] == 1
    route = cluster.soon("httproute", "web", "default", lambda one: one["status"]["parents"])
    told = {one["type"]: one for one in route["status"]["parents"][0]["conditions"]}
    assert told["Accepted"]["status"] == "True"
    assert told["ResolvedRefs"]["reason"] == "BackendNotFound"
    cluster.kubectl("delete gateway main")
    wait_for(lambda: "envoy-default-main" not in cluster.kubectl(f"get svc -n {space}"), "clean-up")


@needs_contracts
def test_kiali_and_velero(cluster: Cluster) -> None:
    cluster.definitions("kiali-operator")
    cluster.definitions("velero")
    cluster.operator("kiali-operator", namespace="kiali-operator")
    cluster.operator("velero", namespace="velero")
    location = {
        "provider": "aws",
        "objectStorage": {"bucket": "b"},
        "credential": {"name": "s3", "key": "cloud"},
    }
    cluster.apply(
        named("Kiali", "kiali", "kiali-operator", "kiali.io/v1alpha1", spec={}),
        named("BackupStorageLocation", "default", "velero", "velero.io/v1", spec=location),
    )
    cluster.soon("kiali", "kiali", "kiali-operator", is_true("Successful"))
    cluster.soon("deployment", "kiali", "kiali-operator", running)
    away = cluster.soon("backupstoragelocation", "default", "velero", lambda one: one.get("status"))
    assert away["status"]["phase"] == "Unavailable"
    cluster.apply(named("Secret", "s3", "velero", stringData={"cloud": "x"}))
    cluster.soon(
        "backupstoragelocation",
        "default",
        "velero",
        lambda one: one["status"]["phase"] == "Available",
    )
    cluster.kubectl("delete kiali kiali -n kiali-operator --timeout=30s")


# ---- nothing changes any more


def test_a_quiet_cluster_is_not_written(cluster: Cluster) -> None:
    """Once all is done, the simulation makes no further write."""
    kinds = "deploy,sts,ds,svc,secret,cm,pv,pvc,sc,validatingwebhookconfigurations,crd"
    for one in ("certificates.cert-manager.io", "volumes.longhorn.io", "kialis.kiali.io"):
        kinds += f",{one}" if cluster.get("crd", one) else ""

    def versions() -> set[tuple[str, str]]:
        items = json.loads(cluster.kubectl(f"get {kinds} -A -o json"))["items"]
        return {(one["metadata"]["uid"], one["metadata"]["resourceVersion"]) for one in items}

    def rests(seconds: float) -> bool:
        before = versions()
        time.sleep(seconds)
        return versions() == before

    wait_for(lambda: rests(15), "no write in 15 s")
