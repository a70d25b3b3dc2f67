"""Programs of the measurement: Debian's Prometheus and node exporter, and two Go modules."""

from __future__ import annotations

import json
import shutil
import socket
from functools import partial
from pathlib import Path

from tests.lab.cache import cache_dir, files_digest, made
from tests.lab.debian import debian
from tests.lab.errors import LabError
from tests.lab.program import output

# One list of versions for both: what both link is compiled once.
VERSIONS = Path(__file__).parent / "modules"
BUILD_LIMIT_S = 1800

COMMANDS = {
    "operator": "github.com/prometheus-operator/prometheus-operator/cmd/operator",
    "state_metrics": "k8s.io/kube-state-metrics/v2",
}


def built(name: str) -> Path:
    """The program of a module, built once; raises LabError."""
    folder = cache_dir() / "metrics" / f"{name}-{files_digest(VERSIONS)}"
    return made(folder, partial(_build, name)) / name


def module_folder(name: str) -> Path:
    """Where Go keeps the module's source; raises LabError."""
    module = COMMANDS[name].partition("/cmd/")[0]
    # `go list` says no folder while nobody has downloaded the module: so on a fresh machine.
    said = output(name, ["go", "mod", "download", "-json", module], BUILD_LIMIT_S, folder=VERSIONS)
    return Path(json.loads(said)["Dir"])


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


def _build(name: str, scratch: Path) -> None:
    if not shutil.which("go"):
        raise LabError(f"{name}: Go is missing")
    print(f"building {name} (minutes at first)", flush=True)
    command = ["go", "build", "-trimpath", "-o", str(scratch / name), COMMANDS[name]]
    output(name, command, BUILD_LIMIT_S, folder=VERSIONS, CGO_ENABLED="0")
