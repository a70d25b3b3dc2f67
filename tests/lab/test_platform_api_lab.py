"""Objects, waits and Helm releases against a real API server and the real helm.

Simulated are containers (the stand-in's table): pods become Ready by rules. The charts are made
here.
"""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gevent
import pytest
from pyinfra.api import Config, Host, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_state

from cluster import programs, versions
from cluster.answer import Present
from cluster.component import COMPONENT
from cluster.helm_release import HelmRelease, Wanted
from cluster.model import Arch, Source
from cluster.objects import Object
from cluster.readiness import Condition, Established, Rollout
from cluster.versions import Chart
from facts.helm import read_release, read_releases
from facts.live import Live
from operations import helm, helm_process, kube
from operations.helm_process import Rendered
from runtime.api import Api, Kind, api_of
from runtime.endpoint import ApiError
from tests.lab.by_hand import start_cluster
from tests.lab.charts.archive import index, pack
from tests.lab.lab import Lab
from tests.lab.living import kubectl, wait_for
from tests.lab.runs import ROOT, environment

pytestmark = pytest.mark.lab(servers=1, agents=0)

SERVER, SPACE = "node1", "tiny"
CONFIG_MAP = Kind("v1", "ConfigMap")
DEPLOYMENT = Kind("apps/v1", "Deployment")
CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: toys.lab.example}
spec:
  group: lab.example
  names: {kind: Toy, plural: toys}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {size: {type: integer}}}}
"""
TEMPLATE = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      hostNetwork: false
      containers:
      - name: app
        image: {{ .Values.image }}
        resources: {limits: {cpu: 1000m, memory: 1024Mi}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: {{ .Release.Name }}, namespace: ignored}
rules: []
---
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}}
data: {greeting: {{ .Values.greeting | quote }}}
{{- if .Values.fail }}
{{ fail "this chart was told to fail" }}
{{- end }}
"""
OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
INNER = {"apiVersion": "v2", "name": "inner", "version": "1.0.0"}
VALUES = "replicas: 1\nimage: registry.k8s.io/pause:3.10\ngreeting: hello\nfail: false\n"
HOOK = """
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-slow
  annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: before-hook-creation}
spec:
  template:
    spec: {restartPolicy: Never, nodeSelector: {no: node}, containers: [{name: a, image: a}]}
"""  # noqa: E501


