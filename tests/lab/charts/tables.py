"""What the contracts do not say about the real charts, and surrogates need: read from the charts.

All keys are names as in the contracts; all values of type path are dotted paths of chart values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Pods:
    """How the pods of a workload follow values.

    base: path of their values (resources, nodeSelector, tolerations, affinity, …).
    replicas, kind: paths, when they are not `<base>.replicas`, `<base>.replicaCount` or fixed.
    secrets, configs: names of Secrets and ConfigMaps they mount: `=name` is fixed, else a path.
    env, env_from: paths of environment variables.
    host: host network; paths: host paths. Both matter for pod security.
    claim: path of the section that asks for a volume.
    """

    base: str = ""
    replicas: str = ""
    kind: str = ""
    secrets: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    env_from: tuple[str, ...] = ()
    host: bool = False
    paths: tuple[str, ...] = ()
    claim: str = ""


_GRAFANA_ENV = {
    "env": ("env", "envValueFrom"),
    "secrets": ("admin.existingSecret", "envFromSecret"),
}

PODS: dict[str, dict[str, Pods]] = {
    "cert-manager": {
        "cert-manager": Pods(env=("extraEnv",)),
        "cert-manager-cainjector": Pods("cainjector"),
        "cert-manager-webhook": Pods("webhook"),
        "cert-manager-startupapicheck": Pods("startupapicheck"),
    },
    "cilium": {
        "cilium": Pods(
            host=True, paths=("/sys/fs/bpf", "/var/run/cilium"), configs=("=cilium-config",)
        ),
        "cilium-envoy": Pods("envoy", host=True, paths=("/sys/fs/bpf",)),
        "cilium-operator": Pods("operator", host=True, configs=("=cilium-config",)),
        "hubble-relay": Pods("hubble.relay"),
        "hubble-ui": Pods("hubble.ui"),
    },
    "cloudnative-pg": {"cloudnative-pg": Pods(env=("additionalEnv",))},
    "eck-operator": {"elastic-operator": Pods(env=("env",))},
    "envoy-gateway": {
        "envoy-gateway": Pods(
            "deployment.pod", "deployment.replicas", configs=("=envoy-gateway-config",)
        ),
    },
    "fluent-bit": {
        "fluent-bit": Pods(kind="kind", env=("env",), env_from=("envFrom",), paths=("/var/log",)),
    },
    "fluentd": {"fluentd": Pods(kind="kind", env=("env",), env_from=("envFrom",))},
    "grafana": {"grafana": Pods(claim="persistence", **_GRAFANA_ENV)},
    "ingress-nginx": {
        "ingress-nginx-controller": Pods("controller", kind="controller.kind"),
    },
    "istio-cni": {"istio-cni-node": Pods(paths=("/opt/cni/bin",))},
    "istio-ztunnel": {"ztunnel": Pods(paths=("/var/run/ztunnel",))},
    "istio-gateway": {"istio-gateway": Pods(kind="kind")},
    "keycloak-bitnami": {
        "keycloak-bitnami": Pods(secrets=("auth.existingSecret",), env=("extraEnvVars",)),
        "keycloak-bitnami-postgresql": Pods(
            "postgresql.primary",
            secrets=("postgresql.auth.existingSecret",),
            claim="postgresql.primary.persistence",
        ),
    },
    "keycloakx": {
        "keycloakx": Pods(
            env=("extraEnv",), env_from=("extraEnvFrom",), secrets=("database.existingSecret",)
        ),
    },
    "kube-prometheus-stack": {
        "kube-prometheus-stack-grafana": Pods(
            "grafana",
            env=("grafana.env", "grafana.envValueFrom"),
            secrets=("grafana.admin.existingSecret", "grafana.envFromSecret"),
            claim="grafana.persistence",
        ),
        "kube-prometheus-stack-kube-state-metrics": Pods("kube-state-metrics"),
        "kube-prometheus-stack-operator": Pods("prometheusOperator"),
        "kube-prometheus-stack-prometheus-node-exporter": Pods(
            "prometheus-node-exporter", host=True, paths=("/proc", "/sys", "/")
        ),
        "kube-prometheus-stack-admission-create": Pods(
            "prometheusOperator.admissionWebhooks.patch"
        ),
        "kube-prometheus-stack-admission-patch": Pods("prometheusOperator.admissionWebhooks.patch"),
    },
    "linkerd-control-plane": {
        "linkerd-identity": Pods(
            replicas="controllerReplicas",
            secrets=("=linkerd-identity-issuer",),
            configs=("=linkerd-identity-trust-roots",),
        ),
        "linkerd-destination": Pods(replicas="controllerReplicas", configs=("=linkerd-config",)),
        "linkerd-proxy-injector": Pods(
            replicas="controllerReplicas", configs=("=linkerd-identity-trust-roots",)
        ),
    },
    "linkerd-viz": {
        "metrics-api": Pods("metricsAPI"),
        "prometheus": Pods("prometheus"),
        "tap": Pods("tap"),
        "tap-injector": Pods("tapInjector"),
        "web": Pods("dashboard"),
        "namespace-metadata": Pods("namespaceMetadata"),
    },
    "loki-community": {
        "loki-community": Pods(
            "singleBinary",
            env=("singleBinary.extraEnv",),
            env_from=("singleBinary.extraEnvFrom",),
            claim="singleBinary.persistence",
        ),
        "loki-community-gateway": Pods("gateway"),
        "loki-community-canary": Pods("lokiCanary"),
        "loki-community-chunks-cache": Pods("chunksCache"),
        "loki-community-results-cache": Pods("resultsCache"),
    },
    "longhorn": {
        "longhorn-manager": Pods(
            "longhornManager",
            paths=("/dev", "/proc", "/var/lib/longhorn"),
            configs=("=longhorn-default-setting",),
        ),
        "longhorn-driver-deployer": Pods("longhornDriver"),
        "longhorn-ui": Pods("longhornUI"),
    },
    "metallb": {
        "metallb-speaker": Pods("speaker", host=True),
        "metallb-controller": Pods("controller"),
    },
    "oauth2-proxy": {
        "oauth2-proxy": Pods(
            env=("extraEnv",), env_from=("envFrom",), secrets=("config.existingSecret",)
        ),
    },
    "plugin-barman-cloud": {"plugin-barman-cloud": Pods(env=("additionalEnv",))},
    "prometheus-elasticsearch-exporter": {
        "prometheus-elasticsearch-exporter": Pods(
            env=("env", "extraEnvSecrets"), secrets=("envFromSecret",)
        ),
    },
    "snapshot-controller": {"snapshot-controller": Pods("controller")},
    "traefik": {
        "traefik": Pods(
            replicas="deployment.replicas",
            kind="deployment.kind",
            env=("env",),
            env_from=("envFrom",),
            claim="persistence",
        ),
    },
    "velero": {
        "velero": Pods(secrets=("credentials.existingSecret",)),
        "node-agent": Pods(
            "nodeAgent", secrets=("credentials.existingSecret",), paths=("/var/lib/kubelet/pods",)
        ),
        "velero-upgrade-crds": Pods("upgradeCRDsJob"),
    },
}


@dataclass(frozen=True)
class Crds:
    """Where a chart has its CRDs.

    place: `crds` (the folder that Helm installs once), `templates`, or `none`.
    switch: path of the value that switches them on, in the chart that has them; `{plural}` is
        each one's own. A subchart as a whole has its condition in Chart.yaml.
    keep: whether Helm leaves them on removal.
    child: subchart that has them. Helm keeps no subcharts in its record of a release, so charts
        with more CRDs than a Secret can hold have them there.
    """

    place: str
    switch: str = ""
    keep: bool = False
    child: str = ""


CRDS: dict[str, Crds] = {
    "cert-manager": Crds("templates", "crds.enabled", keep=True),
    "cilium": Crds("none"),  # the operator registers them
    "cloudnative-pg": Crds("templates", "crds.create", keep=True),
    "eck-operator": Crds("templates", keep=True, child="eck-operator-crds"),
    "envoy-gateway": Crds("crds", child="crds"),
    "istio-base": Crds("templates", "base.enableCRDTemplates", keep=True),
    "kiali-operator": Crds("crds"),
    "kube-prometheus-stack": Crds("crds", child="crds"),
    "linkerd-crds": Crds("templates"),
    "longhorn": Crds("templates"),
    "metallb": Crds("templates", child="crds"),
    "plugin-barman-cloud": Crds("templates", "crds.create", keep=True),
    "prometheus-operator-crds": Crds("templates", "{plural}.enabled", child="crds"),
    "snapshot-controller": Crds("templates", "installCRDs"),
    "traefik": Crds("crds"),
    "velero": Crds("crds"),
}

# Ports of Services whose contracts do not list them, as name:number.
PORTS: dict[str, tuple[str, ...]] = {
    "cert-manager": ("tcp-prometheus-servicemonitor:9402",),
    "cert-manager-cainjector": ("http-metrics:9402",),
    "cilium-envoy": ("envoy-metrics:9964",),
    "hubble-peer": ("peer-service:443",),
    "hubble-relay": ("grpc:80",),
    "hubble-ui": ("http:80",),
    "hubble-metrics": ("hubble-metrics:9965",),
    "envoy-gateway": (
        "grpc:18000",
        "ratelimit:18001",
        "wasm:18002",
        "metrics:19001",
        "webhook:9443",
    ),
    "ingress-nginx-controller": ("http:80", "https:443"),
    "ingress-nginx-controller-admission": ("https-webhook:443",),
    "istio-gateway": ("status-port:15021", "http2:80", "https:443"),
    "istiod": ("grpc-xds:15010", "https-dns:15012", "https-webhook:443", "http-monitoring:15014"),
    "keycloak-bitnami": ("http:80",),
    "keycloak-bitnami-headless": ("http:8080",),
    "keycloak-bitnami-postgresql": ("tcp-postgresql:5432",),
    "keycloak-bitnami-postgresql-hl": ("tcp-postgresql:5432",),
    "keycloakx-http": ("http:80", "https:8443", "http-internal:9000"),
    "keycloakx-headless": ("http:80",),
    "linkerd-dst": ("grpc:8086",),
    "linkerd-dst-headless": ("grpc:8086",),
    "linkerd-policy": ("grpc:8090",),
    "linkerd-identity": ("grpc:8080",),
    "linkerd-identity-headless": ("grpc:8080",),
    "longhorn-backend": ("manager:9500",),
    "longhorn-recovery-backend": ("recovery-backend:9503",),
    "metrics-api": ("http:8085",),
    "oauth2-proxy": ("http:80", "metrics:44180"),
    "prometheus": ("admin:9090",),
    "tap": ("grpc:8088", "apiserver:443"),
    "traefik": ("web:80", "websecure:443"),
    "velero": ("http-monitoring:8085",),
    "web": ("http:8084", "admin:9994"),
    "barman-cloud": ("barman-cloud:9090",),
}
DEFAULT_PORT = ("http:80",)
WEBHOOK_PORT = ("https:443",)

# Pods of Services that are not called like their workload.
PODS_OF: dict[str, str] = {
    "hubble-peer": "cilium",
    "metallb-webhook-service": "metallb-controller",
    "cnpg-webhook-service": "cloudnative-pg",
    "barman-cloud": "plugin-barman-cloud",
    "longhorn-backend": "longhorn-manager",
    "longhorn-frontend": "longhorn-ui",
    "longhorn-admission-webhook": "longhorn-manager",
    "longhorn-recovery-backend": "longhorn-manager",
    "linkerd-dst": "linkerd-destination",
    "linkerd-dst-headless": "linkerd-destination",
    "linkerd-sp-validator": "linkerd-destination",
    "linkerd-policy": "linkerd-destination",
    "linkerd-policy-validator": "linkerd-destination",
    # The operator makes these pods.
    "kube-prometheus-stack-prometheus": "kube-prometheus-stack-prometheus",
    "kube-prometheus-stack-alertmanager": "kube-prometheus-stack-alertmanager",
}

# Values of Services, where they are not `<base of the pods>.service` or `service`.
SERVICE_VALUES: dict[str, str] = {
    "ingress-nginx-controller": "controller.service",
    "longhorn-frontend": "service.ui",
    "longhorn-backend": "service.manager",
    "hubble-ui": "hubble.ui.service",
    "kube-prometheus-stack-grafana": "grafana.service",
    "kube-prometheus-stack-prometheus": "prometheus.service",
    "kube-prometheus-stack-alertmanager": "alertmanager.service",
    "loki-community-gateway": "gateway.service",
}

# Switches of objects that share their name with a workload, or have none in tests/contracts.
OBJECT_SWITCHES: dict[tuple[str, str], str] = {
    ("longhorn", "NetworkPolicy"): "networkPolicies.restrictInternalTraffic",
    ("longhorn", "Job/longhorn-pre-upgrade"): "preUpgradeChecker.jobEnabled",
    ("velero", "Secret"): "!credentials.existingSecret",
    ("oauth2-proxy", "Secret"): "!config.existingSecret",
    ("grafana", "Secret"): "!admin.existingSecret",
    ("kube-prometheus-stack", "Secret/kube-prometheus-stack-grafana"): (
        "!grafana.admin.existingSecret"
    ),
    ("keycloak-bitnami", "Secret/keycloak-bitnami"): "!auth.existingSecret",
    ("keycloak-bitnami", "Secret/keycloak-bitnami-postgresql"): ("!postgresql.auth.existingSecret"),
}


@dataclass(frozen=True)
class Hook:
    """One webhook of a configuration; policy: `Fail` or `Ignore`, or the path of a value."""

    name: str
    groups: tuple[str, ...]
    resources: tuple[str, ...] = ("*",)
    operations: tuple[str, ...] = ("CREATE", "UPDATE")
    policy: str = "Fail"
    path: str = "/validate"
    selector: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Webhooks:
    """A webhook configuration; service: as in the contract, of the namespace of the release."""

    kind: str
    name: str
    service: str
    hooks: tuple[Hook, ...]


VALIDATING, MUTATING = "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"
_ISTIO = (
    "config.istio.io security.istio.io networking.istio.io telemetry.istio.io extensions.istio.io"
).split()
_NOT_SYSTEM = {
    "matchExpressions": [
        {
            "key": "kubernetes.io/metadata.name",
            "operator": "NotIn",
            "values": ["kube-system", "cert-manager", "linkerd"],
        }
    ]
}

WEBHOOKS: dict[str, tuple[Webhooks, ...]] = {
    "cert-manager": (
        Webhooks(
            VALIDATING,
            "cert-manager-webhook",
            "cert-manager-webhook",
            (
                Hook(
                    "webhook.cert-manager.io",
                    ("cert-manager.io", "acme.cert-manager.io"),
                    ("*/*",),
                    selector={
                        "matchExpressions": [
                            {
                                "key": "cert-manager.io/disable-validation",
                                "operator": "NotIn",
                                "values": ["true"],
                            }
                        ]
                    },
                ),
            ),
        ),
        Webhooks(
            MUTATING,
            "cert-manager-webhook",
            "cert-manager-webhook",
            (
                Hook(
                    "webhook.cert-manager.io",
                    ("cert-manager.io",),
                    ("certificaterequests",),
                    ("CREATE",),
                    path="/mutate",
                ),
            ),
        ),
    ),
    "cloudnative-pg": (
        Webhooks(
            MUTATING,
            "cnpg-mutating-webhook-configuration",
            "cnpg-webhook-service",
            (
                Hook(
                    "mcluster.cnpg.io",
                    ("postgresql.cnpg.io",),
                    ("clusters",),
                    path="/mutate-postgresql-cnpg-io-v1-cluster",
                ),
            ),
        ),
        Webhooks(
            VALIDATING,
            "cnpg-validating-webhook-configuration",
            "cnpg-webhook-service",
            (
                Hook(
                    "vcluster.cnpg.io",
                    ("postgresql.cnpg.io",),
                    ("clusters", "poolers", "scheduledbackups", "backups"),
                    path="/validate-postgresql-cnpg-io-v1-cluster",
                ),
            ),
        ),
    ),
    "eck-operator": (
        Webhooks(
            VALIDATING,
            "elastic-operator.elastic-system.k8s.elastic.co",
            "elastic-operator-webhook",
            (
                Hook(
                    "elastic-es-validation-v1.k8s.elastic.co",
                    ("elasticsearch.k8s.elastic.co",),
                    ("elasticsearches",),
                    policy="webhook.failurePolicy",
                    path="/validate-elasticsearch-k8s-elastic-co-v1-elasticsearch",
                ),
                Hook(
                    "elastic-kb-validation-v1.k8s.elastic.co",
                    ("kibana.k8s.elastic.co",),
                    ("kibanas",),
                    policy="webhook.failurePolicy",
                    path="/validate-kibana-k8s-elastic-co-v1-kibana",
                ),
            ),
        ),
    ),
    "ingress-nginx": (
        Webhooks(
            VALIDATING,
            "ingress-nginx-admission",
            "ingress-nginx-controller-admission",
            (
                Hook(
                    "validate.nginx.ingress.kubernetes.io",
                    ("networking.k8s.io",),
                    ("ingresses",),
                    policy="controller.admissionWebhooks.failurePolicy",
                    path="/networking/v1/ingresses",
                ),
            ),
        ),
    ),
    "istio-istiod": (
        Webhooks(
            VALIDATING,
            "istio-validator-istio-system",
            "istiod",
            (
                # The chart says Ignore, istiod itself sets Fail once it serves.
                Hook("rev.validation.istio.io", tuple(_ISTIO), policy="Ignore"),
            ),
        ),
        Webhooks(
            MUTATING,
            "istio-sidecar-injector",
            "istiod",
            (
                Hook(
                    "namespace.sidecar-injector.istio.io",
                    ("",),
                    ("pods",),
                    ("CREATE",),
                    path="/inject",
                    selector={"matchLabels": {"istio-injection": "enabled"}},
                ),
            ),
        ),
    ),
    "kube-prometheus-stack": tuple(
        Webhooks(
            kind,
            "kube-prometheus-stack-admission",
            "kube-prometheus-stack-operator",
            (
                # The chart says Ignore, its patch Job sets the wanted policy.
                Hook(
                    f"prometheusrule{verb}.monitoring.coreos.com",
                    ("monitoring.coreos.com",),
                    ("prometheusrules",),
                    policy="Ignore",
                    path=f"/admission-prometheusrules/{verb}",
                ),
            ),
        )
        for kind, verb in ((MUTATING, "mutate"), (VALIDATING, "validate"))
    ),
    "linkerd-control-plane": (
        Webhooks(
            MUTATING,
            "linkerd-proxy-injector-webhook-config",
            "linkerd-proxy-injector",
            (
                Hook(
                    "linkerd-proxy-injector.linkerd.io",
                    ("",),
                    ("pods", "services"),
                    ("CREATE",),
                    policy="webhookFailurePolicy",
                    path="/",
                    selector=_NOT_SYSTEM,
                ),
            ),
        ),
        Webhooks(
            VALIDATING,
            "linkerd-policy-validator-webhook-config",
            "linkerd-policy-validator",
            (
                Hook(
                    "linkerd-policy-validator.linkerd.io",
                    ("policy.linkerd.io",),
                    policy="webhookFailurePolicy",
                    path="/",
                ),
            ),
        ),
        Webhooks(
            VALIDATING,
            "linkerd-sp-validator-webhook-config",
            "linkerd-sp-validator",
            (
                Hook(
                    "linkerd-sp-validator.linkerd.io",
                    ("linkerd.io",),
                    ("serviceprofiles",),
                    policy="webhookFailurePolicy",
                    path="/",
                ),
            ),
        ),
    ),
    "linkerd-viz": (
        Webhooks(
            MUTATING,
            "linkerd-tap-injector-webhook-config",
            "tap-injector",
            (
                Hook(
                    "tap-injector.linkerd.io",
                    ("",),
                    ("pods",),
                    ("CREATE",),
                    policy="tapInjector.failurePolicy",
                    path="/",
                    selector=_NOT_SYSTEM,
                ),
            ),
        ),
    ),
    "metallb": (
        Webhooks(
            VALIDATING,
            "metallb-webhook-configuration",
            "metallb-webhook-service",
            (
                Hook(
                    "ipaddresspoolvalidationwebhook.metallb.io",
                    ("metallb.io",),
                    ("ipaddresspools", "l2advertisements", "bgpadvertisements", "bgppeers"),
                    path="/validate-metallb-io-v1beta1-ipaddresspool",
                ),
            ),
        ),
    ),
}

# Further values that must be on for a monitor; the path is of the monitor's section.
MONITOR_SWITCHES: dict[tuple[str, str], str] = {
    ("eck-operator", "serviceMonitor"): "config.metrics.secureMode.enabled",
}

# Charts that leave their monitors out where the cluster does not serve the kind.
MONITORS_IF_SERVED = {"fluent-bit", "fluentd", "velero"}

# Data of ConfigMaps, by file, from values: a path, or `=text` that is fixed.
CONFIG: dict[str, dict[str, dict[str, str]]] = {
    "longhorn": {
        "longhorn-default-setting": {"default-setting.yaml": "defaultSettings"},
        "longhorn-default-resource": {"default-resource.yaml": "defaultBackupStore"},
        "longhorn-storageclass": {"persistence": "persistence"},
    },
    "oauth2-proxy": {"oauth2-proxy": {"oauth2_proxy.cfg": "config.configFile"}},
    "cloudnative-pg": {"cnpg-controller-manager-config": {"config": "config.data"}},
    "velero": {"velero-repo-maintenance": {"config": "configuration.repositoryMaintenanceJob"}},
    "plugin-barman-cloud": {"plugin-barman-cloud-config": {"SIDECAR_IMAGE": "sidecarImage"}},
    "keycloak-bitnami": {"keycloak-bitnami-env-vars": {"KEYCLOAK_PRODUCTION": "production"}},
}

# ConfigMaps that contracts do not list.
MORE_CONFIG: dict[str, dict[str, dict[str, str]]] = {
    "fluent-bit": {"fluent-bit": {"fluent-bit.conf": "config"}},
    "fluentd": {"fluentd-config": {"fluentd.conf": "fileConfigs"}},
    "grafana": {"grafana": {"grafana.ini": "grafana.ini"}},
    "ingress-nginx": {"ingress-nginx-controller": {"config": "controller.config"}},
    "loki-community": {"loki-community": {"config.yaml": "loki"}},
    "envoy-gateway": {"envoy-gateway-config": {"envoy-gateway.yaml": "config.envoyGateway"}},
    "istio-istiod": {"istio": {"mesh": "meshConfig"}},
    "istio-cni": {"istio-cni-config": {"PROFILE": "profile"}},
    "traefik": {"traefik-surrogate": {"arguments": "additionalArguments"}},
    "linkerd-control-plane": {"linkerd-config": {"values": "proxy"}},
    "kube-prometheus-stack": {
        "kube-prometheus-stack-grafana": {"grafana.ini": "grafana.grafana.ini"},
        "kube-prometheus-stack-grafana-datasource": {
            "datasource.yaml": "grafana.sidecar.datasources"
        },
    },
}
