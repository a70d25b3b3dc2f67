"""Control groups, by which the kubelet limits pods."""

from __future__ import annotations

from cluster.boot import cmdline
from cluster.boot.kernel import NEEDED_CONTROLLERS
from cluster.boot.wanted import MEMORY
from cluster.doctor.check import Answer, Verdict, check, failed, passed, unfit, unknown, warned
from cluster.doctor.node import Node


@check(
    "cgroup-v2",
    "control groups are of version 2",
    why="kubelets from 1.35 on refuse version 1",
    remedy="add systemd.unified_cgroup_hierarchy=1 to the kernel's command line, or upgrade Ubuntu",
    members=True,
)
def version(node: Node) -> Answer:
    if not node.state.cgroup:
        return unknown("/sys/fs/cgroup cannot be read")
    if node.state.cgroup != "v2":
        return failed("has control groups of version 1")
    return passed("version 2")


@check(
    "cgroup-memory",
    "the controllers cpu, cpuset, memory and pids are on",
    why="K3s does not start without them",
    remedy=f"add {MEMORY} to the kernel's command line (Raspberry Pi) and reboot",
    members=True,
)
def controllers(node: Node) -> Answer:
    found = node.state.controllers
    if not found:
        return unknown("the list of controllers cannot be read")
    if missing := sorted(NEEDED_CONTROLLERS - found):
        text = f"its kernel has no {' and '.join(missing)} cgroup controller, which K3s needs"
        if missing != ["memory"] or not node.is_pi:
            return failed(text, "use the kernel of the distribution")
        file = "current/cmdline.txt" if node.state.release >= "25.10" else "cmdline.txt"
        remedy = f"add {MEMORY} to the line of /boot/firmware/{file} and reboot"
        return unfit(text, remedy, mended=node.mends_cmdline)
    return passed(" ".join(sorted(found)))


@check(
    "cgroup-tokens",
    "the command line does not end up with the memory controller switched off",
    why="a Raspberry Pi's firmware switches it off, and only a later word switches it on again",
    remedy=f"add {MEMORY} behind it, in the file of the command line, and reboot",
    members=True,
    physical=True,
)
def tokens(node: Node) -> Answer | None:
    if not node.is_pi:
        return None
    if not node.boot.running:
        return unknown("/proc/cmdline was not read")
    words = [
        one for one in cmdline.tokens(node.boot.running) if cmdline.key(one).startswith("cgroup_")
    ]
    text = " ".join(words) or "nothing said of it"
    if cmdline.switches_on(words) is False:
        return unfit(text, mended=node.mends_cmdline)
    return passed(text)


@check(
    "cgroup-io",
    "the controller io is on",
    why="without it, no pod's share of the disk can be limited or measured",
    remedy="use Ubuntu's own kernel",
    worst=Verdict.WARN,
    members=True,
)
def io(node: Node) -> Answer | None:
    if node.state.cgroup != "v2" or not node.state.controllers:
        return None
    return passed("on") if "io" in node.state.controllers else warned("off")


CHECKS = (version, controllers, tokens, io)
