"""The platform: what every component lacks, and the doing of it, side by side."""

from __future__ import annotations

import base64
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from weakref import WeakKeyDictionary

from pyinfra.api import FunctionCommand, Host, State, operation

from cluster import platform_report, pod_secrets, rendering
from cluster.answer import Absent, Present
from cluster.component import Component
from cluster.graph import Graph, Half, Step, critical_path, graph
from cluster.helm_release import Action, HelmRelease, Wanted, decide
from cluster.helm_text import Rendered
from cluster.model import Cluster
from cluster.objects import Object, ref
from cluster.probe import Failed, Pending
from cluster.readiness import Check, Completed, Ref, judge
from cluster.rendering import SecretData
from facts.helm import read_release, read_releases
from facts.live import Live, look_now
from operations import helm, helm_process, kube, restarts
from operations.flow import ended
from operations.kube import Change
from runtime import signals, table, trace
from runtime.api import CONFIG_MAP, CRD, NAMESPACE, Api, Kind, api_of
from runtime.conductor import Conductor
from runtime.endpoint import ApiError, value_of
from runtime.secrets import SecretsUnavailable, secret
from runtime.summary import INDENT

SHOWN = 3  # reasons in the name of an operation

Releases = Mapping[tuple[str, str], HelmRelease]


@dataclass(frozen=True)
class Plan:
    """What a step would do: nothing without reasons.

    reasons: short, for the name of the operation; lines: what differs, one line each.
    """

    step: Step
    reasons: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name of the step's operation."""
        more = len(self.reasons) - SHOWN
        shown = [*self.reasons[:SHOWN], *([f"{more} more"] if more > 0 else [])]
        return f"{self.step}: {', '.join(shown)}"


