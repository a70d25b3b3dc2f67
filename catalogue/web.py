"""How people reach an application: its route, TLS and login, for the ingress of the stack."""

from __future__ import annotations

from typing import Any, Literal

from catalogue import certificates
from cluster.component import Endpoint, Object, SecretObject
from cluster.model import Cluster
from cluster.secret_table import guards_dashboards

Login = Literal["own", "proxy"]

# Where each product of the role `ingress` lives, which is also where its middlewares are.
NAMESPACES = {
    "k3s-traefik": "kube-system",
    "traefik": "traefik",
    "nginx": "nginx",
    "envoy": "envoy-gateway-system",
}
GATEWAY = "public"  # Envoy's shared Gateway; its HTTPS listener:
HTTPS = "https"
HTTP = "http"

BASIC_AUTH = "basic-auth"  # Secret in the ingress' namespace
USER = "admin"
PASSWORD = "ingress.password"  # names in the secrets file
HTPASSWD = "ingress.htpasswd"
# Each product looks for the same text under a key of its own.
_HTPASSWD_KEY = {"k3s-traefik": "users", "traefik": "users", "nginx": "auth", "envoy": ".htpasswd"}

PROXY = "oauth2-proxy"  # Service, namespace and host name of oauth2-proxy
# Namespaces with applications that have no login of their own; a ReferenceGrant has at most 16.
GUARDED = ("kiali-operator", "kube-system", "linkerd-viz", "longhorn-system", "monitoring")

LOGIN = "login"  # Traefik's middlewares
REDIRECT = "redirect"

GATEWAY_API = "gateway.networking.k8s.io/v1"
ENVOY_API = "gateway.envoyproxy.io/v1alpha1"
TRAEFIK_API = "traefik.io/v1alpha1"


def secure(cluster: Cluster) -> bool:
    """Whether routes have TLS: somebody must sign their certificates."""
    return certificates.wanted(cluster)


def hostname(cluster: Cluster, host: str) -> str:
    """The full name of a host of the cluster's domain."""
    return f"{host}.{cluster.domain}"


def url(cluster: Cluster, host: str, path: str = "/") -> str:
    """What a person opens."""
    return f"{'https' if secure(cluster) else 'http'}://{hostname(cluster, host)}{path}"


def single_sign_on(cluster: Cluster) -> bool:
    """Whether oauth2-proxy guards what has no login; else one password does."""
    return cluster.stack.identity != "none"


def login_text(cluster: Cluster) -> str:
    """How one passes the guard, for the list of endpoints."""
    return "single sign-on" if single_sign_on(cluster) else f"{USER}, {PASSWORD}"


def opened(
    cluster: Cluster, *hosts: str, login: str | None = None, path: str = "/"
) -> list[Endpoint]:
    """What a person opens of a component: nothing where no ingress leads to it.

    login: how one logs in; None: by passing the guard.
    """
    if cluster.stack.ingress == "none":
        return []
    how = login_text(cluster) if login is None else login
    return [Endpoint(url(cluster, host, path), how) for host in hosts]


def proxy_service(cluster: Cluster) -> str:
    """URL of oauth2-proxy inside the cluster."""
    return f"http://{PROXY}.{PROXY}.svc.{cluster.network.cluster_domain}"


def web(
    cluster: Cluster,
    *,
    name: str,
    namespace: str,
    service: str,
    port: int,
    host: str,
    login: Login,
) -> list[Object]:
    """The objects that make a Service reachable as `<host>.<domain>`, [] without an ingress.

    The component must need "ingress" and "certificates", not "identity": until oauth2-proxy
    answers, what it guards is closed.

    Args:
        name: of the objects, unique in their namespace.
        service, port: the Service in `namespace` and its port number; it speaks plain HTTP.
        login: "own" when the application asks for one itself, else "proxy".

    Raises: ValueError for a guarded application in a namespace that is not in GUARDED.
    """
    product = cluster.stack.ingress
    if product == "none":
        return []
    guarded = login == "proxy"
    if guarded and namespace not in GUARDED:
        raise ValueError(f"namespace {namespace} is not in web.GUARDED")
    backend = (service, port)
    if product == "envoy":
        route = _http_route(cluster, name, namespace, backend, host)
        # The guard first: no moment without it.
        return [*([_policy(cluster, name, namespace)] if guarded else []), route]
    if product == "nginx":
        extra = _nginx_annotations(cluster) if guarded else {}
        return [_ingress(cluster, "nginx", name, namespace, backend, host, extra)]
    extra = _traefik_annotations(cluster, guarded)
    main = _ingress(cluster, "traefik", name, namespace, backend, host, extra)
    if product == "k3s-traefik" and secure(cluster):
        # Its entry points are K3s' business, so that each route redirects for itself.
        return [main, _redirecting(cluster, name, namespace, backend, host)]
    return [main]


