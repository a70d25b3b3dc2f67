"""Measure runs on the lab: `python -m tests.bench`; figures go to build/bench.json.

The lab is made bare once. `scale_s` and `doctor_s` are simulated: hosts whose commands answer at
once with given facts, so that what grows is pyinfra's and our own work. K3s in the lab is what the
lab says it is.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from operations.helm_process import JOURNAL
from runtime import table, trace
from tests.lab.lab import Lab
from tests.lab.metrics import measure
from tests.lab.runs import ROOT, command, environment

SITE = "deploys/site.py"
RESULTS = ROOT / "build" / "bench.json"
STACK = "v1_9"
IMPORTS = "import pyinfra_cli.main, runtime.run, deploys.preflight, deploys.nodes, deploys.k3s"


@dataclass(frozen=True)
class Measured:
    """A process that has ended well: seconds, megabytes of memory, what it printed."""

    seconds: float
    rss_mb: float
    output: str


class Bench:
    """The figures, each by a function of its name.

    repeat: how often a quick figure is measured; the median counts.
    """

    def __init__(self, lab: Lab, repeat: int) -> None:
        self._lab = lab
        self._repeat = repeat

    def fresh_s(self) -> float:
        """Bare hosts to registered nodes, once, with the binaries on the lab's file server."""
        self._lab.recreate(*(host.name for host in self._lab.hosts))
        seconds = self._run("-y").seconds
        server = next(host.name for host in self._lab.hosts if host.role == "server")
        nodes = self._lab.check(server, "k3s kubectl get nodes -o name").split()
        assert len(nodes) == len(self._lab.hosts), f"only {nodes} are registered"
        return seconds

    def converged(self) -> dict[str, float]:
        """A run that has nothing to do: its time, memory, changes, and commands by node."""
        runs, counts = [], []
        for _ in range(self._repeat):
            with tempfile.NamedTemporaryFile("r", suffix=".trace") as file:
                runs.append(self._run("-y", "--json", **{trace.VARIABLE: file.name}))
                counts.append(
                    Counter(one["host"] for one in map(json.loads, file) if "host" in one)
                )
        results = [json.loads(run.output)["results"] for run in runs]
        ssh = [max(n for host, n in count.items() if host != "@local") for count in counts]
        return {
            "converged_s": median(run.seconds for run in runs),
            "commands_per_node": max(ssh),
            "changes": sum(result["totals"]["success"] for result in results),
            "rss_mb": max(run.rss_mb for run in runs),
        }

    def dry_s(self) -> float:
        """The same as a dry run."""
        return median(self._run("--dry").seconds for _ in range(self._repeat))

    def doctor_s(self) -> float:
        """The doctor's look at ten simulated hosts."""
        return median(_alone("scale.doctor", 10) for _ in range(self._repeat))

    def doctor_lab_s(self) -> float:
        """The doctor's look at the lab's hosts, from the start of Python."""
        return median(self._doctor() for _ in range(self._repeat))

    def _doctor(self) -> float:
        words = [sys.executable, "-m", "commands.doctor", "inventories/lab.py", "--json"]
        done = _measure(words, environment(self._lab), codes=(0, 2))
        found = json.loads(done.output)
        assert not found["unreachable"] and len(found["hosts"]) == len(self._lab.hosts), found
        return done.seconds

    def series(self) -> dict[str, float]:
        """What K3s costs Prometheus, by the chart's defaults and by ours, in a lab of its own."""
        found: dict[str, float] = _alone("series.figures", f"{self._lab.names.name}m")
        return found

    def install(self) -> dict[str, float]:
        """The first install of v1.9 on bare hosts, with the delays of tests/lab/delays.yaml."""
        self._lab.recreate(*(host.name for host in self._lab.hosts))
        (figures,) = self._platform(SITE)
        return {f"install_{name}": figures[name] for name in ("wall_s", "critical_s", "sum_s")}

    def platform(self) -> dict[str, float]:
        """A run of the platform that has nothing to do."""
        before = self._helms()
        runs, figures = [], {}
        for _ in range(self._repeat):
            started = time.monotonic()
            (figures,) = self._platform("deploys/platform.py")
            runs.append(time.monotonic() - started)
        return {
            "platform_converged_s": median(runs),
            "helm_starts": self._helms() - before,
            "api_requests": figures["api_requests"],
            "api_bytes": figures["api_bytes"],
        }

    def _platform(self, deploy: str) -> list[dict[str, Any]]:
        """Run it with the stack v1.9; the figures that it notes about the platform."""
        with tempfile.NamedTemporaryFile("r", suffix=".trace") as file:
            env = environment(self._lab, LAB_PRESET=STACK, **{trace.VARIABLE: file.name})
            _measure(command(deploy, "-y"), env)
            return [one["platform"] for one in map(json.loads, file) if "platform" in one]

    def _helms(self) -> int:
        """How many helms the servers have started, as their journals say."""
        words = f"journalctl -q -o cat -t {JOURNAL} | wc -l"
        servers = [host.name for host in self._lab.hosts if host.role == "server"]
        return sum(int(self._lab.check(name, words)) for name in servers)

    def import_s(self) -> float:
        """Python's start and the imports of pyinfra's command and of the deploys."""
        words = [sys.executable, "-c", IMPORTS]
        return median(_measure(words, dict(os.environ)).seconds for _ in range(3 * self._repeat))

    def scale_s(self) -> dict[str, float]:
        """A converged plan of simulated hosts, by their number."""
        return {
            str(number): median(_alone("scale.seconds", number) for _ in range(self._repeat))
            for number in (1, 5, 10, 20)
        }

    def _run(self, *options: str, **env: str) -> Measured:
        return _measure(command(SITE, *options), environment(self._lab, **env))


