"""What the script of a combined fact prints: lines of a word and its values, apart by tabs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Self

SECONDS = 10  # one program of a script may take
LIMIT = 60  # seconds a whole script may take

# What such a script begins with: `say <word> <value>...` prints a line; `limited <what> <program>`
# runs a program that waits for something else (a disk of the network, a service, a device). When
# it does not end in time, the line `late <what>` says so in the place of its answer. The program
# writes to cat and nowhere else: one that cannot even be killed, as it waits for a dead disk, keeps
# nobody waiting.
HEAD = r"""
LC_ALL=C; export LC_ALL; PATH=$PATH:/usr/sbin:/sbin; t=$(printf '\t'); exec 3>&1
say() { line=$1; shift; for word; do line=$line$t$word; done; printf '%s\n' "$line"; }
have() { command -v "$1" > /dev/null 2>&1; }
have timeout || timeout() { shift 3; "$@"; }
limited() {
  what=$1; shift
  timeout -k 1 @SECONDS@ sh -c '"$@" | cat' sh "$@" < /dev/null 2> /dev/null 3>&-
  case $? in 124 | 137) say late "$what did not end within @SECONDS@ seconds" >&3 ;; esac
}
""".replace("@SECONDS@", str(SECONDS))

# Which of @MODULES@ the kernel $kernel has: `module <name> builtin`, `available` or `loaded`.
MODULES = r"""for f in modules.builtin modules.dep; do
  [ -f "/lib/modules/$kernel/$f" ] && awk -F: -v w=" @MODULES@ " -v f=$f '{
    n = $1; sub(/.*\//, "", n); sub(/\.ko.*/, "", n); gsub(/-/, "_", n)
    if (index(w, " " n " ")) print "module\t" n "\t" (f ~ /builtin/ ? "builtin" : "available")
  }' "/lib/modules/$kernel/$f"
done
for m in @MODULES@; do [ -d "/sys/module/$m" ] && say module "$m" loaded; done
"""


def filled(script: str, **values: str) -> str:
    """The script with each value in the place of its @NAME@."""
    for name, value in values.items():
        script = script.replace(f"@{name}@", value)
    return script.strip()


def quoted(values: Iterable[str]) -> str:
    """The values as words of a shell, each once."""
    return " ".join(map(shlex.quote, dict.fromkeys(values)))


def words(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each line's word and values; raises ValueError when they end early.

    The last line's word is `end`: a script that was broken off does not have it.
    """
    complete = False
    for line in lines:
        key, *values = line.split("\t")
        complete = complete or key == "end"
        yield key, values
    if not complete:
        raise ValueError("it ended early")


_TOGETHER = r"""
part() { printf 'part\t%s\n' "$1"; }
@SCRIPTS@
printf 'ended\t%s\n' "$(date +%s.%N)"
""".strip()


def together(**scripts: str) -> str:
    """The scripts as one, run at the same time; what they print comes in their order.

    Each writes into a pipe, which is read when the one before has ended.
    """
    text = ""
    for name, script in scripts.items():
        one = f"{{\npart {name}\n{script}\n}} < /dev/null"
        text = f"{one} | {{\n{text}\ncat\n}}" if text else one
    return _TOGETHER.replace("@SCRIPTS@", text)


def apart(lines: Iterable[str]) -> tuple[dict[str, list[str]], float | None]:
    """The lines of each script by its name, and the host's clock when all had ended."""
    parts: dict[str, list[str]] = {}
    mine: list[str] = []
    ended = None
    for line in lines:
        key, _, value = line.partition("\t")
        if key == "part":
            mine = parts.setdefault(value, [])
        elif key == "ended":
            ended = float(value)
        else:
            mine.append(line)
    return parts, ended


class Tagged:
    """The lines so far; a subclass has a method for each word, `_<word>(*values)`.

    A word without one is left out. `late` is for all of them: what did not end in time.
    """

    plain: ClassVar[tuple[str, ...]] = ()  # words whose value is a field of that name

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.lists: dict[str, list[Any]] = {}

    def read(self, lines: Iterable[str]) -> Self:
        """Take all lines; raises ValueError when they end early."""
        for key, values in words(lines):
            if key in self.plain:
                self.fields[key] = values[0]
            elif take := getattr(self, f"_{key}", None):
                take(*values)
        return self

    def _late(self, what: str) -> None:
        self.add("late", what)

    def add(self, field: str, value: Any) -> None:
        """One more item of a list."""
        self.lists.setdefault(field, []).append(value)

    @property
    def tuples(self) -> dict[str, tuple[Any, ...]]:
        """The lists, as a state has them."""
        return {name: tuple(values) for name, values in self.lists.items()}
