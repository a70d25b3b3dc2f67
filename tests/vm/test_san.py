"""Central storage on a real kernel: LVM, LIO by rtslib, open-iscsi, udev, ext4, in one machine.

A virtual machine: Debian's kernel and programs are real, the disks are QEMU's, target and node are
the same computer. systemd is not there, so the mount's own unit is not; its options are.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.answer import Present
from cluster.services import san, san_scripts
from cluster.services.san import Contents, InitiatorState, TargetState
from facts.san import Initiator, Target
from tests.lab.program import output
from tests.unit.cluster_example import example
from tests.vm import qemu
from tests.vm.tools import unpacked

pytestmark = pytest.mark.vm

DISK, OTHER, NODE = "/dev/nvme0n1", "/dev/sdb", "node1"
# Of an MBR: one of Linux' partitions from sector 2048 on, 32 MiB, and the signature.
PARTITION = (
    r"\000\000\000\000\203\000\000\000\000\010\000\000\000\000\001\000" + r"\000" * 48 + r"\125\252"
)
HALF, HALF_SECTORS = "/dev/mapper/half", 400 << 11
# Of device mapper; the log of an XFS is in the middle of its disk.
HOLE = (
    "0 400000 linear /dev/loop0 0\\n400000 20000 error\\n"
    f"420000 {HALF_SECTORS - 420000} linear /dev/loop0 420000\\n"
)
WORD, NEW_WORD = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
ADDRESS = "10.0.0.60"
ROOT_MIB, LIMIT_S = 700, 300
WANTED = ("python3-rtslib-fb", "open-iscsi", "lvm2", "e2fsprogs", "xfsprogs", "mount", "kmod",
          "iproute2", "udev", "util-linux", "dash", "coreutils", "findutils", "sed", "grep", "mawk",
          "procps")  # fmt: skip
# What only a whole system needs of those that they depend on.
NOT_WANTED = re.compile(r"perl|cdebconf|debconf|dpkg|adduser|passwd|libpam|.*-perl|install-info")
MODULES = ("crc32c_generic", "ext4", "dm_mod", "target_core_mod", "iscsi_target_mod",
           "target_core_iblock", "target_core_file", "iscsi_tcp", "md5", "sha1_generic",
           "sha256_generic", "loop", "libcrc32c", "xfs")  # fmt: skip

# In the initramfs: root of the disk on the UAS bridge, and there what is asked.
MOUNT = f"""
for module in {" ".join(MODULES)}; do modprobe $module; done
for d in /sys/block/sd*; do
  case $(readlink -f "$d") in */2-1/*) disk=/dev/${{d##*/}} ;; esac
done
mkdir /root; mount -t ext4 "$disk" /root
mount -t configfs configfs /sys/kernel/config
for place in dev proc sys lib/modules; do
  mkdir -p /root/$place; mount --bind /$place /root/$place
