"""systemd's units of central storage: each waits for what it needs, however late that comes.

After a power cut the node may be up long before the host with the disk. So nothing here gives up,
and nothing that a login waits for waits here:

* The log-in is a service of ours that is tried again and again. open-iscsi's own log-ins at a boot
  (`node.startup = automatic`) are tried for two minutes, never again, and hold up
  `remote-fs-pre.target`, and with it the logins of all users but root.
* The mount waits for its device without an end. systemd's own limit of 90 s would let it fail, and
  nothing would try it again. `nofail` keeps it out of the way of `remote-fs.target`.
* K3s requires the mount: on an empty mount point it would make new data, hidden later. Its start
  waits as the mount does; SSH and logins do not wait for it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cluster import k3s_config
from cluster.managed import MANAGED, UNITS
from cluster.question import Question
from cluster.services.san import (
    PACKAGES,
    PORT,
    Mount,
    device,
    nodes,
    section,
    target,
    target_host,
)
from cluster.services.san_scripts import LIO_LATE, LOCK, OFFER, TGT_LATE, TGT_MARK

if TYPE_CHECKING:
    from cluster.model import Cluster, Host


def _drop_in(unit: str) -> str:
    return f"{UNITS}/{unit}.d/10-picluster.conf"


TGT = "tgt.service"
TGT_UNIT = _drop_in(TGT)
TGT_WAITS = f"{UNITS}/{TGT}.d/20-picluster-volumes.conf"
LIO = "rtslib-fb-targetctl.service"
LIO_UNIT = _drop_in(LIO)
LATE_UNIT = "picluster-san-offer"
LATE = f"{UNITS}/{LATE_UNIT}@.service"
OPEN_ISCSI = "open-iscsi.service"  # logs everything out when the node goes down
LOGIN = "picluster-san.service"
LOGIN_FILE = f"{UNITS}/{LOGIN}"  # goes last: where it is, there may be more of ours
RETRY = 10  # seconds between two log-ins


def unit_name(path: str, kind: str) -> str:
    """Name of the unit that systemd has for a path (systemd.unit(5), string escaping)."""

    def escaped(found: re.Match[str]) -> str:
        if found[0] == "/":
            return "-"
        return "".join(f"\\x{byte:02x}" for byte in found[0].encode())

    return re.sub(r"^\.|[^A-Za-z0-9:_.]", escaped, path.strip("/")) + f".{kind}"


def mount_unit(path: str) -> str:
    """Name of the unit of a mount."""
    return unit_name(path, "mount")


# ---- the host with the disk


def tgt_unit(me: Host) -> str:
    """tgt listens on the LAN alone."""
    return (
        f"{MANAGED}[Service]\nExecStart=\n"
        f"ExecStart=/usr/sbin/tgtd -f --iscsi portal={me.ip}:{PORT}\n"
        f"ExecStartPost=/bin/sh -c '{TGT_MARK}'\n"
    )


def waits(cluster: Cluster) -> str:
    """At a boot, what is there is offered when the LAN's address is there, and a folder's disk."""
    folder = section(cluster).folder
    return f"{MANAGED}[Unit]\nWants=network-online.target\nAfter=network-online.target\n" + (
        f"RequiresMountsFor={folder}\n" if folder else ""
    )


def late(product: str) -> str:
    """What offers a volume of LVM that appears; its device wants it."""
    unit, program = (TGT, "/bin/sh") if product == "tgt" else (LIO, "/usr/bin/python3")
    return (
        f"{MANAGED}[Unit]\nDescription=Offer %f\nAfter={unit}\n\n"
        f"[Service]\nType=oneshot\nExecStart=/usr/bin/flock {LOCK} {program} {OFFER} %f\n"
    )


def target_files(cluster: Cluster, me: Host) -> dict[str, str]:
    """Files of the host with the disk by path: the target's unit, and what offers late volumes."""
    wanted = section(cluster)
    unit = (
        {TGT_UNIT: tgt_unit(me), TGT_WAITS: waits(cluster)}
        if wanted.product == "tgt"
        else {LIO_UNIT: waits(cluster)}
    )
    if wanted.folder:
        return unit
    # For every volume of the group: systemd reads such a folder for all names that begin so.
    stem = unit_name(f"/dev/{wanted.group}", "device").removesuffix(".device")
    return unit | {
        OFFER: TGT_LATE if wanted.product == "tgt" else LIO_LATE,
        LATE: late(wanted.product),
        _drop_in(f"{stem}-.device"): f"{MANAGED}[Unit]\nWants={LATE_UNIT}@%N.service\n",
    }


