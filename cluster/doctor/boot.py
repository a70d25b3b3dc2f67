"""The boot partition of a Raspberry Pi, and what the next boot will read."""

from __future__ import annotations

from cluster.answer import Absent, Present
from cluster.boot import cmdline, layout
from cluster.boot.places import FOLDER
from cluster.doctor.check import Answer, Verdict, check, failed, passed, unfit, unknown, warned
from cluster.doctor.node import Node

_MIB = 1 << 20
ROOM, LEAST_ROOM = 100 * _MIB, 20 * _MIB  # a slot takes about 80 MiB
_WARN = Verdict.WARN
_REBOOT = "sudo reboot, after kubectl drain where the node is in a cluster"


@check(
    "boot-partition",
    f"{FOLDER} is mounted and can be written to",
    why="kernel updates go into a folder of the root disk, and the next boot takes the old kernel",
    remedy=f"sudo mount {FOLDER}; its line in /etc/fstab is LABEL=system-boot {FOLDER} vfat "
    "defaults 0 1",
    physical=True,
)
def partition(node: Node) -> Answer | None:
    if node.boot.pi is None:
        return None
    match node.boot.mount:
        case Present(value=mount):
            if not mount.writable:
                return failed(f"{mount.source} is mounted read-only", f"sudo fsck {mount.source}")
            return passed(f"{mount.source} {mount.kind}")
        case Absent():
            return failed(f"nothing is mounted at {FOLDER}")
        case _:
            return unknown("mounts were not read")


@check(
    "boot-cmdline",
    "the kernel's command line is where this boot layout reads it",
    why="an edit of a file that is not read has no effect, and looks as if it had",
    remedy=f"sudo mv {FOLDER}/cmdline.txt {FOLDER}/cmdline.txt.unused (25.10 and later read "
    "current/cmdline.txt)",
    physical=True,
)
def live(node: Node) -> Answer | None:
    if node.boot.pi is None:
        return None
    found = node.boot.layout
    match found.live:
        case Present(value=path) if found.stale:
            return warned(f"{path} counts; {', '.join(found.stale)} is there too and is never read")
        case Present(value=path):
            return passed(path)
        case Absent(reason=reason):
            return failed(reason)
        case said:
            return unknown(str(said))


@check(
    "boot-one-line",
    "the command line is one line",
    why="only the first is read: with root= in the second, the host does not start",
    remedy="join the lines in the file that boot-cmdline names",
    physical=True,
)
def one_line(node: Node) -> Answer | None:
    text = node.boot.live_cmdline
    if text is None:
        return None  # said by boot-cmdline
    lines = cmdline.lines(text)
    if len(lines) != 1:
        return failed(f"{len(lines)} lines")
    if "\r" in text or "\0" in text:
        return warned("it has line ends of another system")
    return passed(f"{len(cmdline.tokens(text))} words")


@check(
    "boot-active",
    "the running kernel was started with what the boot files say now",
    why="a setting that waits for a reboot is not in effect, and comes as a surprise later",
    remedy=_REBOOT,
    worst=_WARN,
    physical=True,
)
def active(node: Node) -> Answer | None:
    text = node.boot.live_cmdline
    if text is None:
        return None
    if not node.boot.cmdline_active:
        missing = cmdline.not_yet_active(text, node.boot.running)
        return warned(f"not yet in effect: {' '.join(missing) or 'the order of the words'}")
    if node.boot.config_changed:
        return warned("config.txt was changed after the boot")
    return passed("in effect")


@check(
    "boot-slot",
    "the A/B slots are good",
    why="a new kernel that failed its trial is not in use: the host stays without its updates",
    remedy="journalctl -u piboot-try-validate -b -1; sudo piboot-try --reset-new",
    physical=True,
)
def slot(node: Node) -> Answer | None:
    if node.boot.pi is None or not node.boot.layout.ab:
        return None
    current, new = (node.boot.layout.slot(name).state for name in ("current", "new"))
    if current is None:
        return unknown("current/state cannot be read")
    if node.boot.layout.trying:
        return failed("this boot is the trial of a new kernel", "wait until it has ended")
    if current != layout.GOOD or new == layout.BAD:
        return failed(f"current {current}, new {new or 'none'}")
    if new == layout.STAGED:
        return warned("a new kernel is staged: the next reboot is a double one", _REBOOT)
    return passed(f"current {current}")


@check(
    "boot-staged",
    "a staged slot has the same command line as the current one",
    why="the copy was made when the kernel was installed: later edits are lost at the next reboot",
    remedy=f"sudo cp {FOLDER}/current/cmdline.txt {FOLDER}/new/cmdline.txt",
    physical=True,
)
def staged(node: Node) -> Answer | None:
    text, new = node.boot.live_cmdline, node.boot.layout.slot("new")
    if text is None or new.state != layout.STAGED:
        return None
    if new.cmdline is None:
        return failed("new/cmdline.txt is missing")
    there = set(cmdline.tokens(new.cmdline))
    if missing := [one for one in cmdline.tokens(text) if one not in there]:
        text = f"new/cmdline.txt lacks {' '.join(missing)}"
        return unfit(text, mended=node.mends_cmdline)
    return passed("the same")


@check(
    "boot-space",
    "the boot partition has room for another kernel",
    why="an update that does not fit leaves half a kernel behind",
    remedy=f"sudo apt-get autoremove --purge; old backups in {FOLDER}; a partition of 512 MB",
    physical=True,
)
def space(node: Node) -> Answer | None:
    if node.boot.pi is None or not isinstance(node.boot.mount, Present):
        return None
    free = node.boot.mount.value.free
    if free is None:
        return unknown(node.unread("df", "df does not say"))
    text = f"{free // _MIB} MiB free"
    if free < LEAST_ROOM:
        return failed(text) if node.boot.layout.ab else warned(text)
    if node.boot.layout.ab and free < ROOM and not node.boot.layout.staged:
        return warned(text)
    return passed(text)


@check(
    "boot-panic",
    "a new kernel that hangs is given up (panic= on the command line)",
    why="without it, the trial of a new kernel that panics waits for somebody to pull the plug",
    remedy=f"add panic=10 to the line of {FOLDER}/current/cmdline.txt",
    worst=_WARN,
    physical=True,
)
def panic(node: Node) -> Answer | None:
    text = node.boot.live_cmdline
    if text is None or not node.boot.layout.ab:
        return None
    found = [one for one in cmdline.tokens(text) if cmdline.key(one) == "panic"]
    return passed(found[-1]) if found else warned("no panic=")


CHECKS = (partition, live, one_line, active, slot, staged, space, panic)
