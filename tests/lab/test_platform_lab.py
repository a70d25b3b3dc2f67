"""The stack of v1.9 on real hosts: installed, left alone, edited, changed, hurt; in this order.

Real are K3s' API, its controllers and helm; simulated are pods, the platform's operators and the
charts, which are surrogates (tests/lab/standin/README.md, tests/lab/charts).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from cluster import secret_table
from runtime import sops, trace
from tests.lab.lab import Lab
from tests.lab.living import condition, helms, kubectl, labelled, wait_for, wait_for_api
from tests.lab.runs import Run, begin, command, ended, plan, run

pytestmark = [pytest.mark.lab(servers=3, agents=2), pytest.mark.usefixtures("simulated")]

SITE, PLATFORM = "deploys/site.py", "deploys/platform.py"
PRESET = "v1_9"
SERVERS, AGENTS = ("node1", "node2", "node3"), ("node4", "node5")
NODES = SERVERS + AGENTS
REQUESTS = 120  # of the API in a run that has nothing to do
# Every release of the stack, as `helm list` has it.
RELEASES = frozenset(
    {
        "cert-manager/cert-manager",
        "cert-manager/cert-manager-webhook-ionos",
        "cnpg-system/cloudnative-pg",
        "cnpg-system/plugin-barman-cloud",
        "elastic/eck-operator",
        "elastic/prometheus-elasticsearch-exporter",
        "envoy-gateway-system/envoy-gateway",
        "fluent/fluent-bit",
        "fluent/fluentd",
        "istio-ingress/istio-gateway",
        "istio-system/istio-base",
        "istio-system/istio-cni",
        "istio-system/istiod",
        "istio-system/ztunnel",
        "keycloak/keycloakx",
        "kiali-operator/kiali-operator",
        "kube-system/cilium",
        "kube-system/snapshot-controller",
        "longhorn-system/longhorn",
        "monitoring/grafana",
        "monitoring/kube-prometheus-stack",
        "monitoring/prometheus-operator-crds",
        "oauth2-proxy/oauth2-proxy",
        "velero/velero",
    }
)
# A small component: one pod, nothing is lost with it.
SMALL, SPACE, RELEASE = (
    "elasticsearch-exporter",
    "elastic",
    "prometheus-elasticsearch-exporter",
)
DEPLOYMENT = f"deployment {RELEASE} -n {SPACE}"
LABELS = ("picluster.io/component", "app.kubernetes.io/managed-by=Helm")
# What controllers write by themselves, and what is big and compared by its own test.
LEFT_OUT = (
    r"(events|leases|endpoints|endpointslices|pods|replicasets|controllerrevisions|nodes"
    r"|componentstatuses|customresourcedefinitions|flowschemas|prioritylevelconfigurations)(\.|$)"
)
# Annotations of the controller of Deployments and of the Prometheus operator's webhook.
WRITTEN_BY_OTHERS = ("deployment.kubernetes.io/revision", "prometheus-operator-validated")
OWN_PORT = 9999  # of a webhook that never answers

Objects = dict[str, str]


class Platform:
    """The lab with the platform, as kubectl, helm and the servers' journals tell it."""

    def __init__(self, lab: Lab, first: Run) -> None:
        self.lab, self.first = lab, first
        record = json.loads(lab.names.state_file.read_text())
        self._charts = record["charts"]
        self._helms: set[str] = set()

    def run(self, deploy: str = PLATFORM, *options: str, **data: Any) -> Run:
        return run(self.lab, deploy, *options, data=data, LAB_PRESET=PRESET)

    def plan(self, *options: str, **data: Any) -> Run:
        return plan(self.lab, PLATFORM, *options, data=data, LAB_PRESET=PRESET)

    def values(self, component: str, **values: Any) -> dict[str, Any]:
        """The --data of a run with these values of the user's, and of this component alone."""
        given = {"charts": self._charts, "values": {component: values}}
        return {"platform": given, "components": component}

    def kubectl(self, arguments: str, server: str = "node1") -> str:
        return kubectl(self.lab, server, arguments)

    def revisions(self) -> Mapping[str, int]:
        """The newest revision of each release, all of which have to be deployed."""
        words = "KUBECONFIG=/etc/rancher/k3s/k3s.yaml helm list -A -o json"
        found = json.loads(self.lab.check("node1", words))
        wrong = [one["name"] for one in found if one["status"] != "deployed"]
        assert wrong == []
        return {f"{one['namespace']}/{one['name']}": int(one["revision"]) for one in found}

    def objects(self) -> Objects:
        """All that we and Helm applied: content by kind, namespace and name, without the status."""
        found: Objects = {}
        for label in LABELS:
            for item in labelled(self.lab, label, LEFT_OUT):
                metadata = item["metadata"]
                if item.get("type") == "helm.sh/release.v1":
                    continue  # `revisions` has them
                key = f"{item['kind']} {metadata.get('namespace', '')}/{metadata['name']}"
                found[key] = _content(item)
        return found

    def crd(self, name: str) -> str:
        return _content(json.loads(self.kubectl(f"get crd {name} -o json")))

    def helms(self) -> list[str]:
        """Every helm that a server has started so far, `<server>: <arguments>`."""
        # Each line once, also when a journal was lost with the server's power.
        self._helms |= set(helms(self.lab, *SERVERS))
        return sorted(self._helms)

    def verbs(self) -> Counter[str]:
        """How often each command of helm was started so far."""
        return Counter(re.split(r"/helm ", line, maxsplit=1)[1].split()[0] for line in self.helms())


