"""Edits of cmdline.txt and config.txt: any file in, ours right, everything else byte for byte."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cluster.boot import bridges, cmdline, config_txt
from cluster.boot.board import Board
from cluster.text import block
from cluster.text import cmdline as cmdline_text
from cluster.text import config_txt as config_text

PI4 = Board("Raspberry Pi 4 Model B Rev 1.4", ("pi4",), 0xC03114, "10000000a1b2c3d4")
QUIRKS = cmdline_text.QUIRKS

word = st.text('abcxyz019.,=-_:/"üÿ\udcff', min_size=1, max_size=8)
token = st.one_of(
    word,
    st.sampled_from([
        "root=LABEL=writable", "rootwait", "panic=10", "console=tty1", "console=serial0,115200",
        "cgroup_enable=memory", "cgroup_disable=memory", "cgroup_memory=1", "quiet", "a=1", "a=2",
        "usb_storage.quirks=1111:2222:g", f"{QUIRKS}=152d:0578:u,aaaa:bbbb:f", f"{QUIRKS}=",
    ]),
)  # fmt: skip
blank = st.sampled_from([" ", "  ", "\t"])
ending = st.sampled_from(["\n", "", "\r\n", " \n\0", "\n\n"])
files = st.tuples(st.lists(st.tuples(blank, token), min_size=1, max_size=12), ending).map(
    lambda made: "".join(f"{gap}{one}" for gap, one in made[0]).lstrip() + made[1]
)
put = st.lists(
    st.sampled_from(["a=3", "b", "c=1", "cgroup_enable=memory", "console=tty1", "panic=20"]),
    max_size=3,
    unique_by=cmdline.key,
)
drop = st.lists(st.sampled_from(["quiet", "a=2", "cgroup_disable=memory", "x"]), max_size=2)
ids = st.sampled_from(["152d:0578", "174c:55aa", "aaaa:bbbb"])
flags = st.dictionaries(ids, st.sampled_from(["u", "", "gk"]), max_size=3)
few = settings(max_examples=50)


def others(text: str, *keys: str) -> list[str]:
    known = {cmdline.key(one) for one in keys}
    return [one for one in cmdline.tokens(text) if cmdline.key(one) not in known]


# ---- the kernel's command line


@few
@given(text=files, put=put, drop=drop)
def test_the_tokens_are_right_the_others_stay_and_twice_is_once(
    text: str, put: list[str], drop: list[str]
) -> None:
    assume(not cmdline.fault(text) and text.count('"') % 2 == 0)
    assume(put or others(text, *drop))
    done = cmdline_text.edit(text, put=put, drop=drop)
    found = cmdline.tokens(done)
    assert all(found.count(one) == 1 for one in put)
    assert not [one for one in drop if one in found and one not in put]
    assert others(done, *put, *drop) == others(text, *put, *drop)
    assert cmdline_text.edit(done, put=put, drop=drop) == done
    if done != text:
        assert done.endswith("\n") and done.count("\n") == 1 and not cmdline.fault(done)


@few
@given(text=files)
def test_a_file_that_says_it_already_is_the_same_to_the_last_byte(text: str) -> None:
    assume(not cmdline.fault(text))
    assert cmdline_text.edit(text) == text
    assert cmdline_text.with_quirks(text, {}) == text


@few
@given(text=files, put=put)
def test_blanks_between_the_tokens_of_others_stay(text: str, put: list[str]) -> None:
    assume(not cmdline.fault(text) and '"' not in text)
    assume(not {cmdline.key(one) for one in put} & {cmdline.key(t) for t in cmdline.tokens(text)})
    done = cmdline_text.edit(text, put=put)
    assert done.startswith(text.strip(cmdline.PADDING))


@few
@given(text=files, flags=flags)
def test_quirks_are_merged_into_one_list(text: str, flags: dict[str, str]) -> None:
    assume(not cmdline.fault(text) and text.count('"') % 2 == 0)
    assume(others(text, QUIRKS))
    done = cmdline_text.with_quirks(text, flags)
    lists = [one for one in cmdline.tokens(done) if cmdline.key(one) == cmdline.key(QUIRKS)]
    found = bridges.quirks(cmdline.value(lists[-1]) or "") if lists else {}
    for vid_pid, wanted in flags.items():
        assert set(wanted) <= set(found.get(vid_pid, "")) if wanted else vid_pid not in found
    assert others(done, QUIRKS) == others(text, QUIRKS)
    assert cmdline_text.with_quirks(done, flags) == done


@few
@given(text=st.text('a =\n\r\0\t"\udcff', max_size=20), put=put)
def test_whatever_the_file_is_it_is_refused_or_stays_one_line(text: str, put: list[str]) -> None:
    try:
        done = cmdline_text.edit(text, put=put)
    except ValueError:
        return
    assert len(cmdline.lines(done)) == 1


def test_a_file_is_never_left_empty() -> None:
    with pytest.raises(ValueError, match="no parameter left"):
        cmdline_text.edit("a=1\n", drop=["a"])
    with pytest.raises(ValueError, match="no parameter left"):
        cmdline_text.with_quirks("usb-storage.quirks=aaaa:bbbb:u\n", {"aaaa:bbbb": ""})


def test_a_value_is_replaced_in_its_place_and_its_copies_go() -> None:
    done = cmdline_text.edit("x a=1 y a=2 a-b=1 z\n", put=["a=3", "a_b=2"])
    assert done == "x a=3 y a_b=2 z\n"


def test_every_console_counts_and_new_ones_go_to_the_end() -> None:
    done = cmdline_text.edit("console=tty1 root=x\n", put=["console=tty2"])
    assert done == "console=tty1 root=x console=tty2\n"


def test_a_second_line_is_never_joined_in_silence() -> None:
    with pytest.raises(ValueError, match="has 2 lines"):
        cmdline_text.edit("console=tty1\nroot=x\n", put=["a"])
    for odd in ("", "\n", "\nroot=x", "ro\0ot=x"):
        assert cmdline.fault(odd)


@pytest.mark.parametrize("name", ["root", "rootwait", "panic", "rootfstype=ext4", "panic=10"])
def test_what_a_host_needs_to_boot_never_goes(name: str) -> None:
    with pytest.raises(ValueError, match="never removed"):
        cmdline_text.edit("root=x rootwait panic=10\n", drop=[name])


def test_the_list_of_quirks_stays_as_short_as_the_kernel_takes() -> None:
    many = {f"1111:{number:04x}": "u" for number in range(10)}
    done = cmdline_text.with_quirks("root=x\n", many)
    with pytest.raises(ValueError, match="131 characters: the kernel takes 127"):
        cmdline_text.with_quirks(done, {"2222:0000": "u"})


def test_the_last_of_two_lists_counts_and_becomes_the_only_one() -> None:
    text = "usb-storage.quirks=1:1:u root=x usb_storage.quirks=aaaa:bbbb:f\n"
    done = cmdline_text.with_quirks(text, {"152d:0578": "u"})
    assert done == "usb-storage.quirks=aaaa:bbbb:f,152d:0578:u root=x\n"
    assert cmdline_text.with_quirks(done, {"aaaa:bbbb": "", "152d:0578": ""}) == "root=x\n"


# ---- config.txt

line = st.one_of(
    st.sampled_from([
        "[all]", "[pi4]", "[pi5]", "[none]", "[tryboot]", "[gpio4=1]", "gpu_mem=64", "gpu_mem=16",
        "dtparam=watchdog=off", "dtparam=audio=on", "dtoverlay=disable-wifi", "#gpu_mem=16", "",
        "dtoverlay=vc4-kms-v3d", "initramfs initrd.img followkernel", "a=1\r", "x" * 120,
    ]),
    st.text("ab=#[] ü\udcff", max_size=10).filter(lambda one: one.strip()),
)  # fmt: skip
configs = st.tuples(st.lists(line, max_size=10), st.sampled_from(["\n", ""])).map(
    lambda made: "\n".join(made[0]) + made[1]
)
ours = st.fixed_dictionaries(
    {},
    optional={
        "all": st.lists(
            st.sampled_from(["dtparam=watchdog=on", "dtoverlay=disable-wifi", "b=1"]), min_size=1,
            unique=True,
        ),
        "pi4": st.just(["gpu_mem=16"]),
        "pi5": st.just(["dtparam=pciex1_gen=3"]),
    },
)  # fmt: skip


def edited(text: str, wanted: config_text.Wanted) -> str:
    return config_text.edit({"config.txt": text}, PI4, wanted)


@few
@given(before=configs, after=configs, old=ours, new=ours)
def test_the_lines_are_in_force_and_the_rest_of_the_file_stays(
    before: str, after: str, old: dict[str, list[str]], new: dict[str, list[str]]
) -> None:
    first = edited(before, old) + after
    done = edited(first, new)
    found = config_txt.effective({"config.txt": done}, PI4)
    if "all" in new:
        assert "dtparam=watchdog=on" not in new["all"] or found.params["watchdog"] == "on"
        assert "b=1" not in new["all"] or found.values["b"] == "1"
        assert "dtoverlay=disable-wifi" not in new["all"] or "disable-wifi" in found.overlays
    assert "pi4" not in new or found.values["gpu_mem"] == "16"
    assert "pi5" not in new or "dtparam=pciex1_gen=3" in config_txt.sections(done)["pi5"]
    assert edited(done, new) == done
    assert block.drop(done).removesuffix("\n") == block.drop(first).removesuffix("\n")


@few
@given(text=configs)
def test_without_lines_of_ours_nothing_changes(text: str) -> None:
    assert edited(text, {}) == text


def test_a_block_of_ours_begins_and_ends_for_all_boards() -> None:
    done = edited("a=1\n[pi5]\nb=2", {"pi4": ["gpu_mem=16"], "all": ["dtoverlay=disable-bt"]})
    assert done.splitlines() == [
        "a=1", "[pi5]", "b=2", block.BEGIN, "[all]", "dtoverlay=disable-bt", "[pi4]", "gpu_mem=16",
        "[all]", block.END,
    ]  # fmt: skip
    assert edited(done, {}) == "a=1\n[pi5]\nb=2\n"


def test_what_the_file_says_already_is_not_said_again() -> None:
    text = "[all]\ngpu_mem=16\ndtparam=watchdog=on\n"
    assert edited(text, {"pi4": ["gpu_mem=16"], "all": ["dtparam=watchdog=on"]}) == text


@pytest.mark.parametrize("line", ["include more.txt", "dtoverlay="])
def test_a_line_that_says_nothing_by_itself_is_written_too(line: str) -> None:
    done = edited("a=1\n", {"all": [line]})
    assert line in done.splitlines() and edited(done, {"all": [line]}) == done


def test_a_line_behind_our_block_that_says_otherwise_is_outdone() -> None:
    once = edited("a=1\n", {"pi4": ["gpu_mem=16"]}) + "gpu_mem=64\n"
    done = edited(once, {"pi4": ["gpu_mem=16"]})
    assert re.findall("gpu_mem=.*|# picluster begin", done) == [
        "gpu_mem=64",
        "# picluster begin",
        "gpu_mem=16",
    ]
    assert edited(done, {"pi4": ["gpu_mem=16"]}) == done


def test_what_our_block_frees_from_its_section_is_outdone_too() -> None:
    text = edited("gpu_mem=16\n[pi5]\n", {"all": ["b=1"]}) + "gpu_mem=64\n"
    done = edited(text, {"all": ["b=1"], "pi4": ["gpu_mem=16"]})
    assert config_txt.effective({"config.txt": done}, PI4).values["gpu_mem"] == "16"