class Run:
    """A pyinfra run on the lab's server, as far as the API and helm need one."""

    def __init__(self, lab: Lab) -> None:
        names = [(SERVER, {"ssh_hostname": str(lab.record.host(SERVER).ip)})]
        data = {
            "ssh_user": "ubuntu",
            "ssh_key": str(lab.names.ssh_key),
            "ssh_known_hosts_file": str(lab.names.known_hosts),
            "_sudo": True,
        }
        self.lab = lab
        self.state = State(
            Inventory((["@local", *names], data), servers=(names, {})), Config(CONNECT_TIMEOUT=5)
        )
        self.said: list[str] = []
        self.live = Live(self.api)

    @property
    def api(self) -> Api:
        return api_of(self.state)

    @property
    def server(self) -> Host:
        return self.state.inventory.get_host(SERVER)

    def say(self, text: str) -> None:
        self.said.append(text)

    def edit(self, what: str, patch: object, manager: str = "kubectl-edit") -> None:
        """Change something by hand: a merge patch, or a list of JSON patch operations."""
        kind = "json" if isinstance(patch, list) else "merge"
        body = shlex.quote(json.dumps(patch))
        options = f"-n {SPACE} --type {kind} --field-manager {manager}"
        kubectl(self.lab, SERVER, f"patch {what} {options} -p {body}")

    def plan(self, *items: Object) -> list[kube.Change]:
        return kube.plan_objects(self.api, Live(self.api), items)

    def apply(self, *items: Object, timeout: float = 20) -> str | None:
        return kube.apply_changes(self.api, self.plan(*items), self.say, timeout=timeout)

    def release(self, wanted: Wanted) -> HelmRelease:
        answer = read_release(self.api, wanted.namespace, wanted.name)
        assert isinstance(answer, Present), answer
        return answer.value

    def act(self, wanted: Wanted, repository: str | None = None) -> str | None:
        """Decide and do, as the engine does."""
        action = helm.plan(self.api, wanted)

        def before(rendered: Rendered) -> str | None:
            return self.apply(*rendered.crds)

        return helm_process.carry_out(
            self.state, wanted, action, self.say, repository=repository, before=before
        )


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Lab:
    """One K3s server without a deploy, the pinned helm on it, and a repository of two charts."""
    if lab.run(SERVER, f"k3s kubectl get node {SERVER}")[0] != 0:
        lab.recreate(SERVER)
        start_cluster(lab, [SERVER])
    source = Source(mirror=lab.names.mirror, checksums="beside")
    arch = Arch(lab.record.arch)
    script = programs.HELM.install_script(
        programs.HELM.asset(source, versions.HELM, arch), versions.HELM, arch
    )
    lab.put(SERVER, "/run/helm.sh", script)
    lab.check(SERVER, "sh /run/helm.sh")
    lab.check(SERVER, programs.HELM.link_script(versions.HELM))
    lab.check(SERVER, f"rm -rf {helm_process.CHARTS}")
    lab.check(SERVER, f"k3s kubectl create namespace {SPACE} --dry-run=client -o yaml "
                      "| k3s kubectl apply -f -")  # fmt: skip
    folder = lab.names.state / "files" / "tiny"
    folder.mkdir(exist_ok=True)
    about = []
    for name, version, more in (
        ("tiny", "1.0.0", {}),
        ("tiny", "1.1.0", {}),
        (
            "tiny",
            "1.2.0",
            {
                "charts/inner/Chart.yaml": json.dumps(INNER),
                "charts/inner/crds/cars.yaml": CRD.replace("toy", "car").replace("Toy", "Car"),
            },
        ),
        ("slow", "1.0.0", {"templates/hook.yaml": HOOK}),
    ):
        chart = {"apiVersion": "v2", "name": name, "version": version, "appVersion": "9"}
        if len(more) > 1:
            chart["dependencies"] = [{"name": "inner", "version": "1.0.0"}]  # type: ignore[assignment]
        files = {
            "Chart.yaml": json.dumps(chart),
            "values.yaml": VALUES,
            "templates/all.yaml": TEMPLATE,
            "crds/toys.yaml": CRD,
        }
        archive = folder / f"{name}-{version}.tgz"
        archive.write_bytes(pack(name, files | more))
        about.append((chart, archive))
    (folder / "index.yaml").write_text(index(about))
    return lab


@pytest.fixture
def run(cluster: Lab) -> Iterator[Run]:
    run = Run(cluster)
    yield run
    kubectl(cluster, SERVER, f"delete deploy,cm,job,secret --all -n {SPACE} --wait=false")
    kubectl(cluster, SERVER, "delete clusterrole -l app.kubernetes.io/managed-by=Helm")
    kubectl(cluster, SERVER, "delete crd toys.lab.example cars.lab.example --ignore-not-found")
    run.api.close()


@pytest.fixture
def tiny(cluster: Lab) -> Wanted:
    chart = Chart("tiny", f"{cluster.names.mirror}/tiny", "1.0.0")
    return Wanted("tiny", SPACE, chart, {}, "tiny")


@pytest.fixture
def helms() -> Iterator[list[tuple[str, ...]]]:
    """Every helm that is started."""
    started: list[tuple[str, ...]] = []

    def note(server: str, argv: tuple[str, ...]) -> None:
        started.append(argv)

    helm_process.observers.append(note)
    yield started
    helm_process.observers.remove(note)
    assert not {argv[0] for argv in started} & {"uninstall", "rollback"}


def config_map(name: str, **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": SPACE, "labels": {COMPONENT: "lab"}},
        "data": data,
    }


def web(**spec: Any) -> Object:
    container = {
        "name": "app",
        "image": "registry.k8s.io/pause:3.10",
        "env": [{"name": "A", "value": "1"}],
        "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
    }
    pod = {"containers": [container], "hostNetwork": False, "nodeSelector": {}} | spec
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": SPACE},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod},
        },
    }


