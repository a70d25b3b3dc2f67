"""A boot of a node and its host whose disk comes late, by systemd itself on a real kernel.

A virtual machine: systemd, udev, LVM, LIO and open-iscsi are Debian's, target and node are the
same computer. K3s is simulated by a unit that looks at what is mounted. systemd is the first
process of a namespace: the machine's own first process asks the question.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import Any

import pytest

from cluster.managed import UNITS
from cluster.services import san, san_scripts, san_units
from facts.san import Mounts, Target
from tests.vm import qemu
from tests.vm.test_san import ADDRESS, BEGIN, DISK, MODULES, MOUNT, NODE, WORD, model, offer, root
from tests.vm.test_san import script as called

pytestmark = pytest.mark.vm

PATIENCE_S = 15  # systemd's own limit here, which is 90 s elsewhere
LIMIT_S = 100
OTHER_NODE = "node2"
NODES = (NODE, OTHER_NODE)
SAW = "/run/k3s-saw"
K3S = f"""\
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c '{{ cat /storage/kept || echo empty; }} > {SAW}'
[Install]
WantedBy=multi-user.target
"""
MOUNT_OF_OURS = san.Mount("storage.mount", san.device(model(), NODE), "/storage")
LEFT_FILES = san_units.former_files(MOUNT_OF_OURS, keep=False)
LEAVE = " ".join(
    shlex.quote(word)
    for word in (
        *(MOUNT_OF_OURS.unit, MOUNT_OF_OURS.path),
        *(MOUNT_OF_OURS.target, MOUNT_OF_OURS.portal, *LEFT_FILES),
    )
)
# It sees what a person would who logs in, brings the disk, and looks again.
ASK = f"""\
n=0
until systemctl -q is-active systemd-user-sessions.service; do
  n=$((n + 1)); [ $n -lt {LIMIT_S} ] || break; sleep 1
done
sleep {PATIENCE_S + 5}
say() {{ echo "== $1"; shift; "$@" 2>&1; echo "== end $?"; }}
say logins systemctl is-active systemd-user-sessions.service remote-fs.target
say target systemctl is-active {san_units.LIO}
say offered sh /fact
say cause journalctl -b -q --no-pager -o cat -t target
say k3s systemctl is-active k3s.service
say saw cat {SAW}
say jobs systemctl list-jobs --plain --no-legend
say disk lvchange -ay picluster/{NODE}
n=0
until systemctl -q is-active k3s.service; do
  n=$((n + 1)); [ $n -lt {LIMIT_S} ] || break; sleep 1
