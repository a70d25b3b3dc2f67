"""Programs of this machine that work on the lab's API while it is measured."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

import yaml

from tests.lab.metrics import chart, programs
from tests.lab.metrics.kube import Kube, Object

KUBELET_SERVICE = f"kube-system/{chart.NAME}-kubelet"

Ports = dict[str, tuple[int, ...]]  # of what is scraped, by job


def exporters(kube: Kube, state_config: Object, folder: Path, stack: ExitStack) -> Ports:
    """kube-state-metrics, configured as by our values, and a node exporter of this machine."""
    file = folder / "custom-resource-state.yaml"
    file.write_text(yaml.safe_dump(state_config))
    state, own, node = (programs.free_port() for _ in range(3))
    _run(
        stack,
        programs.built("state_metrics"),
        f"--kubeconfig={kube.kubeconfig}",
        f"--port={state}",
        "--host=127.0.0.1",
        f"--telemetry-port={own}",
        "--telemetry-host=127.0.0.1",
        f"--custom-resource-state-config-file={file}",
    )
    _run(stack, programs.node_exporter(), f"--web.listen-address=127.0.0.1:{node}")
    return {"kube-state-metrics": (state, own), "node-exporter": (node,)}


def operator(kube: Kube, folder: Path, stack: ExitStack) -> Ports:
    """The operator, which keeps the kubelets' list and writes the configurations."""
    port = programs.free_port()
    _run(
        stack,
        programs.built("operator"),
        f"--apiserver={kube.url}",
        f"--ca-file={kube.ca}",
        f"--cert-file={kube.certificate}",
        f"--key-file={kube.key}",
        f"--kubelet-service={KUBELET_SERVICE}",
        "--kubelet-endpoints=true",
        "--prometheus-config-reloader=none",
        f"--web.listen-address=127.0.0.1:{port}",
        log=folder / "operator.log",
    )
    return {f"{chart.NAME}-operator": (port,)}


def _run(stack: ExitStack, program: Path, *arguments: str, log: Path | None = None) -> None:
    output = stack.enter_context((log or Path("/dev/null")).open("wb"))
    process = subprocess.Popen([str(program), *arguments], stdout=output, stderr=subprocess.STDOUT)

    def end() -> None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)
