"""The containers and the network of a lab, through the Docker API."""

from __future__ import annotations

import io
import tarfile
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from docker import DockerClient
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool

from tests.lab.errors import LabError
from tests.lab.net import ssh_answers
from tests.lab.plan import LABEL, SSH_USER, LabHost, Names

IMAGE_LABEL = f"{LABEL}.image"
READY_LIMIT_S = 120.0
# What systemd, iptables, network links and a control plane need. Not --privileged: that fails where
# CAP_SYS_RESOURCE is not in the bounding set, and gives more than is needed.
CAPABILITIES = ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "SYSLOG"]
SECURITY = ["seccomp=unconfined", "apparmor=unconfined"]
TMPFS = {"/run": "exec,mode=755", "/run/lock": "", "/tmp": "exec,mode=1777"}
READY_STATES = ("running", "degraded")
SSH_UID = 1000
INTERFACE = "eth0"
MARK = "end-of-output"
GONE = b"restarted-meanwhile"
READ_LIMIT_S = 30.0

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """A file (or a folder, with content None) to put into a host: mode and numeric owner."""

    content: bytes | None
    mode: int = 0o644
    owner: int = 0


def each(items: Iterable[T], action: Callable[[T], None]) -> None:
    """Run `action` for all items at the same time; the first error is raised after all ended."""
    wanted = list(items)
    with ThreadPoolExecutor(max_workers=max(1, min(8, len(wanted)))) as pool:
        for result in [pool.submit(action, item) for item in wanted]:
            result.result()


def ensure_network(client: DockerClient, names: Names) -> None:
    """Make the lab's network; raises LabError when its subnet is in use by another one."""
    for network in client.networks.list(names=[names.network]):
        if network.name == names.network:
            return
    pool = IPAMPool(subnet=str(names.subnet), gateway=names.gateway)
    try:
        client.networks.create(
            names.network,
            driver="bridge",
            ipam=IPAMConfig(pool_configs=[pool]),
            options={"com.docker.network.bridge.name": names.bridge},
            labels={LABEL: names.name},
        )
    except APIError as error:
        raise LabError(f"network {names.network} {names.subnet}: {error.explanation}") from error


def containers(client: DockerClient, names: Names) -> dict[str, Container]:
    """Return the lab's containers by host name, running or not."""
    found = client.containers.list(all=True, filters={"label": f"{LABEL}={names.name}"})
    return {str(one.name).removeprefix(f"{names.prefix}-"): one for one in found}


def create(
    client: DockerClient,
    names: Names,
    host: LabHost,
    image: str,
    public_key: str,
    real_k3s: bool,
    files: dict[str, Entry],
) -> None:
    """Make and start the container of `host`, reachable as SSH_USER with `public_key`.

    files: what lies on it from the beginning, by absolute path.
    """
    api = client.api
    config = api.create_host_config(
        cap_add=CAPABILITIES,
        security_opt=SECURITY,
        tmpfs=TMPFS,
        binds=_binds(),
        restart_policy={"Name": "unless-stopped"},  # a reboot inside comes up again
    )
    # The command line's `--security-opt systempaths=unconfined` is this in the API.
    config["MaskedPaths"] = []
    config["ReadonlyPaths"] = []
    config["CgroupnsMode"] = "host"
    volumes, environment = None, {}
    if real_k3s:
        # Real containers: containerd's overlay cannot lie on Docker's overlay, kubelet sets vm.*.
        config["Privileged"] = True
        volumes, environment = ["/var/lib"], {"LAB_KERNEL": "writable"}
    network = api.create_endpoint_config(ipv4_address=host.ip)
    container = api.create_container(
        image,
        name=names.container(host.name),
        hostname=host.name,
        labels={LABEL: names.name, IMAGE_LABEL: image},
        host_config=config,
        volumes=volumes,
        environment=environment,
        networking_config=api.create_networking_config({names.network: network}),
    )
    # Before the start: Docker's copy into a running container can take its /etc/hosts away.
    api.put_archive(container, "/", archive(_first_files(public_key) | files))
    api.start(container)


def _binds() -> list[str]:
    # The kernel is the machine's, so its list of modules is too; a host cannot load any.
    modules = ["/lib/modules:/lib/modules:ro"] if Path("/lib/modules").is_dir() else []
    return ["/sys/fs/cgroup:/sys/fs/cgroup:rw", *modules]


def remove(container: Container) -> None:
    """Remove a container with its volumes, whatever it is doing."""
    try:
        container.remove(force=True, v=True)
    except NotFound:
        pass
    except APIError as error:
        if "already in progress" not in str(error):
            raise


