"""deploys/nodes.py on real hosts: done, left alone, put right, refused; tests build on each other.

The hosts are Debian 12 (or Ubuntu, where the lab can pull it) in containers: swap, kernel modules
and the machine's own kernel settings are left out, and tested on simulated hosts instead.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import base
from cluster.text import block
from tests.lab.lab import Lab
from tests.lab.living import seen
from tests.lab.runs import Run, command, ended, plan, run

pytestmark = pytest.mark.lab(servers=1, agents=1, k3s=False)

NODES = "deploys/nodes.py"
NAMES = ("node1", "node2")
SERVICES = ("ssh", "chrony", "iscsid", "systemd-journald", "systemd-logind")
MOST_COMMANDS = 6  # a converged run may take 12


def settings(lab: Lab, **changes: Any) -> dict[str, Any]:
    """The group_data key `nodes` of the lab, with a user who has the lab's own key."""
    key = lab.names.ssh_key.with_suffix(".pub").read_text().strip()
    parts = {"kernel_modules": False, "sysctl_machine": False, "swap": False}
    return {
        "ignore_preflight": ["cgroup-v2", "dns-servers"],
        "parts": parts,
        "users": [{"name": "ada", "keys": [key]}],
        "packages": ["jq"],
    } | changes


def data(lab: Lab, **changes: Any) -> dict[str, Any]:
    return {"nodes": settings(lab, **changes), "timezone": "Europe/Madrid"}


def pids(lab: Lab) -> dict[tuple[str, str], str]:
    """Main pid by host and service: equal as long as nothing was restarted."""
    show = f"systemctl show {' '.join(SERVICES)} -p MainPID --value"
    return {
        (name, one): pid
        for name in NAMES
        for one, pid in zip(SERVICES, lab.check(name, show).split(), strict=True)
    }


