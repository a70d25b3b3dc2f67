"""deploys/services/s3.py and backup.py on real hosts; tests build on each other.

Real: versitygw, TLS, restic, systemd with its timers, the secrets that `make secrets` makes. A
power cut is the container's SIGKILL; damage is bytes that the test changes in the server's files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from cluster.answer import Absent, Forbidden, Present, Stopped
from cluster.services import backup as rules
from runtime import age, sops
from runtime.s3 import S3, S3Error
from tests.lab import accounts, versitygw
from tests.lab.lab import Lab
from tests.lab.runs import Run, plan, run

pytestmark = pytest.mark.lab(servers=1, agents=0, externals=1)

S3_DEPLOY, BACKUP_DEPLOY = "deploys/services/s3.py", "deploys/services/backup.py"
HOST, NODE = "external", "node1"
PORT = 9000
FILES = "/home/ubuntu/files"
ACCOUNTS = "S3 server | Accounts of the S3 server"
RUNS = "S3 server | The S3 server runs"
BUCKETS = "S3 server | Buckets and who may use them"
WORK = "S3 accounts | Accounts of the S3 service work"
REPOSITORY = "Backups of hosts | The repository is there"
LOUD = ("-vvv", "--debug", "--diff")
# No delay, so that a timer that is due fires at once; a check reads everything.
SECTION = {"hosts": [HOST], "delay": 0, "check_share": 100}
DATA: dict[str, Any] = {
    "services": {"s3": {}, "backup": SECTION},
    "backup": {},
    # So that more than one account is wanted; nothing of it is installed here.
    "stack": {"storage": "longhorn"},
}


def environment(**services: Any) -> dict[str, str]:
    """What makes the lab's inventory have the services, with other keys in a section."""
    wanted = {name: DATA["services"][name] | services.get(name, {}) for name in DATA["services"]}
    return {"LAB_DATA": json.dumps(DATA | {"services": wanted})}


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> Iterator[Lab]:
    """The lab with the S3 server's release to be had, and secrets for the services."""
    versitygw.RELEASE.serve(lab.names.state / "files", lab.record.arch)
    state = lab.names.state
    accounts.make(
        {**lab.environment, **environment()}, 1, state / "secrets.sops.yaml", state / "age.txt"
    )
    yield lab


def deploy(lab: Lab, file: str, *options: str, **services: Any) -> Run:
    return run(lab, file, *options, **environment(**services))


def planned(lab: Lab, file: str, **services: Any) -> Run:
    return plan(lab, file, **environment(**services))


def secrets(lab: Lab) -> dict[str, str]:
    state = lab.names.state
    return sops.flat(sops.load(state / "secrets.sops.yaml", state / "age.txt"))


@contextmanager
def other_secrets(lab: Lab, **changes: str) -> Iterator[None]:
    """The lab's secrets with other values, by name with _ for dots."""
    file, key = lab.names.state / "secrets.sops.yaml", lab.names.state / "age.txt"
    before = file.read_text()
    values = yaml.safe_load(sops.decrypt(file, key))
    for name, value in changes.items():
        *parents, last = name.split("__")
        below = values
        for parent in parents:
            below = below[parent]
        below[last] = value
    age.replace(
        file, sops.encrypt(yaml.safe_dump(values), file, key, sops.readers(before)["age"]), 0o600
    )
    try:
        yield
    finally:
        age.replace(file, before, 0o600)


def service(lab: Lab, account: str, secret: str | None = None) -> S3:
    """The service as an account sees it from this machine, by TLS and the lab's CA."""
    found, ip = secrets(lab), lab.record.host(HOST).ip
    keys = (found[f"s3.{account}.access_key"], secret or found[f"s3.{account}.secret_key"])
    ca = (lab.names.state / "secrets-ca.pem").read_text()
    return S3(f"{ip}:{PORT}", "eu-west-1", *keys, ca)


def told(lab: Lab, text: str) -> list[str]:
    """Names of secrets that the text shows; the CA's certificate and names of accounts are none."""
    return [
        name
        for name, value in secrets(lab).items()
        if not name.endswith(("access_key", "certificate")) and value.strip() in text
    ]