def test_objects_are_created_once_and_the_second_look_is_one_request_a_kind(run: Run) -> None:
    items = [config_map("a", key="1Gi"), config_map("b", key="x"), web()]
    assert [change.kind for change in run.plan(*items)] == ["create"] * 3
    assert run.apply(*items) is None
    before = run.api.requests
    assert [change.kind for change in run.plan(*items)] == ["same"] * 3
    assert run.api.requests == before + 2  # one LIST of each kind, no dry run


def test_an_edit_by_hand_is_found_named_and_put_back(run: Run) -> None:
    items = [config_map("a", key="ours"), web()]
    assert run.apply(*items) is None
    run.edit("cm a", {"data": {"key": "theirs", "more": "x"}})
    kubectl(run.lab, SERVER, f"scale deploy web -n {SPACE} --replicas=3")
    changes = run.plan(*items)
    assert [change.kind for change in changes] == ["change", "change"]
    assert [[d.where for d in change.differences] for change in changes] == [
        ["data.key"],
        ["spec.replicas"],
    ]
    assert changes[0].others == ("kubectl-edit",)
    assert changes[1].others  # whatever kubectl calls itself there
    assert run.apply(*items) is None
    assert any("theirs → ours" in line for line in run.said)
    assert any("was changed by kubectl-edit" in line for line in run.said)
    assert [change.kind for change in run.plan(*items)] == ["same", "same"]


def test_a_field_that_is_removed_by_hand_or_no_longer_wanted_is_a_change(run: Run) -> None:
    assert run.apply(config_map("a", one="1", two="2")) is None
    (change,) = run.plan(config_map("a", one="1"))
    assert [(d.where, d.wanted) for d in change.differences] == [("data.two", None)]
    assert run.apply(config_map("a", one="1")) is None
    assert [c.kind for c in run.plan(config_map("a", one="1"))] == ["same"]
    run.edit("cm a", [{"op": "remove", "path": "/data/one"}])
    (change,) = run.plan(config_map("a", one="1"))
    assert [d.where for d in change.differences] == ["data"]  # all of it was that key


def test_false_that_the_api_drops_needs_no_dry_run_until_somebody_sets_it(run: Run) -> None:
    assert run.apply(web(automountServiceAccountToken=False)) is None
    before = run.api.requests
    assert [c.kind for c in run.plan(web(automountServiceAccountToken=False))] == ["same"]
    assert run.api.requests == before + 1


def test_secrets_are_applied_and_never_shown(run: Run) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": SPACE},
        "stringData": {"key": "hunter2"},
    }
    assert run.apply(secret) is None
    assert [c.kind for c in run.plan(secret)] == ["same"]
    other = secret | {"stringData": {"key": "hunter3"}}
    (change,) = run.plan(other)
    assert change.kind == "change"
    assert run.apply(other) is None
    shown = "\n".join([*run.said, *change.lines])
    coded = base64.b64encode(b"hunter3").decode()
    assert "hunter" not in shown and coded not in shown and "*MASKED*" in shown


def test_crds_are_compared_by_their_metadata_and_an_edit_is_found(run: Run) -> None:
    from cluster.manifest import manifest

    (crd,) = manifest(CRD)
    assert run.apply(crd) is None
    assert kube.await_ready(run.api, [Established(("toys.lab.example",))], 20, run.say) is None
    before, received = run.api.requests, run.api.received
    assert [c.kind for c in run.plan(crd)] == ["same"]
    assert run.api.requests <= before + 3  # metadata, and the discovery when it is not fresh
    run.edit(
        "crd toys.lab.example",
        [{"op": "add", "path": "/spec/names/shortNames", "value": ["ty"]}],
    )
    assert [c.kind for c in run.plan(crd)] == ["same"]  # a field that we never had
    size = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size/type"
    run.edit(
        "crd toys.lab.example",
        [{"op": "replace", "path": size, "value": "string"}],
        manager="somebody",
    )
    (change,) = run.plan(crd)
    assert change.kind == "change" and change.others == ("somebody",)
    assert any("size.type" in d.where for d in change.differences)
    assert run.apply(crd) is None
    assert [c.kind for c in run.plan(crd)] == ["same"]
    assert received > 0


