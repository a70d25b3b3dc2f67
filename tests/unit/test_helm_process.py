"""operations/helm_process.py: what helm is told, where it runs, and what is repaired.

Simulated: the API and the servers' shells (helm itself is tested in the lab).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest

from cluster.answer import Present
from cluster.component import COMPONENT
from cluster.helm_release import Action, Wanted
from cluster.readiness import Ref
from cluster.versions import Chart
from facts.helm import read_release
from facts.live import Live
from operations import chart_crds, helm_process
from operations.helm_process import HelmError, ServerLost
from runtime import trace
from tests.lab import removals
from tests.unit.fake_api import FakeApi
from tests.unit.helm_records import record
from tests.unit.kube_world import World

CHART = Chart("longhorn", "https://charts.longhorn.io", "1.12.1")
WANTED = Wanted("longhorn", "longhorn-system", CHART, {"password": "hunter2", "n": 1}, "longhorn")
INSTALL = Action("install", ("longhorn 1.12.1",))
CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: toys.lab.example}
spec: {group: lab.example, names: {kind: Toy, plural: toys}}
"""
TEMPLATE = f"""---
# Source: longhorn/charts/inner/crds/toys.yaml
{CRD}
---
# Source: longhorn/templates/all.yaml
apiVersion: v1
kind: ConfigMap
metadata: {{name: a}}
"""


class Shells:
    """The servers' shells: which helms ran where, with what on standard input."""

    def __init__(self) -> None:
        self.helms: list[tuple[str, list[str]]] = []
        self.stdin: list[str] = []
        self.answers: dict[str, Callable[[str], tuple[int, str, str]]] = {}
        self.charts: set[str] = set()
        self.held: dict[str, int] = {}  # server → looks at a lock until it is free
        self.lost: set[str] = set()
        self.at_once = self.most = 0

    def __call__(
        self, server: Any, script: str, arguments: Iterable[str], stdin: str, timeout: float
    ) -> tuple[list[str], list[str]]:
        if server.name in self.lost:
            raise ServerLost(f"{server.name} was lost")
        if script == helm_process._SCRIPT:
            return self._helm(server.name, list(arguments), stdin)
        if "flock" in script:
            if self.held.get(server.name, 0) > 0:
                self.held[server.name] -= 1
                return [], []
            return ["free"], []
        if "moved" in script:
            return ["moved"], []
        path = script.split('"')[1]
        found = path in self.charts
        self.charts.add(path)
        return (["there"] if found else []), []

    def _helm(self, server: str, arguments: list[str], stdin: str) -> tuple[list[str], list[str]]:
        argv = arguments[3:]
        self.helms.append((server, argv))
        self.stdin.append(stdin)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        gevent.sleep(0.01)
        self.at_once -= 1
        default = (0, TEMPLATE if argv[0] == "template" else "", "")
        code, out, error = self.answers.get(argv[0], lambda server: default)(server)
        return out.splitlines(), [*error.splitlines(), f"#helm-ended:{code}"]

    def verbs(self) -> list[str]:
        return [argv[0] for _, argv in self.helms]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.api.LONGEST_PAUSE", 0.01)


@pytest.fixture
def shells(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shells]:
    shells = Shells()
    monkeypatch.setattr(helm_process, "_shell", shells)
    yield shells
    assert "uninstall" not in shells.verbs()


class Run:
    def __init__(self, *servers: FakeApi) -> None:
        for server in servers:
            server.fail("GET /version", 200, body={"gitVersion": "v1.36.3+k3s1"}, times=99)
        self.world = World(*servers)
        self.said: list[str] = []
        self.crds: list[str] = []

    def carry_out(self, wanted: Wanted = WANTED, action: Action = INSTALL) -> str | None:
        def before(rendered: helm_process.Rendered) -> str | None:
            self.crds += [crd["metadata"]["name"] for crd in rendered.crds]
            return None

        return helm_process.carry_out(
            self.world.state, wanted, action, self.said.append, before=before
        )


def test_an_installation_pulls_renders_and_upgrades(shells: Shells) -> None:
    run = Run(FakeApi())
    assert run.carry_out() is None
    assert shells.verbs() == ["pull", "template", "upgrade"]
    _, argv = shells.helms[2]
    text = " ".join(argv)
    for part in (
        "upgrade longhorn /var/lib/picluster/charts/", "--install --namespace longhorn-system",
        "--values - --reset-values --skip-crds --server-side=true --force-conflicts",
        "--history-max 3", "--labels picluster.io/component=longhorn",
    ):  # fmt: skip
        assert part in text
    assert not {"--wait", "--rollback-on-failure", "--take-ownership"} & set(argv)
    assert run.crds == ["toys.lab.example"]