def wait_ready(container: Container, host: LabHost) -> None:
    """Wait until systemd has booted and SSH answers.

    Raises LabError naming the state and the failed units after READY_LIMIT_S.
    """
    end = time.monotonic() + READY_LIMIT_S
    state = "not started"
    while time.monotonic() < end:
        state = _system_state(container, end - time.monotonic())
        if state in READY_STATES:
            break
        time.sleep(0.2)
    else:
        last = container.logs(tail=1).decode(errors="replace").strip()
        raise LabError(f"{host.name} is not up after {READY_LIMIT_S:.0f} s: {last or state}")
    if not ssh_answers(host.ip, end - time.monotonic()):
        raise LabError(f"{host.name}: no SSH server answers at {host.ip}:22")


def _system_state(container: Container, limit: float) -> str:
    """What systemd says of itself once it has booted; waiting in there costs no CPU time."""
    try:
        code, output = container.exec_run(
            ["timeout", f"{limit + 1:.0f}", "systemctl", "is-system-running", "--wait"]
        )
    except APIError as error:  # the container is not running (yet)
        return str(error.explanation)
    return output.decode(errors="replace").strip() or f"exit {code}"


def run(container: Container, command: str, ended: str = "") -> tuple[int, str, str]:
    """Run a shell command as root; return exit code, output with errors, and its scratch file.

    A busy Docker loses the beginning of an exec's output now and then, or all of it. So the output
    goes through a file on the host and ends with its size, and is read again until it is whole.

    ended: the scratch file of an earlier command, removed on the way.
    """
    scratch = f"/run/lab-{uuid.uuid4().hex}"
    script = f"rm -f {ended} {ended}.rc; " if ended else ""
    script += f'bash -c "$1" > {scratch} 2>&1; echo $? > {scratch}.rc; {_show(scratch)}'
    code, output = container.exec_run(["bash", "-c", script, "lab", command])
    end = time.monotonic() + READ_LIMIT_S
    while (found := _whole(output)) is None:
        if time.monotonic() > end:
            raise LabError(f"{container.name}: no output of {command!r} (exit code {code})")
        time.sleep(0.2)
        try:
            _, output = container.exec_run(["bash", "-c", _show(scratch)])
        except APIError:
            output = GONE
        if output == GONE:  # the command itself has switched the host off
            return int(code or 0), "", ""
    return *found, scratch


def _show(scratch: str) -> str:
    return (
        f"[ -f {scratch} ] || printf {GONE.decode()}; [ ! -f {scratch}.rc ] || {{ cat {scratch}; "
        f"printf '\\n%s %s {MARK}' $(stat -c %s {scratch}) $(cat {scratch}.rc); }}"
    )


def _whole(output: bytes) -> tuple[int, str] | None:
    """Exit code and output; None when something of it is missing."""
    text, _, last = output.rpartition(b"\n")
    match last.decode(errors="replace").split():
        case [size, code, mark] if mark == MARK and int(size) == len(text):
            return int(code), text.decode(errors="replace")
    return None


def has_carrier(container: Container) -> bool:
    """Return whether the network cable of a running host is plugged in."""
    return _of_link(container, "carrier") == "1"


def set_cable(client: DockerClient, container: Container, image: str, state: str) -> None:
    """Set the far end of a host's network link `up` or `down`.

    Not by taking the container off the network: it would come back with another interface name.
    The far end lies in the machine's own network, where a helper container of `image` sets it.
    """
    end = int(_of_link(container, "iflink"))
    find = f"ip -oneline link show | sed -nE 's/^{end}: ([^@:]+).*/\\1/p'"
    client.containers.run(
        image,
        ["sh", "-c", f'ip link set dev "$({find})" {state}'],
        network_mode="host",
        cap_add=["NET_ADMIN"],
        remove=True,
    )


def _of_link(container: Container, name: str) -> str:
    _, output, scratch = run(container, f"cat /sys/class/net/{INTERFACE}/{name}")
    container.exec_run(["rm", "-f", scratch, f"{scratch}.rc"])
    return output.strip()


def archive(entries: dict[str, Entry]) -> bytes:
    """Return a tar that holds `entries` by their absolute path."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, entry in entries.items():
            info = tarfile.TarInfo(path.lstrip("/"))
            info.type = tarfile.DIRTYPE if entry.content is None else tarfile.REGTYPE
            info.size = len(entry.content or b"")
            info.mode, info.uid, info.gid = entry.mode, entry.owner, entry.owner
            info.mtime = int(time.time())
            tar.addfile(info, io.BytesIO(entry.content or b""))
    return buffer.getvalue()


def _first_files(public_key: str) -> dict[str, Entry]:
    """Return what the boot medium of a fresh computer brings besides the image: the user's key."""
    folder = f"/home/{SSH_USER}/.ssh"
    keys = Entry(public_key.encode(), 0o600, SSH_UID)
    return {folder: Entry(None, 0o700, SSH_UID), f"{folder}/authorized_keys": keys}
