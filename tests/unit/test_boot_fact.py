"""The boot fact and its parsers, on the fixtures of every profile and on texts of our own."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from pyinfra.api.exceptions import FactProcessError

from cluster.answer import Absent, Present, Stopped
from cluster.boot import board as boards
from cluster.boot import bridges, cmdline, config_txt, disk, eeprom, kernel, power, swaps
from cluster.boot import layout as layouts
from cluster.boot.state import BootState
from facts.boot import Boot, parse
from facts.boot_script import script
from tests.unit.boot_world import NAMES, NOW, PI4, PI5, encoded, lines, profile, shared, state

fixtures = pytest.mark.skipif(shared() is None, reason="the fixtures are not on this machine")
PI = boards.Board("Raspberry Pi 4 Model B Rev 1.4", ("pi4",), 0xC03114, "10000000a1b2c3d4")


def read(name: str) -> BootState:
    return state(profile(name))


# ---- the script


def test_the_script_runs_here_and_changes_nothing() -> None:
    done = subprocess.run(["sh", "-c", script()], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    found = parse(done.stdout.splitlines())
    assert found.boot_id and found.kernel and found.running and found.page_size
    assert isinstance(found.root, Present)


def test_an_answer_that_ends_early_is_an_error_and_not_an_absence() -> None:
    with pytest.raises(FactProcessError, match="ended early"):
        Boot().process(lines(PI4)[:-1])
    with pytest.raises(FactProcessError):
        Boot().process([*lines(PI4)[:-1], "file\tconfig.txt\tnow\tx", "end\t"])


def test_what_was_not_read_is_not_taken_for_absent() -> None:
    bare = state(PI4)
    assert isinstance(bare.throttled, Stopped) and isinstance(bare.eeprom, Stopped)
    assert isinstance(bare.temperature, Stopped) and bare.address_bits is None
    other = state({**PI4, "device-tree-model": "", "dmi-product-name": "EQ12"})
    assert other.board == Absent("no Raspberry Pi: EQ12") and other.pi is None
    assert isinstance(other.throttled, Absent) and isinstance(other.eeprom, Absent)
    assert other.live_cmdline is None and other.cmdline_active is None


def test_the_state_is_plain_data_for_json() -> None:
    data = json.loads(json.dumps(state(PI5).to_json()))
    assert data["board"]["answer"] == "present"
    assert data["board"]["value"]["model"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert data["throttled"]["answer"] == "stopped"


def test_a_file_comes_byte_for_byte() -> None:
    odd = "root=x \udcff\udcfe\tü\r\n"
    assert state(PI4, files={"cmdline.txt": odd}).files["cmdline.txt"] == odd


# ---- every profile


@fixtures
@pytest.mark.parametrize("name", NAMES)
def test_every_profile_is_read_whole(name: str) -> None:
    found = read(name)
    assert found.release and found.kernel and found.running
    assert isinstance(found.controllers, Present)
    assert found.page_size == 4096
    assert found.root_disk is not None
    assert (found.pi is None) == name.startswith("x86")


@fixtures
def test_the_healthy_pi_4_on_uas() -> None:
    found = read("pi4-2404-usb-uas")
    assert found.pi and (found.pi.family, found.pi.memory_mib) == ("pi4", 8192)
    assert found.layout.live == Present("cmdline.txt") and not found.layout.ab
    assert found.cmdline_active is True and found.memory_controller is True
    disk_ = found.root_disk
    assert disk_ and disk_.transport == "uas" and disk_.usb
    assert (disk_.usb.vid_pid, disk_.usb.speed, disk_.usb.port) == ("174c:55aa", 5000, "2-1")
    assert disk_.usb.autosuspend is False
    assert disk_.trim.on is True and disk_.trim.mode == "unmap"
    assert found.config.values["gpu_mem"] == "16" and found.config.values["arm_boost"] == "1"
    assert found.config.params["watchdog"] == "on"
    assert {"disable-wifi", "disable-bt"} <= set(found.config.overlays)
    assert not any("cma-128" in one for one in found.config.overlays)  # of [pi3+] and [pi02]
    assert found.throttled == Present(power.Throttled(0))
    assert found.temperature == Present(48.199) and found.under_voltage == Present(False)
    assert found.address_bits == 48
    match found.eeprom:
        case Present(value=one):
            assert one.built == 1739293213 and one.media == ("usb", "sd", "restart")
            assert one.tries_slots("pi4") is True and not one.frozen
        case _:
            pytest.fail("the EEPROM was not read")


@fixtures
def test_the_bad_bridge_waits_for_its_reboot() -> None:
    found = read("pi4-2404-jmicron-bad")
    disk_ = found.root_disk
    assert disk_ and disk_.usb and disk_.transport == "uas"
    assert bridges.bridge(disk_.usb.vid_pid).verdict == "bad"
    assert disk_.trim.on is False and disk_.trim.mode == "full" and disk_.rotating is True
    assert disk_.usb.autosuspend is True
    assert len(bridges.uas_failures(found.log)) == 4
    assert found.cmdline_active is False
    assert cmdline.not_yet_active(found.live_cmdline or "", found.running) == (
        "usb-storage.quirks=152d:0578:u",
    )


@fixtures
def test_the_pi_5_with_slots_reads_the_live_file_and_not_the_dead_one() -> None:
    found = read("pi5-2604-nvme")
    assert found.pi and (found.pi.family, found.pi.memory_mib) == ("pi5", 8192)
    assert found.layout.live == Present("current/cmdline.txt") and found.layout.ab
    assert found.layout.stale == ("cmdline.txt",)
    assert found.layout.slot("current").state == "good" and not found.layout.staged
    assert found.cmdline_active is True and found.memory_controller is True
    assert found.root_disk and found.root_disk.transport == "nvme"
    assert found.root_disk.usb is None
    assert found.supply == Present(5000)
    assert [(one.name, one.kind) for one in found.swaps] == [("/dev/zram0", "partition")]
    match found.eeprom:
        case Present(value=one):
            assert one.media == ("nvme", "usb", "sd", "restart")
        case _:
            pytest.fail("the EEPROM was not read")


@fixtures
def test_the_undervolted_pi_on_sd() -> None:
    found = read("pi4-2204-sd-undervolt")
    match found.throttled:
        case Present(value=one):
            assert one.now == ("under-voltage", "throttled") == one.since_boot
        case _:
            pytest.fail("get_throttled was not read")
    assert found.under_voltage == Present(True) and found.temperature == Present(78.388)
    assert found.memory_controller is False
    assert found.root_disk and found.root_disk.transport == "sd"
    assert [one.kind for one in found.swaps] == ["file"]
    match found.eeprom:
        case Present(value=old):
            assert old.tries_slots("pi4") is False and old.updated == 0
        case _:
            pytest.fail("the EEPROM was not read")


@fixtures
def test_a_pc_has_no_boot_layer_of_a_pi() -> None:
    found = read("x86-n100-2404")
    assert found.board == Absent("no Raspberry Pi: EQ12") and found.files == {}
    assert found.layout.live == Absent("no Raspberry Pi")
    assert found.root_disk and found.root_disk.name == "nvme0n1"  # below LVM


# ---- board


@pytest.mark.parametrize(
    ("model", "filters"),
    [
        ("Raspberry Pi 4 Model B Rev 1.4\0", ("pi4",)),
        ("Raspberry Pi 400 Rev 1.0", ("pi4", "pi400")),
        ("Raspberry Pi Compute Module 4 Rev 1.0", ("pi4", "cm4")),
        ("Raspberry Pi 5 Model B Rev 1.0", ("pi5",)),
        ("Raspberry Pi 500 Rev 1.0", ("pi5", "pi500")),
        ("Raspberry Pi Compute Module 5 Lite Rev 1.0", ("pi5", "cm5")),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", ("pi3", "pi3+")),
        ("Raspberry Pi Zero 2 W Rev 1.0", ("pi0", "pi0w", "pi02")),
        ("Raspberry Pi 9", ()),
    ],
)
def test_a_board_knows_its_sections(model: str, filters: tuple[str, ...]) -> None:
    found = boards.parse(model)
    assert found and found.filters == filters


@pytest.mark.parametrize(
    ("revision", "mib"),
    [("b03111", 2048), ("c03111", 4096), ("00d03114", 8192), ("e04171", 16384), ("000e", None)],
)
def test_the_revision_tells_the_memory(revision: str, mib: int | None) -> None:
    found = boards.parse("Raspberry Pi 4", revision)
    assert found and found.memory_mib == mib


def test_other_computers_are_no_pi() -> None:
    assert boards.parse("") is None and boards.parse("EQ12") is None


# ---- config.txt


def effective(text: str, tryboot: bool = False, **files: str) -> config_txt.Config:
    texts = {"config.txt": text} | {f"{name}.txt": one for name, one in files.items()}
    return config_txt.effective(texts, PI, tryboot=tryboot)


def test_filters_of_one_kind_replace_and_of_two_kinds_add_up() -> None:
    text = "a=1\n[pi5]\na=2\n[pi4]\na=3\n[tryboot]\na=4\n[pi5]\na=5\n[all]\nb=1\n[none]\nb=2\n"
    assert effective(text).values == {"a": "3", "b": "1"}
    assert effective(text, tryboot=True).values["a"] == "4"
    assert config_txt.sections(text)["pi4"] == ("a=3",)


def test_serials_and_board_types_count_and_wires_are_doubtful() -> None:
    text = "[0xa1b2c3d4]\na=1\n[all]\n[0x99]\na=2\n[all]\n[board-type=0x11]\nb=1\n"
    assert effective(text).values == {"a": "1", "b": "1"}
    found = effective("[gpio4=1]\nos_prefix=x/\n")
    assert found.values == {} and [one.key for one in found.doubtful] == ["os_prefix"]


def test_lines_are_read_as_the_firmware_reads_them() -> None:
    text = "\r\n#a=1\r\n  a=2 \r\ninitramfs initrd.img followkernel\r\ndtparam=audio=on,spi\r\n"
    found = effective(text + "dtoverlay=x,y=1\ndtoverlay=\n" + "k=" + "v" * 200)
    assert found.values["a"] == "2" and found.values["initramfs"] == "initrd.img followkernel"
    assert found.params == {"audio": "on", "spi": "on"} and found.overlays == ("x,y=1",)
    assert len(found.values["k"]) == config_txt.LONGEST_LINE - 2


def test_included_files_are_read_in_their_place_and_never_for_ever() -> None:
    found = effective("a=1\ninclude more.txt\nb=2\n", more="a=2\nb=1\ninclude more.txt\n")
    assert found.values == {"a": "2", "b": "2"}


# ---- the live command line


def test_the_prefix_selects_the_slot_and_a_missing_file_is_said() -> None:
    slots = "os_prefix=current/\n[tryboot]\nos_prefix=new/\n"
    files = {"config.txt": slots, "current/cmdline.txt": "a", "cmdline.txt": "b"}
    found = layouts.layout(files | {"new/cmdline.txt": "c", "new/state": "unknown\n"}, PI)
    assert found.live == Present("current/cmdline.txt") and found.stale == ("cmdline.txt",)
    assert found.staged and not found.trying and found.slot("new").cmdline == "c"
    lost = layouts.layout({"config.txt": slots, "cmdline.txt": "b"}, PI)
    assert isinstance(lost.live, Absent) and "current/cmdline.txt" in lost.live.reason
    assert isinstance(layouts.layout({"cmdline.txt": "b"}, PI).live, Stopped)


def test_a_flat_partition_has_no_slots_and_its_leftovers_are_stale() -> None:
    files = {"config.txt": "cmdline=my.txt\n", "my.txt": "a", "current/cmdline.txt": "b"}
    found = layouts.layout(files, PI)
    assert found.live == Present("my.txt") and not found.ab
    assert found.stale == ("current/cmdline.txt",)


def test_a_prefix_that_hangs_on_a_wire_is_not_guessed() -> None:
    files = {"config.txt": "[gpio4=1]\nos_prefix=current/\n", "cmdline.txt": "a"}
    assert isinstance(layouts.layout(files, PI).live, Stopped)


# ---- tokens


@pytest.mark.parametrize("serial", ["serial0", "ttyS0", "ttyAMA0", "ttyAMA10"])
def test_the_serial_console_has_many_names(serial: str) -> None:
    running = f"coherent_pool=1M  console={serial},115200 console=tty1 root=x"
    assert cmdline.is_active("console=serial0,115200 console=tty1 root=x\n", running)
    assert not cmdline.is_active("console=serial0,115200 root=x\n", running)


def test_a_reboot_is_pending_until_the_file_is_the_end_of_the_running_line() -> None:
    assert not cmdline.is_active("root=x a=1", "dt root=x")
    assert cmdline.not_yet_active("root=x a=1", "dt root=x") == ("a=1",)
    assert not cmdline.is_active("root=x", "dt root=x a=1")  # a=1 was removed
    assert not cmdline.is_active("a b c", "c")


def test_quotes_keep_a_token_together() -> None:
    assert cmdline.tokens('a dyndbg="file x +p" b="c\n') == ("a", 'dyndbg="file x +p"', 'b="c')
    assert cmdline.lines("a\n\n\0") == ("a",) and cmdline.lines("a\nb\n") == ("a", "b")


def test_the_last_word_on_a_controller_counts() -> None:
    assert cmdline.switches_on(["cgroup_disable=memory", "cgroup_enable=memory"]) is True
    assert cmdline.switches_on(["cgroup_enable=memory", "cgroup_disable=memory"]) is False
    assert cmdline.switches_on(["cgroup_enable=cpuset"]) is None


# ---- EEPROM, power, kernel, swap, disks


def test_only_a_release_that_is_newer_is_an_update() -> None:
    newer = eeprom.Eeprom(built=2, latest=1)
    assert not newer.update and eeprom.Eeprom(built=1, latest=2).update
    assert not eeprom.Eeprom(built=None, latest=2).update


def test_the_eeproms_configuration() -> None:
    found, hidden = eeprom.configuration("[all]\nBOOT_ORDER=0xf41\n#X=1\n[config.txt]\na=1\n\0")
    assert found == {"BOOT_ORDER": "0xf41"} and hidden
    assert eeprom.Eeprom(config_known=True).boot_order == "0xf41"
    assert eeprom.Eeprom().boot_order is None and eeprom.Eeprom().media == ()
    assert eeprom.Eeprom(config={"FREEZE_VERSION": "1"}, config_known=True).frozen


def test_an_eeprom_is_read_from_the_device_tree_before_vcgencmd() -> None:
    more = ("eeprom\tbuilt\t67ab5f9d", "eeprom\tversion\tabc", "eeprom\tstaged\tyes")
    newest = ("eeprom\ttool\tyes", "eeprom\tlatest\tBUILD_TIMESTAMP=1747000000")
    found = state(PI4, more=(*more, *newest))
    match found.eeprom:
        case Present(value=one):
            assert (one.built, one.latest, one.tool, one.staged) == (
                0x67AB5F9D, 1747000000, True, True,
            )  # fmt: skip
            assert one.boot_order is None  # its configuration was not read
        case _:
            pytest.fail("the EEPROM was not read")


def test_the_bits_of_throttling() -> None:
    assert power.throttled("throttled=0x50005") == power.Throttled(0x50005)
    assert power.throttled("50000") == power.Throttled(0x50000)
    assert power.throttled("VCHI initialization failed") is None
    assert power.Throttled(0xF000F).now == power.Throttled(0xF000F).since_boot
    assert power.celsius("48199\n") == 48.199 and power.celsius("") is None


def test_address_bits() -> None:
    assert kernel.address_bits("CONFIG_ARM64_VA_BITS=39") == 39
    assert kernel.address_bits("", "7fb91c7000") == 39
    assert kernel.address_bits("", "ffff8a2c0000") == 48
    assert kernel.address_bits("", "") is None


def test_swap_areas() -> None:
    text = "Filename Type Size Used Priority\n/my\\040swap file 2048 0 -2\n"
    assert swaps.parse(text) == (swaps.Swap("/my swap", "file", 2048, 0, -2),)


def test_a_disk_says_how_it_is_connected() -> None:
    usb = {"idVendor": "152D", "idProduct": "0578", "driver": "usb-storage", "speed": "480"}
    found = disk.parse("sda", usb)
    assert found.transport == "usb-storage" and found.usb and found.usb.vid_pid == "152d:0578"
    assert found.trim.on is None and found.trim.unmap is None
    assert disk.parse("mmcblk0", {"mmc_type": "MMC"}).transport == "emmc"
    assert disk.parse("sda", {"device": "/sys/devices/pci/ata1/host0"}).transport == "sata"
    assert disk.parse("sdb", {}).transport == "unknown"
    assert disk.parse("sda", {"vpd_pgb2": "00 b2 00 04 00 80 02 00"}).trim.unmap is True
    assert disk.parse("sda", {"vpd_pgb2": "00 b2 00 04 00 00 00 00"}).trim.unmap is False


def test_bridges_are_known_by_their_ids_alone() -> None:
    assert bridges.bridge("152D:0578").verdict == "bad"
    assert bridges.bridge("174c:55aa").verdict == "mixed" and bridges.bridge("174c:55aa").trims
    assert bridges.bridge("dead:beef").verdict == "unknown"
    for one, known in bridges.TABLE.items():
        assert re.fullmatch("[0-9a-f]{4}:[0-9a-f]{4}", one) and known.source
    entries = bridges.quirks("152d:0578:u,174C:55AA:gk")
    assert entries == {"152d:0578": "u", "174c:55aa": "gk"}
    assert bridges.quirks_value(entries) == "152d:0578:u,174c:55aa:gk"


def test_config_txt_that_was_written_after_the_boot_is_noticed() -> None:
    def written(at: int) -> bool:
        line = f"file\tconfig.txt\t{at}\t{encoded('a=1')}"
        return state(PI4, more=(line,)).config_changed

    assert written(NOW - 100) and not written(NOW - 2000)
    assert not written(NOW + 100)  # the clock was set back since
    late = "systemd\tUserspaceTimestampMonotonic=950000000"  # of a container, 50 seconds ago
    line = f"file\tconfig.txt\t{NOW - 100}\t{encoded('a=1')}"
    assert not state(PI4, more=(line, late)).config_changed