def _content(item: dict[str, Any]) -> str:
    """A digest of what people and deploys write into an object."""
    metadata = item["metadata"]
    annotations = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if key not in WRITTEN_BY_OTHERS
    }
    kept = {k: v for k, v in item.items() if k not in ("status", "metadata")}
    kept |= {"labels": metadata.get("labels"), "annotations": annotations}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


@pytest.fixture(scope="module")
def platform(lab: Lab) -> Iterator[Platform]:
    """Bare hosts on which site.py has run once."""
    lab.clear_faults()
    if os.environ.get("LAB_KEEP") != "1":
        lab.recreate(*NODES)
    yield Platform(lab, run(lab, SITE, LAB_PRESET=PRESET))


def test_bare_hosts_get_every_release_and_nothing_of_it_was_refused(platform: Platform) -> None:
    done = platform.first
    assert done.code == 0, done.text
    assert platform.revisions().keys() == RELEASES
    # The API refuses what needs a webhook or a kind that is not served yet; a refusal is said.
    assert "waiting: " not in done.text
    assert "failed calling webhook" not in done.text


def test_every_workload_is_complete_and_every_object_is_accepted(platform: Platform) -> None:
    assert _incomplete(platform) == set()
    for kind in ("certificates", "clusterissuers", "gateways.gateway.networking.k8s.io"):
        found = json.loads(platform.kubectl(f"get {kind} -A -o json"))["items"]
        assert found
        good = "Programmed" if kind.startswith("gateways") else "Ready"
        assert {condition(one, good) for one in found} == {"True"}, kind
    phase = "get {} -A -o jsonpath={{.items[*].status.{}}}"
    assert platform.kubectl(phase.format("elasticsearches", "health")) == "green"
    assert platform.kubectl(phase.format("kibanas", "health")) == "green"
    assert platform.kubectl(phase.format("clusters.postgresql.cnpg.io", "readyInstances")) == "3"
    assert platform.kubectl(phase.format("backupstoragelocations", "phase")) == "Available"


def _incomplete(platform: Platform) -> set[str]:
    """Workloads that have fewer ready pods than they want."""
    workloads = json.loads(platform.kubectl("get deploy,ds,sts -A -o json"))["items"]
    assert len(workloads) > len(RELEASES)
    found = set()
    for item in workloads:
        status, spec = item["status"], item["spec"]
        wanted = status.get("desiredNumberScheduled", spec.get("replicas"))
        if status.get("numberReady", status.get("readyReplicas", 0)) < wanted:
            found.add(f"{item['kind']} {item['metadata']['name']}")
    return found


