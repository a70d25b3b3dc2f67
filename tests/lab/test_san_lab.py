"""deploys/services/san.py and telemetry.py on a real host; tests build on each other.

Real: tgt with CHAP, an initiator in user space on another host (libiscsi), what a disk holds, node
exporter, apt with a signed repository, TLS. Simulated: Fluent Bit and the aggregator
(tests/lab/fluent_bit.py). Not here: LIO, LVM and the initiator of the kernel, which containers
have not; they are in tests/vm/test_san.py, on a real kernel.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from cluster.managed import METRICS, UNITS
from cluster.services import san as rules
from cluster.services import san_scripts, san_units, telemetry
from runtime import age, sops
from tests.lab.fluent_bit import Receiver, repository, served
from tests.lab.lab import Lab
from tests.lab.living import wait_for
from tests.lab.runs import Run, command, ended, plan, run
from tests.unit.cluster_example import example

pytestmark = pytest.mark.lab(servers=1, agents=0, externals=1)

SAN, TELEMETRY = "deploys/services/san.py", "deploys/services/telemetry.py"
HOST, NODE = "external", "node1"
PASSWORD, OTHER_PASSWORD = "simulated0word", "another0word"
FOLDER = "/srv/iscsi"
REPOSITORY_PORT = 8058
ONLY_HOST = ("--limit", HOST)


def secrets_file(lab: Lab, password: str = PASSWORD) -> str:
    """The lab's secrets with the password of a volume."""
    state = lab.names.state
    key, known = state / "age.txt", state / "secrets.sops.yaml"
    values = yaml.safe_load(sops.decrypt(known, key)) | {"san": {NODE: password}}
    path = state / f"san-{len(password)}.sops.yaml"  # a name that does not tell it
    readers = sops.readers(known.read_text())["age"]
    age.replace(path, sops.encrypt(yaml.safe_dump(values), path, key, readers), 0o600)
    return str(path)


def data(lab: Lab, password: str = PASSWORD, **section: Any) -> dict[str, Any]:
    san = {"product": "tgt", "folder": FOLDER, "volumes": {NODE: {"size": "64M"}}}
    return {"services": {"san": san | section}, "secrets_file": secrets_file(lab, password)}


def initiator(lab: Lab, host: str, password: str) -> tuple[int, str]:
    """What an initiator in user space gets of the volume's size; its exit code first."""
    name = f"iqn.2024-01.com.example.lab:{NODE}"
    url = f"iscsi://{NODE}%{password}@{lab.record.host(HOST).ip}:{rules.PORT}/{name}/{rules.LUN}"
    return lab.run(host, f"timeout 20 iscsi-readcapacity16 {url}")


@pytest.fixture(scope="module")
def offered(lab: Lab) -> Iterator[tuple[Lab, Run]]:
    """The lab, and the run that made a bare host a target."""
    lab.clear_faults()
    lab.recreate(HOST, NODE)
    shown = plan(lab, SAN, *ONLY_HOST, data=data(lab))
    assert shown.code == 0 and "Central storage | Volumes" in shown.changed, shown.text
    done = run(lab, SAN, *ONLY_HOST, data=data(lab))
    install = "DEBIAN_FRONTEND=noninteractive apt-get -qy install libiscsi-bin"
    for host in (NODE, HOST):
        lab.check(host, f"apt-get -q update && {install}")
    yield lab, done


Offered = tuple[Lab, Run]


def test_a_bare_host_offers_a_volume(offered: Offered) -> None:
    lab, done = offered
    assert done.code == 0, done.text
    assert lab.check(HOST, f"stat -c '%s %a' {FOLDER}/{NODE}.img").strip() == f"{64 << 20} 600"
    assert lab.check(HOST, f"stat -c '%a %U' {san_scripts.TGT_CONFIG}").strip() == "600 root"
    listening = lab.check(HOST, "ss -Hltn sport = :3260")
    assert f"{lab.record.host(HOST).ip}:3260" in listening and "0.0.0.0:3260" not in listening