class Platform:
    """The components of one run: planned while preparing, brought about while executing."""

    def __init__(
        self, run: State, speaker: Host, cluster: Cluster, components: Sequence[Component]
    ) -> None:
        self._run, self._speaker, self.cluster = run, speaker, cluster
        self.components = {component.name: component for component in components}
        self.graph: Graph = graph(components)
        self.plans: dict[Step, Plan] = {}
        self.secrets_missing = ""  # why Secrets could not be compared
        self._renewed: dict[Ref, Object] = {}  # Secrets whose content will change
        self._missing: dict[Ref, Object] = {}  # Secrets that will be made
        self._restarts: dict[Step, dict[Ref, tuple[Ref, ...]]] = {}  # workloads, and why

    @cached_property
    def conductor(self) -> Conductor[Step]:
        """Does the planned steps; made when the first of them is asked for."""
        work = {step: partial(self._do, step) for step, plan in self.plans.items() if plan.reasons}
        return Conductor(self.graph.needs, work)

    @cached_property
    def _wanted(self) -> frozenset[Ref]:
        """Every object that a component of the run has: one may take over another's."""
        found = (rendering.refs(self.cluster, one) for one in self.components.values())
        return frozenset(chain.from_iterable(found))

    # --- plans

    def plan(self) -> None:
        """Compare every component with the cluster; nothing is changed. Raises: ApiError."""
        api = api_of(self._run)
        match api.state():
            case Present():
                releases = value_of(read_releases(api)) or {}
                live = Live(api)
                live.load(self._kinds(releases))
                self.plans = {
                    step: self._planned(api, live, releases, step) for step in self.graph.order
                }
                self._plan_restarts(live, releases)
            case Absent():
                self.plans = {step: self._first(step) for step in self.graph.order}
            case answer:
                self.plans = {
                    step: Plan(step, (f"not known: {answer}",)) for step in self.graph.order
                }

    def _kinds(self, releases: Releases) -> set[Kind]:
        """The kinds that a comparison of all components looks at."""
        found = {CRD, CONFIG_MAP, NAMESPACE}  # the first two tell what charts brought
        for component in self.components.values():
            installed = releases.get((component.namespace, component.release_name))
            checks = (
                *component.release_ready(self.cluster),
                *component.ready(self.cluster),
                *rendering.sources(self.cluster, component),
            )
            refs = chain(
                rendering.refs(self.cluster, component),
                map(ref, installed.objects if installed else ()),
                *(check.refs for check in checks),
            )
            found |= {Kind(one.api_version, one.kind) for one in refs}
        return found

    def _first(self, step: Step) -> Plan:
        """The plan for a cluster that is not there yet."""
        component = self.components[step.component]
        if step.half == "release":
            wanted = rendering.release(self.cluster, component)
            objects = self._first_objects(component, None)
            reasons = [f"install {wanted.chart.name} {wanted.chart.version}"] if wanted else []
        else:
            objects, reasons = rendering.last(self.cluster, component), []
        reasons += [_creating(objects)] if objects else []
        return Plan(step, tuple(reasons))

    def _planned(self, api: Api, live: Live, releases: Releases, step: Step) -> Plan:
        component = self.components[step.component]
        if step.half == "objects":
            changes = kube.plan_objects(api, live, rendering.last(self.cluster, component))
            gone = [f"remove {one}" for one in self._surplus(live, component)]
            return self._plan(step, changes, component.ready(self.cluster), live, gone)
        missing = judge(rendering.sources(self.cluster, component), live.look)
        changes = kube.plan_objects(api, live, self._first_objects(component, live))
        found = releases.get((component.namespace, component.release_name))
        self._renewed |= {one.ref: one.wanted for one in changes if _renews(one)}
        self._missing |= {
            one.ref: one.wanted
            for one in changes
            if one.ref.kind == "Secret" and one.kind == "create"
        }
        wanted = rendering.release(self.cluster, component)
        reasons = [f"copies: {missing.text}"] if isinstance(missing, Pending) else []
        lines: list[str] = []
        if wanted:
            action, lines = _decided(api, live, wanted, found)
            if action.changes:
                reasons += [f"{action.kind} {action.reasons[0]}", *action.reasons[1:]]
        return self._plan(
            step, changes, component.release_ready(self.cluster), live, reasons, lines
        )

    def _plan(
        self,
        step: Step,
        changes: Sequence[Change],
        checks: Sequence[Check],
        live: Live,
        reasons: Sequence[str] = (),
        lines: Sequence[str] = (),
    ) -> Plan:
        found = [*reasons, *_phrases(changes)]
        if not found:
            match judge(checks, live.look):
                case Pending(text) | Failed(text):
                    found.append(f"wait: {text}")
        details = [line for change in changes for line in change.lines]
        return Plan(step, tuple(found), (*lines, *details))

    def _plan_restarts(self, live: Live, releases: Releases) -> None:
        """Add what starts anew because of Secrets, whichever component those belong to."""

        def secret_after(which: Ref) -> Object | None:
            found = live.look(which)
            wanted = self._renewed.get(which)
            if found and wanted:
                return found | {"data": wanted["data"]}
            return found or self._missing.get(which)

        for step, plan in self.plans.items():
            changed = {
                which: names
                for which in self._workloads(step, releases)
                if (found := live.look(which))
                and (names := pod_secrets.outdated(found, secret_after, self._renewed))
            }
            if changed:
                self._restarts[step] = changed
                self.plans[step] = replace(
                    plan,
                    reasons=(*plan.reasons, *(f"restart {which}" for which in changed)),
                    lines=(
                        *plan.lines,
                        *(f"{which} {restarts.reason(why)}" for which, why in changed.items()),
                    ),
                )

    def _workloads(self, step: Step, releases: Releases) -> tuple[Ref, ...]:
        """The workloads of a step, those that an operator makes of its objects among them."""
        component = self.components[step.component]
        if step.half == "release":
            installed = releases.get((component.namespace, component.release_name))
            applied, kinds = installed.objects if installed else (), pod_secrets.ROLLED
            checks = component.release_ready(self.cluster)
        else:
            applied, kinds = tuple(component.objects(self.cluster)), pod_secrets.WORKLOADS
            checks = component.ready(self.cluster)
        refs = chain(map(ref, applied), *(check.refs for check in checks))
        return tuple(
            dict.fromkeys(
                one._replace(namespace=one.namespace or component.namespace)
                for one in refs
                if one.kind in kinds
            )
        )

    def _first_objects(self, component: Component, live: Live | None) -> list[Object]:
        """What goes before the release; without a cluster, copies and old kinds are not known."""
        copied = self._copied(component, live) if live else {}
        known = recorded_kinds(live, component.name) if live else ()
        try:
            return rendering.first(self.cluster, component, _reveal, copied, known)
        except SecretsUnavailable as error:
            self.secrets_missing = str(error)
            objects = rendering.first(self.cluster, component, lambda name: "", copied, known)
            return [item for item in objects if item["kind"] != "Secret"]

    def _surplus(self, live: Live, component: Component) -> list[Ref]:
        """Objects that the component once had and that nobody wants any more."""
        live.load(Kind(*kind.split(" ")) for kind in recorded_kinds(live, component.name))
        return kube.surplus(live, component.name, self._wanted)

    def _copied(self, component: Component, live: Live) -> SecretData:
        found = {}
        for copy in component.copies(self.cluster):
            place, name, key = copy.source
            source = live.look(Ref("v1", "Secret", name, place)) or {}
            if text := (source.get("data") or {}).get(key):
                found[copy.source] = base64.b64decode(text).decode()
        return found

    def report(self) -> Iterator[str]:
        """Lines for the end of a run: components, logins, what is retired."""
        components = list(self.components.values())
        api = api_of(self._run)
        self._note(api)
        releases = value_of(read_releases(api)) or {}
        if not components:
            return
        rows = platform_report.component_rows(self.cluster, components, releases)
        yield ""
        headings = platform_report.COMPONENTS
        yield from table.render(headings, list(rows), INDENT, whole=headings[:1])
        yield ""
        width = table.width() - INDENT
        if logins := list(platform_report.login_lines(self.cluster, components, width)):
            yield from (platform_report.SECRETS, *logins, "")
        yield from platform_report.retired_lines(components)

    def _note(self, api: Api) -> None:
        """For measurements: what the run asked of the API, and how long its steps took."""
        seconds = self.conductor.seconds
        trace.note(
            {
                "platform": {
                    "api_requests": api.requests,
                    "api_bytes": api.received,
                    "wall_s": self.conductor.wall,
                    "critical_s": critical_path(self.graph, seconds),
                    "sum_s": sum(seconds.values()),
                    "steps": {str(step): round(one, 2) for step, one in seconds.items()},
                }
            }
        )

    # --- doing

    def _do(self, step: Step) -> str | None:
        component = self.components[step.component]
        try:
            if step.half == "release":
                return self._do_release(component)
            return self._do_objects(component)
        except ApiError as error:
            return str(error)

    def _do_release(self, component: Component) -> str | None:
        api, say = api_of(self._run), self._say(component)
        live = Live(api)
        cause = self._apply_first(api, live, component)
        if cause:
            return cause
        wanted = rendering.release(self.cluster, component)
        found = _recorded(api, wanted) if wanted else None
        if wanted and (cause := self._do_helm(api, live, component, wanted, found)):
            return cause
        restarts.bring_about(api, self._restarts.get(Step(component.name, "release"), ()), say)
        checks = component.release_ready(self.cluster)
        cause = kube.await_ready(api, checks, component.timeout, say, self._stop)
        if cause and wanted and found and not self._stop():
            return self._back(api, wanted, found, cause)
        return cause

    def _apply_first(self, api: Api, live: Live, component: Component) -> str | None:
        """What comes before the release; copies last: their sources may be made by the rest."""
        cause = self._apply(api, live, self._first_objects(component, live), component)
        sources = rendering.sources(self.cluster, component)
        if cause or not sources:
            return cause
        say = self._say(component)
        if cause := kube.await_ready(api, sources, component.timeout, say, self._stop):
            return cause
        found = Live(api)
        return self._apply(api, found, self._first_objects(component, found), component)

    def _back(self, api: Api, wanted: Wanted, before: HelmRelease, cause: str) -> str:
        """Back to what was deployed, for what may go back and has got another revision."""
        if wanted.on_failure != "rollback" or before.status != "deployed":
            return cause
        now = _recorded(api, wanted)
        if now is None or now.revision == before.revision:
            return cause
        try:
            server = helm_process.pick_server(self._run)
            helm_process.rollback(server, wanted, before.revision)
        except helm_process.HelmError as error:
            return f"{cause}; {error}"
        return f"{cause}; rolled back to revision {before.revision}"

    def _do_helm(
        self,
        api: Api,
        live: Live,
        component: Component,
        wanted: Wanted,
        found: HelmRelease | None,
    ) -> str | None:
        action, _ = _decided(api, live, wanted, found)

        def before(rendered: Rendered) -> str | None:
            return self._apply(api, Live(api), rendered.crds, component)

        say = self._say(component)
        return helm_process.carry_out(
            self._run,
            wanted,
            action,
            say,
            repository=str(self.cluster.platform.charts or "") or None,
            given=self.cluster.platform.values.get(component.name),
            before=before,
        )

    def _do_objects(self, component: Component) -> str | None:
        api, say = api_of(self._run), self._say(component)
        restarts.bring_about(api, self._restarts.get(Step(component.name, "objects"), ()), say)
        if cause := kube.prune(api, self._failed_jobs(api, component), say):
            return cause
        live = Live(api)
        gone = self._surplus(live, component)
        first = [which for which in gone if which.kind in component.exclusive]
        cause = kube.prune(api, first, say)
        cause = cause or self._apply(api, live, rendering.last(self.cluster, component), component)
        if cause:
            return cause
        checks = component.ready(self.cluster)
        cause = kube.await_ready(api, checks, component.timeout, say, self._stop)
        return cause or kube.prune(api, [which for which in gone if which not in first], say)

    def _failed_jobs(self, api: Api, component: Component) -> Iterator[Ref]:
        """Jobs of the component that have failed: they are not tried again but by new ones."""
        for check in component.ready(self.cluster):
            if isinstance(check, Completed) and isinstance(
                check.judge(partial(look_now, api)), Failed
            ):
                yield from check.refs

    def _apply(
        self, api: Api, live: Live, objects: Sequence[Object], component: Component
    ) -> str | None:
        changes = kube.plan_objects(api, live, objects)
        renewed = {change.ref for change in changes if _renews(change)}
        restarts.remember(api, self._users(renewed), renewed)
        return kube.apply_changes(
            api, changes, self._say(component), timeout=component.timeout, stop=self._stop
        )

    def _users(self, secrets: Collection[Ref]) -> list[Ref]:
        """The workloads of the run that will start anew because of some Secrets."""
        return [
            which
            for found in self._restarts.values()
            for which, why in found.items()
            if any(one in secrets for one in why)
        ]

    def _stop(self) -> bool:
        return signals.stopping() or self.conductor.stopping

    def _say(self, component: Component) -> kube.Say:
        return lambda text: self._speaker.log(f"{component.name}: {text}")


