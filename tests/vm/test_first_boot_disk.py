"""A first boot and its disk on a real kernel: divided under a mounted root, grown, flashed again.

What runs is what `make images` writes: bootcmd, then growpart as cloud-init starts it, then runcmd,
on root of a disk that is laid out as Ubuntu's image. cloud-init itself and systemd are not there.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import yaml

from cluster.first_boot import seed
from cluster.first_boot.cloud_config import Login
from tests.unit.cluster_example import example
from tests.vm import image, qemu

pytestmark = pytest.mark.vm

DISK_GIB, ROOT_GIB = 12, 8
GIB = 1 << 30
STOCK = "console=serial0,115200 multipath=off root=LABEL=writable rootfstype=ext4 rootwait fixrtc"
MODULES = ("crc32c_generic", "ext4", "nls_cp437", "nls_ascii", "vfat")

# In the initramfs: root of the disk on the UAS bridge, and there what is asked.
ENTER = f"""
modprobe -a {" ".join(MODULES)}
for d in /sys/block/sd*; do
  case $(readlink -f "$d") in */2-1/*) disk=/dev/${{d##*/}} ;; esac
done
mkdir /root; mount -t ext4 "${{disk}}2" /root
for place in dev proc sys; do mount --bind /$place /root/$place; done
mount -t tmpfs tmpfs /root/run; cp /inside /root/run/inside
PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH
chroot /root /bin/sh /run/inside "$disk"
"""
BEFORE = f"""exec 2>&1
mount "${{1}}1" /boot/firmware
[ -e /boot/firmware/cmdline.txt ] || echo '{STOCK}' > /boot/firmware/cmdline.txt
"""
AFTER = """echo "== kept"; cat /storage/kept; echo volumes > /storage/kept
echo "== table"; sfdisk --dump "$1"
echo "== mounts"; findmnt -rno TARGET,SOURCE,LABEL,OPTIONS /storage
echo "== root"; df -m --output=size / | tail -n 1
echo "== fstab"; cat /etc/fstab
echo "== cmdline"; cat /boot/firmware/cmdline.txt; ls /boot/firmware
echo "== disabled"; ls /etc/cloud
echo "== end"
umount /storage /boot/firmware; sync
"""


def user_data() -> dict[str, Any]:
    host = {
        "name": "pi1",
        "role": "servers",
        "ip": "10.0.0.11",
        "arch": "arm64",
        "boot_disk": "/dev/sda",
        "data_disk": "/dev/sda3",
    }
    model = example(hosts=[host], first_boot={"root_size": f"{ROOT_GIB}G"})
    files = seed.files(model, model.hosts[0], Login("ubuntu", ("ssh-ed25519 AAAA",)))
    data: dict[str, Any] = yaml.safe_load(files["user-data"])
    return data


def inside() -> str:
    """What the first boot does to the disk, in cloud-init's order."""
    data = user_data()
    (bootcmd,) = data["bootcmd"]
    assert bootcmd[:2] == ["cloud-init-per", "once"]
    # Source: cloud-init's util.shellify: lists are quoted, texts are not.
    runcmd = "\n".join(shlex.join(one) if isinstance(one, list) else one for one in data["runcmd"])
    return "\n".join(
        [
            BEFORE,
            f"echo '== bootcmd'; {shlex.join(bootcmd[3:])}; echo \"code $?\"",
            'echo \'== growpart\'; growpart "$1" 2; resize2fs "${1}2"',
            f"echo '== runcmd'; sh -c {shlex.quote(runcmd)}; echo \"code $?\"",
            AFTER,
        ]
    )


class Boot:
    """What one start said, by heading."""

    def __init__(self, started: qemu.Started) -> None:
        found = re.findall(r"^== (\w+)\n(.*?)(?=^== )", started.answer, re.MULTILINE | re.DOTALL)
        self.said = dict(found)
        assert "disabled" in self.said, f"{started.answer}\n{started.console[-2000:]}"

    @property
    def table(self) -> list[tuple[int, int]]:
        """First and last byte of each partition."""
        rows = re.findall(r"start= *(\d+), size= *(\d+)", self.said["table"])
        return [
            (int(start) * image.SECTOR, (int(start) + int(size)) * image.SECTOR)
            for start, size in rows
        ]


@pytest.fixture(scope="module")
def boots(tmp_path_factory: pytest.TempPathFactory) -> list[Boot]:
    """Three starts of one disk: the first, the second, and the first after a new image."""
    folder = tmp_path_factory.mktemp("image")
    disk = folder / "disk"
    image.make(folder / "ubuntu.img", folder)
    found = []
    for flashed in (True, False, True):
        if flashed:
            image.write(folder / "ubuntu.img", disk, DISK_GIB)
        machine = tmp_path_factory.mktemp("machine")
        question = f"cat > /inside <<'INSIDE'\n{inside()}\nINSIDE\n{ENTER}"
        found.append(Boot(qemu.start(machine, question, modules=MODULES, disk=disk)))
    return found


def test_the_disk_of_a_running_system_is_divided(boots: list[Boot]) -> None:
    first = boots[0]
    assert first.said["bootcmd"].endswith("code 0\n"), first.said["bootcmd"]
    assert "label: gpt" in first.said["table"]
    boot, _, volumes = first.table
    assert boot[0] == image.BOOT_START * qemu.MIB
    assert volumes[0] == ROOT_GIB * GIB
    assert volumes[1] > DISK_GIB * GIB - qemu.MIB


def test_root_grows_up_to_the_volumes_and_no_further(boots: list[Boot]) -> None:
    first = boots[0]
    assert "CHANGED" in first.said["growpart"]
    assert ROOT_GIB * GIB - qemu.MIB < first.table[1][1] <= first.table[2][0]
    assert int(first.said["root"]) > 0.9 * (ROOT_GIB * 1024 - image.ROOT_START)


def test_volumes_are_formatted_and_mounted(boots: list[Boot]) -> None:
    first = boots[0]
    assert first.said["runcmd"].endswith("code 0\n"), first.said["runcmd"]
    target, source, label, options = first.said["mounts"].split()
    assert (target, source[-1], label) == ("/storage", "3", "DATA")
    assert "noatime" in options
    assert first.said["fstab"].splitlines()[-1].startswith("LABEL=DATA /storage ext4 ")


def test_the_command_line_on_fat_has_the_memory_controller(boots: list[Boot]) -> None:
    for boot in boots:
        assert boot.said["cmdline"].splitlines() == [
            f"{STOCK} cgroup_enable=memory",
            "cmdline.txt",
        ]


def test_cloud_init_is_switched_off_at_the_end(boots: list[Boot]) -> None:
    assert {boot.said["disabled"] for boot in boots} == {"cloud-init.disabled\n"}


def test_a_second_start_changes_nothing(boots: list[Boot]) -> None:
    first, second, _ = boots
    for what in ("table", "fstab", "cmdline", "root"):
        assert second.said[what] == first.said[what]
    assert "it stays as it is" in second.said["bootcmd"]
    assert second.said["kept"] == "volumes\n"


def test_a_new_image_finds_the_old_volumes(boots: list[Boot]) -> None:
    first, _, again = boots
    assert "divided before" in again.said["bootcmd"]
    assert again.table == first.table
    assert again.said["kept"] == "volumes\n"
    assert "keeps what it holds" in again.said["runcmd"]
    assert "LABEL=DATA /storage" in again.said["fstab"]
