"""Board, memory, power, heat."""

from __future__ import annotations

from cluster.answer import Absent, Present
from cluster.doctor.check import Answer, Verdict, check, failed, passed, unknown, warned
from cluster.doctor.node import Node

_GIB = 1 << 20  # in KiB
SERVER_MEMORY, SERVER_LEAST, AGENT_LEAST = 3.5, 1.8, 0.9  # GiB
_MISSING_MEMORY = 0.12  # of what is soldered on: graphics and firmware take less
WARM, HOT = 75.0, 82.0  # degrees Celsius; Pi 4 and 5 throttle from 80 on
_WHOLE_SUPPLY = 5000  # mA that a Pi 5 can be promised
_SUPPLY = "the official supply (Pi 4: 5.1 V 3 A, Pi 5: 5 V 5 A) and a short cable; a powered hub"


@check(
    "board",
    "a board with a 64-bit processor that K3s can run on",
    why="older boards lack the memory, and a disk that is fast enough for etcd",
    remedy="Raspberry Pi 4 or 5, their compute modules, or a PC",
    members=True,
    physical=True,
)
def board(node: Node) -> Answer:
    match node.boot.board:
        case Present(value=found) if found.family in ("pi4", "pi5"):
            return passed(found.model)
        case Present(value=found):
            return failed(found.model)
        case Absent():
            return passed(node.state.board or "a PC")
        case _:
            return unknown("its board could not be read")


@check(
    "memory",
    "a server has 3.5 GiB of memory, an agent 0.9, and none of it is missing",
    why="the control plane alone takes 1.5 GiB; then pods are evicted in circles",
    remedy="a board with more memory; gpu_mem=16 in config.txt of a Pi 4",
    members=True,
)
def memory(node: Node) -> Answer:
    if not node.state.memory_kib:
        return unknown("/proc/meminfo cannot be read")
    have = node.state.memory_kib / _GIB
    text = f"{have:.1f} GiB"
    if have < (SERVER_LEAST if node.me.is_server else AGENT_LEAST):
        return failed(text)
    if node.me.is_server and have < SERVER_MEMORY:
        return warned(f"{text} on a server")
    soldered = node.boot.pi.memory_mib if node.boot.pi else None
    if soldered and have * 1024 < soldered * (1 - _MISSING_MEMORY):
        return warned(f"{text} of {soldered / 1024:.0f} GiB on the board")
    return passed(text)


@check(
    "under-voltage",
    "the power supply holds its voltage",
    why="at under-voltage the processor slows down and USB disks drop off the bus: data is lost",
    remedy=_SUPPLY,
    physical=True,
)
def under_voltage(node: Node) -> Answer | None:
    if node.boot.pi is None:
        return None
    match node.boot.throttled:
        case Present(value=found):
            if "under-voltage" in found.now:
                return failed("under-voltage now")
            if "under-voltage" in found.since_boot:
                return warned("under-voltage since boot")
            return passed(f"throttled={found.bits:#x}")
        case said:
            return unknown(_why(said))


@check(
    "throttled",
    "the processor runs at its full speed",
    why="etcd misses its deadlines when the processor is slowed down by heat or lack of power",
    remedy=f"a heat sink and a fan; {_SUPPLY}",
    physical=True,
)
def throttled(node: Node) -> Answer | None:
    if node.boot.pi is None:
        return None
    match node.boot.throttled:
        case Present(value=found):
            if now := [one for one in found.now if one != "under-voltage"]:
                return failed(f"{', '.join(now)} now")
            if before := [one for one in found.since_boot if one != "under-voltage"]:
                return warned(f"{', '.join(before)} since boot")
            return passed(f"throttled={found.bits:#x}")
        case said:
            return unknown(_why(said))


def _why(said: object) -> str:
    return str(getattr(said, "reason", "")) or "it was not read"


@check(
    "voltage-alarm",
    "the kernel's own sensor reports no under-voltage",
    why="it is the same fault as under-voltage, seen also where vcgencmd is missing",
    remedy=_SUPPLY,
    physical=True,
)
def voltage_alarm(node: Node) -> Answer | None:
    if node.boot.pi is None:
        return None
    match node.boot.under_voltage:
        case Present(value=alarm):
            return failed("rpi_volt: alarm") if alarm else passed("rpi_volt: no alarm")
        case said:
            return unknown(_why(said))


@check(
    "temperature",
    f"the processor is cooler than {WARM:.0f} °C",
    why="it is slowed down from 80 °C on, and ages",
    remedy="a heat sink and a fan; room around the boards",
    physical=True,
)
def temperature(node: Node) -> Answer:
    match node.boot.temperature:
        case Present(value=degrees):
            text = f"{degrees:.0f} °C"
            # Processors of PCs work up to 100 degrees, and slow down by themselves.
            if degrees >= HOT and node.is_pi:
                return failed(text)
            return warned(text) if degrees >= WARM else passed(text)
        case said:
            return unknown(_why(said))


@check(
    "usb-current",
    "a Pi 5 with a USB disk was promised 5 A",
    why="with less, its USB ports give 0.6 A together: an SSD drops off under load",
    remedy="a 5 V 5 A USB-PD supply; usb_max_current_enable=1 in config.txt only if it really can",
    physical=True,
)
def usb_current(node: Node) -> Answer | None:
    if node.boot.pi is None or node.boot.pi.family != "pi5":
        return None
    match node.boot.supply:
        case Present(value=promised):
            text = f"{promised} mA"
            if promised >= _WHOLE_SUPPLY:
                return passed(text)
            forced = node.boot.config.values.get("usb_max_current_enable") == "1"
            disk = node.boot.root_disk
            if disk and disk.usb and not forced:
                return failed(text)
            return warned(text + (", and usb_max_current_enable=1" if forced else ""))
        case said:
            return unknown(_why(said))


@check(
    "radio",
    "a server's way out is not a radio",
    why="etcd needs a network that is always as fast",
    remedy="the cable",
    worst=Verdict.WARN,
    members=True,
    physical=True,
)
def radio(node: Node) -> Answer | None:
    if not node.me.is_server:
        return None
    wifi = {one.name for one in node.boot.radios if one.kind == "wifi"}
    used = sorted(wifi & set(node.boot.routes))
    return warned(f"{', '.join(used)} carries the default route") if used else passed("cable")


CHECKS = (
    board, memory, under_voltage, throttled, voltage_alarm, temperature, usb_current, radio,
)  # fmt: skip
