"""The boot fact's script, run for real on a Raspberry Pi made of folders.

Simulated: the device tree, sysfs and the boot partition, by files; their names are those of the
kernel's documentation. What a real kernel says of disks is asked in a virtual machine (tests/vm).
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.answer import Absent, Present
from cluster.boot import places
from cluster.boot.state import BootState, Mount
from facts.boot import parse
from facts.boot_script import script

CONFIG = "os_prefix=current/\ninclude more.txt\n"


def put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> BootState:
    """What the script says of such a host."""
    root = tmp_path_factory.mktemp("pi")
    tree, boot = root / "tree", root / "boot"
    put(tree / "model", "Raspberry Pi 4 Model B Rev 1.4\0")
    put(tree / "compatible", "raspberrypi,4-model-b\0brcm,bcm2711\0")
    put(tree / "system" / "linux,revision", bytes.fromhex("00d03114"))
    put(tree / "chosen/bootloader/build-timestamp", (1739293213).to_bytes(4))
    put(tree / "chosen/bootloader/version", "0fa1c28d\0")
    put(tree / "aliases/blconfig", "/nvram@0\0")
    (tree / "nvram@0").mkdir()
    put(root / "nvmem/blconfig0/nvmem", "[all]\nBOOT_ORDER=0xf14\n\0")
    (root / "nvmem/blconfig0/of_node").symlink_to(tree / "nvram@0")
    put(boot / "config.txt", CONFIG)
    put(boot / "more.txt", "a=1\n")
    put(boot / "current/cmdline.txt", b"root=x \xff\n")
    put(boot / "current/state", "good\n")
    put(boot / "pieeprom.upd", "")
    _disk(root)
    put(root / "hwmon/hwmon2/name", "rpi_volt\n")
    put(root / "hwmon/hwmon2/in0_lcrit_alarm", "1\n")
    put(root / "thermal/thermal_zone0/type", "cpu-thermal\n")
    put(root / "thermal/thermal_zone0/temp", "48199\n")
    for name in ("2025-01-22", "2025-05-08"):
        image = f"x\0BUILD_TIMESTAMP=17{name[6]}0000000\0y"
        put(root / f"images-2711/stable/pieeprom-{name}.bin", image)
    put(root / "default", f"FIRMWARE_ROOT={root}/images\nFIRMWARE_RELEASE_STATUS=stable\n")
    for name, said in (
        ("rpi-eeprom-update", "never asked"), ("vcgencmd", "throttled=0x50000"), ("ip", ""),
    ):  # fmt: skip
        put(
            root / f"bin/{name}",
            f"#!/bin/sh\n[ {name} != rpi-eeprom-update ] || exit 9\necho {said}\n",
        )
        (root / f"bin/{name}").chmod(0o755)
    text = script()
    for place, instead in {
        "/proc/device-tree": tree,
        "/sys/bus/nvmem/devices": root / "nvmem",
        places.FOLDER: boot,
        "/sys/block": root / "block",
        "/sys/class/hwmon": root / "hwmon",
        "/sys/class/thermal": root / "thermal",
        "/etc/default/rpi-eeprom-update": root / "default",
    }.items():
        text = text.replace(place, str(instead))
    done = subprocess.run(
        ["sh", "-c", text],
        env={"PATH": f"{root}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return parse(done.stdout.splitlines())


def _disk(root: Path) -> None:
    """A disk behind a USB bridge, as sysfs nests them."""
    port = root / "devices/usb2/2-1"
    scsi = port / "2-1:1.0/host0/target0:0:0/0:0:0:0"
    for name, text in {
        "idVendor": "174c", "idProduct": "55aa", "bcdDevice": "0100", "speed": "5000",
        "product": "My USB  disk", "power/control": "on",
    }.items():  # fmt: skip
        put(port / name, f"{text}\n")
    put(root / "drivers/uas/x", "")
    (port / "2-1:1.0").mkdir(parents=True)
    (port / "2-1:1.0/driver").symlink_to(root / "drivers/uas")
    put(scsi / "scsi_disk/0:0:0:0/provisioning_mode", "full\n")
    put(scsi / "model", "SSD 870\n")
    put(scsi / "vpd_pgb2", bytes.fromhex("00b2000400800200"))
    put(root / "block/sda/queue/discard_max_bytes", "0\n")
    put(root / "block/sda/size", "1000\n")
    (root / "block/sda/device").symlink_to(scsi)


def test_the_board_and_its_boot_files(found: BootState) -> None:
    assert found.pi and (found.pi.family, found.pi.memory_mib) == ("pi4", 8192)
    assert found.layout.live == Absent(f"{places.FOLDER} is not mounted")
    mounted = replace(found, mount=Present(Mount("/dev/sda1", "vfat", ("rw",))))
    assert mounted.layout.live == Present("current/cmdline.txt")
    assert mounted.live_cmdline == "root=x \udcff\n"
    assert found.files["more.txt"] == "a=1\n" and found.config.values["a"] == "1"
    assert mounted.layout.slot("current").state == "good"


def test_the_bootloader_without_asking_its_tool(found: BootState) -> None:
    match found.eeprom:
        case Present(value=one):
            assert (one.built, one.version, one.media) == (
                1739293213, "0fa1c28d", ("usb", "sd", "restart"),
            )  # fmt: skip
            assert (one.tool, one.latest, one.staged, one.update) == (True, 1750000000, True, True)
        case _:
            pytest.fail("the EEPROM was not read")


def test_the_disk_and_its_bridge(found: BootState) -> None:
    disk = found.disks["sda"]
    assert disk.transport == "uas" and disk.usb and disk.model == "SSD 870"
    assert (disk.usb.vid_pid, disk.usb.port, disk.usb.speed) == ("174c:55aa", "2-1", 5000)
    assert disk.usb.product == "My USB  disk" and disk.usb.autosuspend is False
    assert (disk.trim.mode, disk.trim.unmap, disk.trim.on) == ("full", True, False)
    assert disk.size == 512_000


def test_power_and_heat(found: BootState) -> None:
    match found.throttled:
        case Present(value=one):
            assert one.since_boot == ("under-voltage", "throttled") and one.now == ()
        case _:
            pytest.fail("get_throttled was not read")
    assert found.under_voltage == Present(True) and found.temperature == Present(48.199)
