"""MinIO as the S3 server. Simulated: MinIO and its client; a script records what it is asked."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster.services import s3, s3_minio, s3_unit
from tests.unit.cluster_example import example

HOSTS = [
    {"name": "node1", "role": "servers", "ip": "10.0.0.11", "arch": "arm64"},
    {"name": "nas", "role": "external", "ip": "10.0.0.9", "arch": "arm64"},
]
KEYS = {
    f"s3.{name}.{key}": f"{name}-{key}-0123456789"
    for name in ("root", "longhorn", "restic")
    for key in ("access_key", "secret_key")
}

CLIENT = """#!/bin/sh
folder={folder}
printf '%s\\n' "$*" >> $folder/asked
echo "$MC_HOST_picluster" >> $folder/environment
case "$*" in
  *'user add'*) cat >> $folder/users ;;
  *'policy create'*) for last; do :; done; cat "$last" >> $folder/policies ;;
  *'policy attach'*)
    [ ! -e $folder/denied ] || {{ echo 'mc: <ERROR> Access Denied.' >&2; exit 1; }}
    [ ! -e $folder/attached ] || {{
    echo 'mc: <ERROR> The specified policy change is already in effect.' >&2; exit 1; }} ;;
esac
[ ! -e $folder/broken ] || {{ echo 'mc: <ERROR> Unable to initialize.' >&2; exit 1; }}
"""


def cluster(**section: Any) -> Any:
    services = {"s3": {"product": "minio", **section}, "backup": {}}
    model = example(hosts=HOSTS, services=services, stack={"storage": "longhorn"})
    return s3.derived(model, "-----BEGIN CERTIFICATE-----\nAAAA\n")


class World:
    """A folder with a client that records what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "mc"
        program.write_text(CLIENT.format(folder=folder))
        program.chmod(0o755)

    def run(self) -> subprocess.CompletedProcess[str]:
        model = cluster(minio={"client": str(self.folder / "mc")})
        section = s3.server(model)
        assert section
        return subprocess.run(
            ["sh", "-c", s3_minio.script(model, section)],
            input=s3.minio_accounts(model, KEYS),
            env={"PATH": os.environ["PATH"], "TMPDIR": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_each_account_is_a_user_with_a_policy_for_its_bucket(world: World) -> None:
    assert world.run().returncode == 0
    asked = world.read("asked")
    for name in ("longhorn", "restic"):
        access = KEYS[f"s3.{name}.access_key"]
        assert f"policy attach picluster k3s-{name} --user {access}" in asked
        assert f"{access}\n{KEYS[f's3.{name}.secret_key']}\n" in world.read("users")
    policies = [json.loads(line) for line in world.read("policies").splitlines()]
    assert {one["Statement"][0]["Resource"][0] for one in policies} == {
        "arn:aws:s3:::k3s-longhorn",
        "arn:aws:s3:::k3s-restic",
    }
    assert not any("Principal" in statement for one in policies for statement in one["Statement"])


def test_no_key_of_an_account_is_an_argument_and_nothing_is_left_behind(world: World) -> None:
    world.run()
    asked = world.read("asked")
    assert not any(KEYS[name] in asked for name in KEYS if name.endswith("secret_key"))
    assert "root-access_key-0123456789:root-secret_key-0123456789@127.0.0.1:9000" in (
        world.read("environment")
    )
    left = {path.name for path in world.folder.iterdir()}
    assert left == {"mc", "asked", "environment", "users", "policies"}


def test_a_policy_that_is_attached_already_is_fine(world: World) -> None:
    (world.folder / "attached").touch()
    assert world.run().returncode == 0


@pytest.mark.parametrize(
    ("at", "cause"), [("broken", "Unable to initialize"), ("denied", "Access Denied")]
)
def test_what_the_client_refuses_is_the_cause(world: World, at: str, cause: str) -> None:
    (world.folder / at).touch()
    done = world.run()
    assert done.returncode != 0
    assert cause in done.stderr


def test_the_unit_starts_the_program_that_is_on_the_host() -> None:
    model = cluster(minio={"program": "/opt/minio"}, path="/storage/minio")
    section = s3.server(model)
    assert section
    text = s3_unit.unit(model, section)
    assert "ExecStart=/opt/minio server --quiet --address :9000" in text
    assert "LoadCredential=private.key:/etc/picluster/s3/tls.pem" in text
    assert "ReadWritePaths=/storage/minio\n" in text
    assert s3.asks(model).units == ("minio.service",)
    assert "MINIO_ROOT_PASSWORD=root-secret_key" in s3.root_environment(section, KEYS)


def test_a_bucket_of_minios_has_no_policy_of_its_own() -> None:
    model = cluster()
    assert s3.bucket_policy(model, s3.accounts(model)[0], "longhorn-1") == {}
