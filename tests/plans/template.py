"""A process that has imported everything and forks itself for each run that it is asked for.

It is asked over the socket of the given file descriptor: the words of pyinfra's command line as
JSON, with stdin, stdout and stderr of the run. It answers with the run's pid, then its exit code.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
from importlib import import_module
from typing import Any

# Before gevent puts its own in their place: no event loop may exist when this process forks.
receive, fork = socket.recv_fds, os.fork
asked = socket.socket(fileno=int(sys.argv[1]))
asked.setblocking(True)  # the other end is gevent's

from tests.plans import start  # noqa: E402

for deploy in ("k3s", "nodes", "preflight", "reset", "restore"):
    import_module(f"deploys.{deploy}")


def become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Be the run, in a process that was forked for it."""
    asked.close()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = ["pyinfra", *request["words"]]
    if request["simulated"]:
        start.simulate()
    try:
        code = start.main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # to take apart all that was imported costs as much as a short run


while True:
    text, descriptors, _, _ = receive(asked, 65536, 3)
    if not text:
        break
    child = fork()
    if not child:
        become(json.loads(text), descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    asked.sendall(f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    asked.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
