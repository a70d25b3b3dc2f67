"""Small configuration files that are ours as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cluster.managed import MANAGED

_SLASHES = "//" + MANAGED.removeprefix("#")


def modules(names: Iterable[str]) -> str:
    """Modules that are loaded at boot (modules-load.d(5))."""
    return MANAGED + "".join(f"{name}\n" for name in names)


def sysctl(settings: Mapping[str, str]) -> str:
    """Kernel settings that are set at boot (sysctl.d(5))."""
    return MANAGED + "".join(f"{key} = {value}\n" for key, value in settings.items())


def limits() -> str:
    """Open files a login may have (limits.conf(5)); services have limits of their own."""
    return MANAGED + "".join(
        f"{who} {kind} nofile {number}\n"
        for who in ("*", "root")
        for kind, number in (("soft", 65536), ("hard", 1048576))
    )


def multipath() -> str:
    """Keeps multipathd away from Longhorn's volumes, which appear as SCSI disks."""
    return MANAGED + 'blacklist {\n    devnode "^sd[a-z0-9]+"\n}\n'


def journald(storage: str, max_use: str) -> str:
    """The journal's place and size (journald.conf(5)); what is in memory stays small."""
    return f"{MANAGED}[Journal]\nStorage={storage}\nSystemMaxUse={max_use}\nRuntimeMaxUse=64M\n"


def logind(grace_period: int) -> str:
    """Lets the kubelet delay a shutdown until its pods have ended; seconds."""
    return f"{MANAGED}[Login]\nInhibitDelayMaxSec={grace_period}\n"


def apt() -> str:
    """Security updates by themselves, reboots never; a run of apt waits for another one."""
    return (
        f"{_SLASHES}"
        'APT::Periodic::Update-Package-Lists "1";\n'
        'APT::Periodic::Unattended-Upgrade "1";\n'
        'Unattended-Upgrade::Automatic-Reboot "false";\n'
        'DPkg::Lock::Timeout "300";\n'
    )


def no_snapd() -> str:
    """Keeps snapd from coming back as a dependency (apt_preferences(5))."""
    return f"{MANAGED}Package: snapd\nPin: release a=*\nPin-Priority: -10\n"


def needrestart() -> str:
    """needrestart lists what should be restarted and restarts nothing."""
    return f"{MANAGED}$nrconf{{restart}} = 'l';\n"


def cloud_init() -> str:
    """Keeps cloud-init from setting host name and hosts file back at a boot."""
    return f"{MANAGED}preserve_hostname: true\nmanage_etc_hosts: false\n"


def chrony(servers: Iterable[str], pools: Iterable[str] = ()) -> str:
    """Time from the servers; a wrong clock is set at once while starting (no RTC on a Pi 4).

    + pools: names that stand for several servers each
    """
    sources = "".join(f"server {server} iburst\n" for server in servers)
    sources += "".join(f"pool {name} iburst\n" for name in pools)
    return (
        f"{MANAGED}{sources}"
        "driftfile /var/lib/chrony/chrony.drift\n"
        "ntsdumpdir /var/lib/chrony\n"
        "logdir /var/log/chrony\n"
        "makestep 1 3\n"
        "rtcsync\n"
    )


def chrony_wait() -> str:
    """The unit that holds time-sync.target back, where chrony's package has none (before 4.3)."""
    return f"""\
{MANAGED}[Unit]
Description=Wait for chrony to synchronise the system clock
Documentation=man:chronyc(1)
After=chrony.service
Requires=chrony.service
Before=time-sync.target
Wants=time-sync.target

[Service]
Type=oneshot
ExecStart=/usr/bin/chronyc -h 127.0.0.1,::1 waitsync 0 0.1 0.0 1
TimeoutStartSec=180
RemainAfterExit=yes
StandardOutput=null

[Install]
WantedBy=multi-user.target
"""


def zram() -> str:
    """No compressed swap; the file takes the place of the distribution's own."""
    return MANAGED


def sshd(root_login: str) -> dict[str, str]:
    """sshd's settings by lower-case keyword, as `sshd -T` prints them.

    + root_login: `no`, or `prohibit-password` where pyinfra itself logs in as root
    """
    return {
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitEmptyPasswords": "no",
        "PermitRootLogin": root_login,
        "UseDNS": "no",
        "X11Forwarding": "no",
    }


def sshd_text(settings: Mapping[str, str]) -> str:
    """The drop-in with sshd's settings."""
    return MANAGED + "".join(f"{key} {value}\n" for key, value in settings.items())


def sudo(name: str) -> str:
    """The rule that lets a user become root without a password (users log in by key)."""
    return f"{MANAGED}{name} ALL=(ALL:ALL) NOPASSWD:ALL\n"
