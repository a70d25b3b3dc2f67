"""Bad days of K3s on a node: each ends with its cause, and the next run goes on.

One server with sqlite and one agent, out of the hosts of the session's lab; a test goes on from
the last one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.living import cordoned, versions, wait_for_api
from tests.lab.runs import Run, k3s, only, plan, run

pytestmark = pytest.mark.lab(servers=3, agents=2)

DEPLOY = "deploys/k3s.py"
SERVER, AGENT = "node1", "node4"
OLDER, NEWER = "v1.36.2+k3s1", "v1.36.3+k3s1"
BROKEN = f"""#!/bin/sh
case $1 in
  server | agent) echo 'level=fatal msg="Error: this release is broken"' >&2; exit 1 ;;
  *) echo "k3s version {NEWER} (00000000)" ;;
esac
"""
AGENT_TOKEN = "/etc/rancher/k3s/agent-token"
OTHER_TOKEN = "/etc/rancher/k3s/other-token"
OTHER_CONFIG = "/etc/rancher/k3s/config.yaml.d/99-other.yaml"
ENV = "/etc/systemd/system/k3s.service.env"  # read by the stand-in: its faults for tests


class Small:
    """A cluster of some hosts of the lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def run(self, *names: str, dry: bool = False, **keys: Any) -> Run:
        keys.setdefault("start_timeout", 90)
        with only(self.lab, *names) as env:
            return (plan if dry else run)(self.lab, DEPLOY, data=k3s(self.lab, **keys), **env)


@pytest.fixture(scope="module")
def small(lab: Lab) -> Iterator[Small]:
    lab.clear_faults()
    lab.recreate(SERVER, AGENT)
    yield Small(lab)
    lab.clear_faults()


def installed(lab: Lab) -> str:
    return lab.run(SERVER, "ls /usr/local/lib/k3s/*/k3s /usr/local/bin/k3s 2>/dev/null")[1]


def test_a_full_disk_is_named_before_the_download(small: Small) -> None:
    lab = small.lab
    folder = "/usr/local/lib/k3s"
    lab.check(SERVER, f"mkdir -p {folder} && mount -t tmpfs -o size=10m tmpfs {folder}")
    done = small.run(SERVER)
    lab.check(SERVER, f"umount {folder}")
    assert done.code == 1
    assert "is full: 10 MiB are free, 300 are needed" in done.text
    assert installed(lab) == ""


def test_a_wrong_checksum_installs_nothing(small: Small) -> None:
    lab = small.lab
    lab.fault("*/k3s", kind="content", text="not what was asked for")
    done = small.run(SERVER)
    lab.clear_faults()
    assert done.code == 1
    assert "checksum mismatch" in done.text and "nothing was installed" in done.text
    assert installed(lab) == ""


def test_a_download_that_broke_off_is_said_and_k3s_that_is_never_ready_too(small: Small) -> None:
    lab = small.lab
    lab.fault("*/k3s", kind="truncate", bytes=1_000_000, times=9)
    done = small.run(SERVER)
    lab.clear_faults()
    assert done.code == 1
    assert "broke off; run again to continue it" in done.text
    assert installed(lab) == ""
    # The next run continues the download; its K3s starts and never becomes ready.
    lab.put(SERVER, ENV, "K3S_STANDIN_NEVER_READY=1\n")
    stuck = small.run(SERVER, start_timeout=15)
    assert stuck.code == 1
    assert "k3s on node1: not within 15 s" in stuck.text
    statuses = {one["status"] for one in lab.requests() if one["path"].endswith("/k3s")}
    assert 206 in statuses, "the download was not continued"


def test_the_next_run_ends_well_and_the_one_after_changes_nothing(small: Small) -> None:
    small.lab.check(SERVER, f"rm {ENV}; systemctl restart --no-block k3s")
    done = small.run(SERVER)
    assert done.code == 0, done.text
    assert small.lab.run(SERVER, "test -f /var/lib/rancher/k3s/server/db/state.db")[0] == 0
    assert small.run(SERVER, dry=True).changed == {}
    assert small.run(SERVER).changed == {}


def test_a_corrupt_config_is_put_right(small: Small) -> None:
    lab = small.lab
    lab.put(SERVER, "/etc/rancher/k3s/config.yaml", "node-name: [broken\n")
    done = small.run(SERVER)
    assert done.code == 0, done.text
    assert done.changed == {"K3s servers | node1: release and configuration": [SERVER]}
    assert "node-name: node1" in lab.read(SERVER, "/etc/rancher/k3s/config.yaml")


