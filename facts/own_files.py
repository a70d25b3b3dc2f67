"""Whose a configuration file is that we write as a whole."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from cluster.managed import MANAGED
from facts.tagged import HEAD, filled, quoted, words

# A file is nobody's own while it is as its package has brought it.
_SCRIPT = r"""
brought=$(dpkg-query -W -f '${Conffiles}\n' @PACKAGES@ 2> /dev/null)
for f in @PATHS@; do
  [ -f "$f" ] || continue
  if head -n 1 "$f" | grep -qF @MARK@; then continue; fi
  printf '%s\n' "$brought" | grep -qF " $f $(md5sum < "$f" | cut -c1-32)" || say strange "$f"
done
say end
"""


class StrangeFiles(FactBase[tuple[str, ...]]):
    """Those of the files that somebody else has written or edited.

    + paths: of files
    + packages: that bring such files
    """

    def command(self, paths: tuple[str, ...], packages: tuple[str, ...]) -> str:
        """One script; what is not there is not printed."""
        mark = shlex.quote(MANAGED.strip("# \n"))
        return HEAD + filled(_SCRIPT, PATHS=quoted(paths), PACKAGES=quoted(packages), MARK=mark)

    def process(self, output: Iterable[str]) -> tuple[str, ...]:
        """The paths; raises FactProcessError when the script was broken off."""
        try:
            return tuple(values[0] for key, values in words(output) if key == "strange")
        except ValueError as error:
            raise FactProcessError(f"whose files those are: {error}") from error