done
say then cat {SAW}
say offered-then sh /fact
say units systemctl is-active {san_units.LIO} {san_units.LOGIN} storage.mount k3s.service
(cd /storage && exec sleep {LIMIT_S}) & holder=$!
sleep 1
say mounts sh /mounts
say refused sh /leave {LEAVE}
kill $holder; wait $holder
say left sh /leave {LEAVE}
say left-units systemctl is-active k3s.service storage.mount
say left-mounts sh /mounts
say left-sessions iscsiadm -m session
say left-records iscsiadm -m node
say left-files ls {" ".join(map(shlex.quote, LEFT_FILES))} {UNITS}/k3s.service.requires
say journal journalctl -b -q --no-pager -n 60
sync; systemctl poweroff --force --force
"""


def both() -> Any:
    """Two volumes, of which the first comes late."""
    return model(OTHER_NODE, size="16M")


def files() -> dict[str, str]:
    wanted = both()
    me = wanted.host(NODE)
    host = san.target_host(wanted)
    assert host is not None
    return {
        **san_units.node_files(wanted, me),
        **san_units.target_files(wanted, host),
        f"{UNITS}/k3s.service": K3S,
        f"{UNITS}/ask.service": "[Unit]\nDefaultDependencies=no\nAfter=basic.target\n[Service]\n"
        "ExecStart=/bin/sh /ask\nStandardOutput=file:/dev/ttyS1\n"
        "[Install]\nWantedBy=basic.target\n",
        "/ask": ASK,
        "/leave": san_scripts.LEAVE,
        "/mounts": Mounts().command(),
        "/fact": Target().command(paths=tuple(san.backing(wanted, one) for one in NODES)),
        # Volumes come when somebody activates them.
        "/etc/lvm/lvm.conf": "activation {\n  auto_activation_volume_list = []\n}\n",
        "/etc/systemd/system.conf.d/limit.conf": "[Manager]\n"
        f"DefaultTimeoutStartSec={PATIENCE_S}\n",
        "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
        "/etc/iscsi/initiatorname.iscsi": "InitiatorName=iqn.2024-01.com.example:vm\n",
    }


def prepared() -> str:
    """What is there before the power cut: a volume with a file, the target, the log-in's record."""
    wanted = both()
    name, device = san.target(wanted, NODE), san.device(wanted, NODE)
    portal = f"{ADDRESS}:{san.PORT}"
    settings = [f"{key} = {value}" for key, value in san.record_settings(NODE).items()]
    ours = f"{san_units.LOGIN} storage.mount k3s.service ask.service"
    # As their packages leave them: enabling them needs programs of init.d.
    packages = (san_units.LIO, san_units.OPEN_ISCSI, "remote-fs.target")
    wants = f"{UNITS}/multi-user.target.wants"
    return "\n".join(
        (
            "{",
            BEGIN,
            called(san_scripts.MAKE_GROUP, DISK, "picluster", ""),
            *(called(san_scripts.MAKE_VOLUME, "picluster", one, str(16 << 20)) for one in NODES),
            *(offer(WORD, one) for one in NODES),
            called(san_scripts.LOGIN, name, portal, device, *settings, given=WORD),
            called(san_scripts.MAKE_FILE_SYSTEM, device, "ext4"),
            f"mkdir -p /storage; mount {device} /storage",
            "echo kept > /storage/kept; umount /storage",
            f"iscsiadm -m node -T {name} -p {portal} --logout",
            f"targetctl clear; lvchange -an picluster/{NODE}",
            "kill $(cat /run/iscsid.pid); udevadm control --exit",
            f"SYSTEMD_OFFLINE=1 systemctl enable {ours}",
            *(f"ln -s /lib/systemd/system/{unit} {wants}/{unit}" for unit in packages),
            "SYSTEMD_OFFLINE=1 systemctl mask systemd-logind.service getty.target",
            "ln -sf /lib/systemd/system/multi-user.target /etc/systemd/system/default.target",
            "unset SYSTEMD_IGNORE_CHROOT; } > /dev/ttyS0 2>&1",
            "exec unshare --fork --pid --mount-proc /lib/systemd/systemd > /dev/ttyS0 2>&1",
        )
    )


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Lines by what was asked."""
    folder = tmp_path_factory.mktemp("san-boot")
    disk = root(folder, "systemd", "libpam0g", "libpam-runtime", files=files())
    machine = folder / "machine"
    machine.mkdir()
    inside = f"cat > /inside << 'INSIDE'\n{prepared()}\nINSIDE\n"
    enter = f"{MOUNT}exec chroot /root /bin/sh /run/inside\n"
    started = qemu.start(machine, inside + enter, modules=MODULES, disk=disk)
    told = re.findall(r"^== (\S+)\n(.*?)^== end \d+$", started.answer, re.MULTILINE | re.DOTALL)
    found = {name: text.splitlines() for name, text in told}
    assert "units" in found, f"{started.answer[-3000:]}\n{started.console[-4000:]}"
    return found


def test_logins_do_not_wait_for_the_volume(answers: dict[str, list[str]]) -> None:
    assert answers["logins"] == ["active", "active"], answers


def test_a_volume_that_is_missing_keeps_back_its_own_target_alone(
    answers: dict[str, list[str]],
) -> None:
    names = {one: san.target(both(), one) for one in NODES}
    assert answers["target"] == ["active"], answers
    offered = Target().process(answers["offered"]).targets
    assert set(offered) == {names[OTHER_NODE]}, answers
    assert f"Could not create StorageObject {NODE}" in " ".join(answers["cause"]), answers
    offered = Target().process(answers["offered-then"]).targets
    assert offered == {names[one]: san.backing(both(), one) for one in NODES}, answers


def test_k3s_does_not_start_on_an_empty_mount_point(answers: dict[str, list[str]]) -> None:
    assert answers["k3s"] == ["inactive"] and "No such file" in answers["saw"][0], answers
    waiting = " ".join(answers["jobs"])
    assert "k3s.service" in waiting and "storage.mount" in waiting


def test_all_of_it_comes_by_itself_when_the_disk_does(answers: dict[str, list[str]]) -> None:
    assert answers["then"] == ["kept"], answers
    assert answers["units"] == ["active"] * 4, answers


def test_a_former_mount_stays_while_it_is_used_and_goes_without_stopping_k3s(
    answers: dict[str, list[str]],
) -> None:
    (found,) = Mounts().process(answers["mounts"])
    assert replace(found, mounted=False, holders=()) == MOUNT_OF_OURS
    assert found.mounted and [one.split()[0] for one in found.holders] == ["sleep"], answers
    assert "busy" in " ".join(answers["refused"]), answers
    assert answers["left-units"] == ["active", "inactive"], answers
    assert Mounts().process(answers["left-mounts"]) == ()
    assert "No active sessions" in " ".join(answers["left-sessions"]), answers
    assert "No records found" in " ".join(answers["left-records"]), answers
    assert len(answers["left-files"]) == len(LEFT_FILES) + 1, answers  # none is there
