"""Whose a configuration file is that we write as a whole."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from pyinfra.api import FactBase

from cluster.managed import MANAGED

# A file is nobody's own while it is as its package has brought it.
_SCRIPT = r"""
brought=$(dpkg-query -W -f '${Conffiles}\n' @PACKAGES@ 2> /dev/null)
for f in @PATHS@; do
  [ -f "$f" ] || continue
  if head -n 1 "$f" | grep -qF @MARK@; then continue; fi
  printf '%s\n' "$brought" | grep -qF " $f $(md5sum < "$f" | cut -c1-32)" || echo "$f"
done
"""


class StrangeFiles(FactBase[tuple[str, ...]]):
    """Those of the files that somebody else has written or edited.

    + paths: of files
    + packages: that bring such files
    """

    def command(self, paths: tuple[str, ...], packages: tuple[str, ...]) -> str:
        """One script; what is not there is not printed."""
        text = _SCRIPT.replace("@PATHS@", " ".join(map(shlex.quote, paths)))
        text = text.replace("@PACKAGES@", " ".join(map(shlex.quote, packages)))
        return text.replace("@MARK@", shlex.quote(MANAGED.strip("# \n"))).strip()

    def process(self, output: Iterable[str]) -> tuple[str, ...]:
        """One path a line."""
        return tuple(output)
