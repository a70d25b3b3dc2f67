"""Where the boot partition keeps the command line that the next boot reads.

Sources: canonical's piboot-ab.rst for slots and states; config.txt's os_prefix and cmdline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.answer import Absent, Answer, Present, Stopped
from cluster.boot import config_txt
from cluster.boot.board import Board

CMDLINE = "cmdline.txt"
SLOTS = ("current", "new", "old")
STAGED, TRYING, BAD, GOOD = "unknown", "trying", "bad", "good"


@dataclass(frozen=True, slots=True)
class Slot:
    """One of the A/B slots: its state in piboot-try's word, its command line.

    None: that file is not there.
    """

    state: str | None
    cmdline: str | None


@dataclass(frozen=True)
class Layout:
    """The files of the boot partition, and which of them count; paths are relative to it."""

    live: Answer[str]  # path of the command line that the next ordinary boot reads
    prefix: str = ""  # os_prefix of an ordinary boot, such as "current/"
    slots: Mapping[str, Slot] | None = None  # None: no A/B slots
    stale: tuple[str, ...] = ()  # command lines that are there and are never read

    @property
    def ab(self) -> bool:
        """Whether a new kernel is tried in a slot of its own before it is kept."""
        return self.slots is not None

    def slot(self, name: str) -> Slot:
        """A slot, one without files where there is none."""
        return (self.slots or {}).get(name, Slot(None, None))

    @property
    def staged(self) -> bool:
        """Whether the next reboot tries a new slot, and boots twice."""
        return self.slot("new").state == STAGED

    @property
    def trying(self) -> bool:
        """Whether this boot is the trial of a new slot: nothing may be changed now."""
        return TRYING in (self.slot("new").state, self.slot("current").state)


def layout(files: Mapping[str, str], board: Board) -> Layout:
    """Find the live command line.

    Args:
        files: texts of the boot partition by relative path.
        board: decides which sections of config.txt hold.
    """
    if config_txt.NAME not in files:
        return Layout(Stopped(f"{config_txt.NAME} cannot be read"))
    ordinary = config_txt.effective(files, board)
    tried = config_txt.effective(files, board, tryboot=True)
    prefix, name = _prefix(ordinary), ordinary.values.get("cmdline", CMDLINE)
    doubtful = [one.key for one in ordinary.doubtful if one.key in ("os_prefix", "cmdline")]
    path = f"{prefix}{name}"
    live: Answer[str]
    if doubtful:
        live = Stopped(f"{config_txt.NAME} sets {doubtful[0]} depending on what is plugged in")
    elif path in files:
        live = Present(path)
    else:
        live = Absent(f"{config_txt.NAME} selects {path}, which is not there")
    trial = f"{_prefix(tried)}{tried.values.get('cmdline', CMDLINE)}"
    slots = _slots(files, name) if prefix or _prefix(tried) else None
    read = {path, trial, *(f"{slot}/{name}" for slot in SLOTS if slots)}
    known = {name, CMDLINE, f"current/{CMDLINE}"}
    stale = tuple(sorted(one for one in known if one in files and one not in read))
    return Layout(live, prefix, slots, stale)


def _prefix(config: config_txt.Config) -> str:
    return config.values.get("os_prefix", "")


def _slots(files: Mapping[str, str], name: str) -> dict[str, Slot]:
    found = {
        slot: Slot(_state(files.get(f"{slot}/state")), files.get(f"{slot}/{name}"))
        for slot in SLOTS
    }
    return {slot: one for slot, one in found.items() if one != Slot(None, None)}


def _state(text: str | None) -> str | None:
    return None if text is None else text.strip("\0\n\r\t ")