def test_values_go_through_standard_input_only(shells: Shells) -> None:
    run = Run(FakeApi())
    assert run.carry_out() is None
    assert json.loads(shells.stdin[2]) == {"password": "hunter2", "n": 1}
    assert "hunter2" not in str(shells.helms) + str(run.said)


def test_a_chart_that_is_there_is_not_pulled_again(shells: Shells) -> None:
    run = Run(FakeApi())
    assert run.carry_out() is None
    assert run.carry_out() is None
    assert shells.verbs().count("pull") == 1


@pytest.mark.parametrize(
    ("chart", "repository", "expected"),
    [
        (CHART, None, "pull longhorn --repo https://charts.longhorn.io --version 1.12.1"),
        (CHART, "http://mirror/charts", "pull longhorn --repo http://mirror/charts --version"),
        (CHART, "oci://mirror/charts/", "pull oci://mirror/charts/longhorn --version 1.12.1"),
        (
            Chart("cert-manager", "oci://quay.io/jetstack/charts/cert-manager", "v1.21.1"),
            None,
            "pull oci://quay.io/jetstack/charts/cert-manager --version v1.21.1",
        ),
        (
            Chart("cert-manager", "oci://quay.io/jetstack/charts/cert-manager", "v1.21.1"),
            "http://mirror",
            "pull cert-manager --repo http://mirror --version v1.21.1",
        ),
    ],
)
def test_a_chart_comes_from_its_repository_or_from_the_one_that_has_all(
    shells: Shells, chart: Chart, repository: str | None, expected: str
) -> None:
    world = World()
    server = world.state.inventory.get_host("@fake/server1")
    helm_process.pull_chart(server, chart, repository)
    assert " ".join(shells.helms[0][1]).startswith(expected)


def test_a_failed_helm_is_one_line(shells: Shells) -> None:
    error = 'level=WARN msg="x"\nError: execution error at (a.yaml:1:3):\n  no way\n'
    shells.answers["upgrade"] = lambda server: (1, "", error)
    assert Run(FakeApi()).carry_out() == (
        "helm upgrade of longhorn: execution error at (a.yaml:1:3): no way"
    )


def test_a_hook_that_is_not_done_in_time_has_a_cause(shells: Shells) -> None:
    late = "Error: failed post-install: timed out waiting for the condition"
    shells.answers["upgrade"] = lambda server: (1, "", late)
    server = FakeApi()
    server.groups["batch/v1"] = [{"kind": "Job", "name": "jobs", "namespaced": True}]
    hook = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: certs}\n"
    server.store("secrets", record("longhorn", 1, status="failed", hooks=[hook]))
    selector = {"matchLabels": {"job": "certs"}}
    server.put("jobs", "certs", "longhorn-system", spec={"selector": selector}, status={})
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    container = {"name": "certgen", "image": "certgen:1", "state": {"waiting": waiting}}
    server.put(
        "pods", "certs-1", "longhorn-system",
        labels=selector["matchLabels"], spec={}, status={"containerStatuses": [container]},
    )  # fmt: skip
    assert Run(server).carry_out() == (
        "helm upgrade of longhorn: failed post-install: timed out waiting for the condition; "
        "pod certs-1: image certgen:1 of certgen: ImagePullBackOff: no such image"
    )


def test_a_helm_that_hangs_is_said(shells: Shells) -> None:
    shells.answers["upgrade"] = lambda server: (124, "", "")
    cause = Run(FakeApi()).carry_out()
    assert cause == "helm upgrade of longhorn: helm did not end in time"


def test_crds_that_are_refused_stop_before_anything_changes(shells: Shells) -> None:
    run = Run(FakeApi())
    cause = helm_process.carry_out(
        run.world.state, WANTED, INSTALL, run.said.append, before=lambda rendered: "no"
    )
    assert cause == "no" and "upgrade" not in shells.verbs()


def test_crds_alone_need_no_upgrade(shells: Shells) -> None:
    run = Run(FakeApi())
    assert run.carry_out(action=Action("crds", ("x is missing",))) is None
    assert shells.verbs() == ["pull", "template"]