def test_an_object_waits_for_its_kind_and_its_namespace(run: Run) -> None:
    from cluster.manifest import manifest

    toy = {
        "apiVersion": "lab.example/v1",
        "kind": "Toy",
        "metadata": {"name": "t", "namespace": SPACE},
        "spec": {"size": 1},
    }
    (change,) = run.plan(toy)
    assert change.kind == "create"
    gevent.spawn_later(2, lambda: run.api.apply(manifest(CRD)[0]))
    assert run.apply(toy, timeout=20) is None, run.said
    assert any("waiting" in line for line in run.said)
    bad = toy | {"spec": {"size": "large"}}
    cause = run.apply(bad, timeout=20)
    assert cause is not None and "size" in cause


def test_a_webhook_that_does_not_answer_is_waited_for_and_named(run: Run) -> None:
    hook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "lab-nobody"},
        "webhooks": [
            {
                "name": "nobody.lab.example",
                "clientConfig": {"service": {"name": "nobody", "namespace": SPACE}},
                "rules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"],
                     "resources": ["configmaps"]}
                ],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": SPACE}},
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 1,
            }
        ],
    }  # fmt: skip
    assert run.apply(hook) is None
    try:
        time.sleep(1)
        cause = run.apply(config_map("w", a="b"), timeout=3)
        assert cause is not None and "nobody.lab.example" in cause
        gevent.spawn_later(3, run.api.delete, kube.Kind(*_webhook_kind()), "lab-nobody")
        assert run.apply(config_map("w", a="b"), timeout=30) is None
    finally:
        run.api.delete(Kind(*_webhook_kind()), "lab-nobody")


def _webhook_kind() -> tuple[str, str]:
    return "admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"


def test_what_is_no_longer_wanted_is_pruned_and_nothing_else(run: Run) -> None:
    assert run.apply(config_map("a", x="1"), config_map("b", x="1")) is None
    kubectl(run.lab, SERVER, f"create cm theirs -n {SPACE}")
    kubectl(run.lab, SERVER, f"label cm theirs -n {SPACE} {COMPONENT}=lab")
    live = Live(run.api)
    keep = [change.ref for change in kube.plan_objects(run.api, live, [config_map("a", x="1")])]
    old = kube.surplus(live, "lab", keep)
    assert [ref.name for ref in old] == ["b"]
    assert set(kube.all_objects(run.api, "lab")) == {*old, *keep}
    assert kube.prune(run.api, old, run.say) is None
    assert run.said[-1] == f"ConfigMap {SPACE}/b is deleted"


def test_a_rollout_is_waited_for_by_watch(run: Run) -> None:
    checks = [
        Rollout("Deployment", "web", SPACE),
        Condition("apps/v1", "Deployment", "web", SPACE, type="Available"),
    ]
    gevent.spawn_later(1, run.apply, web())
    assert kube.await_ready(run.api, checks, 60, run.say) is None, run.said
    assert any("does not exist" in line for line in run.said)
    before = run.api.requests
    assert kube.await_ready(run.api, checks, 60, run.say) is None
    assert run.api.requests <= before + 2  # one LIST, one watch


def test_what_never_becomes_ready_ends_with_its_cause(run: Run) -> None:
    assert run.apply(web(nodeSelector={"no": "such-node"})) is None
    cause = kube.await_ready(run.api, [Rollout("Deployment", "web", SPACE)], 4, run.say)
    assert cause is not None
    assert "not within 4 s" in cause and "no node takes it" in cause, cause


def test_a_missing_service_account_is_the_cause(run: Run) -> None:
    assert run.apply(web(serviceAccountName="nobody")) is None
    cause = kube.await_ready(run.api, [Rollout("Deployment", "web", SPACE)], 5, run.say)
    assert cause is not None and 'serviceaccount "nobody" not found' in cause, cause