done
mount --bind /sys/kernel/config /root/sys/kernel/config
mount -t tmpfs tmpfs /root/run; cp /inside /root/run/inside
PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH
"""
ENTER = f"{MOUNT}chroot /root /bin/sh /run/inside\n"
BEGIN = f"""
ip link set lo up; ip addr add {ADDRESS}/24 dev lo
mkdir -p /run/lock/iscsi /run/lvm /etc/rtslib-fb-target /etc/target
export SYSTEMD_IGNORE_CHROOT=1
/lib/systemd/systemd-udevd --daemon; udevadm trigger; udevadm settle
echo InitiatorName=iqn.2024-01.com.example:vm > /etc/iscsi/initiatorname.iscsi
iscsid
"""


def model(*more: str, size: str = "32M") -> Any:
    """A node with a volume; more: names of further ones."""
    hosts = [host.model_dump() for host in example(servers=1, agents=len(more)).hosts]
    hosts += [{"name": "nas", "role": "external", "ip": ADDRESS, "arch": "amd64"}]
    volumes = {name: {"size": size} for name in (NODE, *more)}
    return example(hosts=hosts, services={"san": {"disk": DISK, "volumes": volumes}})


def step(name: str, command: str) -> str:
    """A command whose output and exit code come under a name."""
    return f"echo '== {name}'\n( {command}\n) 2>&1\necho \"== end $?\"\n"


def script(text: str, *words: str, given: str = "") -> str:
    """A text of ours as an operation starts it; given: what it reads."""
    return (
        f"printf '%s' {shlex.quote(given)} | sh -c {shlex.quote(text)} san "
        f"{' '.join(map(shlex.quote, words))}"
    )


def offer(word: str, node: str = NODE) -> str:
    told = san.lio_wanted(model() if node == NODE else model(node), node, word)
    return f"printf '%s' {shlex.quote(told)} | python3 -c {shlex.quote(san_scripts.LIO_OFFER)}"


def questions() -> str:
    wanted = model()
    node, device = san.target(wanted, NODE), san.device(wanted, NODE)
    target = Target().command(disk=DISK, paths=(san.backing(wanted, NODE),))
    initiator = Initiator().command(device=device, target=node, path="/storage")
    portal = f"{ADDRESS}:{san.PORT}"
    settings = [f"{key} = {value}" for key, value in san.record_settings(NODE).items()]

    def login(word: str) -> str:
        return script(san_scripts.LOGIN, node, portal, device, *settings, given=word)

    out = f"iscsiadm -m node -T {node} -p {portal} --logout"
    return BEGIN + "".join(
        step(name, command)
        for name, command in (
            ("empty", target),
            ("group", script(san_scripts.MAKE_GROUP, DISK, "picluster", "")),
            # What a disk held before is on a new volume, and a cut leaves it there.
            ("remains", f"lvcreate --yes --wipesignatures n --zero n --addtag {san_scripts.NEW} "
             f"--size 32M --name {NODE} picluster; echo old > /dev/picluster/{NODE}; sync"),
            ("cut", target),
            ("volume", script(san_scripts.MAKE_VOLUME, "picluster", NODE, str(32 << 20))),
            ("volume-again", script(san_scripts.MAKE_VOLUME, "picluster", NODE, str(32 << 20))),
            ("again", script(san_scripts.MAKE_GROUP, DISK, "picluster", "")),
            ("offer", offer(WORD)),
            ("offer-again", offer(WORD)),
            ("offered", target),
            ("wrong", login("cccccccccccc")),
            ("login", login(WORD)),
            ("blank", initiator),
            ("filesystem", script(san_scripts.MAKE_FILE_SYSTEM, device, "ext4")),
            ("twice", script(san_scripts.MAKE_FILE_SYSTEM, device, "ext4")),
            ("mount", "mkdir -p /storage; mount -t ext4 -o _netdev,nofail,noatime "
             f"{device} /storage && echo kept > /storage/kept"),
            ("mounted", initiator),
            ("change", offer(NEW_WORD)),
            ("goes-on", "cat /storage/kept; umount /storage"),
            ("out", out),
            ("old", login(WORD)),
            ("new", f"{login(NEW_WORD)}; mount {device} /storage && cat /storage/kept"),
            ("listens", "ss -Hltn sport = :3260"),
            ("saved", "stat -c %a /etc/rtslib-fb-target/saveconfig.json"),
            ("other", f"printf '{PARTITION}' | dd of={OTHER} bs=1 seek=446 conv=notrunc && "
             f"blockdev --rereadpt {OTHER} && udevadm settle && mke2fs -q -t ext4 {OTHER}1"),
            ("holds", Target().command(disk=OTHER)),
            ("in-use", f"mkdir -p /mnt; mount -t ext4 {OTHER}1 /mnt; "
             f"{{ {Target().command(disk=OTHER)}\n}}; umount /mnt"),
            ("refused", script(san_scripts.MAKE_GROUP, OTHER, "other", "")),
            ("wiped", script(san_scripts.MAKE_GROUP, OTHER, "other", "wipe")),
            ("other-again", f"vgremove -q -y other && pvs {OTHER}"),
            ("no-group", Target().command(disk=OTHER)),
            ("mark", f"mkdir -p {san_scripts.BEGUN.rpartition('/')[0]}; {san_scripts.CONTENTS}\n"
             f"identity {OTHER} > {san_scripts.BEGUN}; cat {san_scripts.BEGUN}"),
            ("half", Target().command(disk=OTHER)),
            ("finished", script(san_scripts.MAKE_GROUP, OTHER, "other", "")),
            # A disk whose middle cannot be written: mkfs.xfs ends between its first write and last.
            ("half-disk", "truncate -s 400M /half && losetup /dev/loop0 /half && "
             f"printf '{HOLE}' | dmsetup create half && udevadm settle"),
            ("xfs-cut", script(san_scripts.MAKE_FILE_SYSTEM, HALF, "xfs")),
            ("xfs-half", Target().command(disk=HALF)),
            ("xfs-unfit", f"mount -t xfs {HALF} /mnt"),
            ("whole-disk", f"dmsetup reload half --table '0 {HALF_SECTORS} linear /dev/loop0 0' && "
             "dmsetup resume half"),
            ("xfs-again", script(san_scripts.MAKE_FILE_SYSTEM, HALF, "xfs")),
            ("xfs-ended", f"{san_scripts.CONTENTS}\nidentity {HALF} > {san_scripts.BEGUN}"),
            ("xfs-whole", Target().command(disk=HALF)),
            ("xfs-kept", script(san_scripts.MAKE_FILE_SYSTEM, HALF, "xfs")),
            ("xfs-mounted", f"mount -t xfs {HALF} /mnt && echo kept"),
        )
    )  # fmt: skip


def root(folder: Path, *more: str, files: Mapping[str, str] | None = None) -> Path:
    """A disk with the programs of Debian's packages and what they need.

    more: further packages; files: content by absolute path.
    """
    listed = output(
        "apt-cache",
        ["apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-breaks",
         "--no-conflicts", "--no-replaces", "--no-enhances", *WANTED, *more],
        LIMIT_S,
    )  # fmt: skip
    names = {line for line in listed.splitlines() if re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", line)}
    tree = folder / "root"
    tree.mkdir()
    chosen = sorted(name for name in names if not NOT_WANTED.match(name) or name in more)
    for place in unpacked(chosen):
        output("cp", ["cp", "-a", "--remove-destination", f"{place}/.", tree], LIMIT_S)
    for name in ("dev", "proc", "sys", "run", "tmp", "lib/modules"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    for path, target in (("bin/sh", "dash"), ("usr/bin/awk", "mawk")):
        (tree / path).unlink(missing_ok=True)
        (tree / path).symlink_to(target)
    (tree / "etc/mtab").unlink(missing_ok=True)
    (tree / "etc/mtab").symlink_to("/proc/mounts")
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\ndisk:x:6:\n")
    for path, content in (files or {}).items():
        (tree / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (tree / path.lstrip("/")).write_text(content)
    for unwanted in ("usr/share/doc", "usr/share/man", "usr/share/locale", "boot"):
        shutil.rmtree(tree / unwanted, ignore_errors=True)
    image = folder / "root.img"
    words = ["-q", "-F", "-t", "ext4", "-d", str(tree), "-E", "root_owner=0:0", str(image)]
    output(
        "mke2fs",
        ["mke2fs", *words, f"{ROOT_MIB}M"],
        LIMIT_S,
        PATH=f"{os.environ['PATH']}:/usr/sbin",
    )
    shutil.rmtree(tree)
    return image


Answers = dict[str, tuple[int, list[str]]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Exit code and lines of each step."""
    folder = tmp_path_factory.mktemp("san")
    disk = root(folder)
    machine = folder / "machine"
    machine.mkdir()
    inside = f"cat > /inside << 'INSIDE'\n{questions()}INSIDE\n"
    started = qemu.start(machine, inside + ENTER, modules=MODULES, disk=disk)
    told = re.findall(r"^== (\S+)\n(.*?)^== end (\d+)$", started.answer, re.MULTILINE | re.DOTALL)
    found = {name: (int(code), text.splitlines()) for name, text, code in told}
    assert "finished" in found, f"{started.answer[-3000:]}\n{started.console[-3000:]}"
    return found


