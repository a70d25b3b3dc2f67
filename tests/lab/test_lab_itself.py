"""The lab keeps its promises: without them no other test in this folder means anything."""

from __future__ import annotations

import hashlib
import subprocess
import urllib.request

import pytest

from cluster import versions
from tests.lab import engine, hosts
from tests.lab.errors import LabError
from tests.lab.fingerprint import difference
from tests.lab.lab import Lab
from tests.lab.living import wait_for
from tests.lab.plan import SSH_USER

pytestmark = pytest.mark.lab
BOOT_ID = "/proc/sys/kernel/random/boot_id"
BOOT_LIMIT_S = 60


@pytest.fixture
def bare_host(lab: Lab) -> str:
    """The first host, as after its first boot."""
    host = lab.hosts[0].name
    lab.clear_faults()
    lab.recreate(host)
    return host


def ssh(lab: Lab, host: str, command: str) -> str:
    """Run `command` as a person would: over SSH, with the recorded host key, as SSH_USER."""
    options = ["-i", str(lab.names.ssh_key), "-o", f"UserKnownHostsFile={lab.names.known_hosts}"]
    options += ["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
    target = f"{SSH_USER}@{lab.record.host(host).ip}"
    result = subprocess.run(
        ["ssh", *options, target, command], check=True, capture_output=True, text=True, timeout=60
    )
    return result.stdout.strip()


def test_every_host_is_reached_as_an_unprivileged_user_who_may_use_sudo(lab: Lab) -> None:
    for host in lab.hosts:
        assert ssh(lab, host.name, "id -un; sudo -n id -un; hostname") == (
            f"{SSH_USER}\nroot\n{host.name}"
        )


def test_systemd_runs_on_every_host_and_no_unit_failed(lab: Lab) -> None:
    for host in lab.hosts:
        assert lab.run(host.name, "systemctl is-system-running") == (0, "running\n")


def test_hosts_have_boot_ids_machine_ids_and_ssh_keys_of_their_own(lab: Lab) -> None:
    for path in (BOOT_ID, "/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub"):
        assert len({lab.read(host.name, path) for host in lab.hosts}) == len(lab.hosts)


def test_hosts_reach_each_other_by_name_and_the_gateway(lab: Lab) -> None:
    first, last = lab.hosts[0], lab.hosts[-1]
    lab.check(first.name, f"ping -c1 -W2 {last.ip} && ping -c1 -W2 {lab.names.gateway}")


def test_apt_installs_a_package_from_the_mirror(lab: Lab, bare_host: str) -> None:
    assert lab.run(bare_host, "command -v tree")[0] != 0
    lab.check(bare_host, "apt-get update -q && apt-get install -qy tree && tree --version")


def test_chrony_settles_on_the_gateways_clock(lab: Lab, bare_host: str) -> None:
    lab.check(bare_host, "apt-get install -qy chrony")
    lab.put(bare_host, "/etc/chrony/chrony.conf", f"server {lab.names.gateway} iburst\n")
    lab.check(bare_host, "systemctl restart chrony && chronyc waitsync 30 0.5 0 1")


def test_a_reboot_gives_a_new_boot_id_and_keeps_the_disk(lab: Lab, bare_host: str) -> None:
    before = lab.read(bare_host, BOOT_ID)
    ssh_key = lab.read(bare_host, "/etc/ssh/ssh_host_ed25519_key.pub")
    lab.check(
        bare_host, "mkdir -p /boot/firmware && echo 'root=LABEL=x' >/boot/firmware/cmdline.txt"
    )
    lab.run(bare_host, "systemctl reboot")

    def rebooted() -> bool:
        try:
            return lab.read(bare_host, BOOT_ID) != before
        except LabError:  # it is between two lives
            return False

    wait_for(rebooted, "the reboot", BOOT_LIMIT_S)
    assert lab.read(bare_host, "/proc/cmdline") == "root=LABEL=x\n"
    assert lab.read(bare_host, "/etc/ssh/ssh_host_ed25519_key.pub") == ssh_key


def test_a_host_that_was_killed_comes_back_with_its_disk(lab: Lab, bare_host: str) -> None:
    lab.put(bare_host, "/var/lib/kept", "kept\n")
    lab.kill(bare_host)
    assert dict(_doing(lab))[bare_host] == "exited"
    lab.start(bare_host)
    assert lab.read(bare_host, "/var/lib/kept") == "kept\n"


def test_a_pulled_cable_keeps_the_address_and_cuts_the_traffic(lab: Lab, bare_host: str) -> None:
    first, last = lab.hosts[0], lab.hosts[-1]
    ping = f"ping -c1 -W1 {last.ip}"
    lab.disconnect(last.name)
    assert dict(_doing(lab))[last.name] == "disconnected"
    assert lab.run(first.name, ping)[0] != 0
    assert last.ip in lab.check(last.name, "ip address")
    lab.connect(last.name)
    lab.check(first.name, f"for try in 1 2 3 4 5; do {ping} && exit 0; done; exit 1")


def test_a_recreated_host_is_bare_and_trusted_again(lab: Lab, bare_host: str) -> None:
    before = lab.fingerprint(bare_host)
    lab.check(bare_host, "touch /etc/left-behind; ip link add left type bridge; iptables -N LEFT")
    changed = difference(before, lab.fingerprint(bare_host))
    assert [line.split(":")[0] for line in changed] == [
        "+ file /etc/left-behind",
        "+ iptables filter LEFT",
        "+ link left",
    ]
    lab.recreate(bare_host)
    left = [
        line for line in difference(before, lab.fingerprint(bare_host)) if "LEFT" in line.upper()
    ]
    assert left == []
    assert ssh(lab, bare_host, "id -un") == SSH_USER


def test_a_host_that_is_bare_is_not_made_again(lab: Lab, bare_host: str) -> None:
    def made() -> object:
        return hosts.containers(engine.connect(), lab.names)[bare_host].id

    bare = made()
    lab.recreate(bare_host)
    assert made() == bare
    lab.check(bare_host, "true")
    lab.recreate(bare_host)
    assert made() != bare
    used = made()
    subprocess.run(["true"], check=True, env=lab.environment)
    lab.recreate(bare_host)
    assert made() != used


def test_the_file_server_offers_the_release_layout_and_misbehaves_on_demand(
    lab: Lab, bare_host: str
) -> None:
    content = b"0123456789" * 1000
    folder = lab.names.state / "files" / "selftest" / "v1+k3s1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "asset").write_bytes(content)
    wanted = hashlib.sha256(content).hexdigest()
    fetch = f"curl -fsS {lab.names.mirror}/selftest/v1%2Bk3s1/asset -o /root/asset"
    lab.fault("/selftest/*/asset", kind="truncate", bytes=100, times=1)
    assert lab.run(bare_host, fetch)[0] == 18  # curl: transferred a partial file
    lab.check(bare_host, f"{fetch} --continue-at -")
    assert lab.check(bare_host, "sha256sum /root/asset").split()[0] == wanted
    assert [entry["fault"] for entry in lab.requests()[-2:]] == ["truncate", None]


def test_every_served_binary_says_its_version_and_matches_its_sum(lab: Lab) -> None:
    if lab.record.k3s_kind == "none":
        pytest.skip("no K3s is served (LAB_K3S=none)")
    for version in lab.record.k3s_versions:
        url = f"{lab.names.mirror}/k3s-io/k3s/releases/download/{version.replace('+', '%2B')}"
        name = versions.K3S_ASSET[lab.record.arch]
        with urllib.request.urlopen(f"{url}/sha256sum-{lab.record.arch}.txt", timeout=10) as answer:
            sums = answer.read().decode()
        line = next(line for line in sums.splitlines() if line.endswith(f"  {name}"))
        host = lab.hosts[0].name
        lab.check(host, f"curl -fsS {url}/{name} -o /root/k3s && chmod +x /root/k3s")
        assert lab.check(host, "sha256sum /root/k3s").split()[0] == line.split()[0]
        assert version in lab.check(host, "/root/k3s --version").splitlines()[0]
        lab.check(host, "rm /root/k3s")


def test_a_second_up_changes_nothing(lab: Lab) -> None:
    client = engine.connect()
    before = {name: one.id for name, one in hosts.containers(client, lab.names).items()}
    lab.up()
    assert {name: one.id for name, one in hosts.containers(client, lab.names).items()} == before


def test_another_lab_comes_and_goes_without_touching_this_one(lab: Lab) -> None:
    client = engine.connect()
    before = {name: one.id for name, one in hosts.containers(client, lab.names).items()}
    other = Lab("selftest")
    other.up(servers=1, agents=0)
    volumes = {volume.id for volume in client.volumes.list()}
    assert ssh(other, "node1", "hostname") == "node1"
    other.down()
    assert hosts.containers(client, other.names) == {}
    assert client.networks.list(names=[other.names.network]) == []
    assert not other.names.state.exists()
    assert {volume.id for volume in client.volumes.list()} <= volumes
    with pytest.raises(LabError, match="not up"):
        _ = other.hosts
    assert {name: one.id for name, one in hosts.containers(client, lab.names).items()} == before


def _doing(lab: Lab) -> list[tuple[str, str]]:
    return [(host.name, doing) for host, doing in lab.status()]
