"""The firewall's table as the kernel has it, beside what its file would make of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from cluster.services.firewall import RUN, TABLE
from cluster.services.gateway import FIREWALL


@dataclass(frozen=True)
class FirewallState:
    """Sha256 of both listings, empty where there is none.

    Args:
        live: of the kernel's rules, without counters.
        wanted: of the rules that the file on the host makes, in a network namespace of its own: so
            both are in nft's own spelling, whatever its version.
        pending: new rules wait for their confirmation, or for their end.
    """

    live: str = ""
    wanted: str = ""
    pending: bool = False

    @property
    def as_in_file(self) -> bool:
        """Whether the kernel has what the file says, and that is final."""
        return bool(self.live) and self.live == self.wanted and not self.pending

    def to_json(self) -> dict[str, str | bool]:
        """Plain data for `pyinfra --json`."""
        return asdict(self)


_SCRIPT = f"""
PATH=$PATH:/usr/sbin:/sbin; export PATH
if command -v nft > /dev/null; then
  nft list tables > /dev/null 2>&1 || echo unread
  live=$(nft -s list table {TABLE} 2>/dev/null)
  [ -z "$live" ] || echo "live $(printf '%s' "$live" | sha256sum | cut -c1-64)"
  wanted=$(unshare -n sh -c 'nft -f {FIREWALL} && nft -s list table {TABLE}' 2>/dev/null)
  [ -z "$wanted" ] || echo "wanted $(printf '%s' "$wanted" | sha256sum | cut -c1-64)"
fi
[ ! -f {RUN}/before.nft ] || echo pending
echo end
"""


class Firewall(FactBase[FirewallState]):
    """Whether the kernel has the rules of the firewall's file.

    ```
    pyinfra inventories/home.py fact facts.firewall.Firewall
    ```
    """

    def command(self) -> str:
        """Two listings by nft; nothing is changed."""
        return _SCRIPT.strip()

    def process(self, output: Iterable[str]) -> FirewallState:
        """The script's lines as a `FirewallState`."""
        lines = [line.split() for line in output]
        if ["end"] not in lines:
            raise FactProcessError("the state of the firewall ended early")
        if ["unread"] in lines:
            raise FactProcessError("nft may not list the firewall's tables: is this root?")
        found = {words[0]: words[1] for words in lines if len(words) == 2}
        return FirewallState(found.get("live", ""), found.get("wanted", ""), ["pending"] in lines)