def test_a_server_that_is_lost_is_left_for_the_next(shells: Shells) -> None:
    objects: dict[Any, Any] = {}
    run = Run(FakeApi(objects), FakeApi(objects))

    def lose(server: str) -> tuple[int, str, str]:
        shells.lost.add(server)
        raise ServerLost(f"{server} was lost while helm ran")

    shells.answers["upgrade"] = lambda server: lose(server) if not shells.lost else (0, "", "")
    assert run.carry_out() is None
    assert len({server for server, argv in shells.helms if argv[0] == "upgrade"}) == 2
    assert any("trying another server" in line for line in run.said)


def test_when_all_servers_are_lost_it_ends(shells: Shells) -> None:
    shells.lost.add("@fake/server1")
    cause = Run(FakeApi()).carry_out()
    assert cause == "no server can run helm: all were lost"


def test_a_server_whose_api_is_not_ready_gets_no_helm(shells: Shells) -> None:
    objects: dict[Any, Any] = {}
    sick, sound = FakeApi(objects), FakeApi(objects)
    sick.unready = ["etcd"]
    assert Run(sick, sound).carry_out() is None
    assert {server for server, _ in shells.helms} == {"@fake/server2"}


def test_servers_that_elect_a_leader_are_waited_for(
    shells: Shells, monkeypatch: pytest.MonkeyPatch
) -> None:
    electing = FakeApi()
    electing.unready = ["etcd"]
    run = Run(electing)

    def elected(seconds: float) -> None:
        electing.unready = []

    monkeypatch.setattr("runtime.wait.time.sleep", elected)
    assert run.carry_out() is None
    assert any("etcd" in line and "left" in line for line in run.said)


def test_servers_that_are_never_ready_end_it(
    shells: Shells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helm_process, "READY_WAIT", 0.0)
    sick = FakeApi()
    sick.unready = ["etcd"]
    cause = Run(sick).carry_out()
    assert cause is not None and cause.startswith("no server can run helm: not within 0 s: ")


def test_helms_are_spread_and_a_server_runs_few_at_once(shells: Shells) -> None:
    objects: dict[Any, Any] = {}
    run = Run(FakeApi(objects), FakeApi(objects))
    jobs = [gevent.spawn(run.carry_out, replace(WANTED, name=f"r{n}")) for n in range(12)]
    gevent.joinall(jobs)
    assert [job.value for job in jobs] == [None] * 12
    assert {server for server, _ in shells.helms} == {"@fake/server1", "@fake/server2"}
    assert shells.most <= 2 * helm_process.AT_ONCE


# --- repairs


def pending(server: FakeApi, **more: Any) -> None:
    labels = more.pop("labels", {COMPONENT: "longhorn"})
    server.store("secrets", record("longhorn", 1, status="pending-install", labels=labels, **more))


def test_what_was_left_pending_is_marked_failed_and_upgraded(shells: Shells) -> None:
    server = FakeApi()
    pending(server)
    run = Run(server)
    assert run.carry_out(action=Action("repair", ("was broken off",))) is None
    answer = read_release(run.world.api, "longhorn-system", "longhorn")
    assert isinstance(answer, Present)
    assert answer.value.status == "failed"
    assert answer.value.description == "was broken off as pending-install"
    assert shells.verbs()[-1] == "upgrade"