def test_a_claim_without_a_class_is_the_cause(run: Run) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": SPACE},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "none-such",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    volume = {"name": "d", "persistentVolumeClaim": {"claimName": "data"}}
    assert run.apply(claim, web(volumes=[volume])) is None
    cause = kube.await_ready(run.api, [Rollout("Deployment", "web", SPACE)], 5, run.say)
    kubectl(run.lab, SERVER, f"delete pvc data -n {SPACE} --wait=false")
    assert cause is not None and "claim data has no volume of none-such" in cause, cause


def test_many_waits_run_side_by_side(run: Run) -> None:
    assert run.apply(web()) is None
    check = [Rollout("Deployment", "web", SPACE)]
    jobs = [gevent.spawn(kube.await_ready, run.api, check, 60, run.say) for _ in range(10)]
    gevent.joinall(jobs)
    assert [job.value for job in jobs] == [None] * 10


# --- helm


def test_a_release_is_installed_once_and_a_converged_one_starts_no_helm(
    run: Run, tiny: Wanted, helms: list[tuple[str, ...]]
) -> None:
    assert run.act(tiny) is None, run.said
    found = run.release(tiny)
    assert (found.status, found.chart, found.version, found.revision) == (
        "deployed", "tiny", "1.0.0", 1,
    )  # fmt: skip
    assert found.labels[COMPONENT] == "tiny"
    assert [argv[0] for argv in helms] == ["pull", "template", "upgrade"]
    assert isinstance(run.api.get(Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
                                  "toys.lab.example"), Present)  # fmt: skip
    helms.clear()
    action = helm.plan(run.api, tiny)
    assert action.kind == "nothing", action
    assert helms == []
    checks = [Rollout("Deployment", "tiny", SPACE)]
    assert kube.await_ready(run.api, checks, 60, run.say) is None


def test_values_and_versions_upgrade_and_say_why(
    run: Run, tiny: Wanted, helms: list[tuple[str, ...]]
) -> None:
    assert run.act(tiny) is None
    changed = replace(tiny, values={"replicas": 2, "greeting": None})
    action = helm.plan(run.api, changed)
    assert action.kind == "upgrade"
    assert action.reasons == ("values.replicas: none → 2", "values.greeting: none → null")
    assert run.act(changed) is None, run.said
    assert run.release(tiny).values == {"replicas": 2, "greeting": None}
    action = helm.plan(run.api, changed)
    assert action.kind == "nothing", action
    newer = replace(changed, chart=tiny.chart._replace(version="1.1.0"), values={})
    assert helm.plan(run.api, newer).reasons[0] == "version 1.0.0 → 1.1.0"
    assert run.act(newer) is None
    assert run.release(tiny).values == {}
    assert (run.release(tiny).revision, run.release(tiny).version) == (3, "1.1.0")


def test_an_edited_object_of_a_chart_is_found_named_and_put_back_by_helm(
    run: Run, tiny: Wanted
) -> None:
    assert run.act(tiny) is None
    kubectl(run.lab, SERVER, f"scale deploy tiny -n {SPACE} --replicas=4")
    kubectl(run.lab, SERVER, f"delete cm tiny -n {SPACE}")
    action = helm.plan(run.api, tiny)
    assert action.kind == "upgrade"
    assert f"ConfigMap {SPACE}/tiny is created" in action.reasons
    assert f"Deployment {SPACE}/tiny: spec.replicas: 4 → 1" in action.reasons
    assert run.act(tiny) is None
    assert helm.plan(run.api, tiny).kind == "nothing"
    live = run.api.get(DEPLOYMENT, "tiny", SPACE)
    assert isinstance(live, Present) and live.value["spec"]["replicas"] == 1


