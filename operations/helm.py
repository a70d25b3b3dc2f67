"""Helm: single releases, for deploys of one's own."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Literal

from pyinfra import host, state
from pyinfra.api import FunctionCommand, Host, State, operation

from cluster import versions
from cluster.helm_release import Action, HelmRelease, Wanted, decide
from facts.helm import read_release
from facts.live import Live
from operations import chart_crds, helm_process, kube
from operations.flow import ended
from operations.helm_process import Rendered
from operations.kube import Change
from runtime.api import Api, api, api_of
from runtime.endpoint import ApiError, value_of

HELM = "helm"  # field manager of what helm applies


@operation()
def release(
    name: str,
    namespace: str,
    chart: versions.Chart,
    values: Mapping[str, Any] | None = None,
    component: str | None = None,
    on_failure: Literal["keep", "rollback"] = "keep",
    timeout: int = 300,
    repository: str | None = None,
) -> Generator[FunctionCommand, None, None]:
    """Keep a Helm release at a chart's version with these values; what was edited is put back.

    Whether helm has to run is told by its record of the release and by the live objects. The
    chart's CRDs are kept up to date, which helm does not do. Nothing waits for pods: see
    `kube.ready`.

    + name: of the release
    + namespace: an existing one
    + chart: name, repository and version
    + values: of the chart, in place of its defaults; no secrets
    + component: value of the label `picluster.io/component`, the release's name when not given
    + on_failure: keep a failed upgrade, or roll it back; only what is stateless may be rolled back
    + timeout: seconds the chart's hooks may take
    + repository: a repository that has the chart, in place of its own
    """
    wanted = Wanted(name, namespace, chart, values or {}, component or name, on_failure, timeout)
    try:
        action = plan(api(), wanted)
    except ApiError as error:
        host.noop(f"release {name} cannot be compared yet: {error}")
        action = Action("install", (f"{chart.name} {chart.version}",))
    if not action.changes:
        host.noop(f"release {name} is as wanted")
        return
    if state.config.DIFF:
        for line in action.reasons:
            host.log(line)
    yield FunctionCommand(bring_about, (wanted, repository), {})


def plan(api: Api, wanted: Wanted) -> Action:
    """What has to be done with a release. Raises: ApiError."""
    found = value_of(read_release(api, wanted.namespace, wanted.name))
    changes, crds = drift(api, Live(api), found)
    lines = [line for change in changes for line in change.lines]
    return decide(wanted, found, drift=lines, crds=crds)


def drift(api: Api, live: Live, found: HelmRelease | None) -> tuple[list[Change], list[str]]:
    """What is not as helm and we left it: live objects of the release, and CRDs of its chart.

    Objects are compared for a release that is deployed; one that is not there has neither.
    """
    if found is None:
        return [], []
    return _changed(api, live, found), chart_crds.drift(live, found)


def _changed(api: Api, live: Live, found: HelmRelease) -> list[Change]:
    if found.status != "deployed":
        return []
    changes = kube.plan_objects(api, live, found.objects, namespace=found.namespace, manager=HELM)
    return [change for change in changes if change.kind != "same"]


def bring_about(state: State, host: Host, wanted: Wanted, repository: str | None) -> bool:
    """Decide once more and do it; False with the cause in the log when it failed."""
    api = api_of(state)
    try:
        action = plan(api, wanted)
    except ApiError as error:
        return ended(host, str(error))

    def before(rendered: Rendered) -> str | None:
        try:
            changes = kube.plan_objects(api, Live(api), rendered.crds)
        except ApiError as error:
            return str(error)
        return kube.apply_changes(api, changes, host.log)

    return ended(
        host,
        helm_process.carry_out(
            state, wanted, action, host.log, repository=repository, before=before
        ),
    )