def test_a_helm_of_a_dead_run_is_waited_for(
    shells: Shells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.helm_process.time.sleep", lambda seconds: gevent.sleep(0.01))
    server = FakeApi()
    pending(server)
    shells.held["@fake/server1"] = 3
    run = Run(server)
    assert run.carry_out() is None
    assert "waiting for the helm of an earlier run on @fake/server1" in run.said
    shells.held["@fake/server1"] = 10**6
    monkeypatch.setattr(helm_process, "STALE_WAIT", 0.1)
    server.objects.clear()
    pending(server)
    assert run.carry_out() == "a helm still works on longhorn on @fake/server1"


def test_somebody_else_at_work_is_left_alone(
    shells: Shells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.helm_process.time.time", lambda: 1000.0)
    server = FakeApi()
    pending(server, labels={}, modified=990)
    cause = Run(server).carry_out()
    assert cause is not None and "was not begun by us" in cause
    assert "upgrade" not in shells.verbs()
    pending(server, labels={}, modified=10)
    assert Run(server).carry_out() is None


def test_only_what_says_so_is_rolled_back_and_never_a_first_install(shells: Shells) -> None:
    shells.answers["upgrade"] = lambda server: (1, "", "Error: no")
    server = FakeApi()
    stateless = replace(WANTED, on_failure="rollback")
    assert Run(server).carry_out(stateless) == "helm upgrade of longhorn: no"
    server.store("secrets", record("longhorn", 4))
    assert Run(server).carry_out(WANTED) == "helm upgrade of longhorn: no"
    assert "rollback" not in shells.verbs()
    assert Run(server).carry_out(stateless) == (
        "helm upgrade of longhorn: no; rolled back to revision 4"
    )
    assert shells.helms[-1][1][:3] == ["rollback", "longhorn", "4"]
    host = World().state.inventory.get_host("@fake/server1")
    with pytest.raises(HelmError, match="never rolled back"):
        helm_process.rollback(host, WANTED, 3)


def test_what_is_there_without_a_release_is_taken_over_and_never_rolled_back(
    shells: Shells,
) -> None:
    server = FakeApi()
    server.put("configmaps", "a", "longhorn-system")
    run = Run(server)
    assert run.carry_out() is None
    (argv,) = [argv for _, argv in shells.helms if argv[0] == "upgrade"]
    assert "--take-ownership" in argv
    assert any("picluster.io/adopted=true" in word for word in argv)
    assert "takes over what exists already: ConfigMap longhorn-system/a" in run.said


def test_what_belongs_to_another_release_is_not_taken(shells: Shells) -> None:
    server = FakeApi()
    notes = {
        "meta.helm.sh/release-name": "other",
        "meta.helm.sh/release-namespace": "longhorn-system",
    }
    server.put("configmaps", "a", "longhorn-system", annotations=notes)
    assert Run(server).carry_out() == (
        "ConfigMap longhorn-system/a belongs to Helm's release longhorn-system/other"
    )
    assert "upgrade" not in shells.verbs()


def test_every_helm_that_is_started_is_told_to_observers(shells: Shells) -> None:
    seen: list[tuple[str, tuple[str, ...]]] = []

    def note(server: str, argv: tuple[str, ...]) -> None:
        seen.append((server, argv))

    helm_process.observers.append(note)
    try:
        assert Run(FakeApi()).carry_out() is None
    finally:
        helm_process.observers.remove(note)
    assert [argv[0] for _, argv in seen] == shells.verbs()


def test_every_helm_that_is_started_is_in_the_trace(
    shells: Shells, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(trace.VARIABLE, str(tmp_path / "trace"))
    assert Run(FakeApi()).carry_out() is None
    assert [argv[0] for argv in removals.helms(tmp_path / "trace")] == shells.verbs()


# --- CRDs of charts


def test_crds_are_remembered_and_an_edit_or_a_loss_is_told(shells: Shells) -> None:
    server = FakeApi()
    server.groups["apiextensions.k8s.io/v1"] = []
    run = Run(server)
    run_helm = replace(WANTED, values={})

    def before(rendered: helm_process.Rendered) -> str | None:
        from operations import kube

        changes = kube.plan_objects(run.world.api, Live(run.world.api), rendered.crds)
        return kube.apply_changes(run.world.api, changes, run.said.append)

    assert (
        helm_process.carry_out(run.world.state, run_helm, INSTALL, run.said.append, before=before)
        is None
    )
    server.store("secrets", record("longhorn", 1))
    answer = read_release(run.world.api, "longhorn-system", "longhorn")
    assert isinstance(answer, Present)

    def drift() -> list[str]:
        return chart_crds.drift(Live(run.world.api), answer.value)

    assert drift() == []
    names = {"kind": "Toy", "plural": "playthings"}
    server.edit("customresourcedefinitions", "toys.lab.example", {"spec": {"names": names}})
    which = Ref("apiextensions.k8s.io/v1", "CustomResourceDefinition", "toys.lab.example")
    assert drift() == [f"{which} was changed by kubectl-edit"]
    server.remove("customresourcedefinitions", "toys.lab.example")
    assert drift() == [f"{which} is missing"]
    name = chart_crds.name_of("longhorn")
    server.remove("configmaps", name, "longhorn-system")
    assert drift() == []
    inner = replace(answer.value, dependencies=("inner",))
    assert chart_crds.drift(Live(run.world.api), inner) == [
        "the CRDs of the chart were not compared yet"
    ]
