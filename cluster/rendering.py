"""What a component sends to the cluster, with the user's values and our labels."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping

from catalogue.namespaces import SYSTEM, namespace
from cluster.chart_values import merged
from cluster.component import COMPONENT, INVENTORY, Component, Copy, SecretObject
from cluster.helm_release import Wanted
from cluster.model import Cluster
from cluster.objects import Object, ref, with_labels
from cluster.readiness import Check, Exists, Ref

INVENTORY_NAMESPACE = "kube-system"

Reveal = Callable[[str], str]  # the secret of a name in the secrets file
SecretData = Mapping[tuple[str, str, str], str]  # text by namespace, name and key


def release(cluster: Cluster, component: Component) -> Wanted | None:
    """The component's Helm release as it should be, None when it has none."""
    if component.release is None:
        return None
    values = component.release.values(cluster)
    return Wanted(
        name=component.release_name,
        namespace=component.namespace,
        chart=component.release.chart,
        values=merged(values, cluster.platform.values.get(component.name, {})),
        component=component.name,
        on_failure=component.on_failure,
        timeout=component.timeout,
    )


def first(
    cluster: Cluster,
    component: Component,
    reveal: Reveal,
    copied: SecretData,
    known: Iterable[str] = (),
) -> list[Object]:
    """What is applied before the release: the namespace, Secrets, further objects, copies.

    Args:
        known: kinds that the component's inventory says already.
        copied: what is known of the sources of copies; a copy without its source is left out.
    """
    secrets = [_secret(item, reveal) for item in component.secrets(cluster)]
    copies = _copies(component.copies(cluster), copied)
    own = _labelled(component, [*secrets, *component.before(cluster), *copies])
    return [
        *namespaces(cluster, component, own),
        inventory(cluster, component, known),
        *own,
    ]


def inventory(cluster: Cluster, component: Component, known: Iterable[str] = ()) -> Object:
    """The object that says which kinds of objects a component has, or once had.

    With the label of the component it finds what is no longer wanted.

    Args:
        known: kinds it says already.
    """
    kinds = {f"{ref.api_version} {ref.kind}" for ref in refs(cluster, component)} | set(known)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": inventory_ref(component.name).name,
            "namespace": INVENTORY_NAMESPACE,
            "labels": {COMPONENT: component.name, INVENTORY: "true"},
        },
        "data": {"kinds": "\n".join(sorted(kinds))},
    }


def inventory_ref(component: str) -> Ref:
    """The ConfigMap that holds a component's inventory."""
    return Ref("v1", "ConfigMap", f"picluster-{component}", INVENTORY_NAMESPACE)


def refs(cluster: Cluster, component: Component) -> tuple[Ref, ...]:
    """Every object of ours that the component has, without the namespaces."""
    found = [
        *(Ref("v1", "Secret", one.name, one.namespace) for one in component.secrets(cluster)),
        *(
            Ref("v1", "ConfigMap", one.target[1], one.target[0])
            for one in component.copies(cluster)
        ),
        *map(ref, component.before(cluster)),
        *map(ref, component.objects(cluster)),
        inventory_ref(component.name),
    ]
    return tuple(dict.fromkeys(found))


def last(cluster: Cluster, component: Component) -> list[Object]:
    """What is applied after the release."""
    own = _labelled(component, component.objects(cluster))
    return [*namespaces(cluster, component, own), *own] if own else []


def namespaces(
    cluster: Cluster, component: Component, objects: Iterable[Object]
) -> Iterator[Object]:
    """The namespaces that the component and its objects are in.

    They carry no component's label: several may share one.
    """
    names = {component.namespace: None}
    for item in objects:
        names.setdefault(item["metadata"].get("namespace") or component.namespace)
    yield from (namespace(cluster, name) for name in names if name not in SYSTEM)


def sources(cluster: Cluster, component: Component) -> tuple[Check, ...]:
    """The Secrets that copies are made of."""
    found = dict.fromkeys(copy.source[:2] for copy in component.copies(cluster))
    return tuple(Exists("v1", "Secret", name, place) for place, name in found)


def _labelled(component: Component, objects: Iterable[Object]) -> list[Object]:
    return [with_labels(item, {COMPONENT: component.name}) for item in objects]


def _secret(item: SecretObject, reveal: Reveal) -> Object:
    texts = {**item.plain, **{key: reveal(name) for key, name in item.data.items()}}
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    metadata = {"name": item.name, "namespace": item.namespace, "labels": dict(item.labels)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": item.type,
        "data": data,
    }


def _copies(copies: Iterable[Copy], copied: SecretData) -> Iterator[Object]:
    targets: dict[tuple[str, str], dict[str, str]] = {}
    for copy in copies:
        if copy.source in copied:
            place, name, key = copy.target
            targets.setdefault((place, name), {})[key] = copied[copy.source]
    for (place, name), data in targets.items():
        yield {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": place},
            "data": data,
        }