def test_the_node_gets_its_volume_and_nobody_else(offered: Offered) -> None:
    lab, _ = offered
    code, said = initiator(lab, NODE, PASSWORD)
    assert code == 0 and f"Total size:{64 << 20}" in said.replace(" ", "").replace(
        "Totalsize", "Total size"
    ), said
    code, said = initiator(lab, NODE, OTHER_PASSWORD)
    assert code != 0, said
    code, said = initiator(lab, HOST, PASSWORD)  # another address
    assert code != 0, said


def test_a_second_run_changes_nothing(offered: Offered) -> None:
    lab, _ = offered
    lab.check(
        HOST, f"echo mine > /root/mine && dd if=/root/mine of={FOLDER}/{NODE}.img conv=notrunc"
    )
    asked = f"systemctl show -p MainPID {san_units.TGT}; sha256sum {FOLDER}/*"
    before = lab.check(HOST, asked)
    again = run(lab, SAN, *ONLY_HOST, data=data(lab))
    assert (again.code, again.changed) == (0, {}), again.text
    assert plan(lab, SAN, *ONLY_HOST, data=data(lab)).changed == {}
    assert before == lab.check(
        HOST, f"systemctl show -p MainPID {san_units.TGT}; sha256sum {FOLDER}/*"
    )


def test_another_password_is_in_force_without_a_restart(offered: Offered) -> None:
    lab, _ = offered
    before = lab.check(HOST, f"systemctl show -p MainPID {san_units.TGT}")
    words = command(SAN, "-y", "-vvv", "--diff", *ONLY_HOST, data=data(lab, OTHER_PASSWORD))
    loud = ended(lab, words, limit=300)
    said = loud.stdout + loud.stderr
    assert loud.returncode == 0 and OTHER_PASSWORD not in said and PASSWORD not in said, said
    assert lab.check(HOST, f"systemctl show -p MainPID {san_units.TGT}") == before
    assert initiator(lab, NODE, OTHER_PASSWORD)[0] == 0
    assert initiator(lab, NODE, PASSWORD)[0] != 0
    assert run(lab, SAN, *ONLY_HOST, data=data(lab)).code == 0


# Simulated: a target that does not answer at first, and then has no volume. systemd finds it before
# the real one.
ISCSIADM = """#!/bin/sh
case "$*" in
  *session*) cat /run/session ;;
  *--logout*) rm -f /run/session ;;
  *--login*) [ -e /run/answers ] || { echo no answer >&2; exit 8; }; echo " $4 " > /run/session ;;
esac
"""
K3S = "[Service]\nExecStart=/bin/sleep infinity\n"