def _alone(function: str, argument: object) -> Any:
    """What a function of tests.bench gives in a process of its own, where gevent patches first."""
    module, _, name = function.partition(".")
    code = (
        "from gevent import monkey; monkey.patch_all(); import json; "
        f"from tests.bench import {module}; "
        f"print(json.dumps({module}.{name}({argument!r})))"
    )
    printed = _measure([sys.executable, "-c", code], dict(os.environ)).output
    return json.loads(printed.splitlines()[-1])


def _measure(words: list[str], env: dict[str, str], codes: tuple[int, ...] = (0,)) -> Measured:
    before = time.monotonic()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - before
        output.seek(0)
        errors.seek(0)
        assert os.waitstatus_to_exitcode(status) in codes, errors.read()
        return Measured(seconds, _megabytes(usage), output.read())


def _megabytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / 1024  # Linux counts in KiB


# What the figures should stay under.
GOALS = {
    "converged_s": 5.0,
    "commands_per_node": 30.0,
    "changes": 0.0,
    "dry_s": 5.0,
    "doctor_s": 5.0,
    "doctor_lab_s": 5.0,
    "fresh_s": 120.0,
    "import_s": 0.6,
    "rss_mb": 250.0,
    "platform_converged_s": 10.0,
    "helm_starts": 0.0,
    "api_requests": 120.0,
}
ORDER = (
    "fresh_s", "converged", "dry_s", "doctor_s", "doctor_lab_s", "import_s", "scale_s", "install",
    "platform", "series",
)  # fmt: skip
BARE = ("fresh_s", "install")  # begin with bare hosts
SEVERAL = ("converged", "install", "platform", "series")  # measure several figures at once
LONGEST = 1.2  # the first install's wall time, in critical paths


def main() -> int:
    """The command line; returns 0 when everything could be measured, goals reached or not."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--name", default=os.environ.get("LAB_NAME", "lab"), help="which lab")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each quick figure")
    parser.add_argument("--keep", action="store_true", help="measure the cluster as it is")
    options = parser.parse_args()
    lab = Lab(options.name)
    bench = Bench(lab, options.repeat)
    about = {"hosts": len(lab.hosts), "k3s": lab.record.k3s_kind, "cores": os.cpu_count()}
    figures: dict[str, Any] = {}
    for name in ORDER:
        if options.keep and name in BARE:
            continue
        found = _said(name, getattr(bench, name))
        figures |= found if name in SEVERAL else {name: found}
        # At once: what was measured is not lost when a later one fails.
        RESULTS.write_text(json.dumps(figures | {"about": about}, indent=2) + "\n")
    print("\n".join(_table(figures)))
    return 0


def _said(name: str, figure: Callable[[], Any]) -> Any:
    print(f"measuring {name} ...", file=sys.stderr, flush=True)
    return figure()


def _table(figures: dict[str, Any]) -> list[str]:
    rows = [
        (name, f"{figures[name]:.2f}", f"{goal:g}", "yes" if figures[name] <= goal else "no")
        for name, goal in GOALS.items()
        if name in figures
    ]
    if "install_wall_s" in figures:
        wall, critical = figures["install_wall_s"], figures["install_critical_s"]
        kept = "yes" if wall <= LONGEST * critical else "no"
        rows.append(("install_wall_s", f"{wall:.1f}", f"{LONGEST} x {critical:.1f}", kept))
        rows.append(("install_sum_s", f"{figures['install_sum_s']:.1f}", "", ""))
    rows.append(("api_bytes", f"{figures['api_bytes']:,}", "", ""))
    scales = figures["scale_s"]
    grown = scales["20"] / scales["5"]
    rows += [
        (f"scale_s {number} hosts", f"{seconds:.2f}", "", "") for number, seconds in scales.items()
    ]
    cut = figures["series_naive"] / figures["series_ours"]
    more = "yes" if cut >= measure.PUBLISHED_CUT else "no"
    rows.append(("series", f"x 1/{cut:.2f}", f"x 1/{measure.PUBLISHED_CUT:.2f}", more))
    rows.append(("scale 5 to 20 hosts", f"x {grown:.2f}", "x 4", "yes" if grown < 4 else "no"))
    return table.render(("Figure", "Measured", "Goal", "Reached"), rows)


if __name__ == "__main__":
    sys.exit(main())