def test_a_second_run_changes_nothing_and_starts_no_helm(
    platform: Platform, tmp_path: Path
) -> None:
    before = platform.helms()
    # Others write into our objects meanwhile: CAs of webhooks are not in any manifest.
    injected = (
        "get validatingwebhookconfigurations -o jsonpath={.items[*].webhooks[*].clientConfig}"
    )
    assert "caBundle" in platform.kubectl(injected)
    file = tmp_path / "trace"
    done = run(platform.lab, SITE, LAB_PRESET=PRESET, **{trace.VARIABLE: str(file)})
    assert (done.code, done.changed) == (0, {}), done.text
    assert platform.helms() == before
    lines = map(json.loads, file.read_text().splitlines())
    (figures,) = (line["platform"] for line in lines if "platform" in line)
    assert 0 < figures["api_requests"] <= REQUESTS


def test_what_others_merely_add_is_no_difference(platform: Platform) -> None:
    platform.kubectl(f"annotate {DEPLOYMENT} --overwrite lab.example.com/note=mine")
    platform.kubectl("label namespace velero --overwrite lab.example.com/team=mine")
    status = shlex.quote(json.dumps({"status": {"lastSkipped": "2026-01-01T00:00:00Z"}}))
    platform.kubectl(f"patch schedule.velero.io full -n velero --type=merge -p {status}")
    assert platform.plan("--diff").changed == {}


def test_what_is_edited_by_hand_is_named_with_its_manager_and_put_back(
    platform: Platform,
) -> None:
    objects, revisions = platform.objects(), platform.revisions()
    crd = platform.crd("schedules.velero.io")
    _edit(platform)
    assert platform.crd("schedules.velero.io") != crd
    planned = platform.plan("--diff")
    assert planned.code == 0, planned.text
    for what, manager in (
        ("Schedule velero/full", "kubectl-edit"),
        (f"Deployment elastic/{RELEASE}", "kubectl-patch"),
        ("CustomResourceDefinition schedules.velero.io", "kubectl-patch"),
        ("Namespace fluent", "kubectl-label"),
        ("PrometheusRule velero/velero", "kubectl-label"),
    ):
        assert re.search(f"{what}:? was changed by {manager}\n", planned.text), what
    assert "spec.schedule: 1 1 * * * → " in planned.text
    assert platform.objects() != objects  # a plan changes nothing

    done = platform.run()
    assert done.code == 0, done.text
    assert done.changed.keys() == planned.changed.keys()
    assert platform.objects() == objects
    assert platform.crd("schedules.velero.io") == crd
    assert "mine" in platform.kubectl(f"get {DEPLOYMENT} -o jsonpath={{.metadata.annotations}}")
    changed = {name for name, number in platform.revisions().items() if number != revisions[name]}
    assert changed == {f"{SPACE}/{RELEASE}"}  # the chart whose object it was
    assert platform.plan().changed == {}


def _edit(platform: Platform) -> None:
    """An object of ours, one of a chart, a CRD, a namespace's label and an object's label."""

    def patch(what: str, body: object, options: str = "") -> None:
        kind = "json" if isinstance(body, list) else "merge"
        given = shlex.quote(json.dumps(body))
        platform.kubectl(f"patch {what} --type={kind} -p {given} {options}")

    manager = "--field-manager=kubectl-edit"
    patch("schedule.velero.io full -n velero", {"spec": {"schedule": "1 1 * * *"}}, manager)
    patch(DEPLOYMENT, {"spec": {"replicas": 2}})
    column = "/spec/versions/0/additionalPrinterColumns/0/description"
    patch("crd schedules.velero.io", [{"op": "replace", "path": column, "value": "edited"}])
    platform.kubectl("label namespace fluent --overwrite istio.io/dataplane-mode=none")
    platform.kubectl(
        "label prometheusrule velero -n velero --overwrite picluster.io/component=mine"
    )


