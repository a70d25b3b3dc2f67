"""A chart where nothing is known about the real one: what the component itself waits for and uses.

Its workloads are those of the component's own checks, its CRDs take any field of the kinds that
components send. Values are not checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import yaml

from catalogue import CATALOGUE
from cluster.component import Component, Object
from cluster.readiness import Established, Rollout, Webhook
from cluster.versions import CHARTS, Chart
from tests.contracts.clusters import CLUSTERS
from tests.contracts.objects import BUILT_IN, CLUSTER_WIDE
from tests.lab.charts import tables
from tests.lab.charts.surrogate import TEMPLATES, chart_yaml

# Which chart brings an API group that other components' objects use too.
GROUPS = {
    "monitoring.coreos.com": "prometheus-operator-crds",
    "cert-manager.io": "cert-manager",
    "acme.cert-manager.io": "cert-manager",
    "gateway.networking.k8s.io": "envoy-gateway",
    "gateway.envoyproxy.io": "envoy-gateway",
    "traefik.io": "traefik",
    "metallb.io": "metallb",
    "snapshot.storage.k8s.io": "snapshot-controller",
    "longhorn.io": "longhorn",
    "velero.io": "velero",
    "postgresql.cnpg.io": "cloudnative-pg",
    "barmancloud.cnpg.io": "barman-plugin",
    "elasticsearch.k8s.elastic.co": "eck-operator",
    "kibana.k8s.elastic.co": "eck-operator",
    "kiali.io": "kiali",
    "policy.linkerd.io": "linkerd-crds",
    "linkerd.io": "linkerd-crds",
    "networking.istio.io": "istio-base",
    "security.istio.io": "istio-base",
    "telemetry.istio.io": "istio-base",
}
_HEAD = '{{- $digest := toJson .Values | sha256sum }}\n{{- $name := "" }}\n'


def files(name: str, chart: Chart) -> dict[str, str]:
    """The files of the chart of one component, by their path in the chart."""
    component = CATALOGUE.get(name)
    texts = "".join(dict.fromkeys(_objects(component))) if component else ""
    found = {
        "Chart.yaml": yaml.safe_dump(chart_yaml(chart, chart.version), sort_keys=False),
        "values.yaml": "{}\n",
        "templates/_surrogate.tpl": (TEMPLATES / "_surrogate.tpl").read_text(),
        "templates/objects.yaml": _HEAD + texts,
    }
    for crd in _crds(name, component):
        found[f"templates/crd-{crd['metadata']['name']}.yaml"] = yaml.safe_dump(crd)
    return found


def _objects(component: Component) -> Iterator[str]:
    for cluster in CLUSTERS.values():
        if not component.wanted(cluster):
            continue
        checks = component.release_ready(cluster)
        workloads = [check.name for check in checks if isinstance(check, Rollout)]
        for check in checks:
            if isinstance(check, Rollout):
                yield _workload(check)
            elif isinstance(check, Webhook):
                yield _service(check, workloads)
                yield _webhook(check)


def _workload(check: Rollout) -> str:
    name = json.dumps(check.name)
    return (
        f'{{{{- include "surrogate.workload" (dict "root" $ "kind" "{check.kind}" "name" {name} '
        f'"namespace" "{check.namespace}" "component" {name} "base" dict "replicas" 1 "claim" dict '
        f'"containers" (list {name}) "image" {name} "digest" $digest) }}}}\n'
    )


def _service(check: Webhook, workloads: Sequence[str]) -> str:
    """The Service of a webhook, for the pods of the workload it is called like."""
    like = max((name for name in workloads if check.service.startswith(name)), key=len, default="")
    component = tables.PODS_OF.get(check.service, like)
    return (
        f'{{{{- include "surrogate.service" (dict "root" $ "name" "{check.service}" '
        f'"namespace" "{check.namespace}" "component" "{component}" "values" dict '
        '"type" "ClusterIP" "ports" (list "https:443")) }}\n'
    )


def _webhook(check: Webhook) -> str:
    """Its configuration; what it covers is not known, so nothing real is."""
    hook = (
        f'(dict "name" "surrogate.{check.service}.example" "policy" "Fail" "path" "/" '
        '"groups" (list "surrogate.example") "resources" (list "*") "operations" (list "*"))'
    )
    return (
        f'{{{{- include "surrogate.webhooks" (dict "root" $ "kind" "{check.kind}" '
        f'"name" "{check.name}" "service" "{check.service}" '
        f'"serviceNamespace" "{check.namespace}" "hooks" (list {hook})) }}}}\n'
    )


def _crds(name: str, component: Component | None) -> Iterator[Object]:
    """CRDs of all kinds that any component sends and that this chart brings."""
    runtime = set()
    for cluster in CLUSTERS.values():
        for check in component.release_ready(cluster) if component else ():
            if isinstance(check, Established):
                runtime |= set(check.names)
    made = set()
    for obj in _sent():
        group, _, version = str(obj["apiVersion"]).rpartition("/")
        crd = _crd(group, version, obj)
        title = crd["metadata"]["name"]
        if GROUPS.get(group) == name and title not in made | runtime:
            made.add(title)
            yield crd


def _sent() -> Iterator[Object]:
    for cluster in CLUSTERS.values():
        for component in CATALOGUE.values():
            if component.wanted(cluster):
                yield from component.before(cluster)
                yield from component.objects(cluster)


def _crd(group: str, version: str, obj: Mapping[str, object]) -> Object:
    kind = str(obj["kind"])
    plural = kind.lower() + "s"
    if plural.endswith(("ys", "sss", "shs", "xs", "ss")):
        plural = plural[:-2] + "ies" if plural.endswith("ys") else plural[:-1] + "es"
    metadata = obj["metadata"]
    assert isinstance(metadata, Mapping)
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced" if metadata.get("namespace") else "Cluster",
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                }
            ],
        },
    }


def missing_groups() -> set[str]:
    """API groups of sent objects that no chart is known to bring."""
    own = {group.rpartition("/")[0] for group in (*BUILT_IN, *CLUSTER_WIDE)}
    by_operator = {"cilium.io"}  # its operator registers them
    used = {str(obj["apiVersion"]).rpartition("/")[0] for obj in _sent()}
    assert set(GROUPS.values()) <= set(CHARTS)
    return used - own - set(GROUPS) - by_operator
