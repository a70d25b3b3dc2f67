"""Components that are no longer wanted: found by what they left, and removed when they may be."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from pyinfra.api import FunctionCommand, Host, State, operation

from catalogue import CATALOGUE
from cluster import removal, rendering
from cluster.answer import Absent, Present
from cluster.component import COMPONENT, INVENTORY, Component
from cluster.model import Cluster
from facts.helm import read_releases
from facts.live import Live
from operations import helm_process, kube
from operations.k3s_process import refuse
from runtime.api import CONFIG_MAP, Api, Kind, Object, api_of
from runtime.endpoint import ApiError

VOLUME = Kind("v1", "PersistentVolume")
HELM_LABEL = ("app.kubernetes.io/managed-by", "Helm")


def installed(api: Api) -> frozenset[str]:
    """Names of the components that we installed, as their inventories say. Raises: ApiError."""
    match api.list(CONFIG_MAP, rendering.INVENTORY_NAMESPACE, labels=f"{INVENTORY}=true"):
        case Present(value=found):
            return frozenset(item["metadata"]["labels"][COMPONENT] for item in found)
        case Absent():
            return frozenset()
        case answer:
            raise ApiError(answer)


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
            yield f"{len(volumes)} volumes"
    for group in component.holds_data:
        kinds = [kind for kind in api.listable() if kind.api_version.partition("/")[0] == group]
        live.load(kinds)
        for kind in kinds:
            if found := [item for item in _all(live, kind) if not _ours(item)]:
                yield f"{len(found)} {kind.name} objects"


def _all(live: Live, kind: Kind) -> list[Object]:
    match live.of(kind):
        case Present(value=objects):
            return list(objects.values())
        case Absent():
            return []
        case answer:
            raise ApiError(answer)


def _ours(item: Object) -> bool:
    """Whether we or a chart made the object, so that it comes back as it was."""
    labels = item["metadata"].get("labels") or {}
    key, value = HELM_LABEL
    return COMPONENT in labels or labels.get(key) == value


def refusals(run: State, cluster: Cluster, wanted: Sequence[Component], typed: str) -> list[str]:
    """Why the components of this cluster must not be changed as asked, one line each.

    Args:
        typed: names, by comma, of components to remove with all they hold.
    """
    api = api_of(run)
    there = installed(api)
    names = [name for name in typed.split(",") if name]
    gone = removal.unwanted(CATALOGUE, wanted, there)
    wrong = [
        f"--data remove: {name} is still wanted: take it out of the stack or platform.components"
        for name in names
        if name in {component.name for component in wanted}
    ]
    return [
        *wrong,
        *removal.product_changes(cluster, CATALOGUE, wanted, there),
        *removal.refusals(gone, held(api, gone), names),
    ]


@operation()
def remove(component: str) -> Generator[FunctionCommand, None, None]:
    """Remove a component: the objects we applied, then its release.

    CustomResourceDefinitions, volume claims and namespaces stay.

    + component: its name
    """
    yield FunctionCommand(_remove, (component,), {})


def _remove(state: State, host: Host, component: str) -> bool:
    api, known = api_of(state), CATALOGUE[component]
    try:
        cause = kube.prune(api, kube.all_objects(api, component), host.log)
        if cause:
            return refuse(state, host, f"{component}: {cause}")
        key = (known.namespace, known.release_name)
        match read_releases(api):
            case Present(value=releases) if key in releases:
                helm_process.uninstall(helm_process.pick_server(state), *key)
    except (ApiError, helm_process.HelmError) as error:
        return refuse(state, host, f"{component}: {error}")
    return True