def recorded_kinds(live: Live, component: str) -> tuple[str, ...]:
    """Kinds of objects that a component has, or once had, as its inventory says."""
    found = live.look(rendering.inventory_ref(component)) or {}
    return tuple(str((found.get("data") or {}).get("kinds") or "").splitlines())


_platforms: WeakKeyDictionary[State, Platform] = WeakKeyDictionary()


def planned(run: State, speaker: Host, cluster: Cluster, names: Sequence[Component]) -> Platform:
    """Plan the components of a run; the operation `step` brings the plans about.

    Args:
        speaker: the host that lends its name to the lines.

    Raises: GraphError; ApiError when the API answers and then does not.
    """
    platform = Platform(run, speaker, cluster, names)
    platform.plan()
    _platforms[run] = platform
    return platform


@operation()
def step(component: str, half: Half) -> Generator[FunctionCommand, None, None]:
    """Bring one planned step of a component about; all that can run beside it runs beside it.

    + component: its name
    + half: "release" or "objects"
    """
    yield FunctionCommand(_bring_about, (component, half), {})


def _bring_about(state: State, host: Host, component: str, half: Half) -> bool:
    failure = _platforms[state].conductor.wait(Step(component, half))
    if failure is None:
        return True
    failed, cause = failure
    return ended(host, f"{failed}: {cause}")