def test_replaced_secrets_reach_the_pods_that_read_them_at_their_start(
    platform: Platform, tmp_path: Path
) -> None:
    helms, before = platform.helms(), _pods(platform)
    (job,) = (name for name in before if name.startswith("keycloak/keycloak-clients-"))
    new = _replaced(platform, tmp_path, "oidc.grafana", "oauth2_proxy.cookie_secret")
    planned = platform.plan("--diff")
    steps = [name.removeprefix("Platform | ") for name in planned.changed]
    assert sorted(steps) == sorted(
        (
            "keycloak: change Secret keycloak/keycloak-realm, "
            "restart StatefulSet keycloak/keycloakx",
            f"keycloak objects: restart Job {job}",
            "grafana: change Secret monitoring/grafana-oidc, restart Deployment monitoring/grafana",
            "oauth2-proxy: change Secret oauth2-proxy/oauth2-proxy-client, "
            "restart Deployment oauth2-proxy/oauth2-proxy",
        )
    ), planned.text
    done = platform.run()
    assert done.code == 0, done.text
    assert done.changed.keys() == planned.changed.keys()
    assert not [value for value in new if value in planned.text + done.text]
    assert platform.helms() == helms
    assert _incomplete(platform) == set()
    now = _pods(platform)
    started = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    assert started == {
        job,
        "keycloak/keycloakx",
        "monitoring/grafana",
        "oauth2-proxy/oauth2-proxy",
    }
    assert not [name for name in started if before[name] & now[name]]
    assert platform.plan().changed == {}


def _pods(platform: Platform) -> dict[str, set[str]]:
    """UIDs of all pods by what they belong to, as `<namespace>/<workload>`."""
    found: dict[str, set[str]] = {}
    for pod in json.loads(platform.kubectl("get pods -A -o json"))["items"]:
        metadata = pod["metadata"]
        owner = metadata["ownerReferences"][0]
        name = owner["name"]
        if owner["kind"] == "ReplicaSet":
            name = name.rpartition("-")[0]
        found.setdefault(f"{metadata['namespace']}/{name}", set()).add(metadata["uid"])
    return found


def _replaced(platform: Platform, folder: Path, *names: str) -> list[str]:
    """Put other secrets in place, as people do it in their editor; the new ones."""
    state = platform.lab.names.state_file.parent
    values = sops.flat(sops.load(state / "secrets.sops.yaml", state / "age.txt"))
    kinds = {kind.name: kind for kind in secret_table.TABLE}
    made = {name: str(kinds[name].make and kinds[name].make()) for name in names}
    editor = folder / "editor"
    lines = [f"s/{re.escape(values[name])}/{new}/" for name, new in made.items()]
    editor.write_text(f"#!/bin/sh\nexec sed -i '{'; '.join(lines)}' \"$1\"\n")
    editor.chmod(0o755)
    words = [sys.executable, "-m", "commands.secrets", "inventories/lab.py", "--edit"]
    done = ended(platform.lab, words, LAB_PRESET=PRESET, EDITOR=str(editor))
    assert done.returncode == 0, done.stdout + done.stderr
    return list(made.values())


def test_one_value_of_the_users_upgrades_one_release(platform: Platform) -> None:
    objects, revisions = platform.objects(), platform.revisions()
    # Of the whole platform, not of the component alone.
    data = platform.values(SMALL, podAnnotations={"lab.example.com/mine": "1"})
    done = platform.run(PLATFORM, platform=data["platform"])
    assert done.code == 0, done.text
    assert len(done.changed) == 1
    wanted = {**revisions, f"{SPACE}/{RELEASE}": revisions[f"{SPACE}/{RELEASE}"] + 1}
    assert platform.revisions() == wanted
    now = platform.objects()
    changed = {name for name in now.keys() | objects.keys() if now.get(name) != objects.get(name)}
    assert changed == {f"Deployment {SPACE}/{RELEASE}"}


