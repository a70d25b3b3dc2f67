"""One surrogate chart: the real one's name, values, schema, CRDs and the names of what it renders.

What is simulated: the workloads. They carry names, replicas, placement, pod security and mounted
Secrets of the real ones and containers that do nothing; all that Helm, the API server and our own
code look at is there. An unknown value is refused, and any changed value changes the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from cluster.versions import Chart
from tests.contracts import parts
from tests.contracts.contract import WRAPPER, Contract
from tests.contracts.free_form import FREE
from tests.lab.charts import prometheus, tables
from tests.lab.charts.tables import Crds, Pods

TEMPLATES = Path(__file__).parent / "templates"
WORKLOADS = ("Deployment", "DaemonSet", "StatefulSet", "Job", "CronJob")
MARK = "picluster.io/surrogate"
_REPLICAS = ("replicas", "replicaCount")
# Rules of roles matter to nobody here: no program of a surrogate ever asks for anything.
_RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
_RBAC = "rbac.authorization.k8s.io"


def files(contract: Contract, chart: Chart) -> dict[str, str]:
    """The files of the surrogate of one pinned chart, by their path in the chart."""
    found = {
        "Chart.yaml": _dump(_chart(contract, chart)),
        "values.yaml": (contract.folder / "values.yaml").read_text(),
        "templates/_surrogate.tpl": (TEMPLATES / "_surrogate.tpl").read_text(),
        "templates/objects.yaml": _Objects(contract).text(),
    }
    if contract.schema is not None:
        found["values.schema.json"] = json.dumps(contract.schema)
    return found | dict(_child_files(contract)) | dict(_crds(contract))


def chart_yaml(chart: Chart, app_version: str) -> dict[str, Any]:
    """What Chart.yaml of each surrogate says."""
    return {
        "apiVersion": "v2",
        "name": chart.name,
        "version": chart.version,
        "appVersion": app_version,
        "type": "application",
        "description": f"Surrogate of chart {chart.name} for the lab: real names, no programs.",
        "annotations": {MARK: "true"},
        **({"kubeVersion": chart.kubernetes} if chart.kubernetes else {}),
    }


def _chart(contract: Contract, chart: Chart) -> dict[str, Any]:
    needed = [
        {key: one[key] for key in ("name", "version", "condition") if key in one}
        for one in _children(contract)
    ]
    return chart_yaml(chart, str(contract.data.get("app_version") or chart.version)) | (
        {"dependencies": needed} if needed else {}
    )


def _children(contract: Contract) -> list[dict[str, Any]]:
    """Subcharts that are more than a name here: with collected values, or with the CRDs."""
    real = yaml.safe_load((contract.folder / "chart.yaml").read_text()).get("dependencies") or ()
    have = {path.name.removesuffix(".values.yaml") for path in _child_values(contract)}
    have.add(tables.CRDS.get(contract.name, Crds("none")).child)
    return [{**one, "version": str(one["version"])} for one in real if one["name"] in have]


def _child_values(contract: Contract) -> list[Path]:
    return sorted((contract.folder / "subcharts").glob("*.values.yaml"))


def _child_files(contract: Contract) -> Iterator[tuple[str, str]]:
    for child in _children(contract):
        about = {"apiVersion": "v2", "name": child["name"], "version": child["version"]}
        yield f"charts/{child['name']}/Chart.yaml", _dump(about | {"annotations": {MARK: "true"}})
    for file in _child_values(contract):
        yield f"charts/{file.name.removesuffix('.values.yaml')}/values.yaml", file.read_text()


def _crds(contract: Contract) -> Iterator[tuple[str, str]]:
    where = tables.CRDS.get(contract.name, Crds("none"))
    child = f"charts/{where.child}/" if where.child else ""
    for name, text in contract.crd_texts.items():
        text = text.strip() + "\n"
        if where.place == "crds":
            yield f"{child}crds/{name}.yaml", text
        elif where.place == "templates":
            switch = where.switch.format(plural=name.partition(".")[0])
            head = _values(contract) if switch else ""
            template = head + _guarded(_literal(text, where.keep), switch)
            yield f"{child}templates/crd-{name}.yaml", template


def _literal(text: str, keep: bool) -> str:
    """A CRD as a template: braces of descriptions are no actions."""
    text = text.replace("{{", '{{ "{{" }}')
    if not keep:
        return text
    note = "    helm.sh/resource-policy: keep\n"
    if "\n  annotations:\n" in text:
        return text.replace("\n  annotations:\n", f"\n  annotations:\n{note}", 1)
    return text.replace("\nmetadata:\n", f"\nmetadata:\n  annotations:\n{note}", 1)


def _guarded(text: str, switch: str) -> str:
    if not switch:
        return text
    return f"{{{{- if {_condition(switch)} }}}}\n{text}{{{{- end }}}}\n"


def _values(contract: Contract) -> str:
    """The line that makes values what the real templates see."""
    values = ".Values"
    if WRAPPER in (contract.folder / "values.yaml").read_text():
        values = f'(mustMergeOverwrite (deepCopy .Values.{WRAPPER}) (omit .Values "{WRAPPER}"))'
    return f"{{{{- $v := {values} }}}}\n"


def _dump(data: Any) -> str:
    return yaml.safe_dump(data, sort_keys=False, width=1000)


# ---- expressions of templates


def _at(path: str) -> str:
    """The value at a dotted path, empty when a part of it is missing."""
    found = "$v"
    for part in path.split(".") if path else ():
        found = f'(get ({found} | default dict) "{part}")'
    return found


def _condition(switch: str) -> str:
    path = switch.removeprefix("!")
    return f"not {_at(path)}" if switch.startswith("!") else _at(path)


def _list(items: Any) -> str:
    return f"(list {' '.join(items)})" if items else "(list)"


def _call(template: str, **arguments: str) -> str:
    pairs = " ".join(f'"{key}" {value}' for key, value in arguments.items())
    return f'{{{{- include "surrogate.{template}" (dict "root" $ {pairs}) }}}}\n'


def _json(data: Any) -> str:
    """Data as an expression."""
    return f"(fromJson {json.dumps(json.dumps({'it': data}))}).it"


class _Objects:
    """The template with all objects of one chart."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._pods = tables.PODS.get(contract.name, {})
        listed: list[dict[str, Any]] = list(contract.data.get("workloads") or ())
        listed += [
            {"namespace": None, **entry}
            for entry in contract.data.get("optional_workloads") or ()
            if " " not in entry["when"].partition(":")[0]
        ]
        self._listed = listed
        own = next((one["namespace"] for one in listed if one["kind"] in WORKLOADS), None)
        self._own_namespace = contract.data.get("default_namespace") or own
        self._workloads = [one for one in listed if one["kind"] in WORKLOADS]
        self._names: dict[str, list[str]] = {}
        for kind, names in (contract.data.get("objects") or {}).items():
            self._names.setdefault(kind, []).extend(names)
        for one in (*listed, *self._services()):
            if one["kind"] not in (*WORKLOADS, "Pod"):
                self._names.setdefault(one["kind"], []).append(one["name"])

    def text(self) -> str:
        """The whole template."""
        own = TEMPLATES / f"{self._contract.name}.yaml"
        special = own.read_text() if own.exists() else ""
        made = prometheus.scraped_services(self._contract)
        if "prometheus_rules" in self._contract.data:
            special += prometheus.text(self._contract, _at, self._name)
        return "".join(
            (
                self._head(),
                *(self._workload(entry) for entry in self._workloads),
                *(
                    self._service(name)
                    for name in self._names.get("Service", ())
                    if name not in made
                ),
                *self._plain(),
                *self._config_maps(),
                *self._webhooks(),
                *self._monitors(),
                self._extra(),
                special,
            )
        )

    def _services(self) -> list[dict[str, Any]]:
        return [{"kind": "Service", **one} for one in self._contract.data.get("services") or ()]

    def _head(self) -> str:
        known = sorted({*self._contract.defaults, *_outside(self._contract)})
        chart = self._contract.chart
        return f"""\
{_values(self._contract)}{{{{- $known := {_list(map(json.dumps, known))} }}}}
{{{{- range $key, $_ := $v }}}}
{{{{- if not (has $key $known) }}}}
{{{{- fail (printf "value %s: chart {chart} has %s" $key (join ", " $known)) }}}}
{{{{- end }}}}
{{{{- end }}}}
{{{{- $part := $v.nameOverride | default "{chart}" }}}}
{{{{- $full := printf "%s-%s" .Release.Name $part }}}}
{{{{- if contains $part .Release.Name }}}}
{{{{- $full = .Release.Name }}}}
{{{{- end }}}}
{{{{- $full = $v.fullnameOverride | default $full | trunc 63 | trimSuffix "-" }}}}
{{{{- $digest := toJson $v | sha256sum }}}}
"""

    # ---- names

    def _name(self, known_as: str) -> str:
        """Its name in this release, as an expression."""
        contract = self._contract
        if known_as.endswith(".elastic-system.k8s.elastic.co"):
            return '(printf "%s.%s.k8s.elastic.co" $full $.Release.Namespace)'
        mine = contract.full_name(contract.name, contract.defaults)
        for part, below in contract.defaults.items():
            prefix = f"{mine}-{part}"
            has_own = isinstance(below, Mapping) and "fullnameOverride" in below
            if has_own and (known_as == prefix or known_as.startswith(f"{prefix}-")):
                rest = known_as.removeprefix(prefix)
                over = _at(f"{part}.fullnameOverride")
                return f'(printf "%s{rest}" ({over} | default (printf "%s-{part}" $full)))'
        pattern = contract.pattern(known_as)
        if "<fullname>" in pattern:
            return f'(printf "{pattern.replace("<fullname>", "%s")}" $full)'
        return json.dumps(pattern)

    def _namespace(self, namespace: str | None) -> str:
        if namespace in (None, self._own_namespace):
            return "$.Release.Namespace"
        return json.dumps(namespace)

    def _switch(self, kind: str, known_as: str, when: str | None = None) -> str:
        contract = self._contract.name
        for key in (f"{kind}/{known_as}", kind):
            if (contract, key) in tables.OBJECT_SWITCHES:
                return tables.OBJECT_SWITCHES[contract, key]
        return when or parts.switch(contract, known_as) or ""

    def _guard(self, kind: str, known_as: str, text: str, when: str | None = None) -> str:
        switch = self._switch(kind, known_as, when)
        return f"{{{{- if {_condition(switch)} }}}}\n{text}{{{{- end }}}}\n" if switch else text

    # ---- workloads and their Services

    def _workload(self, entry: Mapping[str, Any]) -> str:
        pods = self._pods.get(entry["name"], Pods())
        base = _at(pods.base)
        paths = [pods.replicas] if pods.replicas else [_join(pods.base, key) for key in _REPLICAS]
        wanted = " | default ".join(map(_at, paths))
        claim = self._claim(pods.claim) if pods.claim else "dict"
        account = self._account(entry["name"])
        text = _call(
            "workload",
            kind=f"({_at(pods.kind)} | default {json.dumps(entry['kind'])})"
            if pods.kind
            else json.dumps(entry["kind"]),
            name=self._name(entry["name"]),
            namespace=self._namespace(entry.get("namespace")),
            component=json.dumps(entry["name"]),
            base=f"({base} | default dict)",
            replicas=f"({wanted} | default {entry.get('replicas', 1)})",
            containers=_list(map(json.dumps, entry.get("containers") or [entry["name"]])),
            image=json.dumps(self._image(entry["name"])),
            digest="$digest",
            env=_list(map(_at, pods.env)),
            envFrom=_list(map(_at, pods.env_from)),
            secrets=self._mounts(pods.secrets),
            configs=self._mounts(pods.configs),
            paths=_list(map(json.dumps, pods.paths)),
            host=json.dumps(pods.host),
            account=account,
            claim=claim,
            hook=json.dumps(entry.get("hook") or entry.get("helm_hook") or ""),
        )
        when = (entry.get("when") or "").partition(":")[0] or None
        return self._guard(entry["kind"], entry["name"], text, when)

    def _claim(self, path: str) -> str:
        size, given, name = (
            _at(f"{path}.{key}") for key in ("size", "storageClass", "storageClassName")
        )
        return (
            f'(dict "enabled" {_at(f"{path}.enabled")} "name" "data" '
            f'"size" ({size} | default "1Gi") "class" ({given} | default {name}))'
        )

    def _account(self, known_as: str) -> str:
        accounts = self._names.get("ServiceAccount", ())
        return self._name(known_as) if known_as in accounts else '""'

    def _mounts(self, paths: tuple[str, ...]) -> str:
        names = [json.dumps(one[1:]) if one.startswith("=") else _at(one) for one in paths]
        return f"(compact (list {' '.join(names)}))" if names else "(list)"

    def _image(self, known_as: str) -> str:
        images = [str(image).partition(" ")[0] for image in self._contract.data.get("images") or ()]
        words = known_as.split("-")
        best = max(images, key=lambda image: sum(word in image for word in words), default="")
        return best or f"surrogate/{known_as}"

    def _service(self, known_as: str) -> str:
        component = self._component(known_as)
        pods = self._pods.get(component, Pods())
        entry = next((one for one in self._listed if one["name"] == known_as), {})
        by_list = next((one for one in self._services() if one["name"] == known_as), entry)
        webhook = any(
            word in known_as for word in ("webhook", "admission", "validator", "injector")
        )
        ports = (
            tables.PORTS.get(known_as)
            or next((one["ports"] for one in self._listed if _is(one, "Service", known_as)), None)
            or (tables.WEBHOOK_PORT if webhook else tables.DEFAULT_PORT)
        )
        path = tables.SERVICE_VALUES.get(known_as) or _join(pods.base, "service")
        main = known_as in tables.SERVICE_VALUES or known_as == component
        text = _call(
            "service",
            name=self._name(known_as),
            namespace=self._namespace(by_list.get("namespace")),
            component=json.dumps(component),
            labels=f'(dict "app.kubernetes.io/component" {json.dumps(component)})',
            ports=_list(map(json.dumps, ports)),
            values=f"({_at(path)} | default dict)" if main else "dict",
            type=json.dumps(by_list.get("type") or "ClusterIP"),
        )
        return self._guard("Service", known_as, text)

    def _component(self, service: str) -> str:
        """The workload whose pods a Service selects."""
        if service in tables.PODS_OF:
            return tables.PODS_OF[service]
        names = [one["name"] for one in self._workloads if one["kind"] in WORKLOADS[:3]]
        fitting = [name for name in names if service.startswith(name)]
        return max(fitting, key=len, default=names[0] if names else service)

    # ---- the rest

    def _plain(self) -> Iterator[str]:
        for kind, names in self._names.items():
            for known_as in names:
                if known_as.startswith("alertmanager-kube-prometheus-stack"):
                    continue  # made with its Alertmanager
                if body := self._body(kind, known_as):
                    yield self._guard(kind, known_as.partition(" ")[0], body)

    def _body(self, kind: str, known_as: str) -> str:
        known_as, _, place = known_as.partition(" ")
        namespace = self._namespace(place.strip("()") or None)
        versions = {
            "ServiceAccount": "v1",
            "Secret": "v1",
            "PriorityClass": "scheduling.k8s.io/v1",
            "NetworkPolicy": "networking.k8s.io/v1",
            "PodDisruptionBudget": "policy/v1",
            **dict.fromkeys(
                ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"), f"{_RBAC}/v1"
            ),
        }
        if kind not in versions:
            return ""
        if kind.startswith("Cluster") or kind == "PriorityClass":
            namespace = '""'
        head = f"---\napiVersion: {versions[kind]}\nkind: {kind}\n" + _call(
            "metadata", name=self._name(known_as), namespace=namespace
        ).replace("{{- include", "{{ include", 1)
        return head + self._rest(kind, known_as, namespace)

    def _rest(self, kind: str, known_as: str, namespace: str) -> str:
        if kind in ("Role", "ClusterRole"):
            return _dump({"rules": _RULES})
        if kind in ("RoleBinding", "ClusterRoleBinding"):
            role = kind.removesuffix("Binding")
            role = role if known_as in self._names.get(role, ()) else "ClusterRole"
            account = next(iter(self._names.get("ServiceAccount", ())), "default")
            return (
                f"roleRef:\n  apiGroup: {_RBAC}\n  kind: {role}\n"
                f"  name: {{{{ {self._name(known_as)} | quote }}}}\n"
                "subjects:\n  - kind: ServiceAccount\n"
                f"    name: {{{{ {self._name(account)} }}}}\n"
                "    namespace: {{ $.Release.Namespace }}\n"
            )
        if kind == "Secret":  # new at each rendering, as in life
            return "data:\n  password: {{ randAlphaNum 16 | b64enc }}\n"
        if kind == "PriorityClass":
            return "value: 1000000000\n"
        if kind == "NetworkPolicy":
            return (
                "spec:\n  podSelector:\n    matchLabels:\n"
                f"      app.kubernetes.io/component: {known_as}\n"
                "  policyTypes: [Ingress]\n  ingress:\n    - from:\n        - podSelector: {}\n"
            )
        if kind == "PodDisruptionBudget":
            return (
                "spec:\n  maxUnavailable: 1\n  selector:\n    matchLabels:\n"
                f"      app.kubernetes.io/component: {known_as}\n"
            )
        return ""

    def _config_maps(self) -> Iterator[str]:
        listed: dict[str, dict[str, str]] = {name: {} for name in self._names.get("ConfigMap", ())}
        more = tables.MORE_CONFIG.get(self._contract.name, {})
        for known_as, data in (listed | tables.CONFIG.get(self._contract.name, {}) | more).items():
            lines = "".join(
                f"  {file}: {{{{ toYaml {_at(path)} | quote }}}}\n" for file, path in data.items()
            )
            text = "---\napiVersion: v1\nkind: ConfigMap\n" + _call(
                "metadata", name=self._name(known_as), namespace="$.Release.Namespace"
            ).replace("{{- include", "{{ include", 1)
            yield self._guard(
                "ConfigMap", known_as, text + (f"data:\n{lines}" if lines else "data: {}\n")
            )

    def _webhooks(self) -> Iterator[str]:
        for webhooks in tables.WEBHOOKS.get(self._contract.name, ()):
            hooks = []
            for hook in webhooks.hooks:
                data = asdict(hook) | {"policy": ""}
                by_value = hook.policy not in ("Fail", "Ignore")
                policy = _at(hook.policy) if by_value else json.dumps(hook.policy)
                hooks.append(f'(merge (dict "policy" {policy}) {_json(data)})')
            text = _call(
                "webhooks",
                kind=json.dumps(webhooks.kind),
                name=self._name(webhooks.name),
                service=self._name(webhooks.service),
                serviceNamespace="$.Release.Namespace",
                hooks=_list(hooks),
            )
            yield self._guard(webhooks.kind, webhooks.name, text)

    def _monitors(self) -> Iterator[str]:
        """A monitor for each switch of one among the values, where the contract lists none."""
        if "service_monitors" in self._contract.data:
            return
        for path, section in _sections(self._contract.defaults):
            kind = {"servicemonitor": "ServiceMonitor", "podmonitor": "PodMonitor"}.get(
                path[-1].lower()
            )
            if kind is None or not isinstance(section.get("enabled"), bool):
                continue
            suffix = "-".join(
                part.lower() for part in path[:-1] if part not in ("metrics", "prometheus")
            )
            name = f'(printf "%s{"-" + suffix if suffix else ""}" $full)'
            text = _call(
                "monitor",
                kind=json.dumps(kind),
                name=name,
                namespace=f"({_at('.'.join(path))}.namespace | default $.Release.Namespace)",
                port='"metrics"',
                values=_at(".".join(path)),
            )
            more = tables.MONITOR_SWITCHES.get((self._contract.name, ".".join(path)))
            switches = [".".join((*path, "enabled")), *([more] if more else [])]
            for end in range(1, len(path)):
                above: Any = self._contract.defaults
                for part in path[:end]:
                    above = above[part]
                if isinstance(above.get("enabled"), bool):
                    switches.append(".".join((*path[:end], "enabled")))
            conditions = " ".join(map(_at, switches))
            if self._contract.name in tables.MONITORS_IF_SERVED:
                conditions += ' ($.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")'
            yield f"{{{{- if and {conditions} }}}}\n{text}{{{{- end }}}}\n"

    def _extra(self) -> str:
        """Objects that users give in values."""
        texts = []
        for key in ("extraObjects", "extraManifests", "extraDeploy"):
            if key in self._contract.defaults:
                texts.append(
                    f"{{{{- range $extra := $v.{key} }}}}\n---\n"
                    '{{ tpl (ternary $extra (toYaml $extra) (kindIs "string" $extra)) $ }}\n'
                    "{{- end }}\n"
                )
        return "".join(texts)


def _join(base: str, key: str) -> str:
    return f"{base}.{key}" if base else key


def _is(entry: Mapping[str, Any], kind: str, name: str) -> bool:
    return entry["kind"] == kind and entry["name"] == name and "ports" in entry


def _outside(contract: Contract) -> list[str]:
    """Keys of the top level that templates read and default values do not name."""
    free = {path.partition("/")[0] for path in FREE.get(contract.name, ())}
    return ["global", WRAPPER, *free]


def _sections(
    values: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield (*above, str(key)), value
            yield from _sections(value, (*above, str(key)))
