"""Command line of the lab: python -m tests.lab up | down | status | recreate | shell."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from tests.lab.errors import LabError
from tests.lab.lab import DEFAULT_SIZE, Lab
from tests.lab.plan import SIZES, SSH_USER


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return the exit code (0 done, 1 refused or failed)."""
    options = _parser().parse_args(arguments)
    try:
        lab = Lab(options.name, options.subnet)
        if options.command == "up":
            _up(lab, options)
        elif options.command == "down":
            lab.down(everything=options.all)
        elif options.command == "status":
            return _status(lab)
        elif options.command == "recreate":
            lab.recreate(*options.hosts)
        else:
            _shell(lab, options.host)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab",
        description="Docker hosts that behave like a rack of small computers.",
        epilog="LAB_K3S: auto, release, stand-in, none. LAB_IMAGE: auto, debian, ubuntu:<release>.",
    )
    parser.add_argument("--name", default=os.environ.get("LAB_NAME", "lab"), help="which lab")
    parser.add_argument("--subnet", help="CIDR, if the usual one is taken")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the hosts; what runs already stays as it is")
    for role, default in zip(SIZES, DEFAULT_SIZE.values(), strict=True):
        up.add_argument(f"--{role}", type=int, metavar="N", help=f"{default} in a new lab")
    down = commands.add_parser("down", help="remove the hosts, the network and the state")
    down.add_argument("--all", action="store_true", help="also images, cached builds, our engine")
    commands.add_parser("status", help="show the hosts (exit 1 unless all run)")
    recreate = commands.add_parser("recreate", help="make hosts bare again")
    recreate.add_argument("hosts", nargs="+", metavar="HOST")
    shell = commands.add_parser("shell", help="log in over SSH as the hosts' user")
    shell.add_argument("host", metavar="HOST")
    return parser


def _up(lab: Lab, options: argparse.Namespace) -> None:
    lab.up(**{size: getattr(options, size) for size in SIZES})
    _status(lab)
    print(f"files: {lab.names.mirror}  record: {lab.names.state_file}")


def _status(lab: Lab) -> int:
    found = lab.status()
    print(f"{'host':9} {'role':8} {'address':15} state")
    for host, doing in found:
        print(f"{host.name:9} {host.role:8} {host.ip:15} {doing}")
    return 0 if all(doing == "running" for _, doing in found) else 1


def _shell(lab: Lab, name: str) -> None:
    host = lab.record.host(name)
    if not shutil.which("ssh"):
        raise LabError("ssh is missing: sudo apt-get install openssh-client")
    options = ["-i", str(lab.names.ssh_key), "-o", f"UserKnownHostsFile={lab.names.known_hosts}"]
    os.execvp("ssh", ["ssh", *options, f"{SSH_USER}@{host.ip}"])


if __name__ == "__main__":
    sys.exit(main())
