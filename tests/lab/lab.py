"""The lab as an object: what the command line and the tests use."""

from __future__ import annotations

import fcntl
import json
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.errors import APIError
from docker.models.containers import Container

from tests.lab import (
    accounts,
    binaries,
    engine,
    fingerprint,
    helm,
    hosts,
    image,
    machine,
    simulation,
)
from tests.lab.cache import cache_dir
from tests.lab.charts import repository
from tests.lab.errors import LabError
from tests.lab.files import parse_fault
from tests.lab.plan import CHARTS_PATH, FILES_PORT, LABEL, ROLES, LabHost, Names, names
from tests.lab.record import Record, load_record, save_record
from tests.lab.service import Service

DEFAULT_SIZE = dict(zip(ROLES, (3, 2, 0, 0, 0), strict=True))


class Lab:
    """One lab of Docker hosts, known by its name; labs of different names do not touch each other.

    `name` is part of every container's and the network's name, `subnet` (CIDR) its network, and
    `say` gets the lines that a person is to read. Nothing is started before `up`.
    """

    def __init__(
        self, name: str = "lab", subnet: str | None = None, say: Callable[[str], None] = print
    ) -> None:
        self.names: Names = names(name, subnet)
        self._say = say
        self._known: DockerClient | None = None
        self._ended: dict[str, str] = {}  # scratch file of the last command by host
        # Made by this object, and none of the lab's hosts was used through it since.
        self._bare: frozenset[str] = frozenset()

    # ---- the lab as a whole

    def up(
        self,
        servers: int | None = None,
        agents: int | None = None,
        spare: int | None = None,
        gateways: int | None = None,
        externals: int | None = None,
        k3s: bool = True,
    ) -> None:
        """Bring the lab to this size and wait until every host answers; keeps what is there.

        A number left out stays as it is, or is 3, 2 and then 0 in a new lab. Without `k3s` the file
        server has neither K3s nor helm nor charts, which need not be built then. Raises LabError.
        """
        early: list[str] = []  # the first line is to say what is real
        client = engine.connect(early.append)
        self._known, bare = client, self._bare
        self.names.state.mkdir(parents=True, exist_ok=True)
        with self._lock():
            arch = engine.arch(client)
            source, kind, charts = image.choose(client), binaries.choose(), repository.choose()
            offered = f"k3s {kind.description}; charts {charts.description}" if k3s else "no k3s"
            self._say(f"lab {self.names.name}: hosts {source.description}; {offered}")
            for line in early:
                self._say(line)
            tag = image.build(client, source, arch)
            served = binaries.folders(kind.kind, arch) if k3s else {}
            wanted = Record(
                hosts=self.names.hosts(*self._size(servers, agents, spare, gateways, externals)),
                image=tag,
                image_kind=source.description,
                k3s_kind=kind.kind,
                k3s_versions=tuple(served),
                arch=arch,
                charts_kind=charts.kind,
            )
            raised = machine.ensure()
            if raised:
                self._say(raised)
            key = self._ssh_key()
            hosts.ensure_network(client, self.names)
            self._serve(served)
            if k3s:
                self._serve_helm(helm.folder(arch), charts.kind)
            self._gateway().ensure()
            present = hosts.containers(client, self.names)
            surplus = present.keys() - {host.name for host in wanted.hosts}
            hosts.each([present[name] for name in surplus], hosts.remove)
            hosts.each(
                wanted.hosts,
                lambda host: self._ensure(present.get(host.name), host, wanted, key),
            )
            self._check_gateway(wanted.hosts[0])
            save_record(self.names, wanted)
            self._name_older(present, wanted)
            self._write_known_hosts()
            self._make_secrets()
            self._bare = bare | {host.name for host in wanted.hosts} - present.keys()

    def down(self, everything: bool = False) -> None:
        """Remove all that `up` made; `everything`: also images, cached builds and our engine."""
        client = engine.running()
        if client is not None:
            hosts.each(hosts.containers(client, self.names).values(), hosts.remove)
            for network in client.networks.list(filters={"label": f"{LABEL}={self.names.name}"}):
                network.remove()
            if not client.containers.list(all=True, filters={"label": LABEL}):
                machine.restore()
        self._gateway().stop()
        shutil.rmtree(self.names.state, ignore_errors=True)
        if everything:
            self._remove_shared(client)
        elif engine.started_here():
            self._say("the Docker engine that the lab started goes on (down --all stops it)")

    @property
    def record(self) -> Record:
        """What lab.json says; raises LabError when the lab is not up."""
        found = load_record(self.names.state_file)
        if found is None:
            raise LabError(f"lab {self.names.name!r} is not up: python -m tests.lab up")
        return found

    @property
    def hosts(self) -> tuple[LabHost, ...]:
        """The hosts of the lab, servers first."""
        return self.record.hosts

    @property
    def environment(self) -> dict[str, str]:
        """What a process must have in its environment for inventories/lab.py to mean this lab."""
        self._bare = frozenset()  # of what it does nothing is known here
        return {"LAB_STATE": str(self.names.state_file)}

    def status(self) -> list[tuple[LabHost, str]]:
        """Return each host with what it is doing: running, paused, exited, absent, disconnected."""
        present = hosts.containers(self._client, self.names)
        return [(host, self._doing(present.get(host.name))) for host in self.hosts]

    # ---- one host

    def recreate(self, *names: str) -> None:
        """Make these hosts bare again, as after a re-flash: only name and address stay.

        A host that this object made stays as it is until any of them was used.
        """
        current, bare = self.record, self._bare
        wanted = [host for host in map(current.host, names) if host.name not in bare]
        if not wanted:
            return
        key = self._ssh_key()
        present = hosts.containers(self._client, self.names)

        def renew(host: LabHost) -> None:
            if host.name in present:
                hosts.remove(present[host.name])
            self._ensure(None, host, current, key)

        hosts.each(wanted, renew)
        self._write_known_hosts()
        self._bare = bare | {host.name for host in wanted}

    def stop(self, host: str) -> None:
        """Shut a host down in order (systemd stops its units); it stays off until `start`.

        `poweroff` typed inside a host is a reboot: Docker cannot tell the two apart.
        """
        self._container(host).stop(timeout=60)

    def start(self, host: str) -> None:
        """Switch a host on and wait until it answers; its disk is as it was."""
        container = self._container(host)
        container.start()
        hosts.wait_ready(container, self.record.host(host))

    def kill(self, host: str) -> None:
        """Cut a host's power; it stays off until `start`."""
        self._container(host).kill()

    def pause(self, host: str) -> None:
        """Freeze a host: it answers nothing until `unpause`, as with a hung kernel."""
        self._container(host).pause()

    def unpause(self, host: str) -> None:
        """Let a frozen host go on."""
        self._container(host).unpause()

    def disconnect(self, host: str) -> None:
        """Pull a host's network cable: its addresses and routes stay, the link has no carrier."""
        self._cable(host, "down")

    def connect(self, host: str) -> None:
        """Plug the network cable back in."""
        self._cable(host, "up")

    def run(self, host: str, command: str) -> tuple[int, str]:
        """Run a shell command as root, past SSH; return exit code and output with errors.

        Raises LabError when the host is off.
        """
        try:
            code, output, self._ended[host] = hosts.run(
                self._container(host), command, self._ended.get(host, "")
            )
        except APIError as error:
            raise LabError(f"{host}: {error.explanation}") from error
        return code, output

    def check(self, host: str, command: str) -> str:
        """Run a shell command as root and return its output; raises LabError when it fails."""
        code, output = self.run(host, command)
        if code:
            raise LabError(f"{host}: {command!r} ended with {code}: {output.strip()}")
        return output

    def put(self, host: str, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file on a host as root, in a folder that exists."""
        data = content.encode() if isinstance(content, str) else content
        # Docker's own copy reports success and writes nothing when the path is on a tmpfs.
        scratch = f"/var/tmp/lab-{uuid.uuid4().hex}"
        self._container(host).put_archive("/", hosts.archive({scratch: hosts.Entry(data, mode)}))
        self.check(host, f"mv -- {scratch} {shlex.quote(path)}")

    def read(self, host: str, path: str) -> str:
        """Return the text of a file on a host; raises LabError when it cannot be read."""
        return self.check(host, f"cat -- {shlex.quote(path)}")

    def fingerprint(self, host: str) -> dict[str, str]:
        """Return what the host looks like (files, units, links, rules, mounts, packages, users).

        Compare two with tests.lab.fingerprint.difference.
        """
        return fingerprint.parse(self.check(host, fingerprint.SCRIPT))

    # ---- the file server

    def fault(self, path: str, **kind: Any) -> None:
        """Make the file server misbehave for `path` (a pattern with * is allowed).

        One of: kind="truncate", bytes=N; kind="content", text="..."; kind="status", code=404;
        kind="slow", bytes_per_second=N. With times=N only for the next N requests.
        """
        parse_fault(kind)
        self._write_faults({**self._read_faults(), path: kind})

    def clear_faults(self) -> None:
        """Let the file server work as it should again."""
        self._write_faults({})

    def requests(self) -> list[dict[str, Any]]:
        """Return the file server's log: time, client, method, path, status, bytes, fault."""
        log = self.names.state / "requests.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [json.loads(line) for line in lines]

    # ---- inside

    @property
    def _client(self) -> DockerClient:
        if self._known is None:
            self._known = engine.connect()
        return self._known

    def _container(self, host: str) -> Container:
        self._bare = frozenset()
        return self._client.containers.get(self.names.container(self.record.host(host).name))

    def _doing(self, container: Container | None) -> str:
        if container is None:
            return "absent"
        if container.status == "running" and not hosts.has_carrier(container):
            return "disconnected"
        return str(container.status)

    def _cable(self, host: str, state: str) -> None:
        image_tag = self.record.image
        hosts.set_cable(self._client, self._container(host), image_tag, state)

    def _size(self, *wanted: int | None) -> tuple[int, ...]:
        known = load_record(self.names.state_file)
        size = known.counts if known else DEFAULT_SIZE
        return tuple(
            count if count is not None else size[role]
            for count, role in zip(wanted, DEFAULT_SIZE, strict=True)
        )

    def _ensure(self, container: Container | None, host: LabHost, wanted: Record, key: str) -> None:
        if container is None:
            real = wanted.k3s_kind == "release"
            more = simulation.files() if wanted.k3s_kind == "stand-in" else {}
            hosts.create(self._client, self.names, host, wanted.image, key, real, more)
            container = self._client.containers.get(self.names.container(host.name))
        else:
            self._revive(container, host)
        hosts.wait_ready(container, host)

    def _name_older(self, present: dict[str, Container], wanted: Record) -> None:
        """Say which hosts were kept although they were made from another image."""
        kept = sorted(present.keys() & {host.name for host in wanted.hosts})
        older = [n for n in kept if present[n].labels.get(hosts.IMAGE_LABEL) != wanted.image]
        if older:
            self._say(f"made from an older image, kept: recreate {' '.join(older)}")

    def _revive(self, container: Container, host: LabHost) -> None:
        doing = self._doing(container)
        if doing == "paused":
            container.unpause()
        elif doing == "disconnected":
            self.connect(host.name)
        elif doing != "running":
            container.start()

    def _ssh_key(self) -> str:
        """Return the public key of the lab, made at the first call."""
        private = self.names.ssh_key
        if not private.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.names.prefix]
            subprocess.run([*command, "-f", str(private)], check=True)
        return private.with_suffix(".pub").read_text()

    def _make_secrets(self) -> None:
        """Give the lab a key and secrets of its own: a fresh machine has nothing prepared."""
        folder = self.names.state
        servers = sum(host.role == "server" for host in self.hosts)
        accounts.make(self.environment, servers, folder / "secrets.sops.yaml", folder / "age.txt")

    def _write_known_hosts(self) -> None:
        """Record the hosts' SSH keys, so that strict checks pass: a recreated host has new ones."""
        lines = [
            f"{host.ip} {' '.join(key.split()[:2])}\n"
            for host in self.hosts
            for key in self.check(host.name, "cat /etc/ssh/ssh_host_*_key.pub").splitlines()
        ]
        self.names.known_hosts.write_text("".join(lines))

    @property
    def _files(self) -> Path:
        return self.names.state / "files"

    def _serve(self, served: dict[str, Path]) -> None:
        """Lay out K3s' releases as GitHub does."""
        root = self._files
        shutil.rmtree(root, ignore_errors=True)
        releases = root / "k3s-io" / "k3s" / "releases" / "download"
        releases.mkdir(parents=True)
        for version, folder in served.items():
            (releases / version).symlink_to(folder)

    def _serve_helm(self, folder: Path, charts_kind: str) -> None:
        """Lay out helm as get.helm.sh does, and the charts."""
        for file in folder.glob("*.tar.gz*"):
            (self._files / file.name).symlink_to(file)
        if charts_kind == "surrogate":  # a copy: other labs make and remove newer ones
            shutil.copytree(repository.folder(), self._files / CHARTS_PATH)

    def _check_gateway(self, host: LabHost) -> None:
        """Raise LabError when hosts do not reach the file server: a firewall, as a rule."""
        container = self._client.containers.get(self.names.container(host.name))
        port = f"/dev/tcp/{self.names.gateway}/{FILES_PORT}"
        code, _ = container.exec_run(["timeout", "5", "bash", "-c", f": <{port}"])
        if code:
            raise LabError(
                f"{host.name} does not reach {self.names.mirror}: "
                f"let the machine's firewall accept {self.names.subnet}"
            )

    def _gateway(self) -> Service:
        folder = self.names.state
        address = (self.names.gateway, FILES_PORT)
        arguments = ["--bind", address[0], "--port", str(address[1])]
        arguments += ["--root", str(self._files), "--control", str(folder / "faults.json")]
        arguments += ["--log", str(folder / "requests.log")]
        return Service("tests.lab.gateway", tuple(arguments), address, folder)

    def _read_faults(self) -> dict[str, Any]:
        file = self.names.state / "faults.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def _write_faults(self, faults: dict[str, Any]) -> None:
        file = self.names.state / "faults.json"
        scratch = file.with_suffix(".new")
        scratch.write_text(json.dumps(faults, indent=2))
        scratch.replace(file)

    def _remove_shared(self, client: DockerClient | None) -> None:
        if client is not None:
            others = client.containers.list(all=True, filters={"label": LABEL})
            if others:
                raise LabError("another lab still uses images and builds: take it down first")
            for tag in image.remove_images(client):
                self._say(f"removed image {tag}")
        if engine.stop():
            self._say("stopped the Docker engine that the lab had started")
        shutil.rmtree(cache_dir(), ignore_errors=True)
        self._say("removed cached builds")

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold off a second `up` of this lab until the first has ended."""
        with (self.names.state / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
