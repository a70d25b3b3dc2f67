"""Finds a running Docker engine, or installs and starts one where it may."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import docker
from docker import DockerClient
from docker.errors import DockerException

from tests.lab import packages
from tests.lab.cache import cache_dir
from tests.lab.errors import LabError

START_LIMIT_S = 60
STOP_LIMIT_S = 20
CLIENT_TIMEOUT_S = 600


def connect(say: Callable[[str], None] = print) -> DockerClient:
    """Return a client of a running engine, starting one when there is none and it may be done.

    `say` is told what is installed and started.
    Raises LabError, in one line, when there is no engine and this process may not start one.
    """
    try:
        return _client()
    except DockerException as error:
        if "Permission denied" in str(error):
            raise LabError(
                "the Docker engine refuses this user: add it to the group docker, or use sudo"
            ) from error
        if os.environ.get("DOCKER_HOST"):
            raise LabError(f"no Docker engine at DOCKER_HOST: {error}") from error
    if os.geteuid() != 0:
        raise LabError("no Docker engine is running: start it (sudo systemctl start docker)")
    if packages.ensure("dockerd", "docker.io", say):
        client = running()  # the package's own scripts may have started it
        if client is not None:
            return client
    return _start(say)


def running() -> DockerClient | None:
    """Return a client of the running engine, or None; never starts one."""
    try:
        return _client()
    except DockerException:
        return None


def arch(client: DockerClient) -> str:
    """Return the engine's architecture as Debian and K3s name it: amd64 or arm64."""
    return arch_of(str(client.info()["Architecture"]))


def arch_of(machine: str) -> str:
    """Return how Debian and K3s name an architecture that the kernel calls `machine`."""
    known = {"x86_64": "amd64", "aarch64": "arm64"}
    if machine not in known:
        raise LabError(f"architecture {machine}: the lab knows {', '.join(known)}")
    return known[machine]


def started_here() -> bool:
    """Return whether the engine that runs was started by the lab."""
    record = _read_record()
    return record is not None and _is_dockerd(record)


def stop() -> bool:
    """Stop the engine if the lab started it; return whether it was stopped."""
    pid = _read_record()
    if pid is None or not _is_dockerd(pid):
        return False
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + STOP_LIMIT_S
    while _is_dockerd(pid):
        if time.monotonic() > end:
            raise LabError(f"dockerd (pid {pid}) did not stop within {STOP_LIMIT_S} s")
        time.sleep(0.2)
    _record_file().unlink()
    return True


def _client() -> DockerClient:
    client = docker.from_env(timeout=CLIENT_TIMEOUT_S)
    client.ping()
    return client


def _folder() -> Path:
    folder = cache_dir() / "engine"
    folder.mkdir(exist_ok=True)
    return folder


def _record_file() -> Path:
    return _folder() / "dockerd.json"


def _read_record() -> int | None:
    try:
        return int(json.loads(_record_file().read_text())["pid"])
    except (FileNotFoundError, KeyError, ValueError):
        return None


def _is_dockerd(pid: int) -> bool:
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return name == "dockerd" and state != "Z"


def _start(say: Callable[[str], None]) -> DockerClient:
    if Path("/run/systemd/system").exists():
        subprocess.run(["systemctl", "start", "docker"], check=False, capture_output=True)
        return _wait("systemctl status docker")
    _mount_systemd_hierarchy()
    log = _folder() / "dockerd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["dockerd"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _record_file().write_text(json.dumps({"pid": process.pid}))
    say(f"started the Docker engine (pid {process.pid}, log {log})")
    return _wait(str(log), process, log)


def _wait(
    where: str, process: subprocess.Popen[bytes] | None = None, log: Path | None = None
) -> DockerClient:
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        client = running()
        if client is not None:
            return client
        if process is not None and process.poll() is not None:
            break
        time.sleep(0.3)
    last = log.read_text(errors="replace").strip().splitlines()[-1:] if log else []
    cause = " ".join(last) or "no answer"
    raise LabError(f"the Docker engine did not start: {cause} (see {where})")


def _mount_systemd_hierarchy() -> None:
    """Provide the named hierarchy that systemd in a container needs on a cgroup v1 machine.

    Where systemd does not run the machine itself nobody mounts it (systemd, CGROUP_DELEGATION).
    """
    if Path("/sys/fs/cgroup/cgroup.controllers").exists() or not shutil.which("mount"):
        return
    folder = Path("/sys/fs/cgroup/systemd")
    if folder.is_mount():
        return
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "cgroup", "-o", "none,name=systemd", "cgroup", str(folder)], check=False
    )