def process(lab: Lab) -> str:
    return lab.check(HOST, "systemctl show versitygw -p MainPID -p ActiveEnterTimestampMonotonic")


def job(lab: Lab, name: str) -> int:
    """Run a job by its service, as the timer does; its result as systemctl says it."""
    return lab.run(HOST, f"systemctl start picluster-backup@{name}.service")[0]


def metric(lab: Lab, name: str, task: str) -> float:
    text = lab.read(HOST, rules.METRICS_FILE)
    found = re.search(rf'^picluster_backup_{name}{{task="{task}"}} (\S+)$', text, re.MULTILINE)
    assert found, text
    return float(found[1])


# ---- the S3 server


def test_a_program_that_is_not_the_released_one_is_not_installed(hosts: Lab) -> None:
    hosts.recreate(HOST)
    hosts.fault("*/versitygw_v*.tar.gz", kind="content", text="something else")
    done = deploy(hosts, S3_DEPLOY)
    hosts.clear_faults()
    assert done.code == 1
    assert "checksum mismatch" in done.text and "nothing was installed" in done.text
    assert hosts.run(HOST, "ls /usr/local/lib/versitygw/*/versitygw")[0] != 0


def test_a_bare_host_gets_a_server_whose_accounts_work(hosts: Lab) -> None:
    shown = planned(hosts, S3_DEPLOY)
    assert shown.code == 0, shown.text
    assert {ACCOUNTS, RUNS, BUCKETS, WORK} <= shown.changed.keys()
    done = deploy(hosts, S3_DEPLOY, *LOUD)
    assert done.code == 0, done.text
    assert done.changed.keys() == shown.changed.keys()
    for account in ("longhorn", "restic"):
        assert f"{account}: put, get and delete work" in done.text
    assert not told(hosts, done.text)


def test_it_runs_as_a_user_without_rights_and_shows_no_secret(hosts: Lab) -> None:
    line = hosts.check(HOST, "ps -o user=,args= -C versitygw")
    assert line.startswith("s3 ")
    values = [value for name, value in secrets(hosts).items() if name.startswith("s3.")]
    assert not any(value in line for value in values)
    assert hosts.check(HOST, "stat -c '%a %U' /var/lib/s3").split() == ["700", "s3"]
    modes = hosts.check(HOST, "find /etc/picluster/s3 -type f -printf '%m '").split()
    assert set(modes) == {"600"}


def test_the_second_run_changes_nothing_and_restarts_nothing(hosts: Lab) -> None:
    before = process(hosts)
    assert planned(hosts, S3_DEPLOY).changed == {}
    done = deploy(hosts, S3_DEPLOY)
    assert (done.code, done.changed) == (0, {}), done.text
    assert process(hosts) == before


def test_an_account_sees_its_own_bucket_and_no_other(hosts: Lab) -> None:
    with service(hosts, "longhorn") as longhorn:
        longhorn.try_out("k3s-longhorn", "a/b", b"content")
        assert longhorn.listed("k3s-longhorn") == Present(0)
        assert isinstance(longhorn.listed("k3s-restic"), Forbidden)
        with pytest.raises(S3Error, match="AccessDenied"):
            longhorn.set_policy("k3s-longhorn", {})
        with pytest.raises(S3Error, match="AccessDenied"):
            longhorn.make_bucket("mine")


def test_a_wrong_key_and_a_client_without_the_ca_are_turned_away(hosts: Lab) -> None:
    with service(hosts, "longhorn", secret="wrong") as stranger:
        assert isinstance(stranger.listed("k3s-longhorn"), Forbidden)
    ip = hosts.record.host(HOST).ip
    with S3(f"{ip}:{PORT}", "eu-west-1", "a", "b", None) as careful:
        found = careful.listed("k3s-longhorn")
        assert isinstance(found, Forbidden) and "certificate" in found.reason
    assert hosts.run(NODE, f"curl -fsS -m 5 http://{ip}:{PORT}/health")[0] != 0
    with S3(f"{ip}:1", "eu-west-1", "a", "b", None) as nobody:
        assert isinstance(nobody.listed("k3s-longhorn"), Stopped)