def test_a_key_that_the_chart_does_not_know_is_refused_and_nothing_is_changed(
    platform: Platform,
) -> None:
    revisions, upgrades = platform.revisions(), platform.verbs()["upgrade"]
    done = platform.run(**platform.values(SMALL, podAnotations={"a": "1"}))
    assert done.code == 1
    problem = f"platform.values.{SMALL}: unknown key podAnotations; did you mean podAnnotations"
    assert problem in done.text
    assert platform.verbs()["upgrade"] == upgrades
    assert platform.revisions() == revisions


def test_pods_that_never_become_ready_stop_the_run_with_the_cause(platform: Platform) -> None:
    before = platform.revisions()["velero/velero"]
    done = platform.run(**platform.values("velero", image={"tag": "never-ready"}))
    assert done.code == 1
    image = "image [^ ]+/velero:never-ready of velero: ImagePullBackOff: "
    assert re.search(f"velero: Deployment velero/velero: .*; pod velero-.*: {image}", done.text)
    # Nothing is taken back: the new revision stays, and so does the pod that ran before.
    assert platform.revisions()["velero/velero"] == before + 1
    available = "get deployment velero -n velero -o jsonpath={.status.availableReplicas}"
    assert platform.kubectl(available) == "1"

    fixed = platform.run(**platform.values("velero"))
    assert fixed.code == 0, fixed.text
    assert platform.revisions()["velero/velero"] == before + 2


@pytest.fixture
def slow(platform: Platform) -> Iterator[None]:
    """Updates of Deployments of two namespaces hang: their webhook takes and answers nothing."""
    address = platform.lab.record.host("node5").ip
    rule = f"INPUT -p tcp --dport {OWN_PORT} -j DROP"
    hook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "lab-slow"},
        "webhooks": [
            {
                "name": "slow.lab.example.com",
                "clientConfig": {"url": f"https://{address}:{OWN_PORT}/"},
                "rules": [
                    {
                        "operations": ["UPDATE"],
                        "apiGroups": ["apps"],
                        "apiVersions": ["v1"],
                        "resources": ["deployments"],
                    }
                ],
                "namespaceSelector": {
                    "matchExpressions": [
                        {
                            "key": "kubernetes.io/metadata.name",
                            "operator": "In",
                            "values": [SPACE, "velero"],
                        }
                    ]
                },
                "failurePolicy": "Ignore",
                "sideEffects": "None",
                "timeoutSeconds": 30,
                "admissionReviewVersions": ["v1"],
            }
        ],
    }
    platform.lab.check("node5", f"iptables -I {rule}")
    kubectl(platform.lab, "node1", "apply -f -", json.dumps(hook))
    yield
    _faster(platform, "node1")
    platform.lab.check("node5", f"iptables -D {rule}")


def _faster(platform: Platform, server: str) -> None:
    platform.kubectl("delete validatingwebhookconfiguration lab-slow --ignore-not-found", server)


@contextmanager
def _upgrading(
    platform: Platform, data: dict[str, Any], release: str, namespace: str
) -> Iterator[tuple[Popen[str], str]]:
    """A run whose helm has begun an upgrade and hangs; the server on which helm runs."""

    def upgrades() -> set[str]:
        return {line for line in platform.helms() if f"helm upgrade {release} " in line}

    before = upgrades()
    process = begin(platform.lab, command(PLATFORM, "-y", data=data), LAB_PRESET=PRESET)
    try:
        words = f"get secret -n {namespace} -l owner=helm,name={release},status=pending-upgrade"

        def begun() -> bool:
            return process.poll() is not None or bool(platform.kubectl(f"{words} -o name"))

        wait_for(begun, "an upgrade")
        assert process.poll() is None, process.communicate()[0]
        (line,) = upgrades() - before
        yield process, line.partition(" ")[0]
    finally:
        process.kill()


