"""Write what the first boot of each host needs: `python -m commands.images inventories/home.py`.

Files go to build/images/<inventory>/<host>/; docs/first-boot.md says what to do with them. Exit
code 0 when they are there, 1 when a problem was printed and nothing was written, 2 usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import secret_table
from cluster.first_boot import seed
from cluster.first_boot.cloud_config import Login
from cluster.model import Arch, Cluster, Host
from cluster.problem import Problem, Problems, meant

if TYPE_CHECKING:
    from pyinfra.api import Inventory

FOLDER = Path("build/images")
PASSWORD = "first_boot.password_hash"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _options(arguments)
    from pyinfra.api.exceptions import PyinfraError

    from runtime import inventory

    try:
        hosts = inventory.load(options.inventory)
        model = inventory.cluster_of(hosts, secrets_needed=False)
        logins = _logins(model, hosts, options.inventory)
        wanted = rendered(model, Path(options.inventory).stem, logins, options.host, options.erase)
    except (Problems, PyinfraError) as error:
        print(error, file=sys.stderr)
        return 1
    folder = FOLDER / Path(options.inventory).stem
    for line in written(folder, wanted):
        print(line)
    print(
        f"{folder} has the files of {', '.join(wanted)}; what to do with them: docs/first-boot.md"
    )
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m commands.images", description=__doc__)
    parser.add_argument("inventory", help="e.g. inventories/home.py")
    parser.add_argument("host", nargs="*", help="only these; without any, every host")
    parser.add_argument(
        "--erase",
        action="append",
        default=[],
        metavar="HOST",
        help="let the installer overwrite what the disk of this PC holds",
    )
    return parser.parse_args(arguments)


def _logins(model: Cluster, hosts: Inventory, file: str) -> dict[str, Login | None]:
    """Who pyinfra logs in as, by host; opens the secrets when there is a password."""
    from runtime import secrets
    from runtime.inventory import node_name

    password = None
    if model.first_boot.password:
        secrets.use(model, file)
        password = _hash(secrets.secret(PASSWORD).unmask(), model)
    users = {node_name(host): host.data.get("ssh_user") for host in hosts}
    return {host.name: seed.login_of(model, users.get(host.name), password) for host in model.hosts}


def _hash(text: str, model: Cluster) -> str:
    """The text if it is a hash: a password itself must not get into a file that all can read."""
    kind = next(one for one in secret_table.TABLE if one.name == PASSWORD)
    if not kind.fits(text):
        raise Problems([Problem(f"{model.secrets_file}: {PASSWORD}", "malformed", kind.shape)])
    return text


def rendered(
    model: Cluster,
    inventory: str,
    logins: Mapping[str, Login | None],
    chosen: Sequence[str] = (),
    erase: Sequence[str] = (),
) -> dict[str, dict[str, str]]:
    """The files by host and name.

    Args:
        inventory: name of the inventory.
        logins: who pyinfra logs in as, by host.
        chosen: names of hosts, none for all.
        erase: names of PCs whose disks may be overwritten.

    Raises: Problems with all that is missing.
    """
    found = list(_unfit(model, chosen, erase))
    hosts = [host for host in model.hosts if not chosen or host.name in chosen]
    for host in hosts:
        found += seed.problems(model, host, logins[host.name], inventory)
    if found:
        raise Problems(dict.fromkeys(found))
    files = {}
    for host in hosts:
        login = logins[host.name]
        assert login is not None  # or there was a problem
        files[host.name] = seed.files(model, host, login, erase=host.name in erase)
    return files


def _unfit(model: Cluster, chosen: Sequence[str], erase: Sequence[str]) -> Iterator[Problem]:
    """Names that are no host's, or that cannot be erased."""
    hosts: dict[str, Host] = {host.name: host for host in model.hosts}
    for name in (*chosen, *erase):
        if name not in hosts:
            yield Problem(name, "no host of the inventory", suggestion=meant(name, list(hosts)))
        elif name in erase and hosts[name].arch is Arch.ARM64:
            yield Problem(f"--erase {name}", "an image is written over a disk by hand", "a PC")
        elif name in erase and chosen and name not in chosen:
            yield Problem(f"--erase {name}", "its files are not written", ", ".join(chosen))


def written(folder: Path, wanted: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Write what differs, readable by their owner only; yields a line for each host."""
    for host, files in wanted.items():
        place = folder / host
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        changed = [name for name, text in files.items() if _write(place / name, text)]
        for stale in sorted({path.name for path in place.iterdir()} - files.keys()):
            (place / stale).unlink()
            changed.append(f"{stale} removed")
        yield f"{place}: {', '.join(changed) or 'unchanged'}"


def _write(path: Path, text: str) -> bool:
    """Whether the file had to be written: whole or not at all, and never readable by others."""
    if path.exists() and path.read_text() == text and path.stat().st_mode & 0o777 == 0o600:
        return False
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    scratch.replace(path)
    return True


if __name__ == "__main__":
    sys.exit(main())