def basic_auth(cluster: Cluster) -> tuple[SecretObject, ...]:
    """The Secret with the password of guarded applications, for the ingress' component."""
    product = cluster.stack.ingress
    if single_sign_on(cluster) or not guards_dashboards(cluster):
        return ()
    data = {_HTPASSWD_KEY[product]: HTPASSWD}
    return (SecretObject(BASIC_AUTH, NAMESPACES[product], data),)


def middlewares(cluster: Cluster) -> list[Object]:
    """Traefik's middlewares that routes refer to, for the ingress' component."""
    namespace = NAMESPACES[cluster.stack.ingress]
    specs: dict[str, Any] = {REDIRECT: {"redirectScheme": {"scheme": "https", "permanent": True}}}
    if single_sign_on(cluster):
        specs[LOGIN] = {
            "forwardAuth": {
                "address": f"{proxy_service(cluster)}/",
                "authResponseHeaders": ["X-Auth-Request-User", "X-Auth-Request-Email"],
            }
        }
    elif guards_dashboards(cluster):
        # The application does not get the password: one with a login of its own would try it.
        specs[LOGIN] = {"basicAuth": {"secret": BASIC_AUTH, "removeHeader": True}}
    return [
        {
            "apiVersion": TRAEFIK_API,
            "kind": "Middleware",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
        for name, spec in specs.items()
    ]


def default_certificate(cluster: Cluster) -> list[Object]:
    """What Traefik shows for names without a certificate of their own, for its component."""
    namespace = NAMESPACES[cluster.stack.ingress]
    store = {
        "apiVersion": TRAEFIK_API,
        "kind": "TLSStore",
        # Traefik knows no store of another name.
        "metadata": {"name": "default", "namespace": namespace},
        "spec": {"defaultCertificate": {"secretName": certificates.DEFAULT_NAME}},
    }
    return [certificates.default_certificate(cluster, namespace), store]


def grants(cluster: Cluster) -> list[Object]:
    """Lets Envoy's guards refer to what they ask, which is in another namespace.

    For oauth2-proxy's component with single sign-on, else for the ingress' own.
    """
    if cluster.stack.ingress != "envoy":
        return []
    target: dict[str, str] = {"group": "", "kind": "Service", "name": PROXY}
    namespace = PROXY
    if not single_sign_on(cluster):
        target = {"group": "", "kind": "Secret", "name": BASIC_AUTH}
        namespace = NAMESPACES["envoy"]
    return [
        {
            "apiVersion": GATEWAY_API,
            "kind": "ReferenceGrant",
            "metadata": {"name": LOGIN, "namespace": namespace},
            "spec": {
                "from": [
                    {
                        "group": "gateway.envoyproxy.io",
                        "kind": "SecurityPolicy",
                        "namespace": guarded,
                    }
                    for guarded in GUARDED
                ],
                "to": [target],
            },
        }
    ]


def _ingress(
    cluster: Cluster,
    ingress_class: str,
    name: str,
    namespace: str,
    backend: tuple[str, int],
    host: str,
    annotations: dict[str, str],
    tls: bool = True,
) -> Object:
    service, port = backend
    names = [hostname(cluster, host)]
    spec: dict[str, Any] = {
        "ingressClassName": ingress_class,
        "rules": [
            {
                "host": names[0],
                "http": {
                    "paths": [
                        {
                            "path": "/",
                            "pathType": "Prefix",
                            "backend": {"service": {"name": service, "port": {"number": port}}},
                        }
                    ]
                },
            }
        ],
    }
    if tls and secure(cluster):
        # Without a Secret of its own a route shows the ingress' default certificate.
        own = not certificates.wildcard(cluster)
        spec["tls"] = [{"hosts": names, **({"secretName": f"{name}-tls"} if own else {})}]
        if own:
            annotations = {
                "cert-manager.io/cluster-issuer": certificates.issuer(cluster),
                **annotations,
            }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": spec,
    }


