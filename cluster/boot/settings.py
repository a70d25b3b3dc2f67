"""The settings of the boot layer: `nodes.boot` of group_data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cluster import kinds
from cluster.frozen import Model


class Boot(Model):
    """The boot layer of Raspberry Pis; nothing of it touches other computers."""

    cmdline: bool = True  # the kernel's command line: the memory controller, and the next two
    cmdline_add: tuple[kinds.KernelToken, ...] = ()
    cmdline_remove: tuple[kinds.KernelToken, ...] = ()  # a name goes with any value
    config: bool = True  # config.txt: the next four, and the watchdog
    config_lines: dict[kinds.ConfigSection, tuple[kinds.ConfigLine, ...]] = Field(
        default_factory=dict
    )  # by section: all, pi4, pi5
    gpu_mem: kinds.Whole | None = Field(16, ge=16)  # MiB, of a Pi 4; None: left as it is
    wifi_off: bool = True  # never where it carries the default route or the host's address
    bluetooth_off: bool = True
    usb_quirks: bool = True  # no UAS for bridges of which it is known to fail
    quirks: dict[kinds.VidPid, kinds.QuirkFlags] = Field(default_factory=dict)  # "": none
    trim: bool = True  # TRIM for bridges that are known to pass it on
    trim_bridges: tuple[kinds.VidPid, ...] = ()  # further ones, that you have tested
    watchdog: bool = True
    eeprom: Literal["update", "report", "ignore"] = "update"
    reboots: Literal["ours", "all", "never"] = "ours"
    reboot_timeout: kinds.Whole = Field(600, ge=360)  # seconds; a slot that is tried boots twice