def test_k3s_does_not_start_without_its_volume_and_the_log_in_is_tried_again(
    offered: Offered,
) -> None:
    """With systemd itself. In a container no device comes, and systemd gives its mount up at once.

    That it waits, and what happens then, is in tests/vm/test_san_boot.py.
    """
    lab, _ = offered
    volumes = {NODE: {"size": "1G", "path": "/srv/my-data"}}
    model = example(servers=1, agents=0, services={"san": {"host": NODE, "volumes": volumes}})
    (me,) = model.hosts
    files = san_units.node_files(model, me)
    mount, login = san_units.mount_unit("/srv/my-data"), san_units.LOGIN
    try:
        for path, content in {**files, f"{UNITS}/k3s.service": K3S}.items():
            lab.check(NODE, f"mkdir -p '{path.rpartition('/')[0]}'")
            lab.put(NODE, path, content)
        lab.put(NODE, "/usr/local/sbin/iscsiadm", ISCSIADM)
        lab.check(NODE, "chmod 755 /usr/local/sbin/iscsiadm; systemctl daemon-reload")
        for path in files:
            if path.endswith((".mount", ".service")):
                assert lab.check(NODE, f"systemd-analyze verify '{path}'").strip() == "", path
        lab.check(NODE, f"systemctl reenable {login} '{mount}'")
        lab.check(NODE, f"test -L '{san_units.required(model, me)}'")
        lab.check(NODE, f"systemctl start --no-block k3s.service {login}")

        def retries() -> int:
            return int(lab.check(NODE, f"systemctl show --value -p NRestarts {login}"))

        wait_for(lambda: retries() > 1, "the log-in to be tried again")
        device = san_units.unit_name(rules.device(model, NODE), "device")
        assert lab.run(NODE, "systemctl is-active k3s.service")[1].strip() == "inactive"
        limit = lab.check(NODE, f"systemctl show --value -p JobRunningTimeoutUSec '{device}'")
        assert limit.strip() == "infinity"
        before = lab.check(NODE, f"systemctl show --value -p Before '{mount}'").split()
        assert "k3s.service" in before and "remote-fs.target" not in before
        lab.check(NODE, "touch /run/answers")
        wait_for(
            lambda: "offers no volume" in lab.check(NODE, f"journalctl -q -o cat -u {login}"),
            "the target without a volume",
        )
        assert lab.run(NODE, f"systemctl is-active {login}")[1].strip() != "active"
        lab.check(NODE, f"mkdir -p /dev/disk/by-path && touch '{rules.device(model, NODE)}'")
        wait_for(
            lambda: lab.run(NODE, f"systemctl is-active {login}")[1].strip() == "active",
            "the log-in",
        )
    finally:
        lab.run(NODE, f"systemctl stop k3s.service {login} '{mount}'")
        lab.run(NODE, f"systemctl disable {login} '{mount}'")
        lab.run(NODE, "rm -f /usr/local/sbin/iscsiadm /run/answers /run/session")
        lab.run(NODE, f"rm -f '{rules.device(model, NODE)}'")
        for path in (*files, f"{UNITS}/k3s.service"):
            lab.run(NODE, f"rm -f '{path}'")
        lab.run(NODE, "systemctl daemon-reload")


def test_targets_are_there_after_a_boot(offered: Offered) -> None:
    lab, _ = offered
    lab.stop(HOST)
    lab.start(HOST)
    again = run(lab, SAN, *ONLY_HOST, data=data(lab))
    assert (again.code, again.changed) == (0, {}), again.text
    assert initiator(lab, NODE, PASSWORD)[0] == 0


def test_a_volume_that_was_missing_at_a_start_is_offered_when_it_appears(offered: Offered) -> None:
    """Simulated: that a device calls the script; tests/vm/test_san_boot.py has that, with LIO."""
    lab, _ = offered
    path = f"{FOLDER}/{NODE}.img"
    lab.put(HOST, "/root/late", san_scripts.TGT_LATE)
    try:
        lab.check(HOST, f"mv {path} /root/away; systemctl restart {san_units.TGT}")
        assert initiator(lab, NODE, PASSWORD)[0] != 0
        started = lab.check(HOST, f"systemctl show -p MainPID {san_units.TGT}")
        lab.check(HOST, f"mv /root/away {path}; sh /root/late {path}; sh /root/late {path}")
        assert initiator(lab, NODE, PASSWORD)[0] == 0
        assert lab.check(HOST, f"systemctl show -p MainPID {san_units.TGT}") == started
        assert run(lab, SAN, *ONLY_HOST, data=data(lab)).changed == {}
        lab.check(HOST, f"mv {path} /root/away; systemctl restart {san_units.TGT}")
        lab.check(HOST, f"mv /root/away {path}")
        again = run(lab, SAN, *ONLY_HOST, data=data(lab))
        assert (again.code, set(again.changed)) == (0, {"Central storage | Targets"}), again.text
        assert initiator(lab, NODE, PASSWORD)[0] == 0
    finally:
        lab.run(HOST, f"mv -n /root/away {path}; rm -f /root/late")


