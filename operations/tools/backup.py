#!/usr/bin/python3
"""Backup of this host with restic: `backup.py backup|prune|check|restore`.

`backup.py ended <job>` comes after each and keeps what a job that was killed could not.

Written to hosts by picluster, run there by picluster-backup@.service with Python's own library
alone (3.10 or newer). Repository, password and keys are in the environment, everything else is in
the settings file. How each job ended is kept and shown to Prometheus' node exporter. A lock in the
repository is waited for, never removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

SETTINGS = "/etc/picluster/backup/settings.json"
TAG = "picluster"
LOCKED_WAIT = 1800  # seconds another host's job is waited for
LOCKED_PAUSE = 30
LOCKED_CODE = 11  # restic from 0.17 on; before it says so in words
SAMPLE_FILES = 400  # that a restore test restores
SAMPLE_BYTES = 256 * 1024 * 1024
FAILED = 1
PREFIX = "picluster_backup"
HELP = {
    "last_run_timestamp_seconds": "When the task last ended.",
    "last_success_timestamp_seconds": "When the task last ended well, 0 for never.",
    "exit_code": "How it last ended, 0 for well.",
    "duration_seconds": "How long it took.",
    "files": "Files that the last backup looked at.",
    "processed_bytes": "Bytes that the last backup looked at.",
    "added_bytes": "Bytes that it added to the repository.",
    "repository_bytes": "Size of the repository after the last prune.",
    "compared_files": "Restored files that were compared with unchanged live ones.",
    "different_files": "Those of them that were not the same.",
}

Settings = dict[str, Any]
Numbers = dict[str, float]


class Ended(NamedTuple):
    """How a job ended: exit code, and figures for its metrics."""

    code: int
    numbers: Numbers


class Output(NamedTuple):
    """How restic ended and what it wrote to standard output."""

    code: int
    lines: list[str]


def restic(settings: Settings, *arguments: str) -> Output:
    """Run restic; what it complains about goes to the journal. Waits for another job's lock."""
    ca = ["--cacert", settings["ca"]] if settings.get("ca") else []
    command = ["restic", "--cache-dir", settings["cache"], *ca, *arguments]
    end = time.monotonic() + settings.get("locked_wait", LOCKED_WAIT)
    while True:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        sys.stderr.write(done.stderr)
        locked = done.returncode == LOCKED_CODE or "already locked" in done.stderr
        if not (done.returncode and locked) or time.monotonic() > end:
            return Output(done.returncode, done.stdout.splitlines())
        time.sleep(settings.get("locked_pause", LOCKED_PAUSE))


def documents(lines: list[str]) -> Iterator[dict[str, Any]]:
    """The JSON documents among the lines."""
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def backup(settings: Settings) -> Ended:
    """One backup of what is there of the paths."""
    paths = [path for path in settings["paths"] if os.path.exists(path)]
    exclude = [f"--exclude={pattern}" for pattern in settings["exclude"]]
    done = restic(
        settings, "backup", "--json", "--host", settings["host"], "--tag", TAG,
        "--exclude-caches", *exclude, "--", *paths,
    )  # fmt: skip
    for found in documents(done.lines):
        if found.get("message_type") == "error":
            print(json.dumps(found), file=sys.stderr)
        if found.get("message_type") == "summary":
            numbers: Numbers = {
                "files": found.get("total_files_processed", 0),
                "processed_bytes": found.get("total_bytes_processed", 0),
                "added_bytes": found.get("data_added", 0),
            }
            print(f"{numbers['files']} files, {numbers['added_bytes']} bytes added")
            return Ended(done.code, numbers)
    return Ended(done.code or FAILED, {})


def prune(settings: Settings) -> Ended:
    """Forget what is not kept, of all hosts, and free its space."""
    keep = [f"--keep-{period}={count}" for period, count in settings["keep"].items() if count]
    done = restic(settings, "forget", "--prune", "--tag", TAG, "--group-by", "host", *keep)
    print("\n".join(done.lines))
    if done.code:
        return Ended(done.code, {})
    size = restic(settings, "stats", "--json", "--mode", "raw-data")
    numbers: Numbers = {}
    for found in documents(size.lines):
        numbers["repository_bytes"] = found.get("total_size", 0)
    return Ended(size.code, numbers)


def check(settings: Settings) -> Ended:
    """Check the repository's structure, and read a share of its data."""
    done = restic(settings, "check", f"--read-data-subset={settings['check_share']}%")
    print("\n".join(done.lines))
    return Ended(done.code, {})


def restore(settings: Settings) -> Ended:
    """Restore some files of the newest backup beside the live ones, and compare what is unchanged.

    A live file is unchanged when size and time of change are as in the backup: then its content
    must be too.
    """
    mine = ("--host", settings["host"], "--tag", TAG)
    listed = restic(settings, "ls", "--json", *mine, "latest")
    if listed.code:
        return Ended(listed.code, {})
    paths = sample(list(documents(listed.lines)))
    if not paths:
        print("the newest backup has no files", file=sys.stderr)
        return Ended(FAILED, {})
    include = [f"--include={escaped(path)}" for path in paths]
    with scratch(Path(settings["cache"])) as target:
        done = restic(settings, "restore", *mine, "--target", str(target), *include, "latest")
        compared, different, missing = compare(target, paths)
    for path in missing:
        print(f"{path}: not restored", file=sys.stderr)
    for path in different:
        print(f"{path}: unchanged since the backup, but restored with other content",
              file=sys.stderr)  # fmt: skip
    print(f"{len(paths)} files restored, {compared} compared with unchanged live files")
    if not compared and not done.code:
        print("no live file is unchanged, so nothing was compared", file=sys.stderr)
    numbers: Numbers = {"compared_files": compared, "different_files": len(different)}
    good = compared > 0 and not different and not missing
    return Ended(done.code or (0 if good else FAILED), numbers)


