"""The monitors, rules and dashboards of kube-prometheus-stack, from what its contract lists.

Names, job labels, selectors, endpoints and switches are the real ones, and `jobNameOverride`
rewrites rules as it does there. Simulated: expressions of rules (`up` of the job they look at)
and the content of dashboards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.contracts.contract import Contract
from tests.contracts.documents import read

NAME = "kube-prometheus-stack"
# Switches of monitors that the contract does not list.
_SWITCHES = {
    f"{NAME}-grafana": ("grafana.enabled", "grafana.serviceMonitor.enabled"),
    f"{NAME}-kube-state-metrics": (
        "kubeStateMetrics.enabled",
        "kube-state-metrics.prometheus.monitor.enabled",
    ),
    f"{NAME}-prometheus-node-exporter": (
        "nodeExporter.enabled",
        "prometheus-node-exporter.prometheus.monitor.enabled",
    ),
    f"{NAME}-alertmanager": ("alertmanager.enabled", "alertmanager.serviceMonitor.selfMonitor"),
    f"{NAME}-operator": (
        "prometheusOperator.enabled",
        "prometheusOperator.serviceMonitor.selfMonitor",
    ),
    f"{NAME}-prometheus": ("prometheus.enabled", "prometheus.serviceMonitor.selfMonitor"),
}
# Keys of the relabelings of the kubelet's endpoints, and what switches each endpoint on.
_KUBELET = {
    "/metrics": ("relabelings", "metricRelabelings", ""),
    "/metrics/cadvisor": (
        "cAdvisorRelabelings",
        "cAdvisorMetricRelabelings",
        "kubelet.serviceMonitor.cAdvisor",
    ),
    "/metrics/probes": (
        "probesRelabelings",
        "probesMetricRelabelings",
        "kubelet.serviceMonitor.probes",
    ),
}
_JOBS = {
    "apiserver": "kubeApiServer",
    "kube-controller-manager": "kubeControllerManager",
    "kube-proxy": "kubeProxy",
    "kube-scheduler": "kubeScheduler",
    "kubelet": "kubelet",
}
_RESOURCES = {
    "prometheus": ("Prometheus", "prometheuses", "storageSpec"),
    "alertmanager": ("Alertmanager", "alertmanagers", "storage"),
}
# Fields that values and resource call the same and shape differently.
_SHAPED = ("image", "storage", "alerting", "additionalScrapeConfigs", "replicas", "thanos")
_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_CA = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"

Path = Callable[[str], str]  # dotted path of a value -> expression
Named = Callable[[str], str]  # name in the contract -> expression


def scraped_services(contract: Contract) -> list[str]:
    """Services that are made with their monitors, not with the workloads."""
    monitors = contract.data.get("service_monitors") or ()
    return [one["scrape_service"]["name"] for one in monitors if "scrape_service" in one]


def text(contract: Contract, at: Path, named: Named) -> str:
    """All of it as a template."""
    return "".join(
        (
            *_resources(contract, at, named),
            *(_monitor(one, at, named) for one in contract.data["service_monitors"]),
            *(
                _service(one, at, named)
                for one in contract.data["service_monitors"]
                if "scrape_service" in one
            ),
            *(_rule(one, at, named) for one in contract.data["prometheus_rules"]),
            *(_dashboard(name, at, named) for name in contract.data["dashboard_configmaps"]),
        )
    )


def _when(paths: Sequence[str], at: Path, body: str) -> str:
    conditions = " ".join(at(path) for path in paths)
    return f"{{{{- if and {conditions} true }}}}\n{body}{{{{- end }}}}\n"


def _head(api: str, kind: str, name: str, labels: str = "dict", namespace: str = "") -> str:
    place = json.dumps(namespace) if namespace else "$.Release.Namespace"
    return (
        f"---\napiVersion: {api}\nkind: {kind}\n"
        f'{{{{ include "surrogate.metadata" (dict "root" $ "name" {name} "namespace" {place} '
        f'"labels" {labels}) }}}}\n'
    )


def _monitor(one: Mapping[str, Any], at: Path, named: Named) -> str:
    key = one.get("values_key")
    switches = one.get("off_switches") or _SWITCHES[one["name"]]
    spec: list[str] = ["spec:"]
    if not one["job_label"].startswith("("):
        label = at(f"{key}.serviceMonitor.jobLabel") if key else '""'
        spec.append(f"  jobLabel: {{{{ {label} | default {json.dumps(one['job_label'])} }}}}")
    spec.append("  selector:\n    matchLabels:")
    spec += [f"      {label}: {_own(value, named)}" for label, value in one["selector"].items()]
    if one.get("namespaces"):
        spec.append("  namespaceSelector:\n    matchNames:")
        spec += [
            f"      - {'{{ $.Release.Namespace }}' if place.startswith('(') else place}"
            for place in one["namespaces"]
        ]
    spec.append("  endpoints:")
    for endpoint in one["endpoints"]:
        spec += _endpoint(endpoint, key, at)
    labels = '(dict "release" $.Release.Name)'
    name = named(one["name"])
    body = (
        _head("monitoring.coreos.com/v1", "ServiceMonitor", name, labels) + "\n".join(spec) + "\n"
    )
    return _when(switches, at, body)


def _own(value: str, named: Named) -> str:
    """A label's value, where it follows the release."""
    if value == NAME:
        return "{{ $.Release.Name }}"
    if value.startswith(f"{NAME}-"):
        return f"{{{{ {named(value)} }}}}"
    return json.dumps(value)