def test_an_agent_s_old_token_is_put_right(small: Small) -> None:
    lab = small.lab
    lab.check(AGENT, f"install -D -m 600 /dev/null {AGENT_TOKEN}")
    lab.put(AGENT, AGENT_TOKEN, "token-of-a-cluster-before\n")
    done = small.run(SERVER, AGENT)
    assert done.code == 0, done.text
    assert "token-of-a-cluster-before" not in lab.read(AGENT, AGENT_TOKEN)
    lab.recreate(AGENT)
    lab.check(SERVER, f"k3s kubectl delete node {AGENT}")


def test_an_agent_with_a_wrong_token_is_not_waited_for_for_ever(small: Small) -> None:
    lab = small.lab
    # Of somebody else: a wrong one of ours would be put right.
    lab.check(AGENT, f"mkdir -p {OTHER_CONFIG.rpartition('/')[0]}")
    lab.put(AGENT, OTHER_CONFIG, f"token-file: {OTHER_TOKEN}\n")
    lab.put(AGENT, OTHER_TOKEN, "wrong-token-of-an-agent\n")
    done = small.run(SERVER, AGENT)
    assert done.code == 1
    assert "the token was refused" in done.text
    assert "not within" not in done.text


def test_a_certificate_from_the_future_names_the_clock(small: Small) -> None:
    lab = small.lab
    lab.put(SERVER, ENV, "K3S_STANDIN_CERT_NOT_BEFORE=2037-01-01T00:00:00Z\n")
    lab.check(SERVER, "systemctl restart k3s")
    lab.check(AGENT, f"systemctl stop k3s-agent; rm {OTHER_CONFIG} {OTHER_TOKEN}")
    done = small.run(SERVER, AGENT)
    lab.check(SERVER, f"rm {ENV}; systemctl restart k3s")
    assert done.code == 1
    assert "clock" in done.text


def test_after_all_that_the_agent_joins(small: Small) -> None:
    done = small.run(SERVER, AGENT)
    assert done.code == 0, done.text
    assert small.run(SERVER, AGENT, dry=True).changed == {}


def test_a_release_that_does_not_come_up_gives_way_to_the_one_before(
    small: Small, tmp_path: Path
) -> None:
    """The newer release is a script that fails at every start."""
    lab = small.lab
    lab.recreate(SERVER, AGENT)
    done = small.run(SERVER, AGENT, version=OLDER)
    assert done.code == 0, done.text
    folder = tmp_path / NEWER
    folder.mkdir()
    (folder / "k3s").write_text(BROKEN)
    digest = hashlib.sha256(BROKEN.encode()).hexdigest()
    (folder / f"sha256sum-{lab.record.arch}.txt").write_text(f"{digest}  k3s\n")
    source = {"folder": str(tmp_path), "checksums": "beside"}
    failed = small.run(SERVER, AGENT, version=NEWER, source=source, start_timeout=20)
    assert failed.code == 1
    assert "this release is broken" in failed.text
    assert f"K3s {NEWER} did not come up; putting {OLDER} back" in failed.text
    assert f"the node runs {OLDER} again; nothing else was touched" in failed.text
    assert lab.check(SERVER, "readlink /usr/local/bin/k3s").strip().endswith(f"{OLDER}/k3s")
    wait_for_api(lab, SERVER)
    assert set(versions(lab).values()) == {OLDER}
    assert cordoned(lab) == []
    # With the release mended the next run completes.
    lab.check(SERVER, f"rm -r /usr/local/lib/k3s/{NEWER}")
    lab.check(AGENT, f"rm -r /usr/local/lib/k3s/{NEWER}")
    done = small.run(SERVER, AGENT, version=NEWER)
    assert done.code == 0, done.text
    assert set(versions(lab).values()) == {NEWER}


def test_without_internet_binary_and_images_come_from_a_folder(small: Small) -> None:
    lab = small.lab
    lab.recreate(SERVER)
    folder = lab.names.state / "files/k3s-io/k3s/releases/download"
    source = {"folder": str(folder), "checksums": "beside", "airgap_images": True}
    before = len(lab.requests())
    done = small.run(SERVER, source=source)
    assert done.code == 0, done.text
    assert len(lab.requests()) == before, "something was downloaded"
    images = "/var/lib/rancher/k3s/agent/images/k3s-airgap-images-amd64.tar.zst"
    assert lab.run(SERVER, f"test -s {images}")[0] == 0
    assert small.run(SERVER, dry=True, source=source).changed == {}
