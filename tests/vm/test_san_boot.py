"""A boot of a node and its host whose disk comes late, by systemd itself on a real kernel.

A virtual machine: systemd, udev, LVM, LIO and open-iscsi are Debian's, target and node are the
same computer. K3s is simulated by a unit that looks at what is mounted. systemd is the first
process of a namespace: the machine's own first process asks the question.
"""

from __future__ import annotations

import re

import pytest

from cluster.managed import UNITS
from cluster.services import san, san_scripts, san_units
from tests.vm import qemu
from tests.vm.test_san import ADDRESS, BEGIN, DISK, MODULES, MOUNT, NODE, WORD, model, offer, root
from tests.vm.test_san import script as called

pytestmark = pytest.mark.vm

PATIENCE_S = 15  # systemd's own limit here, which is 90 s elsewhere
LIMIT_S = 100
SAW = "/run/k3s-saw"
K3S = f"""\
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c '{{ cat /storage/kept || echo empty; }} > {SAW}'
[Install]
WantedBy=multi-user.target
"""
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
say k3s systemctl is-active k3s.service
say saw cat {SAW}
say jobs systemctl list-jobs --plain --no-legend
say disk vgchange -ay picluster
n=0
until systemctl -q is-active k3s.service; do
  n=$((n + 1)); [ $n -lt {LIMIT_S} ] || break; sleep 1
done
say then cat {SAW}
say units systemctl is-active {san_units.LIO} {san_units.LOGIN} storage.mount k3s.service
say journal journalctl -b -q --no-pager -n 60
sync; systemctl poweroff --force --force
"""


def files() -> dict[str, str]:
    wanted = model()
    (me,) = san.nodes(wanted)
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
        # A disk that is there, and whose volumes are not: they come when somebody activates them.
        "/etc/lvm/lvm.conf": "activation {\n  auto_activation_volume_list = []\n}\n",
        "/etc/systemd/system.conf.d/limit.conf": "[Manager]\n"
        f"DefaultTimeoutStartSec={PATIENCE_S}\n",
        "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
        "/etc/iscsi/initiatorname.iscsi": "InitiatorName=iqn.2024-01.com.example:vm\n",
    }


def prepared() -> str:
    """What is there before the power cut: a volume with a file, the target, the log-in's record."""
    wanted = model()
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
            called(san_scripts.MAKE_VOLUME, "picluster", NODE, str(32 << 20)),
            offer(WORD),
            called(san_scripts.LOGIN, name, portal, device, *settings, given=WORD),
            called(san_scripts.MAKE_FILE_SYSTEM, device, "ext4"),
            f"mkdir -p /storage; mount {device} /storage",
            "echo kept > /storage/kept; umount /storage",
            f"iscsiadm -m node -T {name} -p {portal} --logout",
            "targetctl clear; vgchange -an picluster",
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


def test_targets_are_not_offered_before_their_volumes_are_there(
    answers: dict[str, list[str]],
) -> None:
    assert answers["target"] == ["inactive"], answers


def test_k3s_does_not_start_on_an_empty_mount_point(answers: dict[str, list[str]]) -> None:
    assert answers["k3s"] == ["inactive"] and "No such file" in answers["saw"][0], answers
    waiting = " ".join(answers["jobs"])
    assert "k3s.service" in waiting and "storage.mount" in waiting


def test_all_of_it_comes_by_itself_when_the_disk_does(answers: dict[str, list[str]]) -> None:
    assert answers["then"] == ["kept"], answers
    assert answers["units"] == ["active"] * 4, answers
