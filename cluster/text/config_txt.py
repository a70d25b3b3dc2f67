"""Edits of config.txt: one block of ours, everything else stays byte for byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.boot import config_txt
from cluster.boot.board import Board
from cluster.text import block

Wanted = Mapping[str, Sequence[str]]  # lines by the section they belong to


def edit(texts: Mapping[str, str], board: Board, wanted: Wanted) -> str:
    """config.txt in which these lines are in force; unchanged when they are without us.

    The block begins and ends with `[all]`: it is in no section of others, and what somebody
    appends to the file later is for every board. Lines that the file has already in force are
    not repeated. A block without lines is taken away.

    Args:
        texts: config.txt and the files it includes, by name.
        board: the board on which they are to be in force.
        wanted: lines by section, such as all or pi4.
    """
    text = texts[config_txt.NAME]
    bare = block.drop(text)
    mine = {
        section: rest
        for section, lines in wanted.items()
        if (rest := [one for one in lines if not _in_force(texts, bare, board, section, one)])
    }
    if not mine:
        return bare
    lines = ["[all]"]
    for section, rest in sorted(mine.items(), key=lambda one: one[0] != "all"):
        lines += [*([f"[{section}]"] if section != "all" else []), *rest]
    if lines[-1] != "[all]" and set(mine) != {"all"}:
        lines.append("[all]")
    found = block.put(text, lines)
    pairs = [(name, one) for name, ones in wanted.items() for one in ones]
    if all(_in_force(texts, found, board, name, one) for name, one in pairs):
        return found
    return block.put(bare, lines)  # something that follows says otherwise: the last line wins


def _in_force(texts: Mapping[str, str], text: str, board: Board, section: str, line: str) -> bool:
    """Whether a line of a section needs nothing more.

    Lines for other boards, and those that say nothing by themselves (include), stand as written.
    """
    alone = config_txt.effective({config_txt.NAME: line}, board)
    elsewhere = section != "all" and section not in board.filters
    if elsewhere or alone == config_txt.Config():
        return line in config_txt.sections(text).get(section, ())
    found = config_txt.effective({**texts, config_txt.NAME: text}, board)
    return (
        alone.values.items() <= found.values.items()
        and alone.params.items() <= found.params.items()
        and set(alone.overlays) <= set(found.overlays)
    )