def _endpoint(endpoint: Mapping[str, Any], key: str | None, at: Path) -> Iterator[str]:
    relabel, metric, switch = _KUBELET.get(
        endpoint["path"], ("relabelings", "metricRelabelings", "")
    )
    if switch and key == "kubelet":
        yield f"    {{{{- if {at(switch)} }}}}"
    yield f"    - port: {endpoint['port']}"
    yield f"      path: {endpoint['path']}"
    yield f"      scheme: {endpoint['scheme']}"
    for field in ("interval", "honorLabels"):
        if field in endpoint:
            yield f"      {field}: {json.dumps(endpoint[field])}"
    if endpoint.get("bearer_token"):
        yield f"      bearerTokenFile: {_TOKEN}"
    if "insecureSkipVerify" in endpoint:
        skip = json.dumps(endpoint["insecureSkipVerify"])
        yield f"      tlsConfig:\n        caFile: {_CA}\n        insecureSkipVerify: {skip}"
        if key == "kubeApiServer":
            yield f"        serverName: {{{{ {at(f'{key}.tlsConfig.serverName')} }}}}"
    if key:
        for field, path in (("relabelings", relabel), ("metricRelabelings", metric)):
            value = at(f"{key}.serviceMonitor.{path}")
            yield f"      {{{{- with {value} }}}}\n      {field}:"
            yield "        {{- toYaml . | nindent 8 }}\n      {{- end }}"
    if switch and key == "kubelet":
        yield "    {{- end }}"


def _service(one: Mapping[str, Any], at: Path, named: Named) -> str:
    """The Service without an address that a monitor of the control plane looks at."""
    service, key = one["scrape_service"], one["values_key"]
    job = service["name"].removeprefix(f"{NAME}-")
    app = f'"app" {named(service["name"])} "jobLabel" {json.dumps(job)} "release" $.Release.Name'
    addresses = at(f"{key}.endpoints") if service.get("endpoints_override") else '""'
    selector = "\n".join(f"    {k}: {v}" for k, v in service["selector"].items())
    port = f"{{{{ {at(f'{key}.service.port')} | default {service['port']} }}}}"
    target = f"{{{{ {at(f'{key}.service.targetPort')} | default {service['port']} }}}}"
    name = named(service["name"])
    body = _head("v1", "Service", name, f"(dict {app})", service["namespace"]) + (
        f"spec:\n  clusterIP: None\n  ports:\n    - name: http-metrics\n      port: {port}\n"
        f"      targetPort: {target}\n"
        f"  {{{{- if not {addresses} }}}}\n  selector:\n{selector}\n  {{{{- end }}}}\n"
        f"{{{{- with {addresses} }}}}\n"
        + _head("v1", "Endpoints", name, f"(dict {app})", service["namespace"])
        + "subsets:\n  - addresses:\n      {{- range . }}\n      - ip: {{ . }}\n      {{- end }}\n"
        f"    ports:\n      - name: http-metrics\n        port: {port}\n{{{{- end }}}}\n"
    )
    return _when((f"{key}.enabled", f"{key}.service.enabled"), at, body)