def test_a_changed_key_is_rolled_and_nothing_else(hosts: Lab) -> None:
    before, new = process(hosts), "another-key-of-longhorn"
    with other_secrets(hosts, s3__longhorn__secret_key=new):
        assert planned(hosts, S3_DEPLOY).changed.keys() == {ACCOUNTS, WORK}
        done = deploy(hosts, S3_DEPLOY)
        assert done.code == 0, done.text
        assert done.changed.keys() == {ACCOUNTS, WORK}
        with service(hosts, "longhorn") as longhorn:
            assert longhorn.listed("k3s-longhorn") == Present(0)
    with service(hosts, "longhorn") as old, service(hosts, "restic") as other:
        assert isinstance(old.listed("k3s-longhorn"), Forbidden)
        assert other.listed("k3s-restic") == Present(0)
    assert process(hosts) == before
    assert deploy(hosts, S3_DEPLOY).changed.keys() == {ACCOUNTS, WORK}  # back to the old one


def test_a_bucket_that_was_opened_by_hand_is_closed_again(hosts: Lab) -> None:
    everybody = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": "*",
                "Action": ["s3:ListBucket"],
                "Resource": ["arn:aws:s3:::k3s-restic"],
            }
        ],
    }
    with service(hosts, "root") as root:
        root.set_policy("k3s-restic", everybody)
        root.make_bucket("somebody-elses")
    assert planned(hosts, S3_DEPLOY).changed.keys() == {BUCKETS}
    assert deploy(hosts, S3_DEPLOY).changed.keys() == {BUCKETS}
    with service(hosts, "longhorn") as longhorn, service(hosts, "root") as root:
        assert isinstance(longhorn.listed("k3s-restic"), Forbidden)
        assert root.listed("somebody-elses") == Present(0)


def test_a_server_that_was_stopped_runs_again(hosts: Lab) -> None:
    hosts.check(HOST, "systemctl stop versitygw")
    done = deploy(hosts, S3_DEPLOY)
    assert done.code == 0, done.text
    assert RUNS in done.changed


def test_a_server_that_does_not_come_up_ends_the_run_with_its_last_words(hosts: Lab) -> None:
    hosts.check(HOST, "systemd-run --unit=thief python3 -m http.server 9100; sleep 1")
    done = deploy(hosts, S3_DEPLOY, s3={"port": 9100})
    hosts.check(HOST, "systemctl stop thief")
    assert done.code == 1
    assert "address already in use" in done.text
    assert deploy(hosts, S3_DEPLOY).code == 0


def test_a_folder_with_other_peoples_files_is_left_alone(hosts: Lab) -> None:
    hosts.check(HOST, "mkdir -p /srv/photos; echo mine > /srv/photos/one")
    done = deploy(hosts, S3_DEPLOY, s3={"path": "/srv/photos"})
    assert done.code == 1
    assert "/srv/photos is not empty and belongs to root" in done.text
    assert hosts.check(HOST, "stat -c %U /srv/photos; ls /srv/photos").split() == ["root", "one"]


def test_accounts_of_somebody_elses_service_are_only_proved(hosts: Lab) -> None:
    state = hosts.names.state
    ca, ip = (state / "secrets-ca.pem").read_text(), hosts.record.host(HOST).ip
    elsewhere = {
        "services": {"s3": {"product": "external"}},
        "backup": {"s3_endpoint": f"{ip}:{PORT}", "ca": ca},
        "stack": {"storage": "longhorn"},
    }
    env = {"LAB_DATA": json.dumps(elsewhere)}
    before = process(hosts)
    done = run(hosts, S3_DEPLOY, **env)
    assert (done.code, done.changed) == (0, {WORK: [NODE]}), done.text
    assert run(hosts, S3_DEPLOY, **env).changed == {}
    assert process(hosts) == before
    with other_secrets(hosts, s3__longhorn__secret_key="a-key-that-is-not-there"):
        refused = run(hosts, S3_DEPLOY, **env)
    assert refused.code == 1
    assert "longhorn in k3s-longhorn" in refused.text and "SignatureDoesNotMatch" in refused.text


# ---- backups of hosts


