"""Programs of the measurement: Debian's Prometheus and node exporter, and two Go modules."""

from __future__ import annotations

import shutil
import socket
from functools import partial
from pathlib import Path

from tests.lab import go
from tests.lab.cache import cache_dir, made
from tests.lab.debian import debian

# The operator is what the chart of cluster/versions.py runs; of kube-state-metrics this is the
# first version with the libraries of the K3s stand-in.
MODULES = {
    "operator": ("github.com/prometheus-operator/prometheus-operator/cmd/operator", "0.93.1"),
    "state_metrics": ("k8s.io/kube-state-metrics/v2", "2.20.0"),
}


def built(name: str) -> Path:
    """The program of a module, built once; raises LabError."""
    return _folder(name) / name


def definitions() -> Path:
    """The folder with the kinds of the operator's release; raises LabError."""
    return _folder("operator") / "crds"


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def prometheus() -> Path:
    """Prometheus; promtool lies beside it."""
    (root,) = debian("prometheus")
    return root / "usr" / "bin" / "prometheus"


def node_exporter() -> Path:
    """The node exporter."""
    (root,) = debian("prometheus-node-exporter")
    return root / "usr" / "bin" / "prometheus-node-exporter"


def _folder(name: str) -> Path:
    _, version = MODULES[name]
    return made(cache_dir() / "metrics" / f"{name}-{version}", partial(_build, name))


def _build(name: str, scratch: Path) -> None:
    command, version = MODULES[name]
    what = f"{name} {version}"
    source = go.build(what, command, version, scratch / name, libraries=go.STANDIN)
    (scratch / "crds").mkdir()
    for path in (source / "example" / "prometheus-operator-crd").glob("*.yaml"):
        shutil.copyfile(path, scratch / "crds" / path.name)
