"""Texts of the node base: our block in somebody's file, swap out of fstab, small files."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from cluster.text import block, drop_ins, fstab, hosts
from tests.unit.cluster_example import example

line = st.text(st.characters(codec="ascii", exclude_categories=("Cc",)), max_size=20)
foreign = st.lists(line.filter(lambda one: one.strip() not in (block.BEGIN, block.END)))
texts = foreign.map("\n".join)
ours = st.lists(line.filter(lambda one: one.strip() not in (block.BEGIN, block.END)), max_size=4)


@given(text=texts, lines=ours, first=st.booleans())
def test_a_block_is_put_once_and_lines_of_others_stay(
    text: str, lines: list[str], first: bool
) -> None:
    once = block.put(text, lines, first=first)
    assert block.put(once, lines, first=first) == once
    rest = once.removesuffix("\n").split("\n")
    begin, end = rest.index(block.BEGIN), rest.index(block.END)
    assert rest[begin + 1 : end] == lines
    assert rest[:begin] + rest[end + 1 :] == (text.removesuffix("\n").split("\n") if text else [])


@given(before=foreign, after=foreign, old=ours, new=ours)
def test_a_block_stays_where_it_is(
    before: list[str], after: list[str], old: list[str], new: list[str]
) -> None:
    text = "\n".join([*before, block.BEGIN, *old, block.END, *after, "last"])
    found = block.put(text, new, first=True).split("\n")
    assert found == [*before, block.BEGIN, *new, block.END, *after, "last", ""]


def test_a_block_that_lost_its_end_swallows_nothing() -> None:
    found = block.put(f"a\n{block.BEGIN}\nold\nb\n", ["new"])
    assert found == f"a\nold\nb\n{block.BEGIN}\nnew\n{block.END}\n"
    twice = block.put(f"{block.END}\na\n{block.BEGIN}\n", ["new"], first=True)
    assert twice == f"{block.BEGIN}\nnew\n{block.END}\na\n"


def test_the_hosts_file_names_every_host_before_the_installers_line() -> None:
    model = example(servers=1, agents=1)
    found = hosts.render("127.0.0.1 localhost\n127.0.1.1 node1\n10.0.0.9 nas\n", model)
    assert found.splitlines()[1:3] == [
        "10.0.0.11 node1.picluster.example.com node1",
        "10.0.0.12 node2.picluster.example.com node2",
    ]
    assert found.endswith("127.0.0.1 localhost\n127.0.1.1 node1\n10.0.0.9 nas\n")


def test_the_hosts_file_names_our_s3_server_where_it_has_a_name() -> None:
    named = example(services={"s3": {"host": "node1", "name": "s3.example.com"}})
    assert "10.0.0.11 s3.example.com" in hosts.render("", named).splitlines()
    assert "s3." not in hosts.render("", example(services={"s3": {"host": "node1"}}))


def test_swap_lines_become_comments_and_nothing_else_changes() -> None:
    text = (
        "# a\n\nLABEL=writable\t/ ext4 noatime 0 1\n  /swapfile none swap sw 0 0\n#/x none swap sw"
    )
    found = fstab.without_swap(text)
    assert found == text.replace("  /swapfile", f"{fstab.OFF}  /swapfile")


@given(st.text(st.characters(codec="ascii")))
def test_a_table_without_swap_stays_so(text: str) -> None:
    once = fstab.without_swap(text)
    assert fstab.without_swap(once) == once
    assert once.replace(fstab.OFF, "") == text.replace(fstab.OFF, "")


def test_chrony_follows_each_time_server_and_steps_a_wrong_clock() -> None:
    found = drop_ins.chrony(("10.0.0.1", "ntp.example.com")).splitlines()
    assert [one for one in found if one.startswith("server ")] == [
        "server 10.0.0.1 iburst",
        "server ntp.example.com iburst",
    ]
    assert "makestep 1 3" in found and "rtcsync" in found


def test_files_that_are_ours_say_so_in_their_own_kind_of_comment() -> None:
    apt = drop_ins.apt()
    assert apt.startswith("// ") and 'Unattended-Upgrade::Automatic-Reboot "false";' in apt
    for text in (
        drop_ins.limits(), drop_ins.multipath(), drop_ins.no_snapd(), drop_ins.needrestart(),
        drop_ins.logind(30), drop_ins.journald("volatile", "1G"), drop_ins.cloud_init(),
        drop_ins.sshd_text(drop_ins.sshd("no")), drop_ins.sudo("ada"), drop_ins.zram(),
    ):  # fmt: skip
        assert text.startswith("# ") and text.endswith("\n") and not re.search(r"\s\n", text)
    assert "RuntimeMaxUse=64M" in drop_ins.journald("volatile", "1G")