def sample(nodes: list[dict[str, Any]]) -> list[str]:
    """Paths of some files of a backup, within the limits of a test."""
    files = [node for node in nodes if node.get("type") == "file"]
    random.shuffle(files)
    chosen: list[str] = []
    left = SAMPLE_BYTES
    for node in files:
        size = int(node.get("size", 0))
        if len(chosen) < SAMPLE_FILES and size <= left:
            chosen.append(node["path"])
            left -= size
    return chosen


def escaped(path: str) -> str:
    """The path as a pattern of restic's that means itself."""
    return "".join(f"\\{char}" if char in "\\*?[]" else char for char in path)


def compare(target: Path, paths: list[str]) -> tuple[int, list[str], list[str]]:
    """How many restored files have an unchanged live one; those that differ; those not restored."""
    compared, different, missing = 0, [], []
    for path in paths:
        restored = target / path.lstrip("/")
        if not restored.is_file():
            missing.append(path)
            continue
        try:
            live, copy = os.stat(path), os.stat(restored)
            if (live.st_size, live.st_mtime_ns) != (copy.st_size, copy.st_mtime_ns):
                continue
            same = digest(Path(path)) == digest(restored)
        except OSError:  # it is gone, or went meanwhile
            continue
        compared += 1
        if not same:
            different.append(path)
    return compared, different, missing


def digest(path: Path) -> str:
    """The sha256 of a file."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1024 * 1024):
            total.update(part)
    return total.hexdigest()


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for restored files; what a power cut left of an earlier one is removed."""
    for left in folder.glob("restore-*"):
        shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix="restore-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def record(settings: Settings, task: str, started: float, ended: Ended) -> None:
    """Keep how a job ended, and show all jobs to the node exporter."""
    folder, now = Path(settings["state"]), time.time()
    kept = known(folder / f"{task}.json")
    success = now if ended.code == 0 else kept.get("last_success_timestamp_seconds", 0)
    # Figures of a failed run would hide those of the last good one.
    figures = ended.numbers or {name: kept[name] for name in HELP if name in kept}
    replace(
        folder / f"{task}.json",
        json.dumps(
            {
                **figures,
                "last_run_timestamp_seconds": now,
                "last_success_timestamp_seconds": success,
                "exit_code": ended.code,
                "duration_seconds": now - started,
            }
        ),
    )
    replace(Path(settings["metrics"]), metrics(folder))


def killed(settings: Settings, task: str) -> None:
    """Keep that systemd had to end a job: its time was over, or the host went down.

    A job that failed by itself has said so. Source of SERVICE_RESULT: systemd.exec(5).
    """
    said = known(Path(settings["state"]) / f"{task}.json").get("exit_code", 0)
    if os.environ.get("SERVICE_RESULT", "success") != "success" and said == 0:
        record(settings, task, time.time(), Ended(FAILED, {}))


def known(file: Path) -> dict[str, Any]:
    """What was kept of a job, empty before its first end."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def metrics(folder: Path) -> str:
    """The text for the node exporter."""
    tasks = {file.stem: known(file) for file in sorted(folder.glob("*.json"))}
    lines = []
    for name, text in HELP.items():
        values = {task: kept[name] for task, kept in tasks.items() if name in kept}
        if values:
            lines += [f"# HELP {PREFIX}_{name} {text}", f"# TYPE {PREFIX}_{name} gauge"]
            lines += [f'{PREFIX}_{name}{{task="{task}"}} {value}' for task, value in values.items()]
    return "\n".join(lines) + "\n"


def replace(path: Path, text: str) -> None:
    """Write a file in one step: a reader, or a power cut, never leaves half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(0o644)
    new.replace(path)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One job at a time on this host."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


JOBS: dict[str, Callable[[Settings], Ended]] = {
    "backup": backup,
    "prune": prune,
    "check": check,
    "restore": restore,
}


def main(arguments: list[str], file: str = SETTINGS) -> int:
    """Do one job; its exit code is the job's."""
    after = arguments[:1] == ["ended"]
    tasks = arguments[1:] if after else arguments
    if len(tasks) != 1 or tasks[0] not in JOBS:
        print(f"usage: backup.py [ended] {'|'.join(JOBS)}", file=sys.stderr)
        return 2
    settings: Settings = json.loads(Path(file).read_text())
    (task,) = tasks
    if after:
        killed(settings, task)
        return 0
    with alone(Path(settings["state"])):
        started = time.time()
        ended = Ended(FAILED, {})
        try:
            ended = JOBS[task](settings)
        finally:
            record(settings, task, started, ended)
    return ended.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
