"""A program of a release on a host, verified."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import FileUploadCommand, StringCommand, operation
from pyinfra.api.command import PyinfraCommand

from cluster import programs
from cluster.k3s_release import part
from facts.program import InstalledProgram
from runtime.cache import cached
from runtime.run import cluster


@operation()
def installed(program: str, version: str) -> Generator[PyinfraCommand, None, None]:
    """Put a version of a program on the host, and make it the one that is called by name.

    Fetched from the release, a mirror or a folder of the operator's machine as `k3s.source` says.
    Versions that are there stay.

    + program: as in cluster/programs.py, such as helm
    + version: without the v
    """
    model, found = cluster(), cached(host, InstalledProgram, program=program)
    me, wanted = model.host(host.name), programs.BY_NAME[program]
    if version not in found.versions:
        item = wanted.asset(model.k3s.source, version, me.arch)
        packed = wanted.archive_path(version, me.arch)
        if item.folder:
            yield StringCommand("mkdir", "-p", packed.rpartition("/")[0])
            yield FileUploadCommand(f"{item.folder}/{item.name}", part(packed))
            if item.sha256 is None:
                yield FileUploadCommand(f"{item.folder}/{item.sums}", f"{part(packed)}.sums")
        script = wanted.install_script(item, version, me.arch)
        yield StringCommand("sh", "-s", _stdin=script)
    if found.link != wanted.path(version):
        yield StringCommand("sh", "-s", _stdin=wanted.link_script(version))
    elif version in found.versions:
        host.noop(f"{program} {version} is on the host")
