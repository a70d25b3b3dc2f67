"""The user's own rules and dashboards, read and checked before anything is connected to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from pyinfra import logger

from cluster import dashboards, prometheus_rules
from cluster.model import Cluster
from cluster.problem import Problem, Problems

PROMTOOL = "promtool"
PROMTOOL_SECONDS = 30
UNCHECKED = (
    "platform.metrics.rules: expressions are not checked before they are applied: this computer "
    "has no promtool (Debian, Ubuntu: the package prometheus; macOS: brew install prometheus)"
)

_KUBERNETES_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?")

Judge = Callable[[Path, str], Iterator[Problem]]


def with_files(cluster: Cluster) -> Cluster:
    """The cluster with the texts of `platform.metrics.rules` and `.dashboards`.

    Rule files are judged by promtool where this computer has it; without it, which is said, only
    their structure is, and expressions by Prometheus' operator when they are applied.

    Raises: Problems, one line for each thing wrong in any of the files.
    """
    wanted = cluster.platform.metrics
    if not wanted.rules and not wanted.dashboards:
        return cluster
    problems: list[Problem] = []
    rules = _texts(wanted.rules, "rules", (".yaml", ".yml"), _rule_problems, problems)
    boards = _texts(wanted.dashboards, "dashboards", (".json",), _board_problems, problems)
    if problems:
        raise Problems(problems)
    if rules and shutil.which(PROMTOOL) is None:
        logger.warning(UNCHECKED)
    return cluster.model_copy(update={"user_rules": rules, "user_dashboards": boards})


def _texts(
    folder: str | None, key: str, endings: tuple[str, ...], judge: Judge, problems: list[Problem]
) -> dict[str, str]:
    """Texts of a folder by file name without its ending; what is wrong goes to `problems`."""
    if not folder:
        return {}
    place = Path(folder)
    if not place.is_dir():
        problems.append(Problem(f"platform.metrics.{key}", folder, "an existing folder"))
        return {}
    found: dict[str, str] = {}
    for path in sorted(path for path in place.iterdir() if path.suffix in endings):
        if not _KUBERNETES_NAME.fullmatch(path.stem) or path.stem in found:
            allowed = "a name of its own of a-z, 0-9, - and ., as an object is called so"
            problems.append(Problem(str(path), "file name", allowed))
            continue
        text = path.read_text()
        problems += judge(path, text)
        found[path.stem] = text
    return found


def _rule_problems(path: Path, text: str) -> Iterator[Problem]:
    """In promtool's words; where it names no line, at the first that our own reading doubts."""
    seen = prometheus_rules.flaws(text)
    said = promtool(path)
    if said is None:
        said = list(seen)
    first = seen[0].line if seen else 1
    for line, words in said:
        yield Problem(f"{path}:{line or first}", words)


def _board_problems(path: Path, text: str) -> Iterator[Problem]:
    try:
        dashboards.provisioned({path.stem: text})
    except dashboards.DashboardError as error:
        place = f"{path}:{error.line}" if error.line else str(path)
        yield Problem(place, str(error))


def promtool(path: Path) -> list[tuple[int, str]] | None:
    """What promtool has against a rule file as line (0: unknown) and words; None without it."""
    program = shutil.which(PROMTOOL)
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "check", "rules", str(path)],
            capture_output=True,
            text=True,
            timeout=PROMTOOL_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return [(0, f"promtool did not answer within {PROMTOOL_SECONDS} seconds")]
    if done.returncode == 0:
        return []
    output = f"{done.stderr}\n{done.stdout}".replace(f"{path}: ", "")
    lines = [line.strip() for line in output.splitlines()]
    noise = ("", "yaml: unmarshal errors:", "FAILED:", f"Checking {path}")
    said = [_placed(line) for line in lines if line not in noise]
    return list(dict.fromkeys(said)) or [(0, "promtool refuses it")]


def _placed(line: str) -> tuple[int, str]:
    """promtool's `yaml: line 3: …`, `line 3: …` or `3:15: …` as line and the words after it."""
    found = re.match(r"(?:yaml: )?(?:line )?(\d+)(?::\d+)?: (.*)", line)
    return (int(found[1]), found[2]) if found else (0, line)