def ssh(lab: Lab, user: str, host: str, words: str, *options: str) -> tuple[int, str]:
    """A command over SSH as somebody who logs in."""
    done = subprocess.run(
        [
            *(
                "ssh",
                "-i",
                str(lab.names.ssh_key),
                "-o",
                f"UserKnownHostsFile={lab.names.known_hosts}",
            ),
            *("-o", "BatchMode=yes", *options, f"{user}@{lab.record.host(host).ip}", words),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def done(lab: Lab) -> Iterator[tuple[Lab, Run]]:
    """The lab and the run that prepared its bare hosts."""
    lab.clear_faults()
    lab.recreate(*NAMES)
    yield lab, run(lab, NODES, data=data(lab))


def test_bare_hosts_are_prepared(done: tuple[Lab, Run]) -> None:
    _, first = done
    assert first.code == 0, first.text
    assert "Logins | Users" in first.changed and "Clock | chrony" in first.changed
    assert all(sorted(hosts) == list(NAMES) for hosts in first.changed.values())


@pytest.mark.parametrize("name", NAMES)
def test_somebody_else_sees_the_same(done: tuple[Lab, Run], name: str) -> None:
    host = seen(done[0], name)
    for package in (
        "chrony",
        "open-iscsi",
        "nfs-common",
        "cryptsetup",
        "unattended-upgrades",
        "jq",
    ):
        assert host.package(package).is_installed, package
    assert not host.package("snapd").is_installed
    for service in ("chrony", "iscsid"):
        assert host.service(service).is_running and host.service(service).is_enabled
    assert host.service("chrony-wait").is_enabled
    assert host.file("/etc/localtime").linked_to == "/usr/share/zoneinfo/Europe/Madrid"
    assert host.check_output("hostname") == name
    for other in NAMES:
        address = str(done[0].record.host(other).ip)
        assert host.check_output(f"getent hosts {other}").split()[0] == address
    assert host.sysctl("net.ipv4.ip_forward") == 1
    assert host.sysctl("net.ipv4.conf.all.rp_filter") == 2
    assert host.file(base.LOGIND_OF_UPGRADES).linked_to == "/dev/null"
    assert host.file(base.SYSCTL).mode == 0o644 and host.file(base.SYSCTL).user == "root"
    assert host.file("/etc/sudoers.d/91-picluster-ada").mode == 0o440
    assert host.file("/home/ada/.ssh/authorized_keys").mode == 0o600
    assert host.file("/home/ada/.ssh/authorized_keys").user == "ada"
    config = host.check_output("sshd -T")
    assert "passwordauthentication no" in config and "permitrootlogin no" in config
    apt = host.check_output("apt-config dump")
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in apt
    inhibit = "org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager"
    assert host.check_output(f"busctl get-property {inhibit} InhibitDelayMaxUSec") == "t 30000000"
    assert "nofile 1048576" in host.file(base.LIMITS).content_string
    gateway = done[0].names.gateway
    assert f"^* {gateway}" in host.check_output("chronyc sources")


def test_a_user_logs_in_with_the_key_and_becomes_root(done: tuple[Lab, Run]) -> None:
    assert ssh(done[0], "ada", "node1", "sudo -n id -un") == (0, "root\n")
    code, text = ssh(done[0], "ada", "node1", "true", "-o", "PubkeyAuthentication=no")
    assert code == 255 and "Permission denied (publickey)" in text


def test_a_second_run_changes_and_restarts_nothing(done: tuple[Lab, Run]) -> None:
    lab, _ = done
    before = pids(lab)
    again = run(lab, NODES, data=data(lab))
    assert (again.code, again.changed) == (0, {}), again.text
    assert plan(lab, NODES, data=data(lab)).changed == {}
    assert pids(lab) == before


def test_a_converged_run_takes_few_commands_a_node(done: tuple[Lab, Run]) -> None:
    lab, _ = done
    shown = ended(lab, command(NODES, "-y", "-vv", data=data(lab)), limit=120)
    assert shown.returncode == 0, shown.stderr
    lines = (shown.stdout + shown.stderr).splitlines()
    for name in NAMES:
        commands = [
            line for line in lines if line.lstrip().startswith(f"[{name}]") and ">>>" in line
        ]
        assert 0 < len(commands) <= MOST_COMMANDS, commands


BY_HAND = {
    "Kubernetes nodes | Limits of open files": f"echo '# mine' >> {base.LIMITS}",
    "Kubernetes nodes | Kernel settings": "sysctl -w net.ipv4.ip_forward=0",
    "System | Host name and hosts file": f"sed -i '/ node1$/d' {base.HOSTS}",
    "System | Time zone": "timedatectl set-timezone Etc/UTC",
    "System | Packages": "DEBIAN_FRONTEND=noninteractive apt-get -qy purge jq",
    "System | Journal": f"chmod 600 {base.JOURNALD}",
    "Clock | chrony": "systemctl disable chrony-wait",
    "Logins | Users": "gpasswd -d ada sudo; : > /home/ada/.ssh/authorized_keys",
    "Logins | sshd takes keys only": f"rm {base.SSHD}",
    "Kubernetes nodes | Shutdown waits for pods": f"rm {base.LOGIND_OF_UPGRADES}",
    "Kubernetes nodes | iSCSI client": "systemctl stop iscsid",
}


def test_each_thing_changed_by_hand_is_one_operation(done: tuple[Lab, Run]) -> None:
    lab, _ = done
    wanted: dict[str, list[str]] = {}
    for operation, edit in BY_HAND.items():
        lab.run("node2", edit)
        wanted[operation] = ["node2"]
        assert plan(lab, NODES, data=data(lab)).changed == wanted
    before = pids(lab)
    again = run(lab, NODES, data=data(lab))
    assert (again.code, again.changed) == (0, wanted), again.text
    after = pids(lab)
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {("node2", "systemd-journald"), ("node2", "iscsid")}
    assert plan(lab, NODES, data=data(lab)).changed == {}


def test_lines_of_others_survive(done: tuple[Lab, Run]) -> None:
    lab, _ = done
    lab.check("node2", f"echo '10.9.9.9 nas' >> {base.HOSTS}")
    lab.check("node2", "echo 'ssh-rsa AAAA mine' >> /home/ada/.ssh/authorized_keys")
    changed = data(lab) | {"domain": "other.example.com"}
    again = run(lab, NODES, data=changed)
    assert again.code == 0, again.text
    assert set(again.changed) == {"System | Host name and hosts file"}
    text = lab.read("node2", base.HOSTS)
    assert "10.9.9.9 nas" in text and "node1.other.example.com" in text
    assert text.count(block.BEGIN) == 1 and "lab.example.com" not in text
    assert "ssh-rsa AAAA mine" in lab.read("node2", "/home/ada/.ssh/authorized_keys")
    assert run(lab, NODES, data=data(lab)).code == 0


def test_a_restart_that_was_not_reached_is_made_up_for(done: tuple[Lab, Run]) -> None:
    lab, _ = done
    time.sleep(3)  # beyond the slack of whole seconds
    lab.check("node2", f"touch {base.CHRONY} {base.SSHD}")
    before = pids(lab)
    again = run(lab, NODES, data=data(lab))
    assert again.code == 0, again.text
    assert again.changed.pop("Clock | chrony") == ["node2"]
    assert again.changed.pop("Logins | sshd takes keys only") == ["node2"]
    assert set(again.changed) <= {"Clock | The clock is synchronised"}
    after = pids(lab)
    assert {key for key in after if after[key] != before[key]} == {("node2", "chrony")}
    assert run(lab, NODES, data=data(lab)).changed == {}


def test_an_earlier_file_of_sshd_is_named_and_the_old_state_stays(done: tuple[Lab, Run]) -> None:
    lab, _ = done
    rival = "/etc/ssh/sshd_config.d/01-mine.conf"
    lab.put("node2", rival, "PasswordAuthentication yes\n")
    failed = run(lab, NODES, data=data(lab))
    assert failed.code == 1
    assert "passwordauthentication would be yes, wanted is no" in failed.text
    assert lab.run("node2", "ls /etc/ssh/*.before /etc/ssh/sshd_config.d/*.before")[0] != 0
    assert ssh(lab, "ada", "node2", "true")[0] == 0
    lab.check("node2", f"rm {rival}")
    assert run(lab, NODES, data=data(lab)).code == 0


def test_a_configuration_that_sshd_refuses_never_reaches_it(done: tuple[Lab, Run]) -> None:
    lab, _ = done
    lab.check("node2", f"rm {base.SSHD}; echo 'Nonsense yes' >> {base.SSHD_MAIN}")
    failed = run(lab, NODES, data=data(lab))
    assert failed.code == 1 and "Nonsense" in failed.text
    assert lab.run("node2", f"test -e {base.SSHD}")[0] != 0
    assert ssh(lab, "ada", "node2", "true")[0] == 0
    lab.check("node2", f"sed -i '/^Nonsense/d' {base.SSHD_MAIN}")
    assert run(lab, NODES, data=data(lab)).code == 0


def test_a_folder_that_sshd_does_not_read_is_included(done: tuple[Lab, Run]) -> None:
    lab, _ = done
    lab.check("node2", f"sed -i '/^Include/d' {base.SSHD_MAIN}")
    again = run(lab, NODES, data=data(lab))
    assert (again.code, list(again.changed)) == (0, ["Logins | sshd takes keys only"]), again.text
    assert "passwordauthentication no" in lab.check("node2", "sshd -T")
    assert run(lab, NODES, data=data(lab)).changed == {}


def test_a_cloned_iscsi_name_is_replaced(done: tuple[Lab, Run]) -> None:
    lab, _ = done
    name = lab.read("node1", base.INITIATOR)
    lab.put("node2", base.INITIATOR, name, mode=0o600)
    again = run(lab, NODES, data=data(lab))
    assert again.changed == {"Kubernetes nodes | iSCSI client": ["node2"]}, again.text
    assert lab.read("node2", base.INITIATOR) != name
    assert lab.read("node1", base.INITIATOR) == name


HOLD = """
import fcntl, time
lock = open("/var/lib/apt/lists/lock", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
time.sleep(12)
"""


def test_another_run_of_apt_is_waited_for(done: tuple[Lab, Run]) -> None:
    lab, _ = done
    lab.check("node2", "DEBIAN_FRONTEND=noninteractive apt-get -qy purge jq")
    lab.put("node2", "/root/hold.py", HOLD)
    lab.check("node2", "systemd-run --quiet --unit hold-apt python3 /root/hold.py")
    again = run(lab, NODES, data=data(lab))
    assert (again.code, again.changed) == (0, {"System | Packages": ["node2"]}), again.text


def test_a_locale_is_generated(done: tuple[Lab, Run]) -> None:
    lab, _ = done
    spanish = data(lab) | {"locale": "es_ES.UTF-8"}
    again = run(lab, NODES, data=spanish)
    assert (again.code, list(again.changed)) == (0, ["System | Locale"]), again.text
    assert "es_ES.utf8" in lab.check("node1", "locale -a")
    assert run(lab, NODES, data=spanish).changed == {}
    assert list(run(lab, NODES, data=data(lab)).changed) == ["System | Locale"]


def test_a_host_that_is_not_fit_stops_the_run_before_anything_is_changed(
    done: tuple[Lab, Run],
) -> None:
    lab, _ = done
    lab.check("node2", f"echo '# mine' >> {base.LIMITS}")
    refused = run(lab, NODES, data=data(lab, ignore_preflight=["cgroup-v2"]))
    assert refused.code == 1 and "node2: dns-servers: only 127.0.0.11" in refused.text
    assert "# mine" in lab.read("node2", base.LIMITS)
    assert run(lab, NODES, data=data(lab)).code == 0


def test_a_time_server_that_does_not_answer_is_named(done: tuple[Lab, Run]) -> None:
    lab, _ = done
    gateway = lab.names.gateway
    network = {"lan": str(lab.names.subnet), "gateway": gateway, "dns": [gateway]}
    silent = data(lab) | {"network": network | {"ntp": ["192.0.2.1"]}}
    failed = run(lab, NODES, "--limit", "node2", data=silent)
    assert failed.code == 1
    assert "the clock: not within 90 s: chrony has no answer yet from 192.0.2.1" in failed.text
    assert run(lab, NODES, data=data(lab)).code == 0


def test_the_fact_is_plain_data(done: tuple[Lab, Run]) -> None:
    lab, _ = done
    shown = ended(lab, command("fact", "--json", "facts.node.NodeState"), limit=60)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)
