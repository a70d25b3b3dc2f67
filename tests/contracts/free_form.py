"""Where a chart takes keys that its default values do not name, each with the reason.

Paths are segments between slashes, `*` is any one segment; all below a path is free.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

# Kubernetes' own types: templates pass them on as they are, the API server judges them.
KUBERNETES = (
    "nodeSelector",
    "affinity",
    "*Affinity",
    "resources",
    "*Resources",
    "annotations",
    "*Annotations",
    "labels",
    "*Labels",
    "matchLabels",
    "securityContext",
    "*SecurityContext",
    "strategy",
    "*Strategy",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "dnsConfig",
)

FREE: dict[str, dict[str, str]] = {
    "cert-manager": {
        "config": "a ControllerConfiguration, marshalled as it is",
        "webhook/config": "a WebhookConfiguration, marshalled as it is",
        "cainjector/config": "a CAInjectorConfiguration, marshalled as it is",
    },
    "cilium": {
        "socketLB/hostNamespaceOnly": "stands in a comment of the default values",
        "hubble/metrics/dynamic/config/content": "rules of dynamic metrics",
    },
    "cloudnative-pg": {"config/data": "settings of the operator, by environment variable"},
    "envoy-gateway": {
        "config/envoyGateway": "an EnvoyGateway resource, marshalled as it is",
    },
    "eck-operator": {"config": "eck.yaml takes further flags of the operator"},
    "fluentd": {"fileConfigs": "configuration files by name"},
    "fluent-bit": {"config/extraFiles": "configuration files by name"},
    "grafana": {
        "grafana.ini": "sections and keys of Grafana's configuration",
        "env": "environment variables by name",
        "persistence/annotations": "in a comment of the default values",
    },
    "ingress-nginx": {"controller/config": "the controller's ConfigMap"},
    "istio-cni": {
        "profile": "the chart's zzz_profile.yaml template reads it",
        "compatibilityVersion": "the chart's zzz_profile.yaml template reads it",
        "platform": "the chart's zzz_profile.yaml template reads it",
        "env": "environment variables by name",
    },
    "istio-gateway": {
        "profile": "the chart's zzz_profile.yaml template reads it",
        "compatibilityVersion": "the chart's zzz_profile.yaml template reads it",
        "platform": "the chart's zzz_profile.yaml template reads it",
    },
    "istio-istiod": {
        "profile": "the chart's zzz_profile.yaml template reads it",
        "compatibilityVersion": "the chart's zzz_profile.yaml template reads it",
        "platform": "the chart's zzz_profile.yaml template reads it",
        "meshConfig": "Istio's MeshConfig, marshalled as it is",
        "env": "environment variables by name",
    },
    "istio-ztunnel": {
        "profile": "the chart's zzz_profile.yaml template reads it",
        "compatibilityVersion": "the chart's zzz_profile.yaml template reads it",
        "platform": "the chart's zzz_profile.yaml template reads it",
        "env": "environment variables by name",
        "meshConfig": "Istio's MeshConfig, marshalled as it is",
    },
    "istio-base": {
        "profile": "the chart's zzz_profile.yaml template reads it",
        "compatibilityVersion": "the chart's zzz_profile.yaml template reads it",
        "platform": "the chart's zzz_profile.yaml template reads it",
    },
    "keycloak-bitnami": {
        "postgresql": "values of the subchart postgresql, which is not collected",
        "keycloakConfigCli/configuration": "realms by file name",
    },
    "kiali-operator": {"cr/spec": "the spec of the Kiali resource, checked against its CRD"},
    "kube-prometheus-stack": {
        "grafana/grafana.ini": "sections and keys of Grafana's configuration",
        "grafana/env": "environment variables by name",
        "alertmanager/config": "Alertmanager's configuration",
        "prometheus-windows-exporter": "values of a subchart, which is not collected",
    },
    "linkerd-control-plane": {
        "destinationResources": "in a comment of the default values",
        "identityResources": "in a comment of the default values",
        "proxyInjectorResources": "in a comment of the default values",
        "spValidatorResources": "in a comment of the default values",
    },
    "linkerd-viz": {
        "prometheus/args": "flags of Prometheus by name",
        "prometheus/globalConfig": "a section of Prometheus' configuration",
    },
    "loki-community": {
        "loki/storage/bucketNames": "stands in a comment of the default values",
        "loki/structuredConfig": "merged over Loki's configuration",
        "loki/limits_config": "a section of Loki's configuration",
        "loki/server": "a section of Loki's configuration",
        "loki/commonConfig": "a section of Loki's configuration",
        "loki/storage_config": "a section of Loki's configuration",
        "loki/compactor": "a section of Loki's configuration",
        "loki/ruler": "a section of Loki's configuration",
        "loki/query_range": "a section of Loki's configuration",
        "loki/ingester": "a section of Loki's configuration",
        "minio": "values of the subchart minio, which is not collected",
    },
    "metallb": {"frrk8s": "values of the subchart frr-k8s, which is not collected"},
    "oauth2-proxy": {
        "config/existingSecret": "stands in a comment of the default values",
        "extraArgs": "flags of the program by name",
        "redis-ha": "values of the subchart redis-ha, which is not collected",
    },
    "traefik": {
        "ports": "entry points by name",
        "ports/*/*": "checked by the chart's schema",
    },
    "velero": {
        "schedules": "schedules by name",
        "configMaps": "ConfigMaps by name",
    },
}


def is_free(contract: str, path: tuple[str, ...]) -> bool:
    """Whether anything may stand at and below this path; a type of Kubernetes has its key."""
    if any(fnmatchcase(part, kind) for part in path[:-1] for kind in KUBERNETES):
        return True
    return any(_covers(tuple(free.split("/")), path) for free in FREE.get(contract, ()))


def _covers(free: tuple[str, ...], path: tuple[str, ...]) -> bool:
    head = path[: len(free)]
    return len(head) == len(free) and all(map(fnmatchcase, head, free))