def target_of(found: tuple[int, list[str]]) -> TargetState:
    return Target().process(found[1])


def initiator_of(found: tuple[int, list[str]]) -> InitiatorState:
    return Initiator().process(found[1])


def test_a_new_disk_is_empty_and_becomes_ours(answers: Answers) -> None:
    state = target_of(answers["empty"])
    assert state.disk == Present(Contents()) and state.kernel
    assert answers["group"][0] == 0 and answers["volume"][0] == 0, answers["volume"]
    state = target_of(answers["offered"])
    assert isinstance(state.disk, Present)
    assert state.disk.value.group == "picluster" and state.disk.value.signatures == ("LVM2_member",)
    assert state.volumes == {f"/dev/picluster/{NODE}": 32 << 20}
    assert san.target_refusals(model(), state, ()) == []


def test_a_disk_that_holds_lvm_is_left_alone(answers: Answers) -> None:
    code, said = answers["again"]
    assert code == 1 and "left alone" in " ".join(said)


def test_lio_offers_the_volume_on_the_lan_alone(answers: Answers) -> None:
    assert answers["offer"] == answers["offer-again"] == (0, []), answers["offer"]
    state, name = target_of(answers["offered"]), san.target(model(), NODE)
    assert state.targets == {name: f"/dev/picluster/{NODE}"}
    assert state.passwords == {name: hashlib.sha256(WORD.encode()).hexdigest()}
    listens = " ".join(answers["listens"][1])
    assert f"{ADDRESS}:3260" in listens and "0.0.0.0:3260" not in listens
    assert answers["saved"][1] == ["600"]