def test_a_disk_that_holds_anything_is_refused_by_its_name(offered: Offered) -> None:
    lab, _ = offered
    disk = "/dev/shm/disk"
    lab.check(HOST, f"truncate -s 64M {disk} && mkfs.ext4 -qF {disk}")
    before = lab.check(HOST, f"sha256sum {disk}")
    on_disk = data(lab, folder=None, disk=disk)
    refused = run(lab, SAN, *ONLY_HOST, data=on_disk)
    assert refused.code == 1
    line = f"external: {disk} holds ext4: to lose all of it, type its name with"
    assert f"{line} --data wipe_disk=external:{disk}" in refused.text, refused.text
    again = run(lab, SAN, *ONLY_HOST, data=on_disk | {"wipe_disk": f"node1:{disk}"})
    assert again.code == 1 and line in again.text
    missing = run(lab, SAN, *ONLY_HOST, data=data(lab, folder=None, disk="/dev/sdz"))
    assert missing.code == 1 and "external: there is no /dev/sdz" in missing.text
    assert lab.check(HOST, f"sha256sum {disk}") == before


def test_a_node_whose_kernel_cannot_is_named(offered: Offered) -> None:
    lab, _ = offered
    if lab.run(NODE, "test -d /sys/module/iscsi_tcp || modinfo iscsi_tcp")[0] == 0:
        pytest.skip("the kernel has iscsi_tcp")
    refused = run(lab, SAN, data=data(lab))
    assert refused.code == 1
    assert "node1: its kernel has no iSCSI initiator (iscsi_tcp)" in refused.text, refused.text


def test_a_node_that_is_taken_out_of_the_data_loses_its_mount_once_nobody_uses_it(
    offered: Offered,
) -> None:
    """Simulated: the volume, by a file system in memory; tests/vm/test_san_boot.py has one."""
    lab, _ = offered
    path, theirs = "/srv/my-data", f"{UNITS}/srv-theirs.mount"
    volumes = {NODE: {"size": "1G", "path": path}}
    model = example(servers=1, agents=0, services={"san": {"host": NODE, "volumes": volumes}})
    (me,) = model.hosts
    files = san_units.node_files(model, me)
    text = files[f"{UNITS}/{san_units.mount_unit(path)}"]
    only_node = ("--limit", NODE)
    without = {"services": {}, "secrets_file": secrets_file(lab)}
    assert run(lab, SAN, *only_node, data=without).changed == {}
    for name, content in {**files, theirs: text.partition("\n")[2]}.items():
        lab.check(NODE, f"mkdir -p '{name.rpartition('/')[0]}'")
        lab.put(NODE, name, content)
    lab.check(NODE, f"systemctl daemon-reload; mkdir -p {path}; mount -t tmpfs volume {path}")
    units = f"{san_units.LOGIN} '{san_units.mount_unit(path)}'"
    lab.check(NODE, f"systemctl enable {units}; test -L '{san_units.required(model, me)}'")
    user = lab.check(NODE, f"cd {path}; sleep 1000 > /dev/null 2>&1 & echo $!").strip()
    refused = run(lab, SAN, *only_node, data=without)
    assert refused.code == 1, refused.text
    line = f"{NODE}: {path}, where its volume is mounted no longer, is in use by sleep ({user})"
    assert line in refused.text, refused.text
    lab.check(NODE, f"kill {user}")
    shown = plan(lab, SAN, *only_node, data=without)
    assert set(shown.changed) == {"Volume of the node | No former mounts"}, shown.text
    assert lab.run(NODE, f"mountpoint {path}")[0] == 0
    done = run(lab, SAN, *only_node, data=without)
    assert (done.code, set(done.changed)) == (0, set(shown.changed)), done.text
    assert lab.run(NODE, f"mountpoint {path}")[0] != 0
    for name in (*files, san_units.required(model, me)):
        assert lab.run(NODE, f"test -e '{name}' -o -L '{name}'")[0] != 0, name
    assert lab.run(NODE, f"test -f {theirs}")[0] == 0
    assert run(lab, SAN, *only_node, data=without).changed == {}


# ---- metrics and logs