def test_a_host_gets_a_repository_and_timers(hosts: Lab) -> None:
    assert deploy(hosts, S3_DEPLOY).code == 0
    hosts.check(
        HOST, f"mkdir -p {FILES}; date > {FILES}/one; head -c 100000 /dev/urandom > {FILES}/two"
    )
    shown = planned(hosts, BACKUP_DEPLOY)
    assert shown.code == 0, shown.text
    done = deploy(hosts, BACKUP_DEPLOY, *LOUD)
    assert done.code == 0, done.text
    assert done.changed.keys() == shown.changed.keys() and REPOSITORY in done.changed
    assert not told(hosts, done.text)
    timers = hosts.check(HOST, "systemctl list-timers --all --no-legend 'picluster-backup@*'")
    assert len(timers.splitlines()) == 4
    again = deploy(hosts, BACKUP_DEPLOY)
    assert (again.code, again.changed) == (0, {}), again.text


def test_a_missed_backup_is_made_by_the_timer_and_restores(hosts: Lab) -> None:
    stamp = "/var/lib/systemd/timers/stamp-picluster-backup@backup.timer"
    hosts.check(
        HOST,
        "systemctl stop picluster-backup@backup.timer; "
        f"touch -d '3 days ago' {stamp}; systemctl start picluster-backup@backup.timer; "
        "for n in $(seq 60); do sleep 1; "
        f"grep -q 'last_success.*task=.backup' {rules.METRICS_FILE} && break; done",
    )
    assert metric(hosts, "exit_code", "backup") == 0
    assert job(hosts, "restore") == 0
    assert metric(hosts, "compared_files", "restore") > 50
    assert metric(hosts, "different_files", "restore") == 0
    listed = hosts.check(HOST, "picluster-restic ls latest")
    assert f"{FILES}/two" in listed
    assert "/var/lib/s3" not in listed


def test_a_file_of_a_lost_host_comes_back(hosts: Lab) -> None:
    wanted = hosts.check(HOST, f"sha256sum < {FILES}/two")
    hosts.check(HOST, f"picluster-restic restore latest --target /tmp/back --include {FILES}")
    assert hosts.check(HOST, f"sha256sum < /tmp/back{FILES}/two") == wanted


def test_a_file_that_rotted_is_told_from_one_that_changed(hosts: Lab) -> None:
    hosts.check(
        HOST,
        f"date >> {FILES}/one; cd {FILES}; touch -r two /tmp/when; "
        "head -c 100000 /dev/urandom > two; touch -r /tmp/when two",
    )
    good = metric(hosts, "last_success_timestamp_seconds", "restore")
    assert job(hosts, "restore") != 0
    assert metric(hosts, "exit_code", "restore") == 1
    assert metric(hosts, "different_files", "restore") == 1
    assert metric(hosts, "last_success_timestamp_seconds", "restore") == good
    hosts.check(HOST, f"touch {FILES}/two")
    assert job(hosts, "restore") == 0


def test_old_backups_are_forgotten_and_the_repository_is_checked(hosts: Lab) -> None:
    assert job(hosts, "backup") == 0
    assert job(hosts, "prune") == 0
    assert metric(hosts, "repository_bytes", "prune") > 0
    assert len(json.loads(hosts.check(HOST, "picluster-restic snapshots --json"))) == 1
    assert job(hosts, "check") == 0


def test_a_power_cut_during_a_backup_costs_that_backup_only(hosts: Lab) -> None:
    hosts.check(HOST, f"head -c 400000000 /dev/urandom > {FILES}/large")
    before = metric(hosts, "last_success_timestamp_seconds", "backup")
    hosts.check(
        HOST,
        "systemctl start --no-block picluster-backup@backup.service; "
        "for n in $(seq 300); do "
        "find /var/lib/s3 -path '*/locks/*' -type f | grep -q . && break; sleep 0.1; done; "
        "pidof restic",
    )
    hosts.kill(HOST)
    hosts.start(HOST)
    assert metric(hosts, "last_success_timestamp_seconds", "backup") == before
    hosts.check(HOST, f"rm {FILES}/large")
    assert job(hosts, "backup") == 0
    assert metric(hosts, "last_success_timestamp_seconds", "backup") > before
    assert job(hosts, "restore") == 0
    locks = hosts.check(HOST, "picluster-restic list locks --no-lock").split()
    assert locks, "the lock of the backup that was cut off is a person's to remove"
    hosts.check(HOST, "picluster-restic unlock")
    assert deploy(hosts, BACKUP_DEPLOY).changed == {}


