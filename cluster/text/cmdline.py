"""Edits of the kernel's command line file; every token that is not named stays where it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cluster.boot import bridges, cmdline

# Without them a host does not boot, or does not come back from a kernel that fails.
PROTECTED = ("root", "rootfstype", "rootwait", "panic")
QUIRKS = "usb-storage.quirks"
# Each of these may stand there several times, and each time counts.
_MANY = ("console", "earlycon", "cgroup_enable", "cgroup_disable")

Pieces = list[tuple[str, str]]  # blanks before a token, the token


def edit(text: str, *, put: Collection[str] = (), drop: Collection[str] = ()) -> str:
    """The file with these tokens, each once; unchanged to the last byte when it has them.

    A value is replaced in its place, what is new goes to the end: the last word counts.

    Args:
        text: the file: one line.
        put: tokens, `name` or `name=value`.
        drop: tokens `name=value`, or names: those go with any value.

    Raises ValueError when the file is not one line, or when the host would not boot without what
    is to go.
    """
    pieces = _pieces(text)
    if bad := [one for one in drop if cmdline.key(one) in PROTECTED]:
        raise ValueError(f"{', '.join(bad)} is never removed")
    wanted = set(put)
    gone = [one for one in pieces if _named(one[1], drop) and one[1] not in wanted]
    result = [one for one in pieces if one not in gone]
    for token in put:
        _put(result, token)
    if not result:
        raise ValueError("would have no parameter left")
    return _text(text, pieces, result)


def with_quirks(text: str, flags: Mapping[str, str]) -> str:
    """The file with these bridges in the one list of `usb-storage.quirks`, others as they are.

    Flags are added to those that a bridge has already.

    Args:
        text: the file: one line.
        flags: flags by VID:PID; without flags a bridge leaves the list.

    Raises ValueError when the file is not one line, or the list would be longer than the kernel
    takes.
    """
    pieces = _pieces(text)
    name = cmdline.key(QUIRKS)
    places = [at for at, (_, token) in enumerate(pieces) if cmdline.key(token) == name]
    # The last list is the one that counts.
    old = bridges.quirks(cmdline.value(pieces[places[-1]][1]) or "") if places else {}
    new = dict(old)
    for vid_pid, more in flags.items():
        if more:
            has = new.get(vid_pid, "")
            new[vid_pid] = has + "".join(flag for flag in more if flag not in has)
        else:
            new.pop(vid_pid, None)
    if new == old:
        return text
    value = bridges.quirks_value(new)
    if len(value) > bridges.LONGEST_QUIRKS:
        raise ValueError(
            f"{QUIRKS} would have {len(value)} characters: the kernel takes "
            f"{bridges.LONGEST_QUIRKS}"
        )
    first = places[0] if places else len(pieces)
    result = [one for at, one in enumerate(pieces) if at not in places]
    if not (new or result):
        raise ValueError("would have no parameter left")
    if new:
        gap = pieces[first][0] if places else " "
        result.insert(first, (gap, f"{QUIRKS}={value}"))
    return _text(text, pieces, result)


def _pieces(text: str) -> Pieces:
    if fault := cmdline.fault(text):
        raise ValueError(fault)
    body, pieces, end = text.strip(cmdline.PADDING), [], 0
    for found in cmdline.TOKEN.finditer(body):
        pieces.append((body[end : found.start()], found[0]))
        end = found.end()
    return pieces


def _text(text: str, old: Pieces, new: Pieces) -> str:
    """One line with its end, as Ubuntu ships the file."""
    if new == old:
        return text
    first = [("", token) for _, token in new[:1]]
    return "".join(f"{gap}{token}" for gap, token in (*first, *new[1:])) + "\n"


def _named(token: str, names: Collection[str]) -> bool:
    return any(
        token == name if "=" in name else cmdline.key(token) == cmdline.key(name) for name in names
    )


def _put(pieces: Pieces, token: str) -> None:
    key = cmdline.key(token)
    if key in _MANY or cmdline.value(token) is None:
        places = [at for at, (_, one) in enumerate(pieces) if one == token]
    else:
        places = [at for at, (_, one) in enumerate(pieces) if cmdline.key(one) == key]
    if not places:
        pieces.append((" ", token))
        return
    pieces[places[0]] = (pieces[places[0]][0], token)
    for at in reversed(places[1:]):
        del pieces[at]
