"""config.txt, as the firmware of a certain board reads it.

Sources: raspberrypi.com "config.txt" and "Conditional filters", canonical's rpi-config-txt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.boot.board import Board

NAME = "config.txt"
# What is booted: Ubuntu's packages write these lines, and move a host's files to what they say.
KERNEL_KEYS = ("os_prefix", "kernel", "cmdline")
LONGEST_LINE = 98  # characters; the firmware ignores the rest
_SECTION = re.compile(r"\[(.*)\]\s*")
_MODEL = re.compile(r"pi\d\w*\+?|cm\d\w*")
_MOST_INCLUDES = 10


class Setting(NamedTuple):
    """A line that says something: `initramfs a followkernel` has an empty value."""

    key: str
    value: str
    holds: bool | None  # whether its section is for the board; None: cannot be known here


@dataclass(frozen=True)
class Config:
    """What is in force on a board, later lines winning."""

    values: dict[str, str] = field(default_factory=dict)  # all keys but dtparam, dtoverlay
    params: dict[str, str] = field(default_factory=dict)  # dtparam: on where no value is given
    overlays: tuple[str, ...] = ()  # with their parameters, as written
    doubtful: tuple[Setting, ...] = ()  # in sections that depend on wires and screens


def sections(text: str) -> dict[str, tuple[str, ...]]:
    """The lines that say something by the filter written above them, as it is written."""
    found: dict[str, list[str]] = {}
    name = "all"
    for line in _lines(text):
        if section := _SECTION.fullmatch(line):
            name = section[1]
        else:
            found.setdefault(name, []).append(line)
    return {name: tuple(lines) for name, lines in found.items()}


def effective(texts: Mapping[str, str], board: Board, *, tryboot: bool = False) -> Config:
    """What is in force.

    Args:
        texts: config.txt and the files it includes, by name.
        board: whose sections hold.
        tryboot: whether this is the one trial boot of a new slot.
    """
    values: dict[str, str] = {}
    params: dict[str, str] = {}
    overlays: list[str] = []
    doubtful = []
    for setting in _Reader(texts, board, tryboot).read(NAME):
        if setting.holds is None:
            doubtful.append(setting)
        if not setting.holds:
            continue
        if setting.key == "dtparam":
            params |= _params(setting.value)
        elif setting.key == "dtoverlay":
            overlays += [setting.value] if setting.value else []
        else:
            values[setting.key] = setting.value
    return Config(values, params, tuple(overlays), tuple(doubtful))


def _params(text: str) -> dict[str, str]:
    pairs = (one.partition("=") for one in text.split(",") if one)
    return {key.strip(): value.strip() if given else "on" for key, given, value in pairs}


def _lines(text: str) -> Iterator[str]:
    """Lines without comments, as far as the firmware reads them."""
    for line in text.replace("\r\n", "\n").split("\n"):
        line = line[:LONGEST_LINE].strip("\0 \t\r")
        if line and not line.startswith("#"):
            yield line


class _Reader:
    """Filters of one kind replace each other, those of different kinds must all hold."""

    def __init__(self, texts: Mapping[str, str], board: Board, tryboot: bool) -> None:
        self._texts, self._board, self._tryboot = texts, board, tryboot
        self._filters: dict[str, bool | None] = {}  # whether each kind's last one holds
        self._included = 0

    def read(self, file: str) -> Iterator[Setting]:
        for line in _lines(self._texts.get(file, "")):
            if section := _SECTION.fullmatch(line):
                self._section(section[1])
            elif line.startswith("include "):
                self._included += 1
                if self._holds() is not False and self._included <= _MOST_INCLUDES:
                    yield from self.read(line.removeprefix("include ").strip())
            else:
                key, given, value = line.partition("=")
                if not given:  # initramfs FILE ADDRESS
                    key, _, value = line.partition(" ")
                yield Setting(key.strip(), value.strip(), self._holds())

    def _holds(self) -> bool | None:
        if False in self._filters.values():
            return False
        return None if None in self._filters.values() else True

    def _section(self, name: str) -> None:
        if name == "all":
            self._filters.clear()
            return
        kind, answer = self._judge(name)
        self._filters[kind] = answer

    def _judge(self, name: str) -> tuple[str, bool | None]:
        """The kind of a filter, and whether it holds."""
        board = self._board
        if name == "none":
            return "model", False
        if name == "tryboot":
            return "tryboot", self._tryboot
        if _MODEL.fullmatch(name):
            return "model", name in board.filters if board.filters else None
        if name.startswith("board-type="):
            code = board.type_code
            return "board-type", None if code is None else _number(name) == code
        if re.fullmatch(r"0x[0-9a-fA-F]+", name):
            same = board.serial.lstrip("0").endswith(name[2:].lower().lstrip("0"))
            return "serial", same if board.serial else None
        return re.split(r"[=\d:]", name)[0], None  # gpio4=1, EDID=..., HDMI:0, later ones


def _number(text: str) -> int:
    value = text.partition("=")[2]
    try:
        return int(value, 0)
    except ValueError:
        return -1
