"""Central storage: what a disk holds is never lost in passing, and what target and nodes get."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import secret_table
from cluster.answer import Absent, Answer, Forbidden, Present
from cluster.host_state import Clock, File, HostState, Unit
from cluster.managed import UNITS
from cluster.services import san, san_scripts, san_units
from cluster.services.san import Contents, InitiatorState, Mount, TargetState
from facts.san import Initiator, Mounts, Target
from operations import san as operations
from runtime.secrets import Secret
from tests.unit.cluster_example import example
from tests.unit.node_ops import Runner

GIB = 1 << 30
EMPTY = Present(Contents())
OURS = Present(Contents(("LVM2_member",), False, ("picluster-node2",), "picluster"))


def model(**section: Any) -> Any:
    """The example: node1 has the disk, node2 and node3 have volumes."""
    wanted = {
        "host": "node1",
        "disk": "/dev/sdb",
        "volumes": {"node2": {"size": "10G"}, "node3": {"size": "5G", "path": "/srv/my-data"}},
    }
    return example(services={"san": wanted | section})


@pytest.mark.parametrize(
    ("found", "typed", "refused"),
    [
        (EMPTY, (), None),
        (OURS, (), None),
        (Present(Contents(("ext4",), False)), (), "holds ext4: to lose all of it, type its name "
         "with --data wipe_disk=node1:/dev/sdb"),
        (Present(Contents((), False)), (), "holds data without a signature"),
        (Present(Contents(("LVM2_member",), False, (), "other")), (), "holds LVM2_member"),
        (Present(Contents(("LVM2_member",), False, asked=False)), ("node1:/dev/sdb",),
         "install lvm2"),  # volumes of ours, perhaps, under a new system
        (Present(Contents(("ext4",), False)), ("node1:/dev/sdb",), None),
        (Present(Contents(("ext4",), False)), ("node2:/dev/sdb", "/dev/sdb"), "holds ext4"),
        (Present(Contents(("ext4",), False, ("mount /",))), ("node1:/dev/sdb",), "is in use"),
        (Present(Contents(("gpt",), True, parts=("sdb1",))), (), "holds gpt (partitions sdb1): to"),
        (Present(Contents(("gpt",), True, parts=("sdb1",))), ("node1:/dev/sdb",), None),
        (Present(Contents((), False, begun=True)), (), None),  # cut after the wipe
        (Present(Contents(("LVM2_member",), False, begun=True)), (), None),  # before the group
        (Present(Contents(("LVM2_member",), False, group="other", begun=True)), (), "holds LVM2"),
        (Present(Contents(("ext4",), False, begun=True)), (), "holds ext4"),
        (Absent("no such device"), ("node1:/dev/sdb",), "there is no /dev/sdb"),
        (Forbidden("Permission denied"), ("node1:/dev/sdb",), "nobody knows what it holds"),
    ],
)  # fmt: skip
def test_a_disk_that_holds_anything_is_refused_until_its_name_is_typed(
    found: Answer[Contents], typed: tuple[str, ...], refused: str | None
) -> None:
    lines = san.target_refusals(model(product="tgt"), TargetState(disk=found), typed)
    assert (lines == []) if refused is None else (refused in lines[0]), lines


def test_names_are_typed_on_the_command_line() -> None:
    assert san.typed_names({"wipe_disk": "nas:/dev/sdb, nas:/dev/sdc"}) == (
        "nas:/dev/sdb", "nas:/dev/sdc",
    )  # fmt: skip
    assert san.typed_names({}) == san.typed_names({"wipe_disk": True, "x": 1})[:0]


def test_a_kernel_without_targets_and_a_volume_that_would_shrink_are_refused() -> None:
    found = TargetState(disk=OURS, volumes={"/dev/picluster/node2": 20 * GIB})
    kernel, smaller = san.target_refusals(model(), found, ())
    assert "services.san.product tgt" in kernel
    assert "nothing is made smaller" in smaller and "20480 MiB" in smaller


def test_a_volume_that_lvm_rounded_up_is_no_smaller_wish() -> None:
    wanted = model(product="tgt", volumes={"node2": {"size": "10M"}, "node3": {"size": "1000"}})
    sizes = {"/dev/picluster/node2": 12 << 20, "/dev/picluster/node3": 4 << 20}
    assert san.target_refusals(wanted, TargetState(disk=OURS, volumes=sizes), ()) == []
    sizes["/dev/picluster/node2"] = 16 << 20
    assert len(san.target_refusals(wanted, TargetState(disk=OURS, volumes=sizes), ())) == 1


@pytest.mark.parametrize(
    ("found", "refused"),
    [
        (InitiatorState(), None),
        (InitiatorState(disk=EMPTY), None),
        (InitiatorState(disk=Present(Contents(("ext4",), False))), None),
        (InitiatorState(disk=Present(Contents(("xfs",), False))), "holds xfs, expected ext4"),
        (InitiatorState(disk=Present(Contents((), False))), "data without a signature"),
        (InitiatorState(disk=Present(Contents((), False, begun=True))), None),  # a cut mkfs
        (InitiatorState(disk=Present(Contents(("xfs",), False, begun=True))), "holds xfs"),
        (InitiatorState(disk=Present(Contents(("xfs",), False, begun=True, unused=True))), None),
        (InitiatorState(disk=Present(Contents(("xfs",), False, unused=True))), "holds xfs"),
        (InitiatorState(disk=Forbidden("I/O error")), "cannot be read (I/O error)"),
        (InitiatorState(hidden="pvc-1"), "/storage is not empty"),
        (InitiatorState(mounted="/dev/sda3"), "/dev/sda3 is mounted at /storage already"),
        (InitiatorState(disk=Present(Contents(("ext4",), False, ("mount /storage",))),
                        real="/dev/sdb", mounted="/dev/sdb"), None),
        (InitiatorState(disk=Present(Contents(("ext4",), False)), real="/dev/sdb",
                        mounted="/dev/sdb", read_only=True), "/storage has become read-only"),
    ],
)  # fmt: skip
def test_a_node_keeps_what_its_volume_holds(found: InitiatorState, refused: str | None) -> None:
    lines = san.node_refusals(model(), "node2", found, kernel=True)
    assert (lines == []) if refused is None else (refused in lines[0]), lines


def test_a_node_without_the_module_is_refused() -> None:
    assert "iscsi_tcp" in san.node_refusals(model(), "node2", InitiatorState(), kernel=False)[0]


def test_every_node_has_a_target_and_a_password_of_its_own() -> None:
    wanted = model(iqn="iqn.2021-07.com.example")
    values = {"san.node2": "aaaaaaaaaaaa", "san.node3": "bbbbbbbbbbbb"}
    text = san.tgt_config(wanted, values)
    first, second = text.split("<target ")[1:]
    assert first.startswith("iqn.2021-07.com.example:node2>") and "10.0.0.12" in first
    assert "incominguser node2 aaaaaaaaaaaa" in first and "bbbb" not in first
    assert "incominguser node3 bbbbbbbbbbbb" in second
    kinds = [kind for kind in secret_table.wanted(wanted) if kind.name.startswith("san.")]
    assert [kind.name for kind in kinds] == ["san.node2", "san.node3"]
    assert all(kind.make and kind.fits(kind.make()) for kind in kinds)


def test_lio_is_told_by_standard_input(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, up = model(), {san_units.LIO: Unit("loaded", "active", "enabled")}
    names = [san.target(wanted, node.name) for node in san.nodes(wanted)]
    word = hashlib.sha256(b"wordwordword").hexdigest()
    paths = dict.fromkeys(names, "/dev/x")
    there = TargetState(targets=paths, passwords={names[0]: word, names[1]: "another"})
    given(monkeypatch, target=there)
    host = HostState(units=up, files=written(san_units.target_files(wanted, wanted.hosts[0])))
    (command,) = runner(operations.lio, wanted, host)
    assert "wordwordword" not in command.text and command.stdin is not None
    compile(san_scripts.LIO_OFFER, "offer", "exec")
    told = json.loads(san.lio_wanted(wanted, "node3", "bbbbbbbbbbbb"))
    assert (told["target"], told["password"]) == (names[1], "bbbbbbbbbbbb")
    assert (told["address"], told["path"]) == ("10.0.0.11", "/dev/picluster/node3")
    given(monkeypatch, target=TargetState(targets=paths, passwords=dict.fromkeys(names, word)))
    assert runner(operations.lio, wanted, host) == []


def node(cluster: Any, name: str) -> Any:
    return next(one for one in cluster.hosts if one.name == name)


def test_the_mount_never_stops_a_boot_and_k3s_never_starts_without_it() -> None:
    wanted = model()
    text = san_units.mount_text(wanted, node(wanted, "node3"))
    assert "Options=_netdev,nofail" in text and "Where=/srv/my-data\n" in text
    assert "/dev/disk/by-path/ip-10.0.0.11:3260-iscsi-iqn.2024-01.com.example" in text
    head, _, install = text.partition("[Install]")
    assert "\nBefore=k3s.service\n" in head and "\nRequiredBy=k3s.service\n" in install
    nas = {"name": "nas", "role": "external", "ip": "10.0.0.9", "arch": "arm64"}
    hosts = [*(one.model_dump() for one in example(agents=1).hosts), nas]
    section = {"folder": "/srv", "volumes": {"node4": {"size": "1G"}}}
    wanted = example(hosts=hosts, services={"san": section})
    text = san_units.mount_text(wanted, node(wanted, "node4"))
    assert "\nRequiredBy=k3s-agent.service\n" in text


def test_a_host_with_the_disk_that_comes_late_is_waited_for_without_an_end() -> None:
    wanted = model()
    files = san_units.node_files(wanted, node(wanted, "node2"))
    device = san_units.unit_name(san.device(wanted, "node2"), "device")
    assert "\nJobRunningTimeoutSec=infinity\n" in files[f"{UNITS}/{device}.d/10-picluster.conf"]
    login = files[f"{UNITS}/{san_units.LOGIN}"]
    assert "\nRestart=on-failure\n" in login and "\nStartLimitIntervalSec=0\n" in login
    # open-iscsi's own log-ins hold up what logins of users wait for.
    assert san.record_settings("node2")["node.startup"] == "manual"


@pytest.mark.parametrize("product", ["lio", "tgt"])
def test_a_volume_that_appears_is_offered_and_the_others_do_not_wait(product: str) -> None:
    wanted = model(product=product, group="pi-cluster")
    files = san_units.target_files(wanted, wanted.hosts[0])
    text = files[san_units.LIO_UNIT if product == "lio" else san_units.TGT_WAITS]
    assert "Requires" not in text and ".device" not in text
    drop_in = UNITS + r"/dev-pi\x2dcluster-.device.d/10-picluster.conf"
    assert files[drop_in].endswith("[Unit]\nWants=picluster-san-offer@%N.service\n")
    assert f" {san_units.OFFER} %f\n" in files[f"{UNITS}/picluster-san-offer@.service"]
    in_folder = model(product=product, disk=None, folder="/srv/iscsi")
    *_, text = san_units.target_files(in_folder, in_folder.hosts[0]).values()
    assert "\nRequiresMountsFor=/srv/iscsi\n" in text


@pytest.mark.parametrize(
    "path", ["/srv/my-data", "/dev/disk/by-path/ip-10.0.0.1:3260-iscsi-iqn.x:a-lun-1", "/.a/b c"]
)
def test_names_of_units_are_systemds(path: str) -> None:
    program = shutil.which("systemd-escape")
    if not program:
        pytest.skip("needs systemd-escape")
    said = subprocess.check_output([program, "-p", "--suffix=mount", path], text=True)
    assert said.strip() == san_units.mount_unit(path)


# ---- the fact, on files of this computer that stand for disks


def contents(path: Path | str) -> Answer[Contents]:
    script = Target().command(disk=str(path))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=30)
    return Target().process(done.stdout.splitlines()).disk


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    path = tmp_path / "disk with a blank"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    return path


def test_an_empty_disk_is_empty(blank: Path) -> None:
    assert contents(blank) == EMPTY


@pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="needs mkfs.ext4")
def test_a_file_system_is_seen(blank: Path) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-F", blank], check=True)
    match contents(blank):
        case Present(value=found):
            assert found.signatures == ("ext4",) and not found.empty
        case answer:
            pytest.fail(str(answer))


def test_a_disk_of_lvm_is_not_known_without_lvm2() -> None:
    lines = ["disk\tread\tLVM2_member ", "nolvm", "group\t", "end"]
    match Target().process(lines).disk:
        case Present(value=found):
            assert not found.asked and not found.half_made
        case answer:
            pytest.fail(str(answer))


@pytest.mark.parametrize(("at", "data"), [(0, b"x"), (3 << 20, b"x"), (510, b"\x55\xaa")])
def test_data_without_a_signature_are_seen(blank: Path, at: int, data: bytes) -> None:
    put(blank, at, data)
    found = contents(blank)
    assert isinstance(found, Present) and not found.value.blank and not found.value.empty


def test_no_disk_and_one_that_cannot_be_read_are_different_answers(tmp_path: Path) -> None:
    assert contents(tmp_path / "none") == Absent("no such device")
    assert isinstance(contents(tmp_path), Forbidden)  # a folder stands for what does not answer


def test_the_disk_that_this_computer_runs_on_is_in_use() -> None:
    device = subprocess.check_output(["findmnt", "-no", "SOURCE", "/"], text=True).strip()
    if not Path(device).is_block_device():
        pytest.skip("the root of this computer is no disk")
    match contents(device):
        case Present(value=found):
            assert "mount /" in found.users
        case answer:
            assert isinstance(answer, Forbidden)


def test_a_file_system_is_made_once(blank: Path) -> None:
    if not shutil.which("mkfs.ext4"):
        pytest.skip("needs mkfs.ext4")
    words = (san_scripts.MAKE_FILE_SYSTEM, blank, "ext4")
    assert script(blank.parent, *words).returncode == 0
    again = script(blank.parent, *words)
    assert again.returncode == 1 and "holds ext4: left alone" in again.stderr


def simulated(folder: Path, **programs: str) -> None:
    """Programs that do nothing but what is given, in a folder for PATH."""
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)


def script(folder: Path, text: str, *words: object) -> subprocess.CompletedProcess[str]:
    """A script of ours, with the folder's programs first and its mark in the folder."""
    text = text.replace(san_scripts.BEGUN, str(folder / "begun"))
    command = ["sh", "-c", f"PATH={folder}:$PATH\n{text}", "san", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_no_group_is_made_where_data_without_a_signature_are(blank: Path) -> None:
    folder = blank.parent
    simulated(folder, pvcreate="", vgcreate="", pvs="")
    words = (san_scripts.MAKE_GROUP, blank, "picluster")
    assert script(folder, *words, "").returncode == 0
    put(blank, 70000, b"x")
    again = script(folder, *words, "")
    assert again.returncode == 1 and "holds data without a signature" in again.stderr
    assert script(folder, *words, "wipe").returncode == 0


def put(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_a_wipe_that_was_cut_goes_on_without_its_name(blank: Path) -> None:
    folder = blank.parent
    put(blank, 70000, b"x")
    simulated(folder, pvcreate="exit 9", vgcreate="", pvs="")
    words = (san_scripts.MAKE_GROUP, blank, "picluster")
    assert script(folder, *words, "wipe").returncode == 9
    simulated(folder, pvcreate="")
    assert script(folder, *words, "").returncode == 0  # and no other disk
    again = script(folder, *words, "")
    assert again.returncode == 1 and "without a signature" in again.stderr, "the mark is gone"
    simulated(folder, pvcreate="exit 9")
    assert script(folder, *words, "wipe").returncode == 9
    simulated(folder, pvs="echo theirs")
    assert "belongs to a volume group" in script(folder, *words, "").stderr
    other = folder / "other"
    other.write_bytes(blank.read_bytes())
    again = script(folder, san_scripts.MAKE_GROUP, other, "picluster", "")
    assert again.returncode == 1 and "without a signature" in again.stderr


def test_a_file_system_that_was_cut_is_made_and_data_are_not_lost(blank: Path) -> None:
    folder = blank.parent
    words = (san_scripts.MAKE_FILE_SYSTEM, blank, "x")
    put(blank, 70000, b"x")
    simulated(folder, **{"mkfs.x": ""})
    refused = script(folder, *words)
    assert refused.returncode == 1 and "holds data without a signature" in refused.stderr
    put(blank, 70000, b"\0")
    part = 'printf x | dd of="$2" conv=notrunc seek=99 2> /dev/null; exit 9'
    simulated(folder, **{"mkfs.x": part})
    assert script(folder, *words).returncode == 9
    simulated(folder, **{"mkfs.x": ""})
    assert script(folder, *words).returncode == 0
    assert script(folder, *words).returncode == 1, "the mark is gone"


@pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="needs mkfs.ext4")
def test_a_file_system_that_was_cut_at_its_end_is_made_again_unless_somebody_mounted_it(
    blank: Path,
) -> None:
    folder, words = blank.parent, (san_scripts.MAKE_FILE_SYSTEM, blank, "ext4")
    simulated(folder, sync=f"[ ! -e {folder}/first ] || exit 9; touch {folder}/first")
    assert script(folder, *words).returncode == 9  # after mkfs, before its end is written down
    (folder / "sync").unlink()
    before = blank.read_bytes()[1024:2048]
    assert script(folder, *words).returncode == 0
    assert blank.read_bytes()[1024:2048] != before
    assert script(folder, *words).returncode == 1, "the mark is gone"
    (folder / "first").unlink()
    os.truncate(blank, 0)
    os.truncate(blank, 64 << 20)
    simulated(folder, sync=f"[ ! -e {folder}/first ] || exit 9; touch {folder}/first")
    assert script(folder, *words).returncode == 9
    put(blank, san_scripts.EXT4_MOUNTED, b"\1\2\3\4")
    again = script(folder, *words)
    assert again.returncode == 1 and "holds ext4: left alone" in again.stderr


@pytest.mark.parametrize(("progress", "code"), [(b"\1", 0), (b"\0", 1)])
def test_an_xfs_is_made_again_only_while_it_is_marked_as_in_progress(
    blank: Path, progress: bytes, code: int
) -> None:
    """Simulated: mkfs.xfs, which is cut, and wipefs; tests/vm/test_san.py has the real ones."""
    folder, words = blank.parent, (san_scripts.MAKE_FILE_SYSTEM, blank, "xfs")
    simulated(
        folder,
        wipefs=f'case $1 in --all) printf x | dd of="$2" conv=notrunc 2> {folder}/said ;; esac\n'
        '[ "$1" = --all ] || case $(head -c 4 "$4") in XFSB) echo xfs ;; esac',
        **{"mkfs.xfs": 'printf XFSB | dd of="$2" conv=notrunc 2> /dev/null; exit 9'},
    )
    assert script(folder, *words).returncode == 9
    put(blank, san_scripts.XFS_IN_PROGRESS, progress)
    simulated(folder, **{"mkfs.xfs": ""})
    again = script(folder, *words)
    assert again.returncode == code, again.stderr
    assert (blank.read_bytes()[:4] == b"xFSB") == (code == 0)


def test_a_log_in_that_a_power_cut_ended_is_made_up_for(tmp_path: Path) -> None:
    record = tmp_path / "etc/iscsi/nodes/iqn.x:node2/10.0.0.2,3260,1/default"
    record.parent.mkdir(parents=True)
    device = tmp_path / "device"
    device.touch()
    iscsiadm = tmp_path / "iscsiadm"
    iscsiadm.write_text(
        f'#!/bin/sh\ncase "$*" in *"-o new"*) echo "node.startup = manual" > {record} ;; esac\n'
    )
    mv = tmp_path / "mv"  # the power fails when the record itself is to be replaced
    mv.write_text(f'#!/bin/sh\n[ "$3" != {record} ] || exit 9\nexec /bin/mv "$@"\n')
    iscsiadm.chmod(0o755)
    mv.chmod(0o755)
    text = san_scripts.LOGIN.replace("/etc/iscsi", f"{tmp_path}/etc/iscsi")
    words = ("san", "iqn.x:node2", "10.0.0.2:3260", str(device), "node.startup = automatic")

    def run() -> int:
        script = f"PATH={tmp_path}:$PATH\n{text}"
        return subprocess.run(["sh", "-c", script, *words], input="secret", text=True).returncode

    assert run() == 9
    assert [one.name for one in record.parent.iterdir()] == ["default"]
    mv.unlink()
    assert run() == 0
    assert record.read_text().splitlines() == [
        "node.startup = automatic", "node.session.auth.password = secret", "# END RECORD",
    ]  # fmt: skip


def test_a_volume_that_is_a_file_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "node2.img"
    command = ["sh", "-c", san_scripts.MAKE_FILE, "san", str(path), "5M"]
    assert subprocess.run(command).returncode == 0 and path.stat().st_size == 5 << 20
    assert subprocess.run(command, capture_output=True).returncode == 1


SHOW = """\
Target 1: iqn.x:node2
    System information:
    LUN information:
        LUN: 0
            Backing store path: None
        LUN: 1
            Backing store path: /srv/node2.img
    Account information:
        node2
"""


def test_a_target_of_tgt_gets_the_volume_that_it_waits_for(tmp_path: Path) -> None:
    config = san.tgt_config(model(), {"san.node2": "aaaaaaaaaaaa", "san.node3": "bbbbbbbbbbbb"})
    (tmp_path / "config").write_text(config)
    show = SHOW.replace("iqn.x:node2", san.target(model(), "node2"))
    # Both targets are there, and node3's has no disk but its controller.
    waiting = SHOW.replace("Target 1: iqn.x:node2", f"Target 2: {san.target(model(), 'node3')}")
    waiting = "".join(
        line for line in waiting.splitlines(True) if "LUN: 1" not in line and "/srv" not in line
    )
    simulated(
        tmp_path,
        lvs="",
        tgtadm=f"case $* in *show) cat << 'X'\n{show}{waiting}X\n;; *) echo \"$@\" ;; esac",
    )
    text = san_scripts.TGT_LATE.replace(san_scripts.TGT_CONFIG, f"{tmp_path}/config")
    given = {
        path: script(tmp_path, text, f"/dev/picluster/{path}")
        for path in ("node2", "node3", "other")
    }
    assert {path: done.returncode for path, done in given.items()} == dict.fromkeys(given, 0)
    assert given["node2"].stdout == given["other"].stdout == ""
    assert given["node3"].stdout.split()[2:] == (
        "--mode logicalunit --op new --tid 2 --lun 1 --backing-store /dev/picluster/node3".split()
    )
    simulated(tmp_path, lvs=f"echo {san_scripts.NEW}")
    assert script(tmp_path, text, "/dev/picluster/node3").stdout == ""  # it is not empty yet


def test_targets_of_tgt_are_read(tmp_path: Path) -> None:
    simulated(tmp_path, tgtadm=f"cat << 'X'\n{SHOW}X")
    script = f"PATH={tmp_path}:$PATH\n{Target().command()}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    state = Target().process(done.stdout.splitlines())
    assert state.targets == {"iqn.x:node2": "/srv/node2.img"}


def test_a_record_of_open_iscsi_is_read() -> None:
    lines = ["disk\tabsent", "setting\tnode.startup\tautomatic", "password\tp", "session\tiqn.x",
             "mounted\t/dev/sdb", "end"]  # fmt: skip
    found = Initiator().process(lines)
    assert not found.read_only and Initiator().process(["readonly\tyes", *lines]).read_only
    assert found.settings == {"node.startup": "automatic"} and found.password == "p"
    assert found.sessions == {"iqn.x"} and found.mounted == "/dev/sdb"
    with pytest.raises(Exception, match="ended early"):
        Initiator().process(lines[:-1])


# ---- operations


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    word = "wordwordword"
    monkeypatch.setattr("operations.san.secrets.secret", lambda name: Secret(name, lambda: word))
    return Runner(monkeypatch)


def written(files: dict[str, str]) -> dict[str, File]:
    return {
        path: File("644", sha256=hashlib.sha256(text.encode()).hexdigest())
        for path, text in files.items()
    }


def given(monkeypatch: pytest.MonkeyPatch, **found: Any) -> None:
    for name, state in found.items():
        monkeypatch.setattr(operations, f"{name}_state", lambda _, state=state: state)


def test_volumes_are_made_and_left_alone(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, target=TargetState(disk=EMPTY))
    commands = [one.text for one in runner(operations.volumes, model(), HostState())]
    assert len(commands) == 3 and "vgcreate" in commands[0] and commands[0].endswith("''")
    assert commands[1].endswith(f"picluster node2 {10 * GIB}")
    sizes = {"/dev/picluster/node2": 10 * GIB, "/dev/picluster/node3": 5 * GIB}
    given(monkeypatch, target=TargetState(disk=OURS, volumes=sizes))
    assert runner(operations.volumes, model(), HostState()) == []


def test_volumes_that_a_cut_left_full_are_emptied_and_marks_do_not_stay(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"/dev/picluster/node2": 10 * GIB, "/dev/picluster/node3": 5 * GIB}
    disk = Present(replace(OURS.value, begun=True))
    new = frozenset({"/dev/picluster/node3"})
    given(monkeypatch, target=TargetState(disk=disk, volumes=sizes, new=new))
    mark, volume = runner(operations.volumes, model(), HostState())
    assert mark.text == san_scripts.ENDED and volume.text.endswith(f"picluster node3 {5 * GIB}")


def test_a_typed_name_wipes_first(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, target=TargetState(disk=Present(Contents(("ext4",), False))))
    commands = runner(operations.volumes, model(), HostState(), wipe=True)
    assert commands[0].text.endswith("/dev/sdb picluster wipe")


def test_tgt_reads_its_file_again_only_when_it_changed(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = model(product="tgt")
    offered = {san.target(wanted, node.name): san.backing(wanted, node.name)
               for node in san.nodes(wanted)}  # fmt: skip
    host = HostState(
        units={san_units.TGT: Unit("loaded", "active", "enabled")},
        files=written(san_units.target_files(wanted, wanted.hosts[0])),
    )
    given(monkeypatch, target=TargetState(targets=offered, config="a", applied="a"))
    assert runner(operations.tgt, wanted, host) == []
    given(monkeypatch, target=TargetState(targets=offered, config="b", applied="a"))
    (apply,) = runner(operations.tgt, wanted, host)
    assert apply.text.index("--pretend") < apply.text.index("--update ALL")
    assert san_scripts.TGT_APPLIED in apply


def test_a_volume_more_does_not_cut_the_sessions_of_the_others(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model(product="tgt", volumes={"node2": {"size": "10G"}})
    wanted = model(product="tgt")
    files = written(san_units.target_files(before, before.hosts[0]))
    units = {san_units.TGT: Unit("loaded", "active", "enabled", since=50.0)}
    now = HostState(clock=Clock(1000.0), uptime=100.0, units=units, files=files)
    given(monkeypatch, target=TargetState(config="b", applied="a"))
    (apply,) = runner(operations.tgt, wanted, now)
    assert san_scripts.TGT_APPLIED in apply
    # Cut off between the file and the restart, an earlier run left it on every address.
    late = replace(files[san_units.TGT_UNIT], changed=990)
    cut = replace(now, files={**files, san_units.TGT_UNIT: late})
    commands = [one.text for one in runner(operations.tgt, before, cut)]
    restart = f"timeout {operations.START_LIMIT} systemctl restart {san_units.TGT}"
    assert commands[:2] == ["systemctl daemon-reload", restart]


def test_passwords_reach_open_iscsi_by_standard_input(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, initiator=InitiatorState())
    at_boot = {san_units.OPEN_ISCSI: Unit("loaded", "inactive", "enabled")}
    states = {"node2": HostState(units=at_boot)}
    (command,) = runner(operations.login, model(), states)
    assert "wordwordword" not in command.text and command.stdin is not None
    assert "node.session.auth.authmethod = CHAP" in command
    right = InitiatorState(
        sessions=frozenset({san.target(model(), "node2")}),
        settings=san.record_settings("node2"),
        password="b6e4ebbf7fd0ec1bd9d95ed5bd4ce0bb2d3fed42c0be8d2b1c0ad5b8bbd1b5b1",
    )
    given(monkeypatch, initiator=right)
    assert len(runner(operations.login, model(), states)) == 1  # another password


def test_a_converged_node_is_left_alone(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = model()
    me, unit = node(wanted, "node2"), san_units.mount_unit("/storage")
    given(
        monkeypatch,
        initiator=InitiatorState(
            sessions=frozenset({san.target(wanted, "node2")}),
            settings=san.record_settings("node2"),
            password=hashlib.sha256(b"wordwordword").hexdigest(),
            disk=Present(Contents(("ext4",), False, ("mount /storage",))),
            real="/dev/sdb",
            mounted="/dev/sdb",
        ),
    )
    state = HostState(
        units=dict.fromkeys(
            (unit, san_units.LOGIN, san_units.OPEN_ISCSI), Unit("loaded", "active", "enabled")
        ),
        files=written(san_units.node_files(wanted, me))
        | {san_units.required(wanted, me): File("777")},
    )
    for operation in (operations.login, operations.mount):
        assert runner(operation, wanted, {"node2": state}) == []


@pytest.mark.parametrize(
    ("found", "made"),
    [
        (Contents(("xfs",), False, begun=True, unused=True), True),
        (Contents(("xfs",), False, begun=True), False),  # cut after mkfs.xfs had ended
        (Contents(("xfs",), False, ("mount /storage",), begun=True, unused=True), False),
    ],
)
def test_a_half_made_file_system_is_made_before_it_is_mounted(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, found: Contents, made: bool
) -> None:
    wanted = model(volumes={"node2": {"size": "1G", "filesystem": "xfs"}})
    given(monkeypatch, initiator=InitiatorState(disk=Present(found)))
    first = runner(operations.mount, wanted, {"node2": HostState()})[0]
    assert ("mkfs" in first) == made and (first.text == san_scripts.ENDED) != made


def test_a_link_that_k3s_requires_the_mount_by_is_made_up_for(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = model()
    me, unit = node(wanted, "node2"), san_units.mount_unit("/storage")
    there = Present(Contents(("ext4",), False, ("mount /storage",)))
    given(monkeypatch, initiator=InitiatorState(disk=there, real="/dev/sdb", mounted="/dev/sdb"))
    units = dict.fromkeys((unit, san_units.LOGIN), Unit("loaded", "active", "enabled"))
    state = HostState(units=units, files=written(san_units.node_files(wanted, me)))
    (command,) = runner(operations.mount, wanted, {"node2": state})
    assert command.text == f"systemctl reenable {san_units.LOGIN} {unit}"


# ---- what the data do not have any more


def a_mount(wanted: Any, node: str, path: str, **more: Any) -> Mount:
    return Mount(san_units.mount_unit(path), san.device(wanted, node), path, **more)


def test_mounts_of_ours_are_found_with_who_uses_them_and_no_others(tmp_path: Path) -> None:
    if "/dev/shm" not in Path("/proc/mounts").read_text().split():
        pytest.skip("needs a mount that everybody may use")
    wanted = model(volumes={"node2": {"size": "1G", "path": "/dev/shm"}})
    text = san_units.mount_text(wanted, node(wanted, "node2"))
    for name, content in {
        "ours": text,
        "theirs": text.partition("\n")[2],
        "of-a-disk": text.replace(san.device(wanted, "node2"), "/dev/sdb1"),
        "elsewhere": text.replace("Where=/dev/shm", "Where=/no/mount"),
    }.items():
        (tmp_path / f"{name}.mount").write_text(content)
    with tempfile.NamedTemporaryFile(dir="/dev/shm"):
        command = Mounts().command().replace(UNITS, str(tmp_path))
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    found = {one.unit: one for one in Mounts().process(done.stdout.splitlines())}
    assert set(found) == {"ours.mount", "elsewhere.mount"}
    ours = found["ours.mount"]
    assert (ours.device, ours.path, ours.mounted) == (san.device(wanted, "node2"), "/dev/shm", True)
    assert any(f"({os.getpid()})" in one for one in ours.holders) or len(ours.holders) == 3
    assert (ours.target, ours.portal) == (san.target(wanted, "node2"), "10.0.0.11:3260")
    assert not found["elsewhere.mount"].mounted and not found["elsewhere.mount"].holders


def test_a_former_mount_in_use_is_refused_by_who_uses_it() -> None:
    wanted = model()
    there = a_mount(wanted, "node2", "/storage", mounted=True)
    old = a_mount(wanted, "node2", "/old", mounted=True, holders=("k3s-server (7)", "mount /x"))
    assert san.former(wanted, "node2", (there, old)) == (old,)
    (line,) = san.former_refusals("node2", (old,))
    assert "/old" in line and "in use by k3s-server (7), mount /x" in line
    assert san.former_refusals("node2", (replace(old, holders=()),)) == []
    assert san.former(wanted, "node1", (there,)) == (there,)  # it has no volume any more


def test_a_second_mount_of_ours_is_nobody_who_uses_the_first() -> None:
    lines = [f"mount\t{name}.mount\t/dev/x\t/{name}" for name in ("old", "new")]
    lines += ["mounted\t/old", "held\t/old\tmount /new", "held\t/old\tmount /pod", "end"]
    old, _ = Mounts().process(lines)
    assert old.holders == ("mount /pod",)


def test_a_volume_of_another_host_at_the_same_path_is_no_refusal() -> None:
    wanted = model()
    old = a_mount(model(iqn="iqn.2020-01.org.old"), "node2", "/storage", mounted=True)
    found = InitiatorState(mounted="/dev/sdb")
    assert len(san.node_refusals(wanted, "node2", found, kernel=True)) == 1
    assert san.node_refusals(wanted, "node2", found, kernel=True, left=(old,)) == []


LOGIN_THERE = HostState(files={san_units.LOGIN_FILE: File("644")})


def test_another_path_keeps_the_log_in(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = model()
    old = a_mount(wanted, "node2", "/old-path", mounted=True)
    monkeypatch.setattr(operations, "cached", lambda *_: (old,))
    (command,) = runner(operations.leave, wanted, {"node2": LOGIN_THERE})
    unit = san_units.mount_unit("/old-path")
    assert shlex.split(command.text)[-5:] == [unit, "/old-path", "", "", f"{UNITS}/{unit}"]
    # A run of an earlier version has mounted it twice.
    there = a_mount(wanted, "node2", "/storage", mounted=True)
    monkeypatch.setattr(operations, "cached", lambda *_: (old, there))
    assert [one.text for one in runner(operations.leave, wanted, {"node2": LOGIN_THERE})] == [
        command.text
    ]
    monkeypatch.setattr(operations, "cached", lambda *_: (there,))
    assert runner(operations.leave, wanted, {"node2": LOGIN_THERE}) == []
    assert runner(operations.leave, wanted, {"node2": HostState()}) == []


@pytest.mark.parametrize("section", [True, False])
def test_a_node_without_a_volume_logs_out(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, section: bool
) -> None:
    before = model()
    wanted = model(volumes={"node3": {"size": "1G"}}) if section else example()
    old = a_mount(before, "node2", "/storage")
    monkeypatch.setattr(operations, "cached", lambda *_: (old,))
    assert san_units.LOGIN_FILE in san_units.asks(wanted).files
    twice = a_mount(before, "node2", "/earlier")
    monkeypatch.setattr(operations, "cached", lambda *_: (twice, old))
    _, first, gone, *_ = runner(operations.leave, wanted, {"node2": LOGIN_THERE})
    assert " '' '' " in first and san.target(before, "node2") in gone
    monkeypatch.setattr(operations, "cached", lambda *_: (old,))
    off, gone, login, reload = runner(operations.leave, wanted, {"node2": LOGIN_THERE})
    assert "disable --now" in off and san_units.LOGIN in off
    assert f" {san.target(before, 'node2')} 10.0.0.11:3260 " in gone
    assert all(path in gone for path in san_units.former_files(old, keep=False))
    assert login.text == f"rm -f {san_units.LOGIN_FILE}", "it goes last"
    assert "daemon-reload" in reload


def test_what_a_former_mount_leaves(tmp_path: Path) -> None:
    files = (tmp_path / "x.device.d" / "limit.conf", tmp_path / "old.mount")
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    log = f'echo "$(basename $0) $*" >> {tmp_path}/log'
    simulated(
        tmp_path,
        umount=f"{log}; exit 32",
        systemctl=log,
        iscsiadm=f'{log}; [ "$*" != "-m session" ] || echo "tcp: [1] 10.0.0.1:3260,1 iqn.x:a (x)"',
    )
    words = ("old.mount", "/proc", "iqn.x:a", "10.0.0.1:3260", *files)
    assert script(tmp_path, san_scripts.LEAVE, *words).returncode == 32
    assert all(path.exists() for path in files), "nothing goes while it is in use"
    simulated(tmp_path, umount=log)
    (tmp_path / "log").unlink()
    assert script(tmp_path, san_scripts.LEAVE, *words).returncode == 0
    assert not any(path.exists() for path in files) and not files[0].parent.exists()
    of_target = "iscsiadm -m node -T iqn.x:a -p 10.0.0.1:3260"
    assert (tmp_path / "log").read_text().splitlines() == [
        "umount /proc", "systemctl disable old.mount", "iscsiadm -m session",
        f"{of_target} --logout", of_target, f"{of_target} -o delete", "systemctl daemon-reload",
    ]  # fmt: skip