def test_a_server_that_dies_in_an_upgrade_is_left_for_another(
    platform: Platform, slow: None
) -> None:
    # Its pod is kept off the server: one that were placed there would wait for minutes.
    place = {"kubernetes.io/hostname": "node4"}
    data = platform.values(SMALL, podAnnotations={"lab.example.com/mine": "2"}, nodeSelector=place)
    with _upgrading(platform, data, RELEASE, SPACE) as (process, server):
        other = next(name for name in SERVERS if name != server)
        platform.lab.kill(server)
        try:
            wait_for_api(platform.lab, other)
            _faster(platform, other)
            output, _ = process.communicate(timeout=300)
        finally:
            platform.lab.start(server)
    assert process.returncode == 0, output
    assert re.search(rf"{server}.*; trying another server", output), output
    assert "it is marked failed" in output
    wait_for_api(platform.lab, *SERVERS)
    wait_for(lambda: not _incomplete(platform), "pods to be ready again")
    assert platform.revisions().keys() == RELEASES
    annotation = "jsonpath={.spec.template.metadata.annotations}"
    assert '"lab.example.com/mine":"2"' in platform.kubectl(f"get {DEPLOYMENT} -o {annotation}")


def test_a_helm_that_is_killed_is_repaired_by_the_next_run(platform: Platform, slow: None) -> None:
    data = platform.values("velero", podAnnotations={"lab.example.com/mine": "1"})
    before = platform.revisions()["velero/velero"]
    with _upgrading(platform, data, "velero", "velero") as (process, server):
        platform.lab.check(server, "pkill -KILL -f '^[^ ]*helm upgrade velero '")
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "helm upgrade of velero: helm was killed" in output
    _faster(platform, "node1")

    done = platform.run(**data)
    assert done.code == 0, done.text
    assert f"revision {before + 1} was left pending-upgrade: it is marked failed" in done.text
    assert platform.revisions()["velero/velero"] == before + 2


def test_what_holds_data_is_not_removed_unless_its_name_is_typed(platform: Platform) -> None:
    stack = {"preset": PRESET, "storage": "local-path", "snapshots": "none", "backup": "none"}
    revisions = platform.revisions()
    done = platform.run(stack=stack)
    assert done.code == 1
    reason = r"longhorn is not wanted any more and holds \d+ volumes, .*: it stays; "
    assert re.search(reason + "--data remove=longhorn removes it with all it holds", done.text)
    typed = platform.plan(stack=stack, remove="longhorn")
    assert typed.code == 0, typed.text
    assert "Platform | longhorn: remove" in typed.changed
    assert platform.revisions() == revisions


@pytest.mark.removes("velero")
def test_a_component_that_is_not_wanted_any_more_goes_in_reverse_order(
    platform: Platform,
) -> None:
    stack = {"preset": PRESET, "backup": "none"}
    planned = platform.plan(stack=stack)
    assert list(planned.changed)[-1] == "Platform | velero: remove"
    done = platform.run(stack=stack)
    assert done.code == 0, done.text
    assert platform.revisions().keys() == RELEASES - {"velero/velero"}
    # Objects of ours go before the release, whose chart brings what acts on them.
    deleted = done.text.index("Schedule velero/full is deleted")
    assert deleted < done.text.index("Secret velero/velero-s3 is deleted")
    left = {name for name in platform.objects() if " velero/" in name}
    assert left == set()
    assert platform.kubectl("get crd/backups.velero.io namespace/velero -o name").count("\n") == 1
    assert platform.plan(stack=stack).changed == {}


def test_a_chosen_component_comes_with_what_it_needs_and_nothing_else(
    platform: Platform,
) -> None:
    platform.kubectl("label storageclass longhorn-single --overwrite picluster.io/component=mine")
    platform.kubectl(f"scale {DEPLOYMENT} --replicas=2")
    planned = platform.plan(components="velero")
    steps = {name.removeprefix("Platform | ").partition(":")[0] for name in planned.changed}
    assert steps == {"velero", "velero objects", "longhorn objects"}, planned.text
    refused = platform.plan(components="valero")
    assert refused.code == 1
    assert "--data components: valero is no component; did you mean velero?" in refused.text


def test_helm_removed_velero_and_took_nothing_else_back(platform: Platform) -> None:
    removing = [line for line in platform.helms() if re.search(r"helm (uninstall|rollback) ", line)]
    assert len(removing) == 1
    assert "helm uninstall velero " in removing[0]