def test_a_wrong_password_ends_the_run_before_any_host_has_it(hosts: Lab) -> None:
    before = hosts.check(HOST, f"sha256sum < {rules.ENVIRONMENT}")
    with other_secrets(hosts, restic__password="another-password-of-the-repository"):
        done = deploy(hosts, BACKUP_DEPLOY)
    assert done.code == 1
    assert "made with another password" in done.text
    assert "nothing was made there" in done.text
    assert hosts.check(HOST, f"sha256sum < {rules.ENVIRONMENT}") == before
    assert job(hosts, "backup") == 0


def test_a_repository_that_cannot_be_reached_is_not_taken_for_absent(hosts: Lab) -> None:
    hosts.check(HOST, "systemctl stop versitygw")
    done = deploy(hosts, BACKUP_DEPLOY)
    assert done.code == 1
    assert "unreachable" in done.text and "makes the repository" not in done.text
    assert job(hosts, "backup") != 0
    assert metric(hosts, "exit_code", "backup") != 0
    hosts.check(HOST, "systemctl start versitygw")
    assert job(hosts, "backup") == 0


def test_a_host_that_keeps_no_longer_loses_the_keepers_timers(hosts: Lab) -> None:
    both = {"hosts": [HOST, NODE], "keeper": NODE}
    done = deploy(hosts, BACKUP_DEPLOY, backup=both)
    assert done.code == 0, done.text
    timers = "systemctl list-timers --all --no-legend 'picluster-backup@*'"
    assert "prune" not in hosts.check(HOST, timers)
    assert "prune" in hosts.check(NODE, timers)
    assert hosts.run(NODE, "systemctl start picluster-backup@backup.service")[0] == 0
    assert hosts.run(NODE, "systemctl start picluster-backup@restore.service")[0] == 0
    assert deploy(hosts, BACKUP_DEPLOY, backup=both).changed == {}
    assert deploy(hosts, BACKUP_DEPLOY).code == 0


def test_a_moment_that_systemd_does_not_know_is_refused_before_it_counts(hosts: Lab) -> None:
    done = deploy(hosts, BACKUP_DEPLOY, backup={"schedule": "Funday *-*-* 02:00:00"})
    assert done.code == 1
    assert "Failed to parse calendar" in done.text
    assert deploy(hosts, BACKUP_DEPLOY).changed == {}


def test_a_folder_can_be_the_repository(hosts: Lab) -> None:
    folder = {"repository": "/srv/restic"}
    done = deploy(hosts, BACKUP_DEPLOY, backup=folder)
    assert done.code == 0, done.text
    assert "makes the repository /srv/restic" in done.text
    assert (job(hosts, "backup"), job(hosts, "restore"), job(hosts, "check")) == (0, 0, 0)
    assert deploy(hosts, BACKUP_DEPLOY, backup=folder).changed == {}
    assert deploy(hosts, BACKUP_DEPLOY).code == 0  # back to the bucket
    assert job(hosts, "backup") == 0


def test_damage_of_the_repository_is_a_failure_that_the_metric_shows(hosts: Lab) -> None:
    assert job(hosts, "check") == 0
    good = metric(hosts, "last_success_timestamp_seconds", "check")
    hosts.check(
        HOST,
        "for file in $(find /var/lib/s3/k3s-restic/data -type f); do "
        "printf 'rotten' | dd of=$file bs=1 seek=20 conv=notrunc status=none; done",
    )
    assert job(hosts, "check") != 0
    assert metric(hosts, "exit_code", "check") == 1
    assert metric(hosts, "last_success_timestamp_seconds", "check") == good
    assert job(hosts, "restore") != 0
    assert metric(hosts, "exit_code", "restore") != 0


def test_a_bucket_that_is_gone_is_absent_and_made_again(hosts: Lab) -> None:
    hosts.check(HOST, "rm -r /var/lib/s3/k3s-longhorn")
    with service(hosts, "root") as root:
        assert isinstance(root.policy("k3s-longhorn"), Absent)
    assert deploy(hosts, S3_DEPLOY).changed.keys() == {BUCKETS}
