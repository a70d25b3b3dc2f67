"""Whether sudo works on every host, found out while connecting, before anything is read."""

from __future__ import annotations

import gevent
from pyinfra.api import Host, State, StringCommand
from pyinfra.api.state import BaseStateCallback, StateStage
from pyinfra.connectors.ssh import SSHConnector

from runtime.inventory import node_name

LIMIT = 30  # seconds
# It succeeds whatever sudo says: pyinfra would ask for a password otherwise, host by host.
_CHECK = "sudo -n true 2>&1 || true"


class Sudo(BaseStateCallback):
    """Collects the hosts that refuse it.

    Hosts for which a password was given are left to pyinfra.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []

    def host_connect(self, state: State, host: Host) -> None:  # type: ignore[override]
        """Try it once on a new connection."""
        given = host.data.get("_sudo_password") or state.config.SUDO_PASSWORD
        if not host.data.get("_sudo") or given or host.connector_cls is not SSHConnector:
            return
        if state.current_stage != StateStage.Connect:
            return
        try:
            # Not by `_timeout`, which begins when the login has ended.
            with gevent.Timeout(LIMIT):
                _, output = host.connector.run_shell_command(
                    StringCommand(_CHECK), print_output=False, print_input=False
                )
        except gevent.Timeout:
            self.problems.append(
                f"{node_name(host)}: a login with sudo does not end within {LIMIT} seconds: "
                "what does it wait for there (a disk or a name server that is gone)?"
            )
            return
        if said := " ".join(line.strip() for line in output.stdout_lines if line.strip()):
            user = host.data.get("ssh_user") or "the user"
            self.problems.append(
                f"{node_name(host)}: {said}: {user} needs a rule with NOPASSWD, "
                "or pyinfra the option --same-sudo-password"
            )
