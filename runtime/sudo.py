"""Whether sudo works on every host, found out while connecting, before anything is read."""

from __future__ import annotations

from pyinfra.api import Host, State, StringCommand
from pyinfra.api.state import BaseStateCallback, StateStage
from pyinfra.connectors.ssh import SSHConnector

from runtime.inventory import node_name

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
        _, output = host.connector.run_shell_command(
            StringCommand(_CHECK), print_output=False, print_input=False
        )
        if said := " ".join(line.strip() for line in output.stdout_lines if line.strip()):
            user = host.data.get("ssh_user") or "the user"
            self.problems.append(
                f"{node_name(host)}: {said}: {user} needs a rule with NOPASSWD, "
                "or pyinfra the option --same-sudo-password"
            )