def test_crds_of_a_chart_and_of_its_charts_are_kept(
    run: Run, tiny: Wanted, helms: list[tuple[str, ...]]
) -> None:
    """Those of a chart within are not in Helm's record."""
    tiny = replace(tiny, chart=tiny.chart._replace(version="1.2.0"))
    assert run.act(tiny) is None
    assert helm.plan(run.api, tiny).kind == "nothing"
    time.sleep(1)  # the API tells in whole seconds who wrote last
    run.edit("crd cars.lab.example", {"spec": {"names": {"kind": "Car", "shortNames": ["c"]}}})
    assert helm.plan(run.api, tiny).kind == "nothing"  # a field that we never had
    scope = [{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": OPEN}]
    run.edit("crd cars.lab.example", scope)
    kubectl(run.lab, SERVER, "delete crd toys.lab.example")
    action = helm.plan(run.api, tiny)
    assert action.kind == "crds"
    assert set(action.reasons) == {
        "CustomResourceDefinition cars.lab.example was changed by kubectl-edit",
        "CustomResourceDefinition toys.lab.example is missing",
    }
    helms.clear()
    assert run.act(tiny) is None
    assert [argv[0] for argv in helms] == ["template"]
    assert helm.plan(run.api, tiny).kind == "nothing"


def test_objects_that_are_there_are_adopted(run: Run, tiny: Wanted) -> None:
    assert run.apply(config_map("tiny", greeting="old")) is None
    assert run.act(tiny) is None
    assert f"takes over what exists already: ConfigMap {SPACE}/tiny" in run.said
    assert run.release(tiny).status == "deployed"
    assert helm.plan(run.api, tiny).kind == "nothing"


def test_objects_of_another_release_are_left_to_it(run: Run, tiny: Wanted) -> None:
    marks = {"meta.helm.sh/release-name": "other", "meta.helm.sh/release-namespace": SPACE}
    theirs = config_map("tiny", greeting="theirs")
    theirs["metadata"]["annotations"] = marks
    assert run.apply(theirs) is None
    assert run.act(tiny) == f"ConfigMap {SPACE}/tiny belongs to Helm's release {SPACE}/other"
    assert not isinstance(read_release(run.api, SPACE, "tiny"), Present)


def test_a_first_install_that_failed_stays_and_is_upgraded(
    run: Run, tiny: Wanted, helms: list[tuple[str, ...]]
) -> None:
    slow = replace(tiny, name="slow", chart=tiny.chart._replace(name="slow"), timeout=3)
    assert run.act(slow) is not None
    assert run.release(slow).status == "failed"
    cause = run.act(replace(slow, chart=tiny.chart, values={"fail": True}))
    assert cause is not None and "this chart was told to fail" in cause
    assert run.apply(config_map("slow", greeting="theirs")) is None
    assert run.act(replace(slow, chart=tiny.chart)) is None, run.said
    assert (run.release(slow).status, run.release(slow).revision) == ("deployed", 2)


def test_a_helm_killed_with_sigkill_is_repaired_by_the_next_run(
    run: Run, tiny: Wanted, helms: list[tuple[str, ...]]
) -> None:
    slow = replace(tiny, name="slow", chart=tiny.chart._replace(name="slow"), timeout=60)
    job = gevent.spawn(run.act, slow)
    _wait_for_pending(run, slow)
    run.lab.check(SERVER, "pkill -KILL -x helm")
    job.join(30)
    assert job.value is not None
    assert run.release(slow).status == "pending-install"
    quick = replace(slow, chart=tiny.chart)
    action = helm.plan(run.api, quick)
    assert action.kind == "repair"
    assert run.act(quick) is None, run.said
    assert (run.release(quick).status, run.release(quick).revision) == ("deployed", 2)
    assert any("left pending-install: it is marked failed" in line for line in run.said)


def test_a_helm_of_a_run_that_died_is_waited_for(run: Run, tiny: Wanted) -> None:
    slow = replace(tiny, name="slow", chart=tiny.chart._replace(name="slow"), timeout=8)
    first = Run(run.lab)
    job = gevent.spawn(first.act, slow)
    _wait_for_pending(run, slow)
    job.kill()
    quick = replace(slow, chart=tiny.chart, timeout=60)
    assert run.act(quick) is None, run.said
    assert run.release(quick).status == "deployed"
    assert any("waiting for the helm of an earlier run" in line for line in run.said)


def test_a_run_that_is_broken_off_ends_its_helm(run: Run, tiny: Wanted) -> None:
    slow = replace(tiny, name="slow", chart=tiny.chart._replace(name="slow"), timeout=60)
    job = gevent.spawn(run.act, slow)
    _wait_for_pending(run, slow)
    helm_process.cancel(run.server, f"{SPACE}.slow")
    job.join(20)
    assert job.ready() and job.value is not None
    assert run.lab.run(SERVER, "pgrep -x helm")[0] == 1


def operation(run: Run, wanted: Wanted, **values: Any) -> bool:
    """One run of the operation on the control host; whether it changed something."""
    state, control = run.state, run.state.inventory.get_host("@local")
    state.set_stage(StateStage.Connect)
    connect_all(state)
    state.set_stage(StateStage.Prepare)
    more = {"host": control, "values": values}
    meta = add_op(state, helm.release, wanted.name, SPACE, wanted.chart, **more)[control]
    state.set_stage(StateStage.Execute)
    with ctx_state.use(state):
        run_ops(state)
    assert not state.failed_hosts
    return bool(meta.did_change())


def test_a_release_is_an_operation_and_nothing_to_do_the_second_time(
    run: Run, tiny: Wanted, helms: list[tuple[str, ...]]
) -> None:
    assert operation(run, tiny, replicas=2)
    assert run.release(tiny).values == {"replicas": 2}
    helms.clear()
    assert not operation(Run(run.lab), tiny, replicas=2)
    assert helms == []


def test_facts_are_printed_by_the_command_line(run: Run, tiny: Wanted) -> None:
    assert run.act(tiny) is None

    def fact(*words: str) -> str:
        command = [sys.executable, "-m", "pyinfra", "inventories/lab.py", "--limit", "@local"]
        result = subprocess.run(
            [*command, "fact", *words],
            cwd=ROOT, env=environment(run.lab), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result.stdout + result.stderr

    assert '"tiny/tiny": {' in fact("facts.helm.Releases")
    assert f'"Deployment {SPACE}/tiny": {{' in fact("facts.kube.Workloads")
    assert '"toys.lab.example": {' in fact("facts.kube.Crds")


def test_releases_are_a_fact_and_the_second_look_reads_metadata_only(
    run: Run, tiny: Wanted
) -> None:
    assert run.act(tiny) is None
    first = read_releases(run.api)
    assert isinstance(first, Present) and (SPACE, "tiny") in first.value
    received = run.api.received
    again = read_releases(run.api)
    assert isinstance(again, Present)
    assert again.value[SPACE, "tiny"] is first.value[SPACE, "tiny"]
    assert run.api.received - received < 5000


def _status(run: Run, wanted: Wanted) -> str:
    answer = read_release(run.api, wanted.namespace, wanted.name)
    return answer.value.status if isinstance(answer, Present) else ""


def _wait_for_pending(run: Run, wanted: Wanted) -> None:
    wait_for(lambda: _status(run, wanted) == "pending-install", "helm to begin", 30)


def test_values_never_stand_in_an_argument_list(run: Run, tiny: Wanted) -> None:
    seen: list[str] = []
    script = "for i in $(seq 100); do ps -eo args; sleep 0.05; done | grep helm || true"
    job = gevent.spawn(lambda: seen.append(run.lab.run(SERVER, script)[1]))
    assert run.act(replace(tiny, values={"greeting": "hunter2"})) is None
    job.join()
    assert "helm upgrade" in seen[0] or "upgrade tiny" in seen[0]
    assert "hunter2" not in seen[0]


def test_the_servers_keep_a_record_of_every_helm(run: Run, tiny: Wanted) -> None:
    shown = f"journalctl -t {helm_process.JOURNAL} -o cat --no-pager"
    before = run.lab.check(SERVER, shown).count("/helm upgrade")
    assert run.act(tiny) is None
    text = run.lab.check(SERVER, shown)
    assert text.count("/helm upgrade") == before + 1
    assert "/helm uninstall" not in text and "/helm rollback" not in text


def test_an_unreachable_api_is_an_error_and_no_plan(run: Run) -> None:
    run.lab.check(SERVER, "systemctl stop k3s")
    try:
        with pytest.raises(ApiError):
            run.plan(config_map("a", x="1"))
        assert not isinstance(read_releases(run.api), Present)
    finally:
        run.lab.check(SERVER, "systemctl start k3s")
        wait_for(lambda: isinstance(Run(run.lab).api.state(), Present), "the API", 60)