# ---- the nodes


_NO_LIMIT = f"{MANAGED}[Unit]\nJobRunningTimeoutSec=infinity\n"


def k3s(node: Host) -> str:
    """The unit of K3s on the node."""
    return f"{k3s_config.unit_name(node)}.service"


# A target whose volume is missing lets the node in, and has no disk: only a new log-in looks again.
_LOGIN = (
    'iscsiadm -m session 2>/dev/null | grep -qF " $$1 " || '
    'iscsiadm -m node -T "$$1" -p "$$2" --login || exit; '
    'for n in 0 1 2 3 4 5 6 7 8 9; do [ ! -e "$$3" ] || exit 0; sleep 1; done; '
    'iscsiadm -m node -T "$$1" -p "$$2" --logout; echo "$$1 offers no volume" >&2; exit 1'
)


def login_text(cluster: Cluster, node: Host) -> str:
    """The log-in, tried until the target answers; nothing is done where there is a session."""
    host, name = target_host(cluster), target(cluster, node.name)
    assert host is not None, "a rule demands it of the inputs"
    return (
        f"{MANAGED}[Unit]\nDescription=Log-in to the volume of {node.name}\n"
        "Wants=network-online.target iscsid.service\n"
        f"After=network-online.target iscsid.service {OPEN_ISCSI}\n"
        "StartLimitIntervalSec=0\n\n"
        "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        f"ExecStart=/bin/sh -c '{_LOGIN}' login {name} {host.ip}:{PORT} "
        f"{device(cluster, node.name)}\n"
        f"TimeoutStartSec=180\nRestart=on-failure\nRestartSec={RETRY}\n\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )


def mount_text(cluster: Cluster, node: Host) -> str:
    """The mount, without which K3s does not start."""
    volume = section(cluster).volumes[node.name]
    return (
        f"{MANAGED}[Unit]\nDescription=Volume of {node.name}\nAfter={OPEN_ISCSI}\n"
        f"Before={k3s(node)}\n"
        f"\n[Mount]\nWhat={device(cluster, node.name)}\nWhere={volume.path}\n"
        f"Type={volume.filesystem}\nOptions=_netdev,nofail,noatime\n\n"
        f"[Install]\nWantedBy=remote-fs.target\nRequiredBy={k3s(node)}\n"
    )


def _device_limit(device: str) -> str:
    """The file that says how long the mount of a device waits for it."""
    return _drop_in(unit_name(device, "device"))


def former_files(mount: Mount, keep: bool) -> tuple[str, ...]:
    """Files of a former mount, the unit last; keep: the device is still wanted."""
    unit = f"{UNITS}/{mount.unit}"
    return (unit,) if keep else (_device_limit(mount.device), unit)


def node_files(cluster: Cluster, node: Host) -> dict[str, str]:
    """Files of a node by path: its units, and how long the mount waits for its device."""
    mount = mount_unit(section(cluster).volumes[node.name].path)
    return {
        LOGIN_FILE: login_text(cluster, node),
        _device_limit(device(cluster, node.name)): _NO_LIMIT,
        f"{UNITS}/{mount}": mount_text(cluster, node),
    }


def required(cluster: Cluster, node: Host) -> str:
    """The link by which K3s requires the mount."""
    mount = mount_unit(section(cluster).volumes[node.name].path)
    return f"{UNITS}/{k3s(node)}.requires/{mount}"


def asks(cluster: Cluster) -> Question:
    """What the node fact reads for it."""
    host = target_host(cluster)
    if cluster.services.san is None or host is None:
        return Question(files=(LOGIN_FILE,))  # what a former section left
    wanted = nodes(cluster)
    files = dict.fromkeys(target_files(cluster, host))
    for node in wanted:
        files |= dict.fromkeys((*node_files(cluster, node), required(cluster, node)))
    mounts = {mount_unit(one.path) for one in section(cluster).volumes.values()}
    return Question(
        packages=(*PACKAGES["tgt"], *PACKAGES["lio"], "lvm2", "open-iscsi", "xfsprogs"),
        files=tuple(files),
        units=(TGT, LIO, OPEN_ISCSI, LOGIN, *sorted(mounts)),
    )
