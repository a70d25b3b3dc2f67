"""The kernel: pages, addresses, modules, flavour."""

from __future__ import annotations

import re

from cluster import base
from cluster.doctor import modules as table
from cluster.doctor.check import Answer, Verdict, check, failed, passed, unfit, unknown, warned
from cluster.doctor.node import CONTAINER, Node
from cluster.model import Stack

_EXTRA = "linux-modules-extra-raspi"  # only 22.04 has vxlan and others in there


@check(
    "page-size",
    "memory pages are of 4 KiB",
    why="programs with jemalloc or tcmalloc that were built for 4 KiB (Redis, Envoy, fluent-bit) "
    "end at once with larger pages",
    remedy="kernel=kernel8.img in config.txt, or Ubuntu's kernel",
    members=True,
)
def page_size(node: Node) -> Answer:
    size = node.state.page_size
    if not size:
        return unknown("getconf does not say")
    if size > 4096:
        text = f"its kernel has pages of {size // 1024} KiB"
        if hit := _made_for_4k(node.model.stack):
            text += f", of the chosen stack that can end {', '.join(hit)}"
        return failed(text) if size > 16384 else warned(text)
    return passed("4 KiB")


def _made_for_4k(stack: Stack) -> list[str]:
    """Programs of the stack that are reported to end with larger pages (jemalloc, tcmalloc)."""
    hit = []
    if stack.ingress == "envoy" or stack.mesh == "istio":
        hit.append("Envoy")
    if stack.logs != "none":
        hit.append("fluent-bit and fluentd")
    return hit


@check(
    "address-bits",
    "processes have 48 bits of addresses",
    why="Envoy (as ingress, and in Istio) ends with MmapAligned() failed where there are 39",
    remedy="use Ubuntu's kernel, which has 48; or stack.ingress and stack.mesh without Envoy",
    members=True,
)
def address_bits(node: Node) -> Answer:
    bits = node.state.address_bits
    if bits is None:
        return unknown("/proc/self/maps does not say")
    if bits >= 48:
        return passed("48 bits")
    # Cilium runs without its Envoy here, see catalogue/cilium.py.
    stack = node.model.stack
    text = f"its kernel gives processes {bits} bits of addresses"
    if stack.ingress == "envoy" or stack.mesh == "istio":
        who = "Istio" if stack.mesh == "istio" else "the ingress"
        return failed(f"{text}: Envoy in {who} needs 48")
    return warned(f"{text}: Envoy would need 48")


@check(
    "kernel-modules",
    "the kernel has the modules for the chosen network, mesh and storage",
    why="the network of the pods or a volume's mount fails at run time, far from its cause",
    remedy="sudo apt-get install linux-modules-extra-raspi (22.04 on a Raspberry Pi), "
    "linux-modules-extra-$(uname -r) (PC)",
    members=True,
)
def kernel_modules(node: Node) -> Answer:
    known = node.seen.modules
    if known is None:
        return unknown(CONTAINER if node.is_container else "/lib/modules cannot be read")
    wanted = table.needs(node.model)
    missing = [need for need in wanted if not any(name in known for name in need.names)]
    if missing:
        text = f"lacks {', '.join(map(str, missing))}"
        if _EXTRA in base.packages(node.model, node.me, node.state) and not node.state.installed(
            _EXTRA
        ):
            remedy = f"sudo apt-get install {_EXTRA}"
            return unfit(text, remedy, mended=node.model.nodes.parts.packages)
        return failed(text)
    return passed(f"{len(wanted)} modules")


@check(
    "kernel-flavour",
    "a Raspberry Pi runs Ubuntu's kernel for it",
    why="generic kernels lack drivers for its USB, power and watchdog, and the switch for the "
    "memory controller",
    remedy="sudo apt-get install linux-raspi && sudo reboot",
    worst=Verdict.WARN,
    members=True,
)
def flavour(node: Node) -> Answer | None:
    if not node.is_pi or not node.state.kernel:
        return None
    kernel = node.state.kernel
    return passed(kernel) if re.search(r"[-+]r(aspi|pi|pt)", kernel) else warned(kernel)


@check(
    "kernel-newest",
    "the newest installed kernel runs",
    why="security updates of the kernel count from the reboot on",
    remedy="sudo reboot, after kubectl drain where the node is in a cluster",
    worst=Verdict.WARN,
    physical=True,
)
def newest(node: Node) -> Answer:
    running = node.state.kernel
    if not node.boot.kernels:
        return unknown("/lib/modules cannot be read")
    same = [one for one in node.boot.kernels if _flavour(one) == _flavour(running)]
    last = max((*same, running), key=_numbers)
    if _numbers(last) > _numbers(running):
        return warned(f"runs {running}, installed is {last}")
    return passed(running)


def _flavour(release: str) -> str:
    return re.sub(r"^[\d.\-+~]+", "", release)


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", release)))


CHECKS = (page_size, address_bits, kernel_modules, flavour, newest)