def _reveal(name: str) -> str:
    return secret(name).unmask()


def _recorded(api: Api, wanted: Wanted) -> HelmRelease | None:
    return value_of(read_release(api, wanted.namespace, wanted.name))


def _decided(
    api: Api, live: Live, wanted: Wanted, found: HelmRelease | None
) -> tuple[Action, list[str]]:
    """What is to be done with a release, and each thing that differs from it, one line each."""
    changes, crds = helm.drift(api, live, found)
    action = decide(wanted, found, drift=tuple(map(_phrase, changes)), crds=crds)
    return action, [*crds, *(line for change in changes for line in change.lines)]


def _creating(objects: Sequence[object]) -> str:
    return f"create {len(objects)} object{'' if len(objects) == 1 else 's'}"


def _phrases(changes: Sequence[Change]) -> Iterator[str]:
    """What happens to objects, in few words."""
    new = [change for change in changes if change.kind == "create"]
    if len(new) == 1:
        yield f"create {new[0].ref}"
    elif new:
        yield _creating(new)
    yield from (_phrase(change) for change in changes if change.kind == "change")


def _renews(change: Change) -> bool:
    """Whether a Secret gets another content."""
    found = change.ref.kind == "Secret" and change.kind == "change"
    return found and any(one.path[0] == "data" for one in change.differences)


def _phrase(change: Change) -> str:
    if change.kind == "create":
        return f"{change.ref} is missing"
    if change.others:
        return f"{change.ref} was changed by {', '.join(change.others)}"
    return f"change {change.ref}"
