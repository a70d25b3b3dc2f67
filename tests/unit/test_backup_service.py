"""Backups of hosts: what of which host, when, and what restic's answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster.answer import Absent, Forbidden, Present, Unreachable
from cluster.managed import UNITS
from cluster.model import Cluster
from cluster.services import backup, s3
from tests.unit.cluster_example import example

HOSTS = [
    {"name": "node1", "role": "servers", "ip": "10.0.0.11", "arch": "arm64"},
    {"name": "node2", "role": "agents", "ip": "10.0.0.12", "arch": "arm64"},
    {"name": "nas", "role": "external", "ip": "10.0.0.9", "arch": "arm64"},
]
SECRETS = {
    "restic.password": "p" * 20,
    "s3.restic.access_key": "restic-1",
    "s3.restic.secret_key": "s" * 20,
}


def cluster(backup: dict[str, Any] | None = None, **changes: Any) -> Cluster:
    services = {"s3": {"path": "/storage/s3"}, "backup": backup or {}}
    parts: dict[str, Any] = {"hosts": HOSTS, "services": services}
    return s3.derived(example(**(parts | changes)), "-----BEGIN CERTIFICATE-----\nAAAA\n")


MODEL = cluster()
SERVER, AGENT, NAS = MODEL.hosts


def test_every_host_is_backed_up_unless_some_are_named() -> None:
    assert backup.hosts(MODEL) == MODEL.hosts
    assert [one.name for one in backup.hosts(cluster({"hosts": ["nas"]}))] == ["nas"]
    assert backup.hosts(example()) == ()


def test_only_a_server_has_the_datastores_tokens_and_snapshots() -> None:
    wanted = "/var/lib/rancher/k3s/server/token"
    assert wanted in backup.paths(MODEL, SERVER)
    assert wanted not in backup.paths(MODEL, AGENT)
    assert "/etc" in backup.paths(MODEL, NAS)


def test_paths_of_the_users_are_added_for_all_or_for_one() -> None:
    model = cluster({"paths": ["/srv"], "paths_of": {"nas": ["/storage/photos"]}})
    assert "/srv" in backup.paths(model, model.hosts[1])
    assert "/storage/photos" not in backup.paths(model, model.hosts[1])
    assert "/storage/photos" in backup.paths(model, model.hosts[2])


def test_the_repository_is_never_backed_up_into_itself() -> None:
    assert "/storage/s3" in backup.excluded(MODEL, NAS)
    assert "/storage/s3" not in backup.excluded(MODEL, AGENT)
    assert "/mnt/backup" in backup.excluded(cluster({"repository": "/mnt/backup"}), AGENT)


def test_volumes_containers_and_the_live_datastore_are_left_out() -> None:
    left_out = backup.excluded(cluster(platform={"storage": {"path": "/storage/v"}}), SERVER)
    assert {
        "/storage/v",
        "/var/lib/kubelet/pods",
        "/var/lib/rancher/k3s/agent/containerd",
        "/var/lib/rancher/k3s/server/db/etcd",
    } <= set(left_out)


def test_one_host_alone_prunes_and_checks() -> None:
    assert set(backup.jobs(MODEL, SERVER)) == {"backup", "restore", "prune", "check"}
    assert set(backup.jobs(MODEL, AGENT)) == {"backup", "restore"}
    assert backup.surplus(MODEL, AGENT) == (backup.timer("prune"), backup.timer("check"))
    chosen = cluster({"keeper": "nas"})
    assert "prune" in backup.jobs(chosen, chosen.hosts[2])
    assert "prune" not in backup.jobs(chosen, chosen.hosts[0])


def test_hosts_are_spread_and_missed_backups_are_made_up_for() -> None:
    text = backup.files(cluster({"delay": 600}), SERVER)[f"{UNITS}/{backup.timer('backup')}"]
    assert "OnCalendar=*-*-* 02:00:00\n" in text
    assert "RandomizedDelaySec=600\n" in text
    assert "Persistent=true\n" in text


def test_the_environment_alone_holds_secrets() -> None:
    text = backup.environment(MODEL, SECRETS)
    assert "RESTIC_REPOSITORY='s3:https://10.0.0.9:9000/k3s-restic'\n" in text
    assert all(value in text for value in SECRETS.values())
    others = "".join(backup.files(MODEL, SERVER).values()) + backup.command()
    assert not any(value in others for value in SECRETS.values())


def test_a_repository_elsewhere_gets_no_key_of_the_s3_service() -> None:
    model = cluster({"repository": "sftp:ada@nas.example.com:/backup"})
    text = backup.environment(model, {"restic.password": "p" * 20})
    assert "RESTIC_REPOSITORY='sftp:ada@nas.example.com:/backup'" in text
    assert "AWS" not in text
    assert json.loads(backup.settings(model, model.hosts[0]))["ca"] is None


def test_a_folder_is_writable_for_the_job() -> None:
    assert "-/mnt/backup" in backup.service(cluster({"repository": "/mnt/backup"}))


_HINT = "\nIs there a repository at the following location?\ns3:https://10.0.0.9:9000/k3s-restic"


# Seen with restic 0.14 and versitygw 1.8, but for the exit codes of newer ones.
@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        (0, "", Present),
        (1, "Fatal: wrong password or no key found", Forbidden),
        (12, "Fatal: unable to open", Forbidden),
        (1, f"Fatal: unable to open config file: Stat: Access Denied.{_HINT}", Forbidden),
        (
            1,
            'Fatal: unable to open config file: Stat: Get "https://10.0.0.9:9000/": '
            f"x509: certificate signed by unknown authority{_HINT}",
            Forbidden,
        ),
        (
            1,
            f"Fatal: unable to open config file: Stat: The specified key does not exist.{_HINT}",
            Absent,
        ),
        (1, f"Fatal: unable to open config file: stat /b/config: no such file{_HINT}", Unreachable),
        (
            1,
            "Fatal: unable to open config file: stat /b/config: no such file or directory",
            Absent,
        ),
        (10, "Fatal: repository is not there", Absent),
        (
            1,
            'Fatal: unable to open config file: Stat: Get "https://10.0.0.9:9000/": dial tcp: '
            f"connect: connection refused{_HINT}",
            Unreachable,
        ),
        (124, "", Unreachable),
    ],
)
def test_unknown_is_never_absent(code: int, said: str, kind: type) -> None:
    assert isinstance(backup.answer(code, said), kind)


def test_a_job_that_is_killed_is_known_all_the_same() -> None:
    ended = f"ExecStopPost=/usr/bin/python3 -I {backup.TOOL} ended %i\n"
    assert ended in backup.service(MODEL)
