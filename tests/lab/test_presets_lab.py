"""The stacks of earlier releases on bare hosts: planned, installed, left alone; a test goes on.

Simulated are containers and what the platform's operators do (the tables of the stand-in's
README.md); the charts are surrogates with the real ones' names, values and CRDs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest

from cluster.component import COMPONENT, INVENTORY
from tests.lab.lab import Lab
from tests.lab.living import Object, condition, helms, kubectl, labelled, nodes, wait_for
from tests.lab.runs import Run, other_record, plan, run

pytestmark = [pytest.mark.lab(servers=3, agents=0), pytest.mark.usefixtures("simulated")]

SITE, PLATFORM = "deploys/site.py", "deploys/platform.py"
CHARTS = {  # of both stacks
    "cert-manager",
    "cert-manager-webhook-ionos",
    "eck-operator",
    "elasticsearch-exporter",
    "fluent-bit",
    "fluentd",
    "grafana",
    "kube-prometheus-stack",
    "linkerd",
    "linkerd-crds",
    "linkerd-viz",
    "longhorn",
    "metallb",
    "prometheus-operator-crds",
    "snapshot-controller",
    "velero",
}
OBJECTS_ONLY = {"elasticsearch"}
REPLACED = {"eck-operator", "elasticsearch", "elasticsearch-exporter", "fluentd"}  # by Loki
# Of each kind, how the status says that all is well.
WORKLOADS = {
    "Deployment": ("replicas", "availableReplicas"),
    "StatefulSet": ("replicas", "readyReplicas"),
    "DaemonSet": ("desiredNumberScheduled", "numberAvailable"),
}
# Old names of what is listed under a new one, and what is no object.
UNLISTED = r"componentstatuses|endpoints|events|nodes\.metrics|pods\.metrics"
SOME_KINDS = {
    "Certificate",
    "ClusterIssuer",
    "Elasticsearch",
    "IPAddressPool",
    "Ingress",
    "Kibana",
    "L2Advertisement",
    "PodMonitor",
    "PrometheusRule",
    "Secret",
}
GOOD = ("Ready", "Available", "Accepted", "Complete", "ReconciliationComplete")


@dataclass(frozen=True)
class Preset:
    """A stack and the hosts it is built on.

    ingress: namespace and name of the ingress' Service.
    """

    name: str
    agents: tuple[str, ...]
    servers: tuple[str, ...]
    charts: set[str]
    ingress: tuple[str, str]
    retired: tuple[str, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        return self.servers + self.agents


PRESETS = (
    Preset(
        "v1_5",
        ("node2",),
        ("node1",),
        CHARTS | {"traefik"},
        ("traefik", "traefik"),
        retired=("linkerd",),
    ),
    Preset(
        "v1_8",
        (),
        ("node1", "node2", "node3"),
        CHARTS | {"ingress-nginx", "keycloak-bitnami", "oauth2-proxy"},
        ("nginx", "ingress-nginx-controller"),
        retired=("ingress-nginx", "keycloak-bitnami", "linkerd"),
    ),
)


@dataclass(frozen=True)
class Built:
    """A stack on its hosts: what was planned on bare ones, and what the run did."""

    lab: Lab
    preset: Preset
    data: dict[str, Any]
    env: dict[str, str]
    planned: Run
    done: Run

    def kubectl(self, arguments: str) -> str:
        return kubectl(self.lab, "node1", arguments)

    def items(self, arguments: str) -> list[Object]:
        found: list[Object] = json.loads(self.kubectl(f"get {arguments} -o json"))["items"]
        return found

    def plan(self, deploy: str = SITE) -> Run:
        return plan(self.lab, deploy, data=self.data, **self.env)

    def run(self, deploy: str = SITE) -> Run:
        return run(self.lab, deploy, data=self.data, **self.env)

    def releases(self) -> dict[str, tuple[str, int]]:
        """Status and revision of the newest record by component."""
        found: dict[str, tuple[str, int]] = {}
        for one in self.items("secrets -A -l owner=helm"):
            labels = one["metadata"]["labels"]
            status, revision = labels["status"], int(labels["version"])
            if revision > found.get(labels[COMPONENT], ("", 0))[1]:
                found[labels[COMPONENT]] = status, revision
        return found

    def helms(self) -> list[str]:
        return helms(self.lab, *self.preset.servers)


def asked(lab: Lab) -> str:
    """An address of the pool that is not its first: that one would be taken unasked."""
    return lab.names.gateway.rpartition(".")[0] + ".240"


def first(lab: Lab) -> str:
    """The address of the pool that any Service would take."""
    return lab.names.gateway.rpartition(".")[0] + ".225"


@pytest.fixture(scope="module", params=PRESETS, ids=lambda preset: preset.name)
def built(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Built]:
    """One stack after the other, each from bare hosts."""
    preset: Preset = request.param
    lab.clear_faults()
    lab.recreate(*preset.hosts)

    def edit(hosts: list[dict[str, Any]]) -> None:
        hosts[:] = [
            host | {"role": "server" if host["name"] in preset.servers else "agent"}
            for host in hosts
            if host["name"] in preset.hosts
        ]

    with ExitStack() as stack:
        env = stack.enter_context(other_record(lab, edit)) | {"LAB_PRESET": preset.name}
        charts = json.loads(lab.names.state_file.read_text())["charts"]
        addresses = {"ingress_address": asked(lab), "logs": {"address": first(lab)}}
        data = {"platform": {"charts": charts, **addresses}}
        planned = plan(lab, SITE, data=data, **env)
        assert planned.code == 0, planned.text
        done = run(lab, SITE, data=data, **env)
        assert done.code == 0, done.text
        yield Built(lab, preset, data, env, planned, done)


def steps(done: Run) -> list[str]:
    """What the run did of the platform, or would do."""
    return [name.removeprefix("Platform | ") for name in done.changed if "Platform | " in name]


def test_on_bare_hosts_the_plan_has_every_component(built: Built) -> None:
    named = {step.partition(":")[0].removesuffix(" objects") for step in steps(built.planned)}
    assert named == built.preset.charts | OBJECTS_ONLY
    for chart in built.preset.charts:
        assert any(step.startswith(f"{chart}: install ") for step in steps(built.planned)), chart


def test_what_was_planned_is_what_was_done(built: Built) -> None:
    assert steps(built.planned) == steps(built.done)
    # The rest has waits, and what is waited for may be there by then.
    assert set(built.done.changed) <= set(built.planned.changed)


def test_all_nodes_are_there(built: Built) -> None:
    found = nodes(built.lab)
    assert sorted(found) == sorted(built.preset.hosts)
    assert all(condition(node, "Ready") == "True" for node in found.values())


def test_all_releases_are_deployed_at_once(built: Built) -> None:
    assert built.releases() == dict.fromkeys(built.preset.charts, ("deployed", 1))


def test_all_objects_of_ours_are_accepted_and_ready(built: Built) -> None:
    inventories = built.items(f"configmaps -n kube-system -l {INVENTORY}=true")
    there = {one["metadata"]["labels"][COMPONENT] for one in inventories}
    assert there == built.preset.charts | OBJECTS_ONLY
    items = labelled(built.lab, COMPONENT, UNLISTED)
    assert {one["kind"] for one in items} >= SOME_KINDS
    assert [_called(one) for one in items if not _well(one)] == []


def _well(item: Object) -> bool:
    status = item.get("status") or {}
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or ()}
    return status.get("health", "green") == "green" and all(
        conditions.get(kind, "True") == "True" for kind in GOOD
    )


def _called(item: Object) -> str:
    metadata = item["metadata"]
    return f"{item['kind']} {metadata.get('namespace', '')}/{metadata['name']}"


def test_every_workload_is_ready_and_every_claim_is_bound(built: Built) -> None:
    items = built.items("deployments,statefulsets,daemonsets,persistentvolumeclaims -A")
    assert {one["kind"] for one in items} == {*WORKLOADS, "PersistentVolumeClaim"}
    assert [_called(one) for one in items if not _runs(one)] == []


def _runs(item: Object) -> bool:
    status = item["status"]
    if item["kind"] == "PersistentVolumeClaim":
        return bool(status["phase"] == "Bound")
    wanted, there = WORKLOADS[item["kind"]]
    return bool(status.get(wanted, 0) == status.get(there, 0))


def test_the_ingress_has_the_address_that_was_asked_for(built: Built) -> None:
    namespace, name = built.preset.ingress
    service = json.loads(built.kubectl(f"get service -n {namespace} {name} -o json"))
    assert service["spec"]["type"] == "LoadBalancer"
    assert service["status"]["loadBalancer"]["ingress"] == [
        {"ip": asked(built.lab), "ipMode": "VIP"}
    ]


def test_logs_have_the_address_that_was_asked_for_and_nobody_else_is_given_it(
    built: Built,
) -> None:
    assert _forward_address(built) == first(built.lab)
    built.kubectl("create service loadbalancer any --tcp=80")
    address = "get service any -o jsonpath={.status.loadBalancer.ingress[0].ip}"
    wait_for(lambda: built.kubectl(address) != "", "a Service of somebody's to have an address")
    assert built.kubectl(address) not in (first(built.lab), asked(built.lab))
    pools = {one["metadata"]["name"]: one["spec"] for one in built.items("ipaddresspools -A")}
    assert pools.keys() == {"lan", f"ingress-{asked(built.lab)}", f"logs-{first(built.lab)}"}
    assert [name for name, pool in pools.items() if pool["autoAssign"]] == ["lan"]
    built.kubectl("delete service any")


def test_charts_that_ask_the_cluster_for_the_kind_have_their_monitors(built: Built) -> None:
    found = {one["metadata"]["name"] for one in built.items("servicemonitors -n fluent")}
    assert found == {"fluent-bit", "fluentd"}


def test_what_upstream_has_given_up_is_said_once(built: Built) -> None:
    assert built.done.text.count(" is retired: ") == len(built.preset.retired)
    for name in built.preset.retired:
        assert built.done.text.count(f"{name} is retired: ") == 1


def test_a_second_run_plans_nothing_changes_nothing_and_starts_no_helm(built: Built) -> None:
    before = built.helms()
    assert sum("/helm upgrade " in line for line in before) == len(built.preset.charts)
    assert not any(" uninstall " in line or " rollback " in line for line in before)
    planned = built.plan()
    assert (planned.code, planned.changed) == (0, {}), planned.text
    again = built.run()
    assert (again.code, again.changed) == (0, {}), again.text
    assert built.helms() == before


@pytest.mark.removes("eck-operator", "prometheus-elasticsearch-exporter", "fluentd")
def test_loki_takes_the_logs_in_place_of_elasticsearch(built: Built) -> None:
    if built.preset.name != "v1_5":
        pytest.skip("once is enough")
    stack = {"preset": built.preset.name, "logs": "loki"}
    light = replace(built, data=built.data | {"stack": stack})
    before, address = built.releases(), _forward_address(built)
    refused = light.run(PLATFORM)
    assert refused.code == 1
    assert (
        "elasticsearch is not wanted any more and holds 1 Elasticsearch object: it stays; "
        "--data remove=elasticsearch removes it with all it holds"
    ) in refused.text
    assert built.releases() == before

    typed = replace(light, data=light.data | {"remove": "elasticsearch"})
    planned, done = typed.plan(PLATFORM), typed.run(PLATFORM)
    assert done.code == 0, done.text
    assert steps(planned) == steps(done)
    # The new one first, then the old one, those that need others before these.
    names = list(
        dict.fromkeys(step.partition(":")[0].removesuffix(" objects") for step in steps(done))
    )
    assert set(names[: -len(REPLACED)]) == {"loki", "fluent-bit", "grafana"}
    assert set(names[-len(REPLACED) :]) == REPLACED
    assert names.index("elasticsearch-exporter") < names.index("elasticsearch")
    assert names.index("fluentd") < names.index("elasticsearch") < names.index("eck-operator")

    left = {name: one for name, one in before.items() if name not in REPLACED}
    changed = {name: ("deployed", before[name][1] + 1) for name in ("fluent-bit", "grafana")}
    assert light.releases() == left | changed | {"loki": ("deployed", 1)}
    items = light.items("statefulsets,persistentvolumeclaims -n loki")
    assert items and [_called(one) for one in items if not _runs(one)] == []
    labels = {
        one["metadata"]["labels"][COMPONENT] for one in labelled(light.lab, COMPONENT, UNLISTED)
    }
    assert "loki" in labels and labels & REPLACED == set()
    # The logs of before are in a claim that nobody takes away; hosts outside need to know nothing.
    wait_for(lambda: light.items("pods -n elastic") == [], "the pods of Elasticsearch to be gone")
    claims = {_called(one) for one in light.items("persistentvolumeclaims -n elastic")}
    assert claims == {"PersistentVolumeClaim elastic/elasticsearch-data-efk-es-default-0"}
    assert _forward_address(light) == address

    helms = light.helms()
    again = light.run(PLATFORM)
    assert (again.code, again.changed) == (0, {}), again.text
    assert light.helms() == helms


def _forward_address(built: Built) -> str:
    """Where hosts outside the cluster send their logs."""
    return built.kubectl(
        "get service -n fluent fluentd-ext -o jsonpath={.status.loadBalancer.ingress[0].ip}"
    )
