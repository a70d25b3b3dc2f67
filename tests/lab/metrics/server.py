"""A Prometheus of this machine, with the configuration that the operator wrote."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.lab.metrics import discovery, programs
from tests.lab.metrics.kube import Kube
from tests.lab.metrics.objects import NAMESPACE

POD = "/var/run/secrets/kubernetes.io/serviceaccount"  # where a pod finds its token and the CA
START_LIMIT_S = 60
QUERY_LIMIT_S = 120

Labels = dict[str, str]


class Prometheus:
    """One that runs: its process and its API."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.port = port
        self.process = process
        self.log = log

    def series(self) -> list[Labels]:
        """The labels of every series that the last scrape had."""
        found = self.query('{__name__!=""}')
        return [one["metric"] for one in found]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query that gives a vector."""
        result = self._ask("query", query=expression)["result"]
        found: list[dict[str, Any]] = result
        return found

    def number(self, expression: str) -> float:
        """An instant query that gives one number."""
        (one,) = self.query(expression)
        return float(one["value"][1])

    def alive(self) -> bool:
        """Whether it answers."""
        try:
            self._ask("query", query="1")
        except OSError:
            return False
        return True

    def errors(self) -> list[str]:
        """The targets that do not answer, and why."""
        targets = self._ask("targets", state="active")["activeTargets"]
        return [f"{one['scrapeUrl']}: {one['lastError']}" for one in targets if one["lastError"]]

    def memory_mb(self) -> float:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        kilobytes = next(line.split()[1] for line in status.splitlines() if "VmRSS" in line)
        return int(kilobytes) / 1024

    def _ask(self, path: str, **parameters: str) -> Any:
        words = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{words}"
        with urllib.request.urlopen(url, timeout=QUERY_LIMIT_S) as answer:
            return json.load(answer)["data"]


def configuration(kube: Kube, name: str) -> dict[str, Any] | None:
    """What the operator wrote for the Prometheus of that name, None before it did."""
    secret = kube.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/prometheus-{name}")
    packed = ((secret or {}).get("data") or {}).get("prometheus.yaml.gz")
    if not packed:
        return None
    found: dict[str, Any] = yaml.safe_load(gzip.decompress(base64.b64decode(packed)))
    return found


def rules(kube: Kube, name: str) -> dict[str, str]:
    """The rule files that the operator wrote, by file name."""
    found = kube.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/prometheus-{name}-rulefiles-0")
    return dict((found or {}).get("data") or {})


@contextmanager
def running(kube: Kube, name: str, folder: Path, port: int) -> Iterator[Prometheus]:
    """Run it outside the cluster: the same configuration, with this machine's credentials."""
    config = configuration(kube, name)
    assert config, f"the operator wrote nothing for {name}"
    place = folder / name
    (place / "rules").mkdir(parents=True)
    for file, text in rules(kube, name).items():
        (place / "rules" / file).write_text(text)
    token = place / "token"
    token.touch(mode=0o600)
    token.write_text(kube.token(NAMESPACE, "prometheus"))
    config["rule_files"] = [str(place / "rules" / "*.yaml")]
    config.pop("alerting", None)
    text = yaml.safe_dump(discovery.resolved(kube, config), width=10_000)
    # In a pod its config reloader puts these in.
    text = (
        text.replace("$(SHARD)", "0")
        .replace("$(POD_NAME)", f"prometheus-{name}-0")
        .replace(f"{POD}/token", str(token))
    )
    (place / "prometheus.yaml").write_text(text.replace(f"{POD}/ca.crt", str(kube.ca)))
    log = place / "log"
    command = [
        str(programs.prometheus()),
        f"--config.file={place / 'prometheus.yaml'}",
        f"--storage.tsdb.path={place / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--query.max-samples=100000000",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        found = Prometheus(port, process, log)
        end = time.monotonic() + START_LIMIT_S
        while not found.alive():
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < end, f"no answer: {log.read_text()[-2000:]}"
            time.sleep(0.5)
        yield found
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