def _rule(one: Mapping[str, Any], at: Path, named: Named) -> str:
    lines = ["spec:", "  groups:"]
    for group in one["groups"]:
        lines += [f"    - name: {group['group']}"]
        if group.get("interval"):
            lines += [f"      interval: {group['interval']}"]
        lines += ["      rules:"]
        series = [f"up{{{_selector(one, at)}}}" for one in group.get("job_selectors") or [""]]
        for alert in group.get("alerts") or ():
            lines += [f"        - alert: {alert}", f"          expr: {_any(series)} == 0"]
            lines += ["          for: 15m", "          labels:", "            severity: warning"]
        for record in group.get("records") or ():
            lines += [
                f"        - record: {json.dumps(record)}",
                f"          expr: count({_any(series)})",
            ]
    labels = f'(dict "app" {json.dumps(NAME)} "release" $.Release.Name)'
    name = named(one["resource"])
    body = (
        _head("monitoring.coreos.com/v1", "PrometheusRule", name, labels) + "\n".join(lines) + "\n"
    )
    return _when(["defaultRules.create", *one["enabled_by"]], at, body)


def _any(series: Sequence[str]) -> str:
    return series[0] if len(series) == 1 else f"({' or '.join(series)})"


def _selector(selector: str, at: Path) -> str:
    job = selector.removeprefix('job="').removesuffix('"')
    if job not in _JOBS:
        return selector
    return f'job="{{{{ {at(f"{_JOBS[job]}.jobNameOverride")} | default {json.dumps(job)} }}}}"'


def _dashboard(known_as: str, at: Path, named: Named) -> str:
    short = known_as.removeprefix(f"{NAME}-")
    content = json.dumps({"title": short, "uid": short, "panels": [], "surrogate": True})
    labels = (
        f'(dict ({at("grafana.sidecar.dashboards.label")} | default "grafana_dashboard") '
        f'({at("grafana.sidecar.dashboards.labelValue")} | default "1" | toString))'
    )
    body = _head("v1", "ConfigMap", named(known_as), labels)
    body += f"data:\n  {short}.json: {json.dumps(content)}\n"
    return _when(("grafana.enabled", "grafana.defaultDashboardsEnabled"), at, body)


# ---- Prometheus and Alertmanager


def _resources(contract: Contract, at: Path, named: Named) -> Iterator[str]:
    for key, (kind, plural, storage) in _RESOURCES.items():
        path = f"{key}.{key}Spec"
        lines = [
            "spec:",
            f"  replicas: {{{{ {at(f'{path}.replicas')} | default 1 }}}}",
            "  {{- with " + at(f"{path}.{storage}") + " }}",
            "  storage:\n    {{- toYaml . | nindent 4 }}\n  {{- end }}",
        ]
        for field in _fields(contract, plural, path):
            lines += _field(field, f"{path}.{field}", at)
        if kind == "Prometheus":
            lines += _alerting(at, named)
        body = _head("monitoring.coreos.com/v1", kind, named(f"{NAME}-{key}"))
        yield _when((f"{key}.enabled",), at, body + "\n".join(lines) + "\n")
    config = at("alertmanager.config")
    body = _head("v1", "Secret", named(f"alertmanager-{NAME}-alertmanager"))
    yield _when(
        ("alertmanager.enabled",),
        at,
        f"{body}data:\n  alertmanager.yaml: {{{{ toYaml {config} | b64enc }}}}\n",
    )


def _fields(contract: Contract, plural: str, path: str) -> list[str]:
    """Fields of the resource that values of the same name fill."""
    crd = read(contract.crd_texts[f"{plural}.monitoring.coreos.com"])
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    values: Any = contract.defaults
    for part in path.split("."):
        values = values[part]
    return sorted({*schema["properties"]} & {*values} - {*_SHAPED})


def _field(field: str, path: str, at: Path) -> Iterator[str]:
    given = at(path)
    if field.endswith("Selector") and field != "nodeSelector":
        nil = at(f"{path}NilUsesHelmValues")
        yield f"  {{{{- if {given} }}}}\n  {field}:\n    {{{{- toYaml {given} | nindent 4 }}}}"
        yield f'  {{{{- else if eq (toString {nil}) "true" }}}}\n  {field}:'
        yield "    matchLabels:\n      release: {{ $.Release.Name }}"
        yield f"  {{{{- else }}}}\n  {field}: {{}}\n  {{{{- end }}}}"
        return
    yield f"  {{{{- with {given} }}}}\n  {field}:"
    yield "    {{- toYaml . | nindent 4 }}\n  {{- end }}"


def _alerting(at: Path, named: Named) -> Iterator[str]:
    yield f"  {{{{- if {at('alertmanager.enabled')} }}}}\n  alerting:\n    alertmanagers:"
    yield f"      - name: {{{{ {named(f'{NAME}-alertmanager')} }}}}\n        port: http-web"
    yield "        namespace: {{ $.Release.Namespace }}\n        apiVersion: v2\n  {{- end }}"
