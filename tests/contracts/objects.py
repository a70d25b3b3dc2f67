"""Objects against the CRDs of the real charts and the types of Kubernetes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from kubernetes.client import models
from pydantic import ValidationError

from tests.contracts.contract import Contract

# Kinds that Kubernetes has itself, by apiVersion, with the kinds that have no namespace.
BUILT_IN: dict[str, tuple[str, ...]] = {
    "v1": (
        "ConfigMap Endpoints LimitRange PersistentVolumeClaim Pod ResourceQuota Secret Service "
        "ServiceAccount"
    ).split(),
    "apps/v1": "DaemonSet Deployment StatefulSet".split(),
    "batch/v1": "CronJob Job".split(),
    "networking.k8s.io/v1": "Ingress NetworkPolicy".split(),
    "policy/v1": "PodDisruptionBudget".split(),
    "rbac.authorization.k8s.io/v1": "Role RoleBinding".split(),
    "autoscaling/v2": "HorizontalPodAutoscaler".split(),
    "coordination.k8s.io/v1": "Lease".split(),
    "discovery.k8s.io/v1": "EndpointSlice".split(),
}
CLUSTER_WIDE: dict[str, tuple[str, ...]] = {
    "v1": "Namespace PersistentVolume".split(),
    "admissionregistration.k8s.io/v1": (
        "MutatingWebhookConfiguration ValidatingAdmissionPolicy "
        "ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration"
    ).split(),
    "apiextensions.k8s.io/v1": "CustomResourceDefinition".split(),
    "apiregistration.k8s.io/v1": "APIService".split(),
    "networking.k8s.io/v1": "IngressClass".split(),
    "rbac.authorization.k8s.io/v1": "ClusterRole ClusterRoleBinding".split(),
    "scheduling.k8s.io/v1": "PriorityClass".split(),
    "storage.k8s.io/v1": "CSIDriver StorageClass VolumeAttributesClass".split(),
}
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_NAMES_WITH_MORE = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


def problems(obj: Mapping[str, Any], contracts: Sequence[Contract]) -> list[str]:
    """Everything wrong with one object.

    contracts: those of the charts that bring the CRDs of its cluster; an object of another kind
        is refused, as the API server would.
    """
    return [f"{_title(obj)}: {text}" for text in _problems(obj, contracts)]


def _title(obj: Mapping[str, Any]) -> str:
    metadata = obj.get("metadata") or {}
    place = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"{obj.get('kind')} {place}{metadata.get('name')}"


def _problems(obj: Mapping[str, Any], contracts: Sequence[Contract]) -> Iterator[str]:
    api, kind = str(obj.get("apiVersion")), str(obj.get("kind"))
    metadata = obj.get("metadata") or {}
    if kind not in _NAMES_WITH_MORE and not _NAME.fullmatch(str(metadata.get("name"))):
        yield f"metadata.name {metadata.get('name')!r} is not a DNS name"
    for key in ("labels", "annotations"):
        for name, value in (metadata.get(key) or {}).items():
            if not isinstance(value, str):
                yield f"metadata.{key}.{name}: {value!r} is not text"
    if kind in (*BUILT_IN.get(api, ()), *CLUSTER_WIDE.get(api, ())):
        yield from _place(metadata, kind in BUILT_IN.get(api, ()))
        yield from _typed(f"V{_class_version(api)}{kind}", obj)
        return
    yield from _typed("V1ObjectMeta", metadata, "metadata")
    group, _, version = api.rpartition("/")
    brought = [crd for contract in contracts if (crd := contract.crd(group, kind))]
    if not brought:
        yield f"no chart of this cluster brings {api}"
    for crd in brought:
        yield from _place(metadata, crd["spec"]["scope"] == "Namespaced")
        yield from _of_kind(obj, crd, version)


def _class_version(api: str) -> str:
    return api.rpartition("/")[2].removeprefix("v")


def _place(metadata: Mapping[str, Any], namespaced: bool) -> Iterator[str]:
    if bool(metadata.get("namespace")) != namespaced:
        yield "metadata.namespace is missing" if namespaced else "metadata.namespace is too much"


# ---- custom resources


def _of_kind(obj: Mapping[str, Any], crd: Mapping[str, Any], version: str) -> Iterator[str]:
    served = {entry["name"]: entry for entry in crd["spec"]["versions"] if entry["served"]}
    if version not in served:
        yield f"version {version} is not served, but {', '.join(sorted(served))}"
        return
    schema = dict(served[version]["schema"]["openAPIV3Schema"])
    schema["properties"] = {
        **(schema.get("properties") or {}),
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    }
    for error in Draft202012Validator(strict(schema)).iter_errors(dict(obj)):
        yield f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"


def strict(schema: Any, *, structural: bool = True) -> Any:
    """A CRD's schema as JSON schema in which a field that is not described is an error.

    structural: whether fields are described here, not only constrained (below allOf, anyOf, not).
    """
    if not isinstance(schema, Mapping):
        return schema
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            found[key] = {k: strict(v, structural=structural) for k, v in value.items()}
        elif key in ("items", "additionalProperties"):
            found[key] = strict(value, structural=structural)
        elif key in ("allOf", "anyOf", "oneOf"):
            found[key] = [strict(part, structural=False) for part in value]
        elif key == "not":
            found[key] = strict(value, structural=False)
        elif key == "pattern":
            if _readable(value):
                found[key] = value
        elif not key.startswith("x-kubernetes-") and key not in _NOT_JSON_SCHEMA:
            found[key] = value
    if structural:
        found = _closed(found, schema)
    return found


_NOT_JSON_SCHEMA = ("format", "default", "nullable", "description", "example", "externalDocs")


def _closed(found: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    if schema.get("x-kubernetes-embedded-resource"):
        found["properties"] = {
            **found.get("properties", {}),
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
        }
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in found
    if found.get("type") == "object" and not free:
        found["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
        found.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
    if schema.get("nullable") and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
        if "enum" in found:
            found["enum"] = [*found["enum"], None]
    return found


def _readable(pattern: str) -> bool:
    """Whether Python understands a pattern of Go's syntax."""
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


# ---- kinds of Kubernetes, by the types that the client is generated with


def _typed(kind: str, value: Any, path: str = "") -> Iterator[str]:
    """Check `value` against a class of the client: a field it does not know is an error."""
    try:
        getattr(models, kind).model_validate(value)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            where = ".".join(filter(None, (path, *map(str, found["loc"]))))
            yield f"{where}: {found['msg']}, found {str(found['input'])[:100]}"
