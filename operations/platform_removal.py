"""Components that are no longer wanted: found by what they left, and removed when they may be."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence

from pyinfra.api import FunctionCommand, Host, State, operation

from catalogue import CATALOGUE
from cluster import removal, rendering
from cluster.component import COMPONENT, INVENTORY, Component
from cluster.helm_release import Wanted, decide
from cluster.model import Cluster
from cluster.problem import hint
from facts.helm import read_release
from facts.live import Live
from operations import helm_process, kube
from operations.flow import ended
from runtime.api import CONFIG_MAP, Api, Kind, Object, api_of
from runtime.endpoint import ApiError, value_of

VOLUME = Kind("v1", "PersistentVolume")
HELM_LABEL = ("app.kubernetes.io/managed-by", "Helm")


def installed(api: Api) -> frozenset[str]:
    """Names of the components that we installed, as their inventories say. Raises: ApiError."""
    answer = api.list(CONFIG_MAP, rendering.INVENTORY_NAMESPACE, labels=f"{INVENTORY}=true")
    return frozenset(item["metadata"]["labels"][COMPONENT] for item in value_of(answer) or ())


def held(api: Api, components: Sequence[Component]) -> Mapping[str, tuple[str, ...]]:
    """What components hold that is not ours to lose, in words, by name. Raises: ApiError."""
    live = Live(api)
    return {component.name: tuple(_held(api, live, component)) for component in components}


def _held(api: Api, live: Live, component: Component) -> Generator[str, None, None]:
    if component.driver:
        volumes = [
            volume
            for volume in _all(live, VOLUME)
            if (volume["spec"].get("csi") or {}).get("driver") == component.driver
        ]
        if volumes:
            yield _count(volumes, "volume")
    for what in component.holds_data:
        group, _, name = what.partition("/")
        kinds = [
            kind
            for kind in api.listable()
            if kind.api_version.partition("/")[0] == group and name in ("", kind.name)
        ]
        live.load(kinds)
        for kind in kinds:
            own = kind.name in component.data_kinds
            if found := [item for item in _all(live, kind) if own or not _ours(item)]:
                yield _count(found, f"{kind.name} object")


def _count(items: Collection[object], what: str) -> str:
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}"


def _all(live: Live, kind: Kind) -> list[Object]:
    return list((value_of(live.of(kind)) or {}).values())


def _served(live: Live, item: Object) -> bool:
    return value_of(live.of(Kind(item["apiVersion"], item["kind"]))) is not None


def _ours(item: Object) -> bool:
    """Whether we or a chart made the object, so that it comes back as it was."""
    labels = item["metadata"].get("labels") or {}
    key, value = HELM_LABEL
    return COMPONENT in labels or labels.get(key) == value


def refusals(
    api: Api,
    cluster: Cluster,
    wanted: Sequence[Component],
    there: Collection[str],
    gone: Sequence[Component],
    typed: Collection[str],
) -> list[str]:
    """Why the components of this cluster must not be changed as asked, one line each.

    Args:
        there: names of those that are installed.
        gone: those that would be removed.
        typed: names of components to remove with all they hold.

    Raises: ApiError.
    """
    wrong = [
        f"--data remove: {name} is still wanted: take it out of the stack or platform.components"
        for name in typed
        if name in {component.name for component in wanted}
    ]
    wrong += [
        f"--data remove: {name} is no component{hint(name, CATALOGUE)}"
        for name in typed
        if name not in CATALOGUE
    ]
    return [
        *wrong,
        *removal.product_changes(cluster, CATALOGUE, wanted, there),
        *removal.refusals(gone, held(api, gone), typed),
    ]


@operation()
def remove(component: str) -> Generator[FunctionCommand, None, None]:
    """Remove a component: the objects we applied, then its release.

    Volume claims and namespaces stay, and CustomResourceDefinitions unless they are objects of the
    chart like others.

    + component: its name
    """
    yield FunctionCommand(_remove, (component,), {})


def _remove(state: State, host: Host, component: str) -> bool:
    api, known = api_of(state), CATALOGUE[component]
    mark = rendering.inventory_ref(component)
    try:
        objects = [one for one in kube.all_objects(api, component) if one != mark]
        # The program that the release brings may have to let its objects go: it stays until then.
        cause = (
            kube.prune(api, objects, host.log)
            or kube.await_gone(api, objects, known.timeout, host.log)
            or _uninstalled(state, host, known)
        )
        # Last: as long as it is there, the next run knows that something is left to remove.
        cause = cause or kube.prune(api, [mark], host.log)
    except ApiError as error:
        cause = str(error)
    return ended(host, f"{component}: {cause}" if cause else None)


def _uninstalled(state: State, host: Host, component: Component) -> str | None:
    if component.release is None:
        return None
    api, name, namespace = api_of(state), component.release_name, component.namespace
    found = value_of(read_release(api, namespace, name))
    if found:
        live = Live(api)
        # A removal that was broken off may have taken the kinds along already.
        demanded = [one for one in component.removal if _served(live, one)]
        changes = kube.plan_objects(api, live, demanded)
        if cause := kube.apply_changes(api, changes, host.log):
            return cause
    chart, limit = component.release.chart, component.timeout
    wanted = Wanted(name, namespace, chart, {}, component.name, timeout=limit)
    return helm_process.carry_out(state, wanted, decide(None, found), host.log)
