"""K3s in the lab scraped twice at the same time: by the chart's defaults, and by our values."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from catalogue import kube_prometheus_stack
from cluster.model import Cluster
from tests.contracts.clusters import of_preset
from tests.lab.by_hand import start_cluster
from tests.lab.lab import Lab
from tests.lab.metrics import chart, objects, processes, programs
from tests.lab.metrics.kube import Kube, Object
from tests.lab.metrics.objects import SCRAPE_S
from tests.lab.metrics.server import Prometheus, configuration, running

WAYS = ("naive", "ours")
WAIT_S = 300
SCRAPES = 5  # of every target before anything is counted

# Release v1.5 of the old project: from 157k to 73k active series.
PUBLISHED_CUT = 157 / 73

# The other endpoints of K3s are open to nobody else by default; the chart's defaults need them.
SERVER = {
    "etcd-expose-metrics": True,
    "kube-controller-manager-arg": ["bind-address=0.0.0.0"],
    "kube-scheduler-arg": ["bind-address=0.0.0.0"],
    "kube-proxy-arg": ["metrics-bind-address=0.0.0.0"],
}
AGENT = {"kube-proxy-arg": SERVER["kube-proxy-arg"]}


@dataclass(frozen=True)
class Measurement:
    """Both while they run, and what ours was given: all the chart rendered, rules too."""

    cluster: Cluster
    naive: Prometheus
    ours: Prometheus
    chart: list[Object]


def model(lab: Lab) -> Cluster:
    """The lab as a cluster of ours with Flannel, kube-proxy and etcd."""
    roles = {"server": "servers", "agent": "agents"}
    hosts = [
        {
            "name": host.name,
            "role": roles[host.role],
            "ip": host.ip,
            "arch": lab.record.arch,
        }
        for host in lab.hosts
        if host.role in roles
    ]
    return of_preset("v1_5", hosts=hosts)


@contextmanager
def measured(lab: Lab) -> Iterator[Measurement]:
    """Start K3s on bare hosts and both Prometheus, and wait for a few scrapes."""
    cluster = model(lab)
    _start(lab, cluster)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        kube = Kube(lab, cluster.servers[0].name, folder)
        ports = {way: programs.free_port() for way in WAYS}
        made = _send(lab, kube, cluster, folder, stack, ports)
        _wait(lambda: _complete(kube, cluster), "the operator's configuration")
        naive, ours = (stack.enter_context(running(kube, way, folder, ports[way])) for way in WAYS)
        time.sleep(SCRAPES * SCRAPE_S)
        nodes, servers = len(cluster.members), len(cluster.servers)
        # The kubelet's three paths, etcd, five of programs; naive four endpoints besides.
        least = 3 * nodes + servers + 5
        _wait(lambda: _up(ours) >= least, "every target of ours to be scraped", ours)
        more = least + 3 * servers + nodes
        _wait(lambda: _up(naive) >= more, "every target of the defaults to be scraped", naive)
        yield Measurement(cluster, naive, ours, made)


def figures(found: Measurement) -> dict[str, float]:
    """Active series, samples a second and megabytes of memory of both."""
    result = {}
    for way in WAYS:
        prometheus: Prometheus = getattr(found, way)
        result |= {
            f"series_{way}": prometheus.number("sum(scrape_samples_post_metric_relabeling)"),
            f"samples_per_second_{way}": prometheus.number(
                f"sum(scrape_samples_post_metric_relabeling) / {SCRAPE_S}"
            ),
            f"prometheus_mb_{way}": prometheus.memory_mb(),
        }
    return result


def _start(lab: Lab, cluster: Cluster) -> None:
    for host in cluster.members:
        config = SERVER if host.is_server else AGENT
        path = "/etc/rancher/k3s/config.yaml.d/90-metrics.yaml"
        lab.check(host.name, "mkdir -p /etc/rancher/k3s/config.yaml.d")
        lab.put(host.name, path, yaml.safe_dump(config))
    start_cluster(lab, [one.name for one in cluster.servers], [one.name for one in cluster.agents])


def _send(
    lab: Lab,
    kube: Kube,
    cluster: Cluster,
    folder: Path,
    stack: ExitStack,
    own_ports: dict[str, int],
) -> list[Object]:
    """Everything into the API, and the programs started; what the chart and we make of it."""
    for obj, text in objects.crds():
        kube.apply(obj, text)
    for obj in (*objects.access(), *objects.things()):
        kube.apply(obj)
    _wait(lambda: _served(kube), "the operator's kinds")
    wanted = {"naive": chart.naive(cluster), "ours": chart.ours(cluster)}
    state_config = wanted["ours"]["kube-state-metrics"]["customResourceState"]["config"]
    ports = processes.exporters(kube, state_config, folder, stack)
    ports |= processes.operator(kube, folder, stack)
    made: list[Object] = []
    for way, values in wanted.items():
        rendered = chart.rendered(values, lab.record.arch, folder)
        sent = chart.scraping(rendered)
        if way == "ours":
            made = rendered + kube_prometheus_stack.objects(cluster)
            sent += [one for one in made if one["kind"] in ("PrometheusRule", "ScrapeConfig")]
        own = {f"{chart.NAME}-prometheus": (own_ports[way],)}
        sent += [objects.static(job, found) for job, found in {**ports, **own}.items()]
        for obj in sent:
            kube.apply(objects.own(obj, way))
        kube.apply(objects.prometheus(way))
    return made


def _served(kube: Kube) -> bool:
    api = kube.get("/apis/monitoring.coreos.com/v1")
    alpha = kube.get("/apis/monitoring.coreos.com/v1alpha1")
    kinds = {one["kind"] for found in (api, alpha) for one in (found or {}).get("resources", ())}
    return {"Prometheus", "ServiceMonitor", "PrometheusRule", "ScrapeConfig"} <= kinds


def _complete(kube: Kube, cluster: Cluster) -> bool:
    """Both configurations are written, and the operator has found every node."""
    jobs = [len((configuration(kube, way) or {}).get("scrape_configs") or ()) for way in WAYS]
    kubelets = kube.get(f"/api/v1/namespaces/kube-system/endpoints/{chart.NAME}-kubelet")
    found = [
        address["ip"]
        for subset in (kubelets or {}).get("subsets") or ()
        for address in subset["addresses"]
    ]
    # The kubelet's three paths, etcd, four programs; naive four endpoints besides.
    return jobs[0] >= 12 and jobs[1] >= 8 and len(found) == len(cluster.members)


def _up(prometheus: Prometheus) -> int:
    return len(prometheus.query("up == 1"))


def _wait(condition: Callable[[], bool], what: str, prometheus: Prometheus | None = None) -> None:
    """Wait, and tell which targets do not answer when that is what is waited for."""
    end = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end:
            silent = prometheus.errors() if prometheus else []
            raise AssertionError("\n".join([f"{what}: not within {WAIT_S} s", *silent]))
        time.sleep(1)