@pytest.fixture(scope="module")
def watched(lab: Lab) -> Iterator[tuple[Lab, Receiver, dict[str, Any], Run]]:
    """The lab, what stands for the aggregator, the data of runs, and the first of them."""
    lab.clear_faults()
    lab.recreate(HOST)
    folder = lab.names.state / "fluent-bit"
    folder.mkdir(exist_ok=True)
    suite = lab.check(HOST, ". /etc/os-release; echo $VERSION_CODENAME").strip()
    arch = lab.check(HOST, "dpkg --print-architecture").strip()
    fingerprint = repository(folder / "apt", suite, arch)
    address = lab.names.gateway
    receiver = Receiver(address, telemetry.FORWARD_PORT, "fluentd.lab.example.com", folder)
    with served(address, REPOSITORY_PORT, folder / "apt") as url:
        given = {
            "stack": {"preset": "v1_9"},
            "services": {
                "telemetry": {
                    "address": address,
                    "ca": receiver.ca,
                    "repository": {"url": url, "fingerprint": fingerprint},
                }
            },
        }
        try:
            yield lab, receiver, given, run(lab, TELEMETRY, *ONLY_HOST, data=given)
        finally:
            receiver.close()


Watched = tuple[Lab, Receiver, dict[str, Any], Run]


def test_metrics_are_read_on_the_lan_alone(watched: Watched) -> None:
    lab, _, _, first = watched
    assert first.code == 0, first.text
    lab.put(HOST, f"{METRICS}/lab.prom", "lab_metric 7\n")
    url = f"http://{lab.record.host(HOST).ip}:{telemetry.EXPORTER_PORT}/metrics"
    text = lab.check(NODE, f"curl -fsS --retry 5 --retry-connrefused {url}")
    assert "lab_metric 7" in text and "node_boot_time_seconds" in text
    assert lab.run(HOST, "curl -fsS http://127.0.0.1:9100/metrics")[0] != 0


def test_logs_reach_the_aggregator_with_the_key(watched: Watched) -> None:
    lab, receiver, _, _ = watched
    end = time.monotonic() + 30
    while not receiver.said and time.monotonic() < end:
        time.sleep(0.2)
    said = receiver.said[-1]
    assert (said["host"], said["tag"], said["journal"]) == (HOST, "host.journal", True)
    assert lab.check(HOST, f"stat -c '%a %U' {telemetry.KEY_FILE}").strip() == "600 root"
    assert "FORWARD_SHARED_KEY" not in lab.check(HOST, f"cat {telemetry.CONFIG}").replace(
        "${FORWARD_SHARED_KEY}", ""
    )


def test_a_second_run_leaves_both_alone(watched: Watched) -> None:
    lab, _, given, _ = watched
    again = run(lab, TELEMETRY, *ONLY_HOST, data=given)
    assert (again.code, again.changed) == (0, {}), again.text
    assert plan(lab, TELEMETRY, *ONLY_HOST, data=given).changed == {}


def test_what_was_changed_by_hand_is_put_back(watched: Watched) -> None:
    lab, _, given, _ = watched
    lab.check(HOST, f"echo '# mine' >> {telemetry.CONFIG}; systemctl stop {telemetry.EXPORTER}")
    again = run(lab, TELEMETRY, *ONLY_HOST, data=given)
    assert again.code == 0, again.text
    assert set(again.changed) == {
        "Metrics of the host | Node exporter for the LAN",
        "Logs of the host | Fluent Bit to the aggregator",
    }
    assert run(lab, TELEMETRY, *ONLY_HOST, data=given).changed == {}


def test_a_key_of_somebody_else_is_not_trusted(watched: Watched) -> None:
    lab, _, given, _ = watched
    wanted = given["services"]["telemetry"]
    other = wanted["repository"] | {"fingerprint": "C3C0A28534B9293EAF51FABD9F9DDC083888C1CD"}
    strange = {"services": {"telemetry": wanted | {"repository": other}}}
    failed = run(lab, TELEMETRY, *ONLY_HOST, data=given | strange)
    assert failed.code == 1
    assert f"holds the key {wanted['repository']['fingerprint']}" in failed.text, failed.text
    assert run(lab, TELEMETRY, *ONLY_HOST, data=given).code == 0
