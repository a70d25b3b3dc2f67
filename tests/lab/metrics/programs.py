"""Programs of the measurement: Debian's Prometheus and node exporter, and two Go modules."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from functools import partial
from pathlib import Path

from tests.lab.cache import cache_dir, files_digest, made
from tests.lab.errors import LabError

HERE = Path(__file__).parent
BUILD_LIMIT_S = 1800
UNPACK_LIMIT_S = 300

# Folder with the module, and the command in it.
MODULES = {
    "operator": "github.com/prometheus-operator/prometheus-operator/cmd/operator",
    "state_metrics": "k8s.io/kube-state-metrics/v2",
}


def debian(package: str) -> Path:
    """The unpacked package, from the machine's own Debian mirror; raises LabError."""
    return made(cache_dir() / "debian" / package, partial(_unpack, package))


def built(name: str) -> Path:
    """The program of a module, built once; raises LabError."""
    folder = cache_dir() / "metrics" / f"{name}-{files_digest(HERE / name)}"
    return made(folder, partial(_build, name)) / name


def module_folder(name: str) -> Path:
    """Where Go keeps the module's source; raises LabError."""
    module = MODULES[name].partition("/cmd/")[0]
    said = _run(["go", "list", "-m", "-f", "{{.Dir}}", module], HERE / name, BUILD_LIMIT_S)
    return Path(said.strip())


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def prometheus() -> Path:
    """Prometheus; promtool lies beside it."""
    return debian("prometheus") / "usr" / "bin" / "prometheus"


def node_exporter() -> Path:
    """The node exporter."""
    return debian("prometheus-node-exporter") / "usr" / "bin" / "prometheus-node-exporter"


def _unpack(package: str, scratch: Path) -> None:
    for program in ("apt-get", "dpkg"):
        if not shutil.which(program):
            raise LabError(f"{package}: {program} is missing: this test needs a Debian")
    try:
        _run(["apt-get", "download", package], scratch, UNPACK_LIMIT_S)
    except LabError:
        _run(["apt-get", "update", "-q"], scratch, UNPACK_LIMIT_S)
        _run(["apt-get", "download", package], scratch, UNPACK_LIMIT_S)
    (archive,) = scratch.glob("*.deb")
    _run(["dpkg", "-x", archive.name, "."], scratch, UNPACK_LIMIT_S)
    archive.unlink()


def _build(name: str, scratch: Path) -> None:
    if not shutil.which("go"):
        raise LabError(f"{name}: Go is missing")
    print(f"building {name} (minutes at first)", flush=True)
    command = ["go", "build", "-trimpath", "-o", str(scratch / name), MODULES[name]]
    _run(command, HERE / name, BUILD_LIMIT_S, CGO_ENABLED="0")


def _run(command: list[str], folder: Path, limit: int, **environment: str) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{command[0]}: not done within {limit} s") from error
    if done.returncode:
        raise LabError(f"{' '.join(command[:3])}: {' / '.join(done.stderr.splitlines()[-3:])}")
    return done.stdout