def test_only_the_right_password_logs_in(answers: Answers) -> None:
    assert answers["wrong"][0] != 0
    assert answers["login"][0] == 0, answers["login"]
    state = initiator_of(answers["blank"])
    assert san.target(model(), NODE) in state.sessions
    assert state.password == hashlib.sha256(WORD.encode()).hexdigest()
    wanted = san.record_settings(NODE)
    assert {key: state.settings.get(key) for key in wanted} == wanted
    assert state.disk == Present(Contents()) and not state.mounted


def test_a_file_system_is_made_once_and_mounted(answers: Answers) -> None:
    assert answers["filesystem"][0] == 0, answers["filesystem"]
    code, said = answers["twice"]
    assert code == 1 and "holds ext4: left alone" in " ".join(said)
    assert answers["mount"][0] == 0, answers["mount"]
    state = initiator_of(answers["mounted"])
    assert isinstance(state.disk, Present) and state.disk.value.signatures == ("ext4",)
    assert state.mounted == state.real
    assert san.node_refusals(model(), NODE, state, kernel=True) == []


def test_another_password_is_for_the_next_log_in(answers: Answers) -> None:
    assert answers["change"][0] == 0 and answers["goes-on"] == (0, ["kept"])
    assert answers["out"][0] == 0, answers["out"]
    assert answers["old"][0] != 0
    assert answers["new"][0] == 0 and answers["new"][1][-1] == "kept", answers["new"]


def test_a_volume_is_empty_before_a_node_sees_it(answers: Answers) -> None:
    assert answers["remains"][0] == 0, answers["remains"]
    assert target_of(answers["cut"]).new == {f"/dev/picluster/{NODE}"}
    assert not target_of(answers["offered"]).new
    code, said = answers["volume-again"]
    assert code == 1 and "is there: left alone" in " ".join(said)


def contents(found: tuple[int, list[str]]) -> Contents:
    disk = target_of(found).disk
    assert isinstance(disk, Present)
    return disk.value


def test_a_disk_is_wiped_only_when_told(answers: Answers) -> None:
    assert answers["other"][0] == 0, answers["other"]
    held = contents(answers["holds"])
    assert held.signatures == ("dos",) and held.parts == ("sdb1",) and not held.users
    assert contents(answers["in-use"]).users == ("mount /mnt",)
    assert answers["refused"][0] == 1 and "holds dos" in " ".join(answers["refused"][1])
    assert answers["wiped"][0] == 0, answers["wiped"]


def test_a_wipe_that_a_power_cut_ended_goes_on(answers: Answers) -> None:
    left = contents(answers["no-group"])
    assert left.signatures == ("LVM2_member",) and not left.half_made  # somebody else's, perhaps
    half = contents(answers["half"])
    assert half.half_made, (answers["mark"], answers["half"])
    assert answers["finished"][0] == 0, answers["finished"]


def test_an_xfs_that_was_cut_is_made_and_a_whole_one_is_kept(answers: Answers) -> None:
    assert answers["half-disk"][0] == answers["whole-disk"][0] == 0, answers["half-disk"]
    assert answers["xfs-cut"][0] != 0, answers["xfs-cut"]
    half = contents(answers["xfs-half"])
    assert half.signatures == ("xfs",) and half.half_formatted, answers["xfs-half"]
    assert answers["xfs-unfit"][0] != 0  # a kernel does not mount it
    assert answers["xfs-again"][0] == 0, answers["xfs-again"]
    whole = contents(answers["xfs-whole"])
    assert whole.begun and not whole.half_formatted, answers["xfs-whole"]
    code, said = answers["xfs-kept"]
    assert code == 1 and "holds xfs: left alone" in " ".join(said)
    assert answers["xfs-mounted"] == (0, ["kept"]), answers["xfs-mounted"]
