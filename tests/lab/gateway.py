"""The process behind the lab's gateway address: the file server, and time where it may."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

from tests.lab import ntp
from tests.lab.files import FileServer


def main() -> None:
    """Serve files and time until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.gateway", description=__doc__)
    parser.add_argument("--bind", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    try:
        time_server = ntp.NtpServer((options.bind, ntp.PORT))
    except PermissionError:
        print(f"no time server: port {ntp.PORT} needs root", file=sys.stderr)
    else:
        threading.Thread(target=time_server.serve_forever, daemon=True).start()
    address = (options.bind, options.port)
    FileServer(address, options.root, options.control, options.log).serve_forever()


if __name__ == "__main__":
    main()