def _traefik_annotations(cluster: Cluster, guarded: bool) -> dict[str, str]:
    prefix = "traefik.ingress.kubernetes.io/router"
    found = {f"{prefix}.entrypoints": "websecure" if secure(cluster) else "web"}
    if secure(cluster):
        found[f"{prefix}.tls"] = "true"
    if guarded:
        namespace = NAMESPACES[cluster.stack.ingress]
        found[f"{prefix}.middlewares"] = f"{namespace}-{LOGIN}@kubernetescrd"
    return found


def _redirecting(
    cluster: Cluster, name: str, namespace: str, backend: tuple[str, int], host: str
) -> Object:
    prefix = "traefik.ingress.kubernetes.io/router"
    annotations = {
        f"{prefix}.entrypoints": "web",
        f"{prefix}.middlewares": f"{NAMESPACES['k3s-traefik']}-{REDIRECT}@kubernetescrd",
    }
    return _ingress(
        cluster, "traefik", f"{name}-http", namespace, backend, host, annotations, tls=False
    )


def _nginx_annotations(cluster: Cluster) -> dict[str, str]:
    prefix = "nginx.ingress.kubernetes.io"
    if single_sign_on(cluster):
        start = url(cluster, PROXY, "/oauth2/start")
        return {
            f"{prefix}/auth-url": f"{proxy_service(cluster)}/oauth2/auth",
            f"{prefix}/auth-signin": f"{start}?rd=$scheme://$host$escaped_request_uri",
            f"{prefix}/auth-response-headers": "X-Auth-Request-User,X-Auth-Request-Email",
            f"{prefix}/proxy-buffer-size": "16k",  # the session's cookie is larger than a page
        }
    return {
        f"{prefix}/auth-type": "basic",
        f"{prefix}/auth-secret": f"{NAMESPACES['nginx']}/{BASIC_AUTH}",
        f"{prefix}/auth-realm": cluster.name,
    }


def _http_route(
    cluster: Cluster, name: str, namespace: str, backend: tuple[str, int], host: str
) -> Object:
    service, port = backend
    return {
        "apiVersion": GATEWAY_API,
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "parentRefs": [
                {
                    "name": GATEWAY,
                    "namespace": NAMESPACES["envoy"],
                    "sectionName": HTTPS if secure(cluster) else HTTP,
                }
            ],
            "hostnames": [hostname(cluster, host)],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                    "backendRefs": [{"name": service, "port": port}],
                }
            ],
        },
    }


def _policy(cluster: Cluster, name: str, namespace: str) -> Object:
    """The guard of a route.

    oauth2-proxy gets no path: it would answer `/oauth2/*` and `/ping` of any application by itself.
    Where to return after the login stands in a header, see the Gateway's ClientTrafficPolicy.
    """
    guard: dict[str, Any]
    if single_sign_on(cluster):
        guard = {
            "extAuth": {
                "headersToExtAuth": [
                    "accept",
                    "cookie",
                    "x-auth-request-redirect",
                    "x-forwarded-proto",
                ],
                "http": {
                    "backendRefs": [{"name": PROXY, "namespace": PROXY, "port": 80}],
                    "pathOverride": "/",
                    "headersToBackend": ["x-auth-request-user", "x-auth-request-email"],
                },
            }
        }
    else:
        guard = {"basicAuth": {"users": {"name": BASIC_AUTH, "namespace": NAMESPACES["envoy"]}}}
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": name}
    return {
        "apiVersion": ENVOY_API,
        "kind": "SecurityPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"targetRefs": [target], **guard},
    }
